//! Chunks against wimlib, both ways: what it compressed we decode, what we compress it decodes.
//!
//! wimlib makes a WIM of one file. Of that only the header, the blob table and the chunk table are
//! read here. For the other direction the file's chunks in it are replaced by ours.

use std::path::Path;
use std::process::Command;

use gilt_codec::{Codec, Compressor, Decompressor, Level};

mod samples;

fn wimlib(args: &[&str]) {
    let output = Command::new("wimlib-imagex")
        .args(args)
        .output()
        .expect("needs wimlib-imagex (Debian: wimtools): run ci/setup");
    assert!(
        output.status.success(),
        "wimlib-imagex {args:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The blob of the one file in a WIM: where its table entry and its bytes are.
struct Blob {
    entry: usize,
    offset: usize,
    packed_len: usize,
    plain_len: usize,
    compressed: bool,
}

fn file_blob(wim: &[u8]) -> Blob {
    assert_eq!(&wim[..8], b"MSWIM\0\0\0");
    let table = le(&wim[56..64]) as usize;
    let table_len = le(&wim[48..55]) as usize;
    for entry in (table..table + table_len).step_by(50) {
        let flags = wim[entry + 7];
        if flags & 2 == 0 {
            return Blob {
                entry,
                offset: le(&wim[entry + 8..entry + 16]) as usize,
                packed_len: le(&wim[entry..entry + 7]) as usize,
                plain_len: le(&wim[entry + 16..entry + 24]) as usize,
                compressed: flags & 4 != 0,
            };
        }
    }
    panic!("no file in the WIM");
}

/// Captures `data` as one file with wimlib and answers the WIM's bytes.
fn capture(dir: &Path, data: &[u8], compress: &str, chunk_bytes: u32) -> Vec<u8> {
    let source = dir.join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), data).unwrap();
    let wim = dir.join("wimlib.wim");
    let _ = std::fs::remove_file(&wim);
    wimlib(&[
        "capture",
        source.to_str().unwrap(),
        wim.to_str().unwrap(),
        &format!("--compress={compress}"),
        &format!("--chunk-size={chunk_bytes}"),
        "--threads=1",
        "--no-acls",
    ]);
    std::fs::read(&wim).unwrap()
}

/// Decodes the file in a WIM; `None` when wimlib stored it uncompressed.
fn decode(wim: &[u8], codec: Codec, chunk_bytes: u32) -> Option<Vec<u8>> {
    let blob = file_blob(wim);
    if !blob.compressed {
        return None;
    }
    let chunk = chunk_bytes as usize;
    let count = blob.plain_len.div_ceil(chunk);
    let base = blob.offset + 4 * (count - 1);
    let mut begins: Vec<usize> = vec![base];
    begins.extend((0..count - 1).map(|i| {
        let at = blob.offset + 4 * i;
        base + le(&wim[at..at + 4]) as usize
    }));
    begins.push(blob.offset + blob.packed_len);
    let mut decoder = Decompressor::new(codec, chunk_bytes).unwrap();
    let mut data = vec![0; blob.plain_len];
    for (index, plain) in data.chunks_mut(chunk).enumerate() {
        let packed = &wim[begins[index]..begins[index + 1]];
        if packed.len() == plain.len() {
            plain.copy_from_slice(packed);
        } else {
            decoder
                .decompress(packed, plain)
                .unwrap_or_else(|error| panic!("chunk {index} of {count}: {error}"));
        }
    }
    Some(data)
}

/// Replaces the file's chunks in `wim` by ours.
fn with_our_chunks(
    mut wim: Vec<u8>,
    data: &[u8],
    codec: Codec,
    chunk_bytes: u32,
    level: Level,
) -> Vec<u8> {
    let blob = file_blob(&wim);
    let mut encoder = Compressor::new(codec, chunk_bytes, level).unwrap();
    let mut out = Vec::new();
    let mut table = Vec::new();
    let mut packed: Vec<u8> = Vec::new();
    for (index, chunk) in data.chunks(chunk_bytes as usize).enumerate() {
        if index > 0 {
            table.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        }
        packed.extend_from_slice(if encoder.compress(chunk, &mut out) { &out } else { chunk });
    }
    let offset = wim.len();
    wim.extend_from_slice(&table);
    wim.extend_from_slice(&packed);
    let len = table.len() + packed.len();
    wim[blob.entry..blob.entry + 7].copy_from_slice(&(len as u64).to_le_bytes()[..7]);
    wim[blob.entry + 7] |= 4;
    wim[blob.entry + 8..blob.entry + 16].copy_from_slice(&(offset as u64).to_le_bytes());
    wim
}

/// Lets wimlib check that the file in `wim` has the hash it had when wimlib captured it.
fn wimlib_accepts(dir: &Path, wim: &[u8]) {
    let path = dir.join("ours.wim");
    std::fs::write(&path, wim).unwrap();
    wimlib(&["verify", path.to_str().unwrap()]);
}

fn both_ways(codec: Codec, compress: &[&str], chunk_bytes: u32, levels: &[Level]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, data) in samples::all(chunk_bytes as usize) {
        eprintln!("{codec} {chunk_bytes} {name}");
        let mut wim = Vec::new();
        for compress in compress {
            wim = capture(dir.path(), &data, compress, chunk_bytes);
            if let Some(decoded) = decode(&wim, codec, chunk_bytes) {
                assert!(decoded == data, "{name}: {compress} decoded wrongly");
            }
        }
        for &level in levels {
            let ours = with_our_chunks(wim.clone(), &data, codec, chunk_bytes, level);
            assert!(
                decode(&ours, codec, chunk_bytes).as_ref() == Some(&data),
                "{name}: {level:?} decoded wrongly by ourselves"
            );
            wimlib_accepts(dir.path(), &ours);
        }
    }
}

const LEVELS: [Level; 3] = [Level::Fast, Level::Default, Level::Max];

#[test]
fn xpress_chunks_are_exchanged_with_wimlib() {
    for chunk_bytes in [4096, 8192, 16384, 32768, 65536] {
        both_ways(Codec::Xpress, &["XPRESS:20", "XPRESS:80"], chunk_bytes, &LEVELS);
    }
}

#[test]
fn lzx_chunks_of_32_kib_are_exchanged_with_wimlib() {
    both_ways(Codec::Lzx, &["LZX:20", "LZX:50", "LZX:100"], 32768, &LEVELS);
}

#[test]
fn lzx_chunks_of_64_kib_and_more_are_exchanged_with_wimlib() {
    for order in [16, 18, 21] {
        both_ways(Codec::Lzx, &["LZX:50"], 1 << order, &LEVELS);
    }
}

#[test]
fn lzms_chunks_are_exchanged_with_wimlib() {
    both_ways(Codec::Lzms, &["LZMS:20", "LZMS:100"], 32768, &LEVELS);
}

#[test]
fn lzms_chunks_of_2_mib_are_exchanged_with_wimlib() {
    both_ways(Codec::Lzms, &["LZMS:50"], 2 << 20, &[Level::Default]);
}

/// The translation of x86 addresses has rules of its own at the ends of a chunk.
#[test]
fn lzms_chunks_of_code_and_of_every_small_size_are_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = samples::Random(11);
    for round in 0..25 {
        let len = 32768 + 40 + round * 3 + random.below(10);
        let mut data = samples::code(len, round as u64 + 100);
        for at in [0, 1, 2, 32768, 32769] {
            if random.below(2) == 0 {
                data[at] = 0xe8;
            }
        }
        // Calls of one target up to the very end.
        let from = len - 30 - random.below(10);
        for at in (from..len - 4).step_by(5 + random.below(3)) {
            data[at] = 0xe8;
            let operand = (20_000u32).wrapping_sub(at as u32);
            data[at + 1..at + 5].copy_from_slice(&operand.to_le_bytes());
        }
        let wim = capture(dir.path(), &data, "LZMS:50", 32768);
        let decoded = decode(&wim, Codec::Lzms, 32768).expect("compressible");
        let wrong = decoded.iter().zip(&data).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "round {round}, length {len}");
    }
}
