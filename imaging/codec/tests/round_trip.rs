//! What is compressed comes back, for all kinds and sizes; what is not valid is an error, not a crash.

use gilt_codec::{Codec, Compressor, Decompressor, Error, Level, lznt1};

mod samples;
use samples::Random;

const LEVELS: [Level; 3] = [Level::Fast, Level::Default, Level::Max];
const SHAPES: [(Codec, u32); 7] = [
    (Codec::Xpress, 4096),
    (Codec::Xpress, 32768),
    (Codec::Xpress, 65536),
    (Codec::Lzx, 32768),
    (Codec::Lzx, 131_072),
    (Codec::Lzms, 32768),
    (Codec::Lzms, 131_072),
];

fn kinds(len: usize, seed: u64) -> [(&'static str, Vec<u8>); 7] {
    [
        ("zeros", vec![0; len]),
        ("noise", samples::noise(len, seed)),
        ("text", samples::text(len, seed)),
        ("code", samples::code(len, seed)),
        ("records", samples::records(len, seed)),
        ("runs", samples::runs(len, seed)),
        ("mixture", samples::mixture(len, seed)),
    ]
}

#[test]
fn every_kind_of_data_comes_back_at_every_size() {
    for (codec, chunk_bytes) in SHAPES {
        let mut decoder = Decompressor::new(codec, chunk_bytes).unwrap();
        let mut random = Random(u64::from(chunk_bytes));
        for level in LEVELS {
            let mut encoder = Compressor::new(codec, chunk_bytes, level).unwrap();
            let mut out = Vec::new();
            let full = chunk_bytes as usize;
            let mut sizes = vec![0, 1, 2, 3, 4, 5, 9, 10, 11, 16, 17, 255, 256, 257, 258, 259];
            sizes.extend([300, 1000, 4095, 4096, full - 1, full]);
            sizes.push(1 + random.below(full));
            for len in sizes.into_iter().filter(|&len| len <= full) {
                for (kind, data) in kinds(len, u64::from(random.next())) {
                    if encoder.compress(&data, &mut out) {
                        assert!(out.len() < len);
                        let mut plain = vec![0xa5; len];
                        decoder.decompress(&out, &mut plain).unwrap_or_else(|error| {
                            panic!("{codec} {chunk_bytes} {level:?} {kind} {len}: {error}")
                        });
                        assert!(
                            plain == data,
                            "{codec} {chunk_bytes} {level:?} {kind} {len}: differs"
                        );
                    } else {
                        assert!(out.is_empty());
                        assert!(
                            len < 600 || kind == "noise" || kind == "mixture",
                            "{codec} {level:?}: {kind} of {len} bytes did not shrink"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_compressor_gives_the_same_bytes_whatever_it_did_before() {
    for (codec, chunk_bytes) in SHAPES {
        for level in LEVELS {
            let mut used = Compressor::new(codec, chunk_bytes, level).unwrap();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for seed in 0..4 {
                let data = samples::mixture(chunk_bytes as usize - seed as usize * 1000, seed);
                let mut fresh = Compressor::new(codec, chunk_bytes, level).unwrap();
                assert_eq!(used.compress(&data, &mut a), fresh.compress(&data, &mut b));
                assert!(a == b, "{codec} {chunk_bytes} {level:?}");
            }
        }
    }
}

#[test]
fn higher_levels_are_not_larger() {
    let data = [samples::text(16_000, 1), samples::code(16_000, 2)].concat();
    for codec in [Codec::Xpress, Codec::Lzx, Codec::Lzms] {
        let sizes = LEVELS.map(|level| {
            let mut out = Vec::new();
            assert!(Compressor::new(codec, 32768, level).unwrap().compress(&data, &mut out));
            out.len()
        });
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{codec}: {sizes:?}");
    }
}

#[test]
fn changed_chunks_are_errors_or_other_data_but_never_a_panic() {
    for (codec, chunk_bytes) in SHAPES {
        let mut data = samples::code(20_000.min(chunk_bytes as usize / 2), 9);
        data.extend(samples::text(data.len(), 10));
        let mut decoder = Decompressor::new(codec, chunk_bytes).unwrap();
        let mut packed = Vec::new();
        assert!(
            Compressor::new(codec, chunk_bytes, Level::Fast).unwrap().compress(&data, &mut packed)
        );
        let mut plain = vec![0; data.len()];
        let mut random = Random(3);
        let mut errors = 0;
        for _ in 0..300 {
            let mut bad = packed.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bad.len());
                bad[at] ^= 1 << random.below(8);
            }
            errors += u32::from(decoder.decompress(&bad, &mut plain).is_err());
        }
        assert!(errors > 0, "{codec}");
        for len in [0, 1, 2, 3, 10, packed.len() / 2] {
            assert!(decoder.decompress(&packed[..len], &mut plain).is_err(), "{codec} {len}");
        }
        for seed in 0..200 {
            let noise = samples::noise(1 + random.below(2000), seed);
            let _ = decoder.decompress(&noise, &mut plain);
        }
        // And it still works afterwards.
        decoder.decompress(&packed, &mut plain).unwrap();
        assert!(plain == data);
    }
}

#[test]
fn errors_name_the_place_and_the_limit() {
    let mut decoder = Decompressor::new(Codec::Lzx, 32768).unwrap();
    let error = decoder.decompress(&[0xff, 0xff, 0xff, 0xff], &mut [0; 100]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "LZX data is corrupt at byte 0x0: block size is 32768, allowed is up to 100"
    );
    let error = decoder.decompress(&[], &mut [0; 32769]).unwrap_err();
    assert_eq!(error.to_string(), "output of 32769 bytes is longer than a chunk of 32768");
    let error = Decompressor::new(Codec::Xpress, 1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::ChunkSize { .. }));
    assert_eq!(
        error.to_string(),
        "XPRESS has no chunks of 1048576 bytes: a power of two from 4096 to 65536"
    );
}

/// The example of [MS-XCA] 3.3.
#[test]
fn lznt1_decodes_the_published_example() {
    let packed = [
        0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47,
        0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20,
        0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09,
        0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01, 0x18, 0x90, 0x00,
    ];
    let expected =
        b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D \
                     E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
    let mut plain = [0xff; 200];
    let len = lznt1::decompress(&packed, &mut plain).unwrap();
    assert_eq!(plain[..len].escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// A plain encoder of LZNT1: greedy, any offset that the position allows.
fn lznt1_compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in data.chunks(4096) {
        let mut body = Vec::new();
        let mut pos = 0;
        while pos < chunk.len() {
            let flag_at = body.len();
            body.push(0);
            for bit in 0..8 {
                if pos == chunk.len() {
                    break;
                }
                // A length has 12 bits, one less each time the position passes a power of two.
                let mut len_bits = 12;
                while pos > 1 << (16 - len_bits) {
                    len_bits -= 1;
                }
                let most = (chunk.len() - pos).min((1 << len_bits) + 2);
                let found = (1..=pos.min(1 << (16 - len_bits)))
                    .map(|offset| {
                        let len = (0..most)
                            .take_while(|&i| chunk[pos + i] == chunk[pos - offset + i])
                            .count();
                        (len, std::cmp::Reverse(offset))
                    })
                    .max();
                match found {
                    Some((len, std::cmp::Reverse(offset))) if len >= 3 => {
                        let item = ((offset - 1) << len_bits | (len - 3)) as u16;
                        body[flag_at] |= 1 << bit;
                        body.extend_from_slice(&item.to_le_bytes());
                        pos += len;
                    }
                    _ => {
                        body.push(chunk[pos]);
                        pos += 1;
                    }
                }
            }
        }
        let (flag, body) =
            if body.len() < chunk.len() { (0xb000, &body[..]) } else { (0x3000, chunk) };
        out.extend_from_slice(&(flag | (body.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

#[test]
fn lznt1_chunks_come_back_and_changed_ones_do_not_panic() {
    let mut random = Random(5);
    for len in [1, 17, 4095, 4096, 4097, 9000] {
        for (kind, data) in kinds(len, len as u64) {
            let packed = lznt1_compress(&data);
            let mut plain = vec![0xa5; len];
            assert_eq!(lznt1::decompress(&packed, &mut plain), Ok(len), "{kind} {len}");
            assert!(plain == data, "{kind} {len}");
            for _ in 0..50 {
                let mut bad = packed.clone();
                let at = random.below(bad.len());
                bad[at] ^= 1 << random.below(8);
                let _ = lznt1::decompress(&bad, &mut plain);
            }
        }
    }
}
