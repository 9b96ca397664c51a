//! Compressed data of any bytes; the first two say how long the output is.
#![no_main]

use gilt_codec::lznt1;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(([low, high], input)) = data.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let mut output = vec![0; len];
    if let Ok(produced) = lznt1::decompress(input, &mut output) {
        assert!(produced <= len);
    }
});
