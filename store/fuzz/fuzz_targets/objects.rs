//! Packs, index objects, recipes and blobs; the first byte says which. Start it with objects of a
//! store: `make-seeds`.
#![no_main]

use gilt_store::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 5 {
        0 => hostile::pack(bytes),
        1 => hostile::index(bytes),
        2 => hostile::index_contents(bytes),
        3 => hostile::recipe(bytes),
        _ => {
            let (stored, base) = bytes.split_at(bytes.len() / 2);
            hostile::blob(stored, base, u64::from(*which) << 8);
        }
    }
});
