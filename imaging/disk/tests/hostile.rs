//! Damaged images end with an error or with bytes, never with a panic, a hang or much memory. The
//! damage is random but the same in every run; the fuzz targets in `fuzz/` go on where this stops.

mod common;

use common::{noise, run};
use gilt_disk::{BlockRead, extent_list, open, partitions};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Numbers that break things: edges, single bits, anything.
    fn number(&mut self) -> u64 {
        match self.roll(6) {
            0 => u64::MAX,
            1 => 1 << self.roll(64),
            2 => (1 << self.roll(64)) - 1,
            3 => self.roll(1 << 20) * 512,
            4 => 0,
            _ => self.roll(u64::MAX),
        }
    }
}

fn use_it(path: &Path) {
    let Ok(disk) = open(path) else { return };
    let reader = disk.reader();
    let len = reader.len_bytes();
    let mut buf = vec![0; 70_000];
    // A disk may claim any size: look at its ends and at its front.
    for at in (0..8).map(|index| index * 65_536).chain([len.saturating_sub(70_000), len / 2]) {
        let part = len.saturating_sub(at).min(70_000) as usize;
        let _ = reader.read_at(at, &mut buf[..part]);
    }
    let _ = extent_list(&*reader, 0..len.min(64 << 20));
    let _ = partitions(&*reader);
}

/// Changes numbers inside `places` of the image, uses it, and puts them back.
fn torture(folder: &Path, image: &str, places: &[Range<u64>], rounds: u64) {
    let path = folder.join(image);
    let file = File::options().read(true).write(true).open(&path).expect("image");
    let len = file.metadata().expect("length").len();
    let mut dice = Dice(0x1234_5678_9ABC_DEF1 ^ rounds);
    for round in 0..rounds {
        let mut undo = Vec::new();
        for _ in 0..=dice.roll(3) {
            let place = &places[dice.roll(places.len() as u64) as usize];
            let at = place.start + dice.roll(place.end - place.start);
            let width = [1, 2, 4, 8][dice.roll(4) as usize].min(len.saturating_sub(at)) as usize;
            let mut old = vec![0; width];
            file.read_exact_at(&mut old, at).expect("read");
            file.write_all_at(&dice.number().to_be_bytes()[8 - width..], at).expect("write");
            undo.push((at, old));
        }
        let began = Instant::now();
        use_it(&path);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{image}, round {round}: {took:?}");
        for (at, old) in undo.into_iter().rev() {
            file.write_all_at(&old, at).expect("undo");
        }
    }
}

#[test]
fn damaged_qcow2_images_never_panic_or_hang() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let mut bytes = noise(5, 300_000);
    bytes.resize(2 << 20, 0);
    std::fs::write(folder.join("base.raw"), bytes).expect("base");
    for (name, compress, options) in [
        ("plain", false, "cluster_size=512"),
        ("zlib", true, "cluster_size=4k"),
        ("zstd", true, "cluster_size=16k,compression_type=zstd"),
        ("extl2", false, "cluster_size=16k,extended_l2=on"),
    ] {
        let mut args = vec!["convert", "-O", "qcow2", "-o", options];
        args.extend(compress.then_some("-c"));
        let image = format!("{name}.qcow2");
        args.extend(["base.raw", &image]);
        run(folder, "qemu-img", &args);
        run(folder, "qemu-img", &["snapshot", "-c", "s", &image]);
        let len = std::fs::metadata(folder.join(&image)).expect("image").len();
        torture(folder, &image, &[0..112, 0..4096, 0..len.min(131_072)], 400);
    }
}

#[test]
fn damaged_vhdx_and_vhd_images_never_panic_or_hang() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::write(folder.join("base.raw"), noise(5, 3 << 20)).expect("base");
    let convert = |kind: &str, options: &str, out: &str| {
        run(folder, "qemu-img", &["convert", "-O", kind, "-o", options, "base.raw", out]);
    };
    convert("vhdx", "block_size=1M", "a.vhdx");
    // Headers, region tables, log, metadata, block table. Sums are not mended: most damage stops there;
    // what has no sum is behind them.
    let vhdx = std::fs::read(folder.join("a.vhdx")).expect("image");
    let region = |index: usize| {
        let at = (192 << 10) + 16 + index * 32 + 16;
        u64::from_le_bytes(vhdx[at..at + 8].try_into().expect("8"))
    };
    let (first, second) = (region(0), region(1));
    torture(
        folder,
        "a.vhdx",
        &[
            first..first + 256,
            second..second + 256,
            first + 65_536..first + 65_700,
            second + 65_536..second + 65_700,
        ],
        600,
    );
    convert("vpc", "subformat=dynamic,force_size=on", "a.vhd");
    torture(folder, "a.vhd", &[512..1536, 1536..1700], 300);
}

#[test]
fn damaged_partition_tables_never_panic_or_hang() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "truncate", &["-s", "4M", "disk.raw"]);
    run(folder, "sgdisk", &["-n", "1:2048:+1M", "-n", "2:0:0", "disk.raw"]);
    let good = std::fs::read(folder.join("disk.raw")).expect("disk");
    let mut dice = Dice(77);
    for _ in 0..20_000 {
        let mut bad = good[..1 << 16].to_vec();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(1024 + 512) as usize;
            let value = dice.number().to_le_bytes();
            bad[at..at + 8].copy_from_slice(&value);
        }
        // With sums made right again, so that what lies behind them is reached.
        if dice.roll(2) == 0 {
            let entries = crc32fast::hash(&bad[1024..1024 + 128 * 128]);
            bad[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
            bad[512 + 16..512 + 20].fill(0);
            let sum = crc32fast::hash(&bad[512..512 + 92]);
            bad[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = partitions(&bad as &dyn BlockRead);
    }
    // MBRs of any bytes.
    for _ in 0..20_000 {
        let mut bad = vec![0; 1 << 14];
        for entry in 0..4 {
            let at = 446 + entry * 16;
            bad[at + 4] = [0x05, 0x0F, 0x83, 0x07][dice.roll(4) as usize];
            bad[at + 8..at + 12].copy_from_slice(&(dice.roll(32) as u32).to_le_bytes());
            bad[at + 12..at + 16].copy_from_slice(&(dice.roll(32) as u32).to_le_bytes());
        }
        for sector in 0..32 {
            let at = sector * 512;
            let first = bad[..512].to_vec();
            bad[at..at + 512].copy_from_slice(&first);
            bad[at + 446 + 24..at + 446 + 28]
                .copy_from_slice(&(dice.roll(32) as u32).to_le_bytes());
            bad[at + 510] = 0x55;
            bad[at + 511] = 0xAA;
        }
        let _ = partitions(&bad as &dyn BlockRead);
    }
}
