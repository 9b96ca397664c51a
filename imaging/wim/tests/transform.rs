//! Append, export, delete, optimize, split, delta and solid, with wimlib as the referee.
#![cfg(unix)]

mod common;

use common::{Random, assert_same, sample, seven_zip_test, text, wimlib};
use gilt_wim::{
    CaptureOptions, ChangeKind, Compression, ExtractOptions, ImageInfo, ImageSource, Level, Reason,
    Side, SplitOptions, Wim, WriteOptions, Written, append, capture_directory, create, delete,
    diff, extract_tree, optimize, split,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn options() -> WriteOptions {
    WriteOptions {
        level: Level::Fast,
        threads: 2,
        sync: false,
        creation_time: Some(gilt_wim::tree::FileTime(0x01d9_0000_1234_5678)),
        ..WriteOptions::default()
    }
}

fn create_from(dir: &Path, wim: &Path, options: &WriteOptions) -> Written {
    let (tree, contents) = capture_directory(dir, &CaptureOptions::default()).unwrap();
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("one") };
    create(wim, &[image], options, &()).unwrap()
}

fn append_from(dir: &Path, path: &Path, name: &str) -> Written {
    let wim = Wim::open(path).unwrap();
    let (tree, contents) = capture_directory(dir, &CaptureOptions::default()).unwrap();
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named(name) };
    let options = WriteOptions { sync: false, ..WriteOptions::like(&wim) };
    append(path, &wim, &[image], &options, &()).unwrap()
}

fn assert_holds(wim: &Wim, index: u32, dir: &Path) {
    let report = wim.verify(2, &()).unwrap();
    assert!(report.faults.is_empty() && report.missing == 0, "{report:?}");
    let out = TempDir::new().unwrap();
    let target = out.path().join("out");
    let (tree, contents) = wim.load_tree(index).unwrap();
    extract_tree(&tree, &contents, &target, &ExtractOptions::default(), &()).unwrap();
    assert_same(dir, &target);
}

fn wimlib_holds(args: &[&str], dir: &Path) {
    let out = TempDir::new().unwrap();
    let target = out.path().join("out");
    let mut all = vec!["apply", args[0], args[1], text(&target), "--unix-data"];
    all.extend_from_slice(&args[2..]);
    wimlib(&all);
    assert_same(dir, &target);
}

/// Two versions of a directory: the second has a changed, a new and a removed file.
fn versions(root: &Path) -> (PathBuf, PathBuf) {
    let (one, two) = (root.join("v1"), root.join("v2"));
    sample(&one);
    common::run("cp", &["-a", text(&one), text(&two)]);
    fs::write(two.join("d1/random"), Random(99).bytes(120_000)).unwrap();
    fs::write(two.join("new"), Random(98).words(300_000)).unwrap();
    fs::remove_file(two.join("zeros")).unwrap();
    (one, two)
}

#[test]
fn appended_images_share_contents_and_both_apply() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let path = temp.path().join("a.wim");
    let first = create_from(&one, &path, &options());
    let second = append_from(&two, &path, "two");
    assert!(second.file_bytes < first.file_bytes + 400_000, "{second:?}");
    let wim = Wim::open(&path).unwrap();
    assert_eq!(wim.image_count(), 2);
    assert_eq!(wim.images()[1].name(), Some("two"));
    assert_eq!(wim.find_image("two"), Some(2));
    assert_holds(&wim, 1, &one);
    assert_holds(&wim, 2, &two);
    wimlib(&["verify", text(&path)]);
    seven_zip_test(&path);
    wimlib_holds(&[text(&path), "1"], &one);
    wimlib_holds(&[text(&path), "2"], &two);
}

#[test]
fn appending_a_name_twice_is_refused_and_leaves_the_file_as_it_was() {
    let temp = TempDir::new().unwrap();
    let (one, _) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    let before = fs::read(&path).unwrap();
    let wim = Wim::open(&path).unwrap();
    let (tree, contents) = capture_directory(&one, &CaptureOptions::default()).unwrap();
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("one") };
    let error = append(&path, &wim, &[image], &WriteOptions::like(&wim), &()).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn deleting_an_image_drops_what_only_it_had() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    append_from(&two, &path, "two");
    let both = fs::metadata(&path).unwrap().len();
    let wim = Wim::open(&path).unwrap();
    let options = WriteOptions { boot_index: 2, sync: false, ..WriteOptions::like(&wim) };
    delete(&path, &wim, 1, &options, &()).unwrap();
    let wim = Wim::open(&path).unwrap();
    assert!(wim.file_bytes() < both - 200);
    assert_eq!((wim.image_count(), wim.header().boot_index), (1, 1));
    assert_holds(&wim, 1, &two);
    wimlib(&["verify", text(&path)]);
    wimlib_holds(&[text(&path), "1"], &two);
}

#[test]
fn export_copies_compressed_resources_byte_for_byte() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    append_from(&two, &path, "two");
    let source = Wim::open(&path).unwrap();
    let image = source.load_image(2).unwrap();
    let out = temp.path().join("b.wim");
    let options =
        WriteOptions { guid: None, level: Level::Max, sync: false, ..WriteOptions::like(&source) };
    let written = create(&out, &[image.source()], &options, &()).unwrap();
    let exported = Wim::open(&out).unwrap();
    for resource in exported.resources().filter(|resource| !resource.is_metadata()) {
        let old = source.find(resource.sha1).unwrap();
        let read = |wim: &Wim, at, len: u64| {
            let mut bytes = vec![0; len as usize];
            wim.read_stored(0, &mut bytes, at).unwrap();
            bytes
        };
        assert_eq!(
            read(&exported, resource.offset, resource.stored_bytes),
            read(&source, old.offset, old.stored_bytes)
        );
    }
    assert!(written.lent_bytes > 1_000_000);
    assert_holds(&exported, 1, &two);
    wimlib_holds(&[text(&out), "1"], &two);
}

#[test]
fn optimize_changes_compression_and_keeps_contents_and_xml() {
    let temp = TempDir::new().unwrap();
    let (one, _) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    wimlib(&["info", text(&path), "1", "--image-property", "WINDOWS/VERSION/BUILD=26100"]);
    wimlib(&["info", text(&path), "1", "--image-property", "ODD/THING=kept"]);
    for compression in [Compression::None, Compression::Xpress, Compression::Lzx] {
        let wim = Wim::open(&path).unwrap();
        let mut options = WriteOptions { sync: false, ..WriteOptions::like(&wim) };
        options.set_compression(compression);
        optimize(&path, &wim, &options, &()).unwrap();
        let wim = Wim::open(&path).unwrap();
        assert_eq!(wim.compression(), compression);
        assert_eq!(wim.images()[0].windows().unwrap().version_build, Some(26100));
        assert_eq!(wim.images()[0].xml.text_at("ODD/THING"), Some("kept"));
        assert_holds(&wim, 1, &one);
        wimlib_holds(&[text(&path), "1"], &one);
    }
}

#[test]
fn split_sets_go_both_ways() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &WriteOptions { boot_index: 1, ..options() });
    append_from(&two, &path, "two");
    let wim = Wim::open(&path).unwrap();
    let first = temp.path().join("ours.swm");
    let options = SplitOptions { part_bytes: 1 << 20, integrity: true, threads: 2, sync: false };
    let parts = split(&wim, &first, &options, &()).unwrap();
    assert!(parts.len() > 3, "{parts:?}");
    for part in &parts[..] {
        let single = Wim::open(part).unwrap();
        assert!(single.file_bytes() <= 1 << 20 || single.resources().count() == 1);
    }
    let refs = format!("--ref={}/ours*.swm", text(temp.path()));
    wimlib(&["verify", text(&first), &refs]);
    wimlib_holds(&[text(&first), "2", &refs], &two);
    assert_holds(&Wim::open(&first).unwrap(), 1, &one);
    assert_holds(&Wim::open(&first).unwrap(), 2, &two);

    let theirs = temp.path().join("theirs.swm");
    wimlib(&["split", text(&path), text(&theirs), "1"]);
    assert_holds(&Wim::open(&theirs).unwrap(), 2, &two);
}

#[test]
fn a_set_with_a_part_missing_says_so() {
    let temp = TempDir::new().unwrap();
    let (one, _) = versions(temp.path());
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    let wim = Wim::open(&path).unwrap();
    let first = temp.path().join("x.swm");
    let options = SplitOptions { part_bytes: 1 << 20, integrity: false, threads: 2, sync: false };
    let parts = split(&wim, &first, &options, &()).unwrap();
    fs::remove_file(parts.last().unwrap()).unwrap();
    let report = Wim::open(&first).unwrap().verify(2, &()).unwrap();
    assert!(report.missing > 0);
}

#[test]
fn deltas_go_both_ways() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let base = temp.path().join("base.wim");
    create_from(&one, &base, &options());
    let ours = temp.path().join("ours.wim");
    let references = vec![Wim::open(&base).unwrap()];
    let written = create_from(&two, &ours, &WriteOptions { references, ..options() });
    assert!(written.file_bytes < 300_000, "{written:?}");
    wimlib_holds(&[text(&ours), "1", &format!("--ref={}", text(&base))], &two);
    assert_holds(&Wim::open_with(&ours, &[&base]).unwrap(), 1, &two);
    let alone = Wim::open(&ours).unwrap().verify(2, &()).unwrap();
    assert!(alone.missing > 0 && alone.faults.is_empty(), "{alone:?}");

    let theirs = temp.path().join("theirs.wim");
    let delta = format!("--delta-from={}", text(&base));
    wimlib(&["capture", text(&two), text(&theirs), "--unix-data", "--norpfix", &delta]);
    assert_holds(&Wim::open_with(&theirs, &[&base]).unwrap(), 1, &two);

    // With its base a delta becomes a whole WIM again.
    let whole = temp.path().join("whole.wim");
    let delta = Wim::open_with(&ours, &[&base]).unwrap();
    let image = delta.load_image(1).unwrap();
    let options = WriteOptions { sync: false, ..WriteOptions::like(&delta) };
    create(&whole, &[image.source()], &options, &()).unwrap();
    wimlib_holds(&[text(&whole), "1"], &two);
}

#[test]
fn seeding_copies_what_another_wim_has() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    let base = temp.path().join("base.wim");
    create_from(&one, &base, &options());
    let plain = temp.path().join("plain.wim");
    let seeded = temp.path().join("seeded.wim");
    create_from(&two, &plain, &options());
    let lenders = vec![Wim::open(&base).unwrap()];
    let written = create_from(&two, &seeded, &WriteOptions { lenders, ..options() });
    assert!(written.lent_bytes > 1_000_000, "{written:?}");
    // Same level, so the lent bytes are what compressing would have given.
    assert_eq!(fs::read(&plain).unwrap(), fs::read(&seeded).unwrap());
}

#[test]
fn diff_names_what_changed_and_why() {
    let temp = TempDir::new().unwrap();
    let (one, two) = versions(temp.path());
    common::run("chmod", &["0640", text(&two.join("one"))]);
    let path = temp.path().join("a.wim");
    create_from(&one, &path, &options());
    append_from(&two, &path, "two");
    let wim = Wim::open(&path).unwrap();
    let (a, b) = (wim.load_tree(1).unwrap(), wim.load_tree(2).unwrap());
    let old = Side { tree: &a.0, contents: &a.1 };
    let new = Side { tree: &b.0, contents: &b.1 };
    let changes = diff(old, new).unwrap();
    let of = |path: &str| changes.iter().find(|change| change.path == path).unwrap();
    assert_eq!(of("/new").kind, ChangeKind::Added);
    assert_eq!(of("/zeros").kind, ChangeKind::Removed);
    assert!(of("/d1/random").reasons.contains(&Reason::Contents));
    assert_eq!(of("/one").reasons, [Reason::Unix]);
    assert!(diff(old, old).unwrap().is_empty());
    // The directory itself, hashed, against its image.
    let (tree, contents) = capture_directory(&one, &CaptureOptions::default()).unwrap();
    let same = diff(old, Side { tree: &tree, contents: &contents }).unwrap();
    assert!(same.is_empty(), "{same:?}");
}
