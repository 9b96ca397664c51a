//! Signed records (manifests, channel entries, lives, policies), what is in them, and the small
//! unsigned objects; the first byte says which. Start it with records of a store: `make-seeds`.
#![no_main]

use gilt_store::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 3 {
        0 => hostile::record(bytes),
        1 => hostile::payload(bytes),
        _ => hostile::unsigned(bytes),
    }
});
