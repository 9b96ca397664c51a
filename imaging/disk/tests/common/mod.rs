//! Images made by other tools.
#![allow(dead_code)]

use gilt_disk::{BlockRead, Disk};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a tool of the host; a missing one fails the test with the way out.
pub fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("needs {program}: run ci/setup ({error})"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compressible but never repeating bytes, the same for one seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of each word is zero, so that compression has something to do.
        bytes.extend_from_slice(&(state & 0x00FF_00FF_00FF_00FF).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn read_all(disk: &Disk, step: usize) -> Vec<u8> {
    let reader = disk.reader();
    let mut all = vec![0; reader.len_bytes() as usize];
    for (index, part) in all.chunks_mut(step).enumerate() {
        reader.read_at((index * step) as u64, part).expect("read");
    }
    all
}

/// What QEMU reads from `image`.
pub fn by_qemu(folder: &Path, image: &str) -> Vec<u8> {
    run(folder, "qemu-img", &["convert", "-O", "raw", image, "oracle.raw"]);
    std::fs::read(folder.join("oracle.raw")).expect("oracle")
}
