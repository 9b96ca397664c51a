//! The head of a disk with a GPT or an MBR. Sums of a GPT are made right, so that what lies behind
//! them is reached.
#![no_main]

use gilt_disk::{BlockRead, partitions};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut disk = data.to_vec();
    disk.resize(data.len().max(64 << 10), 0);
    let _ = partitions(&disk as &dyn BlockRead);
});
