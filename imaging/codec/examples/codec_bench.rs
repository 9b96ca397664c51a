//! Compresses and decompresses a file chunk by chunk and reports size and CPU time.
//!
//! `codec_bench FILE [xpress|lzx|lzms] [fast|default|max] [CHUNK_BYTES]`
//!
//! CPU time is user and system time of this process (one thread), the best of three runs for
//! decoding. With `GILT_BENCH_TSV=1` one line of tab-separated values: codec, level, chunk, input
//! bytes, output bytes (raw chunks included), compress seconds, decompress seconds.

use std::process::ExitCode;

use gilt_codec::{Codec, Compressor, Decompressor, Level};

/// User and system CPU seconds of this process.
fn cpu_seconds() -> f64 {
    // Linux only, where the benchmark runs: fields 14 and 15 of stat, in ticks of 1/100 s, are too
    // coarse; schedstat has nanoseconds of the main thread.
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanoseconds: f64 =
        text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0.0);
    nanoseconds / 1e9
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = args.first() else {
        eprintln!("usage: codec_bench FILE [xpress|lzx|lzms] [fast|default|max] [CHUNK_BYTES]");
        return ExitCode::from(2);
    };
    let codec = match args.get(1).map(String::as_str) {
        Some("xpress") => Codec::Xpress,
        Some("lzms") => Codec::Lzms,
        _ => Codec::Lzx,
    };
    let level = match args.get(2).map(String::as_str) {
        Some("fast") => Level::Fast,
        Some("max") => Level::Max,
        _ => Level::Default,
    };
    let chunk_bytes: u32 = args.get(3).and_then(|text| text.parse().ok()).unwrap_or(32768);
    let data = match std::fs::read(path) {
        Ok(data) => data,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut compressor = match Compressor::new(codec, chunk_bytes, level) {
        Ok(compressor) => compressor,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut decompressor = Decompressor::new(codec, chunk_bytes).expect("checked just now");

    let chunks: Vec<&[u8]> = data.chunks(chunk_bytes as usize).collect();
    let mut packed = Vec::with_capacity(data.len());
    let mut ends = Vec::with_capacity(chunks.len());
    let mut out = Vec::new();
    let start = cpu_seconds();
    for chunk in &chunks {
        packed.extend_from_slice(if compressor.compress(chunk, &mut out) { &out } else { chunk });
        ends.push(packed.len());
    }
    let compress_seconds = cpu_seconds() - start;

    let mut decompress_seconds = f64::MAX;
    let mut plain = vec![0; data.len()];
    for _ in 0..3 {
        let start = cpu_seconds();
        let mut begin = 0;
        for (place, &end) in plain.chunks_mut(chunk_bytes as usize).zip(&ends) {
            let stored = &packed[begin..end];
            begin = end;
            if stored.len() == place.len() {
                place.copy_from_slice(stored);
            } else if let Err(error) = decompressor.decompress(stored, place) {
                eprintln!("chunk that ends at {end}: {error}");
                return ExitCode::FAILURE;
            }
        }
        decompress_seconds = decompress_seconds.min(cpu_seconds() - start);
    }
    assert!(plain == data, "decoded data differs");

    let megabytes = data.len() as f64 / 1e6;
    if std::env::var_os("GILT_BENCH_TSV").is_some() {
        println!(
            "{codec}\t{level:?}\t{chunk_bytes}\t{}\t{}\t{compress_seconds:.3}\t{decompress_seconds:.3}",
            data.len(),
            packed.len()
        );
    } else {
        println!(
            "{codec} {level:?} {chunk_bytes}: {} -> {} ({:.4}); compress {compress_seconds:.3} s \
             ({:.1} MB/s), decompress {decompress_seconds:.3} s ({:.0} MB/s)",
            data.len(),
            packed.len(),
            packed.len() as f64 / data.len() as f64,
            megabytes / compress_seconds,
            megabytes / decompress_seconds,
        );
    }
    ExitCode::SUCCESS
}
