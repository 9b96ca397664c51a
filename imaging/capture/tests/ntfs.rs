//! Captures of NTFS volumes made by mkntfs and wimlib, against wimlib's own capture of them.

mod common;

use common::{assert_same, facts, noise, run};
use gilt_capture::{
    CaptureOptions, CaptureRequest, Captured, ExcludeRules, Incremental, PartitionChoice, capture,
    capture_with,
};
use gilt_wim::Compression;
use std::path::Path;

/// `part.img`: NTFS with some files, links and named streams.
fn volume(folder: &Path) {
    let stage = folder.join("tree");
    std::fs::create_dir_all(stage.join("Windows/System32/config")).expect("folder");
    std::fs::create_dir_all(stage.join("Users/Default")).expect("folder");
    for index in 0..400_u64 {
        let path = format!("Windows/System32/file{index:04}.dll");
        std::fs::write(stage.join(path), noise(index + 1, 20 + index as usize * 61)).expect("file");
    }
    std::fs::write(stage.join("pagefile.sys"), noise(1, 50_000)).expect("file");
    std::fs::write(stage.join("Users/Default/x.txt"), "ä".repeat(9000)).expect("file");
    std::fs::hard_link(
        stage.join("Windows/System32/file0300.dll"),
        stage.join("Users/Default/linked.dll"),
    )
    .expect("link");
    // wimlib leaves out pagefile.sys unless told otherwise.
    std::fs::write(folder.join("all.ini"), "[ExclusionList]\n").expect("config");
    let all = ["--config=all.ini", "--compress=none"];
    run(folder, "wimlib-imagex", &[&["capture", "tree", "tree.wim"], &all[..]].concat());
    run(folder, "truncate", &["-s", "64M", "part.img"]);
    run(folder, "mkntfs", &["-F", "-Q", "-q", "-L", "System", "part.img"]);
    run(folder, "wimlib-imagex", &["apply", "tree.wim", "1", "part.img"]);
}

fn request<'a>(disk: &'a Path, out: &'a Path) -> CaptureRequest<'a> {
    let mut request = CaptureRequest::new(disk, out, "ntfs", &());
    request.exclude = Some(ExcludeRules::none());
    request.write.compression = Compression::None;
    request.write.sync = false;
    request
}

fn take(folder: &Path, disk: &str, out: &str, previous: Option<&str>) -> Captured {
    let (disk, out) = (folder.join(disk), folder.join(out));
    let options = CaptureOptions {
        previous: previous.map(|name| folder.join(name)),
        write_index: true,
        verify_incremental: true,
        ..CaptureOptions::default()
    };
    capture_with(&request(&disk, &out), &options).expect("capture")
}

#[test]
fn a_capture_equals_wimlibs_of_the_same_volume_through_every_container() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    volume(folder);
    run(
        folder,
        "wimlib-imagex",
        &["capture", "part.img", "theirs.wim", "--compress=none", "--config=all.ini"],
    );
    let theirs = facts(&folder.join("theirs.wim"));
    let done = take(folder, "part.img", "bare.wim", None);
    assert_eq!((done.partition, done.label.as_str()), (0, "System"));
    assert_same(&facts(&folder.join("bare.wim")), &theirs);
    run(folder, "wimlib-imagex", &["verify", "bare.wim"]);
    for (kind, options) in [
        ("qcow2", "compression_type=zstd"),
        ("vhdx", "subformat=dynamic"),
        ("vpc", "subformat=dynamic,force_size=on"),
    ] {
        let image = format!("disk.{kind}");
        run(folder, "qemu-img", &["convert", "-O", kind, "-o", options, "part.img", &image]);
        take(folder, &image, "container.wim", None);
        assert_same(&facts(&folder.join("container.wim")), &theirs);
    }
    // The usual exclusions.
    let (disk, out) = (folder.join("part.img"), folder.join("usual.wim"));
    let mut usual = request(&disk, &out);
    usual.exclude = None;
    usual.partition = PartitionChoice::Auto;
    let captured = capture(&usual).expect("capture");
    assert_eq!(captured.excluded.paths, ["/pagefile.sys"]);
}

#[test]
fn an_incremental_capture_of_ntfs_reads_only_what_changed() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    volume(folder);
    run(folder, "cp", &["part.img", "changed.img"]);
    take(folder, "part.img", "first.wim", None);
    std::fs::write(folder.join("new"), noise(777, 30_000)).expect("new");
    run(folder, "ntfscp", &["-q", "changed.img", "new", "/Users/Default/new.bin"]);
    run(folder, "ntfscp", &["-q", "changed.img", "new", "/Windows/System32/file0399.dll"]);
    run(
        folder,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", "changed.img", "-F", "raw", "top.qcow2"],
    );
    run(folder, "qemu-img", &["rebase", "-f", "qcow2", "-b", "part.img", "-F", "raw", "top.qcow2"]);
    let second = take(folder, "top.qcow2", "second.wim", Some("first.wim"));
    let Incremental::Used { known_bytes, changed_bytes, verified_files } = second.incremental
    else {
        panic!("{:?}", second.incremental)
    };
    assert!(changed_bytes > 0 && known_bytes > 2_000_000, "{changed_bytes} {known_bytes}");
    assert!(verified_files > 200, "{verified_files}");
    take(folder, "changed.img", "full.wim", None);
    assert_same(&facts(&folder.join("second.wim")), &facts(&folder.join("full.wim")));
    assert_contents_same(folder, "second.wim", "full.wim");
}

/// Every byte of both, unpacked by wimlib.
fn assert_contents_same(folder: &Path, one: &str, other: &str) {
    for (wim, out) in [(one, "one"), (other, "other")] {
        let _ = std::fs::remove_dir_all(folder.join(out));
        run(folder, "wimlib-imagex", &["apply", wim, "1", out, "--quiet"]);
    }
    run(folder, "diff", &["-r", "one", "other"]);
}

#[test]
fn a_first_capture_seeded_by_another_wim_has_the_contents_of_one_that_is_not() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    volume(folder);
    // What the lender has: nine tenths of the files, by wimlib, in chunks like ours.
    for index in (0..400).step_by(10) {
        let name = format!("tree/Windows/System32/file{index:04}.dll");
        std::fs::remove_file(folder.join(name)).expect("file");
    }
    run(folder, "wimlib-imagex", &["capture", "tree", "lender.wim", "--compress=LZX", "--quiet"]);
    let lent = |lenders: &[&str], out: &str| {
        let (disk, out) = (folder.join("part.img"), folder.join(out));
        let mut wanted = request(&disk, &out);
        wanted.write.compression = Compression::Lzx;
        let open = |name: &&str| gilt_wim::Wim::open(folder.join(name)).expect("lender");
        wanted.write.lenders = lenders.iter().map(open).collect();
        let done = capture(&wanted).expect("capture");
        assert_eq!(done.incremental, Incremental::NotAsked);
        done.written
    };
    let (alone, seeded) = (lent(&[], "alone.wim"), lent(&["lender.wim"], "seeded.wim"));
    assert_eq!((alone.lent_bytes, seeded.unique_bytes), (0, alone.unique_bytes));
    assert!(seeded.lent_bytes * 10 > seeded.file_bytes * 8, "{seeded:?}");
    assert_same(&facts(&folder.join("seeded.wim")), &facts(&folder.join("alone.wim")));
    assert_contents_same(folder, "seeded.wim", "alone.wim");
}
