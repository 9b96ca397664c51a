//! A chunk of any bytes: the first three say the chunk size and how long the output is.
#![no_main]

use std::cell::RefCell;

use gilt_codec::{Codec, Decompressor};

thread_local! {
    // Kept, as programs keep them: what one input leaves must not harm the next.
    static DECODERS: RefCell<Vec<(usize, Decompressor)>> = RefCell::new(
        [4096, 8192, 16384, 32768, 65536]
            .map(|chunk_bytes: u32| {
                let decoder = Decompressor::new(Codec::Xpress, chunk_bytes).expect("a valid size");
                (chunk_bytes as usize, decoder)
            })
            .into(),
    );
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(([which, low, high], input)) = data.split_first_chunk() else { return };
    DECODERS.with_borrow_mut(|decoders| {
        let index = usize::from(*which) % decoders.len();
        let (chunk_bytes, decoder) = &mut decoders[index];
        let len = (usize::from(u16::from_le_bytes([*low, *high])) + 1).min(*chunk_bytes);
        let mut output = vec![0; len];
        let first = decoder.decompress(input, &mut output);
        let mut again = vec![0xff; len];
        let second = decoder.decompress(input, &mut again);
        assert_eq!(first, second);
        if first.is_ok() {
            assert!(output == again);
        }
    });
});
