//! Install media made by another tool are read, and made silent by a patch of a few bytes.

use gilt_windows::iso::{BootError, NoPrompt, Udf, UdfError, no_prompt};
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Command;

/// A disc in the shape of Microsoft's: UDF beside ISO 9660, two boot images, a deep folder.
fn disc(folder: &Path) -> Vec<u8> {
    let tree = folder.join("tree");
    let boot = tree.join("efi/microsoft/boot");
    std::fs::create_dir_all(&boot).unwrap();
    std::fs::create_dir_all(tree.join("sources/sxs")).unwrap();
    std::fs::create_dir_all(tree.join("boot")).unwrap();
    std::fs::write(tree.join("boot/etfsboot.com"), vec![3u8; 4096]).unwrap();
    std::fs::write(boot.join("efisys.bin"), vec![1u8; 1_474_560]).unwrap();
    std::fs::write(boot.join("efisys_noprompt.bin"), vec![2u8; 1_474_560]).unwrap();
    let big: Vec<u8> =
        (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    std::fs::write(tree.join("sources/install.wim"), big).unwrap();
    std::fs::write(tree.join("sources/Größe.txt"), "name beyond ASCII").unwrap();
    std::fs::write(tree.join("sources/empty"), "").unwrap();
    let out = folder.join("disc.iso");
    let done = Command::new("genisoimage")
        .args([
            "-quiet",
            "-udf",
            "-iso-level",
            "3",
            "-allow-limited-size",
            "-input-charset",
            "utf-8",
        ])
        .args(["-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8"])
        .args(["-eltorito-alt-boot", "-e", "efi/microsoft/boot/efisys.bin", "-no-emul-boot"])
        .args(["-V", "WIN"])
        .arg("-o")
        .arg(&out)
        .arg(&tree)
        .output()
        .unwrap_or_else(|error| panic!("needs genisoimage: run ci/setup ({error})"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(out).unwrap()
}

#[test]
fn names_and_bytes_are_those_that_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = disc(dir.path());
    let mut udf = Udf::open(Cursor::new(&bytes)).unwrap();
    let mut names: Vec<String> =
        udf.list("sources").unwrap().unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, ["Größe.txt", "empty", "install.wim", "sxs"]);
    for name in ["install.wim", "empty", "Größe.txt"] {
        let file = udf.find(&format!("SOURCES/{name}")).unwrap().unwrap();
        let read = udf.read(&file, 16 << 20).unwrap();
        assert_eq!(
            read,
            std::fs::read(dir.path().join("tree/sources").join(name)).unwrap(),
            "{name}"
        );
    }
    assert!(udf.find("sources/nosuch").unwrap().is_none());
    assert!(udf.find("sources/empty/below").unwrap().is_none());
    let file = udf.find("sources/install.wim").unwrap().unwrap();
    assert!(udf.read(&file, 100).is_err(), "a limit is kept");
}

#[test]
fn a_medium_that_asks_is_made_silent_by_a_patch_of_six_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = disc(dir.path());
    let NoPrompt::Patch { offset, bytes: patch } = no_prompt(Cursor::new(&bytes)).unwrap() else {
        panic!("it asks")
    };
    assert_eq!(patch.len(), 6);
    let mut silent = bytes.clone();
    let at = usize::try_from(offset).unwrap();
    silent[at..at + 6].copy_from_slice(&patch);
    assert_eq!(
        silent.iter().zip(&bytes).filter(|(a, b)| a != b).count().min(7),
        silent.iter().zip(&bytes).filter(|(a, b)| a != b).count()
    );
    // What the entry names now is the silent image.
    let sector = u32::from_le_bytes(patch[2..6].try_into().unwrap());
    let start = usize::try_from(sector).unwrap() * 2048;
    assert!(silent[start..start + 1_474_560].iter().all(|byte| *byte == 2));
    assert_eq!(no_prompt(Cursor::new(&silent)).unwrap(), NoPrompt::Already);
    // Another reader agrees.
    let path = dir.path().join("silent.iso");
    std::fs::write(&path, &silent).unwrap();
    let told = Command::new("xorriso")
        .args(["-indev", path.to_str().unwrap(), "-report_el_torito", "plain"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("UEFI") && told.contains(&format!("{sector}")), "{told}");
}

#[test]
fn media_of_another_kind_are_refused_in_words() {
    assert!(matches!(Udf::open(Cursor::new(vec![0u8; 1 << 20])), Err(UdfError::NotUdf)));
    assert!(matches!(Udf::open(Cursor::new(Vec::new())), Err(UdfError::NotUdf)));
    assert!(matches!(no_prompt(Cursor::new(vec![0u8; 1 << 20])), Err(BootError::Unfit(_))));
    assert!(no_prompt(Cursor::new(Vec::new())).is_err());
}

/// Bytes flipped all over the structures: errors, and no panic, hang or giant allocation.
#[test]
fn damaged_media_never_bring_the_reader_down() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = disc(dir.path());
    let mut seed = 0x9E37_79B9u32;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    // Structures lie before the data of the files.
    let span = 2048 * 400;
    for _ in 0..3000 {
        let mut damaged = bytes[..2048 * 600].to_vec();
        for _ in 0..1 + next() % 4 {
            let at = next() as usize % span;
            damaged[at] = next() as u8;
        }
        let _ = no_prompt(Cursor::new(&damaged));
        if let Ok(mut udf) = Udf::open(Cursor::new(&damaged)) {
            let _ = udf.list("sources");
            if let Ok(Some(file)) = udf.find("sources/install.wim") {
                let mut head = [0; 4096];
                let _ = udf.reader(&file).read(&mut head);
            }
        }
    }
}
