//! Data of any bytes, compressed by a codec and level that the first byte says, must come back.
#![no_main]

use std::cell::RefCell;

use gilt_codec::{Codec, Compressor, Decompressor, Level};

const SHAPES: [(Codec, u32); 5] = [
    (Codec::Xpress, 4096),
    (Codec::Xpress, 65536),
    (Codec::Lzx, 32768),
    (Codec::Lzx, 65536),
    (Codec::Lzms, 65536),
];
const LEVELS: [Level; 3] = [Level::Fast, Level::Default, Level::Max];

thread_local! {
    static CODECS: RefCell<Vec<(Compressor, Decompressor)>> = RefCell::new(
        SHAPES
            .iter()
            .flat_map(|&(codec, chunk_bytes)| {
                LEVELS.map(|level| {
                    (
                        Compressor::new(codec, chunk_bytes, level).expect("a valid size"),
                        Decompressor::new(codec, chunk_bytes).expect("a valid size"),
                    )
                })
            })
            .collect(),
    );
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&which, seed)) = data.split_first() else { return };
    // Inputs of a fuzzer are short: repeat each with a change, so that there is something to find.
    let mut data = Vec::new();
    for round in 0..(1 + which / 32) {
        data.extend_from_slice(seed);
        if let Some(byte) = data.last_mut() {
            *byte ^= round;
        }
    }
    data.truncate(65536);
    CODECS.with_borrow_mut(|codecs| {
        let index = usize::from(which) % codecs.len();
        let (_, chunk_bytes) = SHAPES[index / LEVELS.len()];
        let (encoder, decoder) = &mut codecs[index];
        let mut packed = Vec::new();
        for chunk in data.chunks(chunk_bytes as usize) {
            if encoder.compress(chunk, &mut packed) {
                assert!(packed.len() < chunk.len());
                let mut plain = vec![0; chunk.len()];
                decoder.decompress(&packed, &mut plain).expect("our own chunk");
                assert!(plain == chunk);
            }
        }
    });
});
