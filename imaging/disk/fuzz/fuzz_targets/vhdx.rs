//! A VHDX with a log in use, with numbers replaced. The base is `GILT_FUZZ_VOLUME`, by `make-seeds`; the
//! input is a list of (region u8, offset u24, value u32): headers, region tables, log, metadata, block
//! table, anywhere. Sums are made right, but for one input in four.
#![no_main]

use gilt_disk::{OpenOptions, extent_list, open_with};
use std::io::Write;
use std::sync::OnceLock;

/// Where the tables of the base are.
struct Base {
    bytes: Vec<u8>,
    log: (usize, usize),
    block_table: usize,
    metadata: usize,
}

fn le(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let path = std::env::var_os("GILT_FUZZ_VOLUME").expect("GILT_FUZZ_VOLUME: by make-seeds");
        let bytes = std::fs::read(path).expect("reading the base");
        let region = |index: usize| le(&bytes, (192 << 10) + 32 + index * 32, 8);
        let log = (le(&bytes, (64 << 10) + 72, 8), le(&bytes, (64 << 10) + 68, 4));
        Base { log, block_table: region(0), metadata: region(1), bytes }
    })
}

fn sum(bytes: &mut [u8], at: usize, len: usize) {
    let Some(part) = bytes.get_mut(at..at.saturating_add(len)) else { return };
    part[4..8].fill(0);
    let sum = crc32c::crc32c(part);
    part[4..8].copy_from_slice(&sum.to_le_bytes());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let base = base();
    let mut image = base.bytes.clone();
    for change in data.chunks_exact(8).take(32) {
        let offset = usize::from(change[1]) << 16 | usize::from(change[2]) << 8 | usize::from(change[3]);
        let at = match change[0] % 8 {
            0 => (64 << 10) + offset % 128,
            1 => (128 << 10) + offset % 128,
            2 => (192 << 10) + offset % 128,
            3 => base.log.0 + offset % 4096,
            4 => base.log.0 + offset % base.log.1.max(1),
            5 => base.metadata + offset % 512,
            6 => base.block_table + offset % 4096,
            _ => base.metadata + 65_536 + offset % 128,
        };
        let at = at.min(image.len() - 4);
        image[at..at + 4].copy_from_slice(&change[4..]);
    }
    if data.len() % 4 != 3 {
        sum(&mut image, 64 << 10, 4096);
        sum(&mut image, 128 << 10, 4096);
        sum(&mut image, 192 << 10, 65_536);
        sum(&mut image, 256 << 10, 65_536);
        for at in (base.log.0..base.log.0 + base.log.1).step_by(4096) {
            if image.get(at..at + 4) == Some(b"loge") {
                let len = le(&image, at + 8, 4).min(base.log.1);
                if len >= 8 {
                    sum(&mut image, at, len);
                }
            }
        }
    }
    let Ok(mut file) = tempfile::NamedTempFile::new_in("/dev/shm") else { return };
    if file.write_all(&image).is_err() {
        return;
    }
    let options = OpenOptions { allow_in_use: true, ..OpenOptions::default() };
    let Ok(disk) = open_with(file.path(), &options) else { return };
    let reader = disk.reader();
    let len = reader.len_bytes();
    let mut buf = [0; 8192];
    for at in [0, 65_536, 5 << 20, len / 2, len.saturating_sub(8192)] {
        let part = len.saturating_sub(at).min(8192) as usize;
        let _ = reader.read_at(at, &mut buf[..part]);
    }
    let _ = extent_list(&*reader, 0..len.min(16 << 20));
});
