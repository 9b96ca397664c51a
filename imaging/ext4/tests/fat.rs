//! FAT volumes made by mkfs.vfat and mtools are read back as they were made.

mod common;

use common::{find, noise, run};
use gilt_disk::{BlockRead, open};
use gilt_ext4::FatVolume;
use gilt_wim::tree::ContentSource;
use std::sync::Arc;

#[test]
fn all_kinds_of_fat_read_back() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    for (bits, size) in [("12", "4M"), ("16", "40M"), ("32", "80M")] {
        let image = format!("fat{bits}.img");
        run(folder, "truncate", &["-s", size, &image]);
        run(folder, "mkfs.vfat", &["-F", bits, "-n", "ESP", &image]);
        std::fs::write(folder.join("data"), noise(7, 200_001)).expect("data");
        std::fs::write(folder.join("empty"), b"").expect("data");
        let dos =
            |program: &str, args: &[&str]| run(folder, program, &[&["-i", &image], args].concat());
        dos("mmd", &["::EFI", "::EFI/BOOT", "::EFI/a much longer name"]);
        dos("mcopy", &["data", "::EFI/BOOT/BOOTX64.EFI"]);
        dos("mcopy", &["data", "::EFI/a much longer name/über-grub.cfg"]);
        dos("mcopy", &["empty", "::empty"]);
        for index in 0..40 {
            std::fs::write(folder.join("small"), index.to_string()).expect("data");
            dos("mcopy", &["small", &format!("::EFI/file with number {index:03}.txt")]);
        }
        let disk: Arc<dyn BlockRead> = open(folder.join(&image)).expect("open").reader();
        assert!(FatVolume::probe(&disk).expect("probe"));
        let volume = FatVolume::open(disk).expect("volume");
        assert_eq!(volume.label(), "ESP");
        let tree = volume.tree().expect("tree");
        let read = |path: &str| {
            let node = tree.node(find(&tree, path));
            let mut bytes = Vec::new();
            let mut reader = volume.open(node.streams[0].content).expect("open");
            std::io::Read::read_to_end(&mut reader, &mut bytes).expect("read");
            bytes
        };
        assert!(read("EFI/BOOT/BOOTX64.EFI") == noise(7, 200_001), "FAT{bits}");
        assert!(read("EFI/a much longer name/über-grub.cfg") == noise(7, 200_001));
        assert_eq!(read("EFI/file with number 039.txt"), b"39");
        assert_eq!(read("empty"), b"");
        let year = tree.node(find(&tree, "EFI/BOOT/BOOTX64.EFI")).modified.to_unix().0 / 31_556_952;
        assert!(year > 50, "a time of now: {year}");
    }
}

#[test]
fn a_chain_that_turns_back_is_an_error_that_says_where() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "truncate", &["-s", "40M", "fat.img"]);
    run(folder, "mkfs.vfat", &["-F", "16", "fat.img"]);
    std::fs::write(folder.join("data"), noise(7, 200_001)).expect("data");
    run(folder, "mmd", &["-i", "fat.img", "::folder"]);
    run(folder, "mcopy", &["-i", "fat.img", "data", "::file"]);
    let good = std::fs::read(folder.join("fat.img")).expect("image");
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([good[at], good[at + 1]]));
    let fat_at = u16_at(14) * u16_at(11);
    // The folder has cluster 2, the file those from 3 on.
    let entry = |cluster: usize| fat_at + cluster * 2;
    assert_eq!(u16_at(entry(3)), 4, "the file is in one piece");
    for (cluster, next, where_it_is) in [(20_usize, 10_u16, "0xa"), (2, 2, "0x2")] {
        let mut bad = good.clone();
        bad[entry(cluster)..entry(cluster) + 2].copy_from_slice(&next.to_le_bytes());
        let disk: Arc<dyn BlockRead> = Arc::new(bad);
        // A folder is read with the tree, a file when it is opened.
        let read = || -> Result<(), Box<dyn std::error::Error>> {
            let volume = FatVolume::open(disk)?;
            let tree = volume.tree()?;
            let node = tree.node(find(&tree, "file"));
            volume.open(node.streams[0].content)?;
            Ok(())
        };
        let error = read().expect_err("refused").to_string();
        let told = error.contains("turns back") && error.contains(where_it_is);
        assert!(told || error.contains(&next.to_string()), "{error}");
        assert!(error.contains("turns back"), "{error}");
    }
}
