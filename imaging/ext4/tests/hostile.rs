//! Damaged volumes end with an error or with bytes, never with a panic, a hang or much memory.

mod common;

use common::{noise, run};
use gilt_ext4::Ext4Volume;
use gilt_wim::tree::ContentSource;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Opens, walks and reads; a file may claim any length, so only its front is read.
fn use_it(image: &[u8]) {
    let Ok(volume) = Ext4Volume::open(Arc::new(image.to_vec())) else { return };
    let Ok(tree) = volume.tree() else { return };
    for stream in tree.nodes.iter().flat_map(|node| &node.streams) {
        let _ = volume.content_stamp(stream.content);
        if let Ok(reader) = volume.open(stream.content) {
            let _ = std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink());
        }
    }
}

fn volume(folder: &Path, options: &[&str], size: &str) -> Vec<u8> {
    run(folder, "rm", &["-rf", "stage"]);
    std::fs::create_dir_all(folder.join("stage/sub/deep")).expect("folder");
    std::fs::write(folder.join("stage/file"), noise(4, 90_000)).expect("file");
    std::fs::write(folder.join("stage/tiny"), b"tiny").expect("file");
    std::os::unix::fs::symlink("x".repeat(100), folder.join("stage/sub/link")).expect("link");
    for index in 0..60 {
        let name = format!("stage/sub/deep/a-long-name-{index:03}-{}", "y".repeat(60));
        std::fs::write(folder.join(name), noise(index, 3000)).expect("file");
    }
    run(folder, "truncate", &["-s", size, "disk.img"]);
    let fixed = ["-q", "-F", "-t", "ext4", "-b", "1024", "-d", "stage"];
    run(folder, "mke2fs", &[&fixed[..], options, &["disk.img"]].concat());
    std::fs::write(folder.join("value"), noise(9, 700)).expect("value");
    common::debugfs(folder, "disk.img", "ea_set -f value file user.long\nea_set tiny user.a b\n");
    let image = std::fs::read(folder.join("disk.img")).expect("image");
    run(folder, "rm", &["disk.img"]);
    image
}

#[test]
fn damaged_volumes_never_panic_or_hang() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    for options in [
        &["-O", "^metadata_csum,^has_journal"][..],
        &["-O", "^metadata_csum,^has_journal,inline_data", "-I", "256"],
        &["-O", "^metadata_csum,^extents,^has_journal,^64bit"],
    ] {
        let good = volume(folder, options, "2M");
        // Metadata only: what holds no file data of ours.
        let used: Vec<usize> = (0..good.len() / 64)
            .filter(|piece| good[piece * 64..piece * 64 + 64].iter().any(|byte| *byte != 0))
            .take(400 * 1024 / 64)
            .collect();
        let mut image = good.clone();
        let mut dice = Dice(0xABCD_EF01_2345_6789);
        for round in 0..1500 {
            let mut undo = Vec::new();
            for _ in 0..=dice.roll(4) {
                let piece = used[dice.roll(used.len() as u64) as usize] * 64;
                let at = piece + dice.roll(60) as usize;
                let value: u32 = match dice.roll(4) {
                    0 => u32::MAX,
                    1 => 1 << dice.roll(32),
                    2 => dice.roll(2048) as u32,
                    _ => dice.roll(1 << 32) as u32,
                };
                undo.push((at, image[at..at + 4].to_vec()));
                image[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            let began = Instant::now();
            use_it(&image);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(20), "round {round}: {took:?}");
            for (at, old) in undo.into_iter().rev() {
                image[at..at + 4].copy_from_slice(&old);
            }
        }
        assert!(image == good);
    }
}

#[test]
fn damaged_journals_never_panic_or_hang() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let image = volume(folder, &["-O", "^metadata_csum", "-J", "size=1"], "6M");
    std::fs::write(folder.join("disk.img"), &image).expect("image");
    std::fs::write(folder.join("new"), noise(3, 1024)).expect("block");
    let blocks = run(folder, "debugfs", &["-R", "blocks file", "disk.img"]);
    let block = blocks.split_whitespace().next().expect("block").to_owned();
    common::debugfs(folder, "disk.img", &format!("jo\njw -b {block} new\njc\n"));
    let good = std::fs::read(folder.join("disk.img")).expect("image");
    let magic = 0xC03B_3998_u32.to_be_bytes();
    let heads: Vec<usize> =
        (0..good.len()).step_by(1024).filter(|at| good[*at..*at + 4] == magic).collect();
    assert!(heads.len() >= 3, "superblock, descriptor, commit");
    let mut image = good.clone();
    let mut dice = Dice(99);
    for _ in 0..2000 {
        let at = heads[dice.roll(heads.len() as u64) as usize] + 4 + dice.roll(64) as usize;
        let old = image[at..at + 4].to_vec();
        let value =
            [u32::MAX, 0, dice.roll(8000) as u32, 1 << dice.roll(32)][dice.roll(4) as usize];
        image[at..at + 4].copy_from_slice(&value.to_be_bytes());
        use_it(&image);
        image[at..at + 4].copy_from_slice(&old);
    }
}
