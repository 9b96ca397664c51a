//! Any bytes as an install medium: errors, and no panic, hang or giant allocation.
#![no_main]

use gilt_windows::iso::{Udf, no_prompt};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Read};

fuzz_target!(|bytes: &[u8]| {
    // The structures begin at sector 16; the input need not carry the empty space before them.
    let mut disc = vec![0; 16 * 2048];
    disc.extend_from_slice(bytes);
    let _ = no_prompt(Cursor::new(&disc));
    if let Ok(mut udf) = Udf::open(Cursor::new(&disc)) {
        let _ = udf.list("sources");
        if let Ok(Some(file)) = udf.find("sources/install.wim") {
            let _ = udf.reader(&file).take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
});
