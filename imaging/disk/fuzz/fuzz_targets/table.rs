//! The head of a disk with a GPT or an MBR. Sums of a GPT are made right, so that what lies behind
//! them is reached.
#![no_main]

use gilt_disk::{BlockRead, partitions};

/// Makes the sums of the GPT whose header is at `at` right.
fn sum(disk: &mut [u8], at: usize, sector_bytes: usize) {
    let le = |disk: &[u8], at: usize, len: usize| {
        disk[at..at + len].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    if disk.get(at..at + 8) != Some(b"EFI PART") || at + 92 > disk.len() {
        return;
    }
    let entries = le(disk, at + 72, 8).saturating_mul(sector_bytes);
    let len = le(disk, at + 80, 4).saturating_mul(le(disk, at + 84, 4));
    if let Some(part) = disk.get(entries..entries.saturating_add(len)) {
        let sum = crc32fast::hash(part);
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let len = le(disk, at + 12, 4);
    disk[at + 16..at + 20].fill(0);
    if let Some(part) = disk.get(at..at.saturating_add(len)) {
        let sum = crc32fast::hash(part);
        disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut disk = data.to_vec();
    disk.resize(data.len().max(64 << 10), 0);
    for (at, sector_bytes) in [(512, 512), (4096, 4096), (disk.len() - 512, 512)] {
        sum(&mut disk, at, sector_bytes);
    }
    let _ = partitions(&disk as &dyn BlockRead);
});
