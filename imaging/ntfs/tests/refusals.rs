//! Volumes that must not be captured as they are, and files whose contents are not in them.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gilt_ntfs::{
    Elsewhere, Encrypted, Error, NoteKind, Options, Place, SpecialKind, SpecialPolicy, Unclean,
    Volume,
};
use gilt_ntfs_volumes::{Format, Mount, Ownership, Recipe, format, make};
use gilt_wim::tree::ContentSource;
use support::{disk, open};

struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

/// A small volume with what `fill` puts into it.
fn image(fill: impl FnOnce(&Mount)) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.img");
    let volume = Format { volume_bytes: 32 << 20, sector_bytes: 512, cluster_bytes: 4096 };
    format(&path, &volume).unwrap();
    let mount = Mount::new(&path, Ownership::Ignored).unwrap();
    fill(&mount);
    mount.finish().unwrap();
    Image { _dir: dir, path }
}

/// Offset in the image of one of the first records of `$MFT`, which lie together.
fn record_at(image: &Path, number: u64) -> u64 {
    let file = File::open(image).unwrap();
    let mut lcn = [0; 8];
    file.read_exact_at(&mut lcn, 0x30).unwrap();
    u64::from_le_bytes(lcn) * 4096 + number * 1024
}

/// Changes bytes of the first attribute of a kind in a record. The places patched here are none
/// that the update sequence replaces.
fn patch_attribute(image: &Path, record: u64, kind: u32, patch: impl FnOnce(&mut [u8])) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut bytes = [0u8; 1024];
    file.read_exact_at(&mut bytes, record).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = usize::from(u16::from_le_bytes([bytes[0x14], bytes[0x15]]));
    while u32_at(at) != kind {
        assert_ne!(u32_at(at), u32::MAX, "the record has no such attribute");
        at += u32_at(at + 4) as usize;
    }
    let len = u32_at(at + 4) as usize;
    patch(&mut bytes[at..at + len]);
    file.write_all_at(&bytes, record).unwrap();
}

fn unclean(image: &Path) -> Unclean {
    match open(image) {
        Err(Error::Unclean { why, way_out }) => {
            assert!(way_out.contains("shutdown /s"), "{way_out}");
            why
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dirty_volume_is_refused_and_can_be_read_for_evidence() {
    let image = image(|mount| std::fs::write(mount.path("log.txt"), "why it failed").unwrap());
    open(&image.path).expect("clean as it was made");
    patch_attribute(&image.path, record_at(&image.path, 3), 0x70, |a| a[0x18 + 10] |= 1);
    assert_eq!(unclean(&image.path), Unclean::DirtyFlag);

    let volume = Volume::open(disk(&image.path), &Options::for_evidence()).unwrap();
    assert_eq!(volume.unclean(), Some(Unclean::DirtyFlag));
    let log = volume.lookup(r"\LOG.TXT").unwrap();
    assert_eq!(volume.read_file(log, 1000).unwrap(), b"why it failed");
}

#[test]
fn a_journal_with_work_left_is_refused() {
    let image = image(|_| {});
    // The first restart page of a log whose client has not gone, as Windows leaves it on a crash.
    let mut page = vec![0u8; 4096];
    page[..4].copy_from_slice(b"RSTR");
    page[4] = 0x1E;
    page[6] = 9;
    page[0x10..0x14].copy_from_slice(&4096u32.to_le_bytes());
    page[0x18] = 0x30;
    page[0x1C] = 1;
    let log = {
        let volume = open(&image.path).unwrap();
        drop(volume);
        log_offset(&image.path)
    };
    let file = File::options().write(true).open(&image.path).unwrap();
    file.write_all_at(&page, log).unwrap();
    file.write_all_at(&page, log + 4096).unwrap();
    assert_eq!(unclean(&image.path), Unclean::LogOpen);
    page[0x3C] = 0xFF;
    page[0x3D] = 0xFF;
    file.write_all_at(&page, log).unwrap();
    page[0x30] = 1; // the older one may be anything
    page[0x3C..0x3E].fill(0xFF);
    file.write_all_at(&page, log + 4096).unwrap();
    open(&image.path).expect("a log whose clients have gone is clean");
    page[0x1C] = 2;
    page[0x30] = 2;
    file.write_all_at(&page, log).unwrap();
    assert_eq!(unclean(&image.path), Unclean::LogCached);
}

/// Offset of `$LogFile`'s first cluster: its run list has one run in a fresh volume.
fn log_offset(image: &Path) -> u64 {
    let mut lcn = 0;
    patch_attribute(image, record_at(image, 2), 0x80, |attribute| {
        let at = usize::from(u16::from_le_bytes([attribute[0x20], attribute[0x21]]));
        let (len, delta) = (usize::from(attribute[at] & 15), usize::from(attribute[at] >> 4));
        for i in (0..delta).rev() {
            lcn = lcn << 8 | u64::from(attribute[at + 1 + len + i]);
        }
    });
    lcn * 4096
}

#[test]
fn a_hibernated_system_is_refused_and_a_resumed_one_is_not() {
    for (head, hibernated) in [("hibr", true), ("HIBR", true), ("wake", false), ("\0\0\0\0", false)]
    {
        let image = image(|mount| {
            std::fs::write(mount.path("hiberfil.sys"), format!("{head}{}", "x".repeat(5000)))
                .unwrap();
        });
        if hibernated {
            assert_eq!(unclean(&image.path), Unclean::Hibernated, "{head}");
        } else {
            open(&image.path).expect(head);
        }
    }
}

#[test]
fn files_whose_contents_are_elsewhere_are_refused_kept_or_left_out_as_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.img");
    make(&path, &Recipe { special: true, files: 100, bytes: 1 << 20, ..Recipe::small() }).unwrap();
    let volume = open(&path).unwrap();
    let kinds: Vec<_> = volume.specials().iter().map(|special| special.kind).collect();
    assert_eq!(kinds, [SpecialKind::Deduplicated, SpecialKind::Cloud]);

    match volume.judge_specials(volume.tree(), SpecialPolicy::default(), |_| true) {
        Err(Error::ContentsElsewhere { path, count: 1, .. }) => {
            assert_eq!(path, r"\special\dedup");
        }
        other => panic!("{other:?}"),
    }
    let excluded =
        volume.judge_specials(volume.tree(), SpecialPolicy::default(), |_| false).unwrap();
    assert_eq!(excluded, [], "what is not captured does not matter");
    let keep = SpecialPolicy { elsewhere: Elsewhere::KeepRaw, ..Default::default() };
    assert_eq!(volume.judge_specials(volume.tree(), keep, |_| true).unwrap(), []);
    let leave = SpecialPolicy { elsewhere: Elsewhere::LeaveOut, ..Default::default() };
    assert_eq!(volume.judge_specials(volume.tree(), leave, |_| true).unwrap().len(), 2);

    let dedup = volume.tree().node(volume.lookup("special/dedup").unwrap());
    assert_eq!(dedup.reparse().unwrap().tag, 0x8000_0013);
}

#[test]
fn an_encrypted_file_is_refused_and_its_ciphertext_never_delivered() {
    let image = image(|mount| {
        std::fs::write(mount.path("plain"), vec![7; 9000]).unwrap();
        std::fs::write(mount.path("secret"), vec![9; 9000]).unwrap();
    });
    let record = {
        let volume = open(&image.path).unwrap();
        let secret = volume.lookup("secret").unwrap();
        volume.record_extents(secret)[0].offset
    };
    patch_attribute(&image.path, record, 0x80, |attribute| attribute[0x0D] |= 0x40);

    let volume = open(&image.path).unwrap();
    let secret = volume.lookup("secret").unwrap();
    match volume.judge_specials(volume.tree(), SpecialPolicy::default(), |_| true) {
        Err(error @ Error::ContentsElsewhere { .. }) => {
            assert!(error.to_string().contains("cipher /d"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // Told to keep reparse points raw is not told to keep ciphertext.
    let keep = SpecialPolicy { elsewhere: Elsewhere::KeepRaw, ..Default::default() };
    assert!(volume.judge_specials(volume.tree(), keep, |_| true).is_err());
    let leave = SpecialPolicy { encrypted: Encrypted::LeaveOut, ..Default::default() };
    assert_eq!(volume.judge_specials(volume.tree(), leave, |_| true).unwrap(), [secret]);
    let stream = volume.tree().node(secret).streams[0].content;
    let refused = volume.open(stream).err().expect("no ciphertext");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn damage_is_refused_with_its_place_or_noted_as_told() {
    let image = image(|mount| {
        std::fs::write(mount.path("good"), "good").unwrap();
        std::fs::write(mount.path("bad"), "bad").unwrap();
    });
    let (record, number) = {
        let volume = open(&image.path).unwrap();
        let bad = volume.lookup("bad").unwrap();
        (volume.record_extents(bad)[0].offset, volume.stamp(bad).unwrap().file.record)
    };
    let file = File::options().write(true).open(&image.path).unwrap();
    file.write_all_at(&[0xAB, 0xCD], record + 510).unwrap();
    match open(&image.path) {
        Err(Error::Corrupt { place: Place::Record { number: found, offset: 510 }, .. }) => {
            assert_eq!(found, number);
        }
        other => panic!("{other:?}"),
    }
    let volume = Volume::open(disk(&image.path), &Options::for_evidence()).unwrap();
    assert!(volume.lookup("good").is_some());
    assert!(volume.lookup("bad").is_none());
    let noted = volume.notes().iter().any(|note| {
        note.record == number
            && matches!(note.kind, NoteKind::Damaged(what) if what.contains("torn"))
    });
    assert!(noted, "{:?}", volume.notes());

    // An allocated record that is overwritten altogether is not taken for a free one.
    file.write_all_at(&[0; 1024], record).unwrap();
    assert!(matches!(open(&image.path), Err(Error::Corrupt { .. })));
}

#[test]
fn a_directory_inside_itself_ends_with_an_error() {
    let image = image(|mount| {
        std::fs::create_dir_all(mount.path("a/b")).unwrap();
    });
    let (a_record, a, b) = {
        let volume = open(&image.path).unwrap();
        let (a, b) = (volume.lookup("a").unwrap(), volume.lookup("a/b").unwrap());
        let file = |node| volume.stamp(node).unwrap().file;
        (volume.record_extents(a)[0].offset, file(a), file(b))
    };
    // Now a lies in b, which lies in a: neither can be reached.
    patch_attribute(&image.path, a_record, 0x30, |name| {
        let parent = b.record | u64::from(b.sequence) << 48;
        name[0x18..0x20].copy_from_slice(&parent.to_le_bytes());
    });
    let volume = open(&image.path).unwrap();
    let orphans: Vec<_> = volume
        .notes()
        .iter()
        .filter(|note| note.kind == NoteKind::Orphan)
        .map(|note| note.record)
        .collect();
    assert_eq!(orphans, [a.record, b.record]);
}

#[test]
fn other_file_systems_and_short_disks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    assert!(matches!(open(&path), Err(Error::NotNtfs { .. })));
    std::fs::write(&path, vec![0; 512]).unwrap();
    assert!(matches!(open(&path), Err(Error::NotNtfs { .. })));
    let mut sector = vec![0; 4096];
    sector[3..11].copy_from_slice(b"-FVE-FS-");
    std::fs::write(&path, sector).unwrap();
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("manage-bde -off"), "{error}");
}
