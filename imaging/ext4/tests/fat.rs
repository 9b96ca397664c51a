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
