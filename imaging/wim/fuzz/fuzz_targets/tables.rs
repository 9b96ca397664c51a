//! Header, blob table, XML, chunk tables, resources: any bytes are a result, never a panic.
#![no_main]

use gilt_wim::Wim;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Ok(wim) = Wim::from_reader(Arc::new(data.to_vec())) else { return };
    let _ = wim.images();
    let _ = wim.verify(1, &());
    for index in 1..=wim.image_count().min(4) {
        let _ = wim.load_tree(index);
    }
});
