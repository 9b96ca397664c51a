//! Captures of ext4 disks against wimlib and against the tree the disk was made from.

mod common;
mod containers;
#[path = "../../disk/tests/common/vhdx.rs"]
mod vhdx;

use common::{Cancelled, assert_same, disk, facts, run, stage};
use containers::{Sectors, as_disk, every_container};
use gilt_capture::{
    CaptureError, CaptureOptions, CaptureRequest, Captured, ExcludeRules, Incremental,
    PartitionChoice, capture, capture_with,
};
use gilt_wim::{Compression, Progress};
use std::path::Path;

fn request<'a>(disk: &'a Path, out: &'a Path, progress: &'a dyn Progress) -> CaptureRequest<'a> {
    let mut request = CaptureRequest::new(disk, out, "test", progress);
    request.exclude = Some(ExcludeRules::none());
    request.write.compression = Compression::None;
    request.write.sync = false;
    request
}

fn take(folder: &Path, disk: &str, out: &str) -> Captured {
    capture(&request(&folder.join(disk), &folder.join(out), &())).expect("capture")
}

#[test]
fn a_capture_equals_wimlibs_of_the_same_tree_through_every_container() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    disk(folder);
    run(
        folder,
        "wimlib-imagex",
        &["capture", "stage", "theirs.wim", "--unix-data", "--compress=none"],
    );
    let mut theirs = facts(&folder.join("theirs.wim"));
    let before = std::fs::read(folder.join("disk.raw")).expect("disk");
    let captured = take(folder, "disk.raw", "raw.wim");
    assert_eq!((captured.partition, captured.label.as_str()), (2, "gilt-root"));
    let inventory = captured.inventory.expect("inventory");
    assert_eq!(inventory.system.id, "debian");
    assert_eq!(inventory.packages[0].version, "12.4");
    assert_eq!(inventory.kernels, ["6.1.0-1-amd64"]);
    let ours = facts(&folder.join("raw.wim"));
    // mke2fs adds this folder and sets its own time on the root.
    theirs.insert("/lost+found".into(), ours["/lost+found"].clone());
    theirs.insert(String::new(), ours[""].clone());
    assert_same(&ours, &theirs);
    run(folder, "wimlib-imagex", &["verify", "raw.wim"]);
    assert!(before == std::fs::read(folder.join("disk.raw")).expect("disk"), "source unchanged");

    as_disk(folder, "root.img", "4096.raw", Sectors::Bytes4096);
    for image in every_container(folder, "disk.raw").into_iter().chain(["4096.raw".into()]) {
        let before = containers::digest(folder, &image);
        take(folder, &image, "again.wim");
        assert_same(&facts(&folder.join("again.wim")), &ours);
        assert_eq!(containers::digest(folder, &image), before, "{image} was written to");
    }
}

#[test]
fn exclusions_are_left_out_and_told() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    disk(folder);
    let (disk, out) = (folder.join("disk.raw"), folder.join("out.wim"));
    let mut wanted = request(&disk, &out, &());
    let mut rules = ExcludeRules::linux_default();
    rules.exclude("/var/cache/apt/*.deb").expect("rule");
    wanted.exclude = Some(rules);
    let captured = capture(&wanted).expect("capture");
    let mut told = captured.excluded.paths;
    told.sort();
    assert_eq!(told, ["/lost+found", "/tmp/junk", "/var/cache/apt/x.deb"]);
    let kept = facts(&out);
    assert!(kept.contains_key("/tmp") && !kept.contains_key("/tmp/junk"));
}

#[test]
fn a_cancelled_or_failed_capture_leaves_no_file() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    disk(folder);
    let (disk, out) = (folder.join("disk.raw"), folder.join("out.wim"));
    let result = capture(&request(&disk, &out, &Cancelled));
    assert!(result.is_err());
    let mut wanted = request(&disk, &out, &());
    wanted.partition = PartitionChoice::Number(7);
    assert!(matches!(capture(&wanted), Err(CaptureError::NoPartition { number: 7, .. })));
    wanted.partition = PartitionChoice::Number(1);
    assert!(matches!(capture(&wanted), Err(CaptureError::NotReadable { number: 1, .. })));
    let left: Vec<_> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name())
        .filter(|name| name.to_string_lossy().contains("wim"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// `top.qcow2` over `base.qcow2`, with files changed by debugfs through a raw copy.
fn overlay(folder: &Path, script: &str) {
    let (raw, top) = ("changed.raw", "top.qcow2");
    run(folder, "qemu-img", &["convert", "-O", "raw", "base.qcow2", raw]);
    std::fs::write(folder.join("script"), script).expect("script");
    run(
        folder,
        "dd",
        &["if=changed.raw", "of=part.img", "bs=1M", "skip=9", "count=80", "status=none"],
    );
    run(folder, "debugfs", &["-w", "-f", "script", "part.img"]);
    run(
        folder,
        "dd",
        &["if=part.img", "of=changed.raw", "bs=1M", "seek=9", "conv=notrunc", "status=none"],
    );
    // Only what differs goes into the overlay.
    run(folder, "qemu-img", &["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top]);
    let old = std::fs::read(folder.join("disk.raw")).expect("old");
    let new = std::fs::read(folder.join(raw)).expect("new");
    let mut commands = String::new();
    for (index, (a, b)) in old.chunks(4096).zip(new.chunks(4096)).enumerate() {
        if a != b {
            std::fs::write(folder.join(format!("block{index}")), b).expect("block");
            let at = index * 4096;
            commands += &format!("write -q -s block{index} {at} 4096\n");
        }
    }
    std::fs::write(folder.join("commands"), commands + "quit\n").expect("commands");
    run(folder, "sh", &["-c", "qemu-io top.qcow2 < commands"]);
}

#[test]
fn an_incremental_capture_equals_a_full_one_and_reads_only_what_changed() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    disk(folder);
    std::fs::write(folder.join("new"), common::noise(999, 40_000)).expect("new file");
    run(folder, "qemu-img", &["convert", "-O", "qcow2", "disk.raw", "base.qcow2"]);
    let (base, top) = (folder.join("base.qcow2"), folder.join("top.qcow2"));
    let lzx = |disk: &Path, out: &Path, previous: Option<&Path>| {
        let mut wanted = request(disk, out, &());
        wanted.write.compression = Compression::Lzx;
        let options = CaptureOptions {
            previous: previous.map(Path::to_owned),
            write_index: true,
            verify_incremental: true,
            ..CaptureOptions::default()
        };
        capture_with(&wanted, &options).expect("capture")
    };
    let first = folder.join("first.wim");
    lzx(&base, &first, None);
    // A file is overwritten in place behind the back of its inode, one is new, one is gone.
    let blocks = run(folder, "debugfs", &["-R", "blocks /usr/lib/file0200", "root.img"]);
    let block: u64 = blocks.split_whitespace().next().expect("block").parse().expect("number");
    overlay(
        folder,
        &format!("zap_block -p 0x5a {block}\nrm /usr/lib/file0007\nwrite new /etc/new\n"),
    );

    let full_out = folder.join("full.wim");
    lzx(&top, &full_out, None);
    let out = folder.join("second.wim");
    let second = lzx(&top, &out, Some(&first));
    let Incremental::Used { known_bytes, changed_bytes, verified_files } = second.incremental
    else {
        panic!("{:?}", second.incremental)
    };
    assert!(changed_bytes > 0 && changed_bytes < 2 << 20, "{changed_bytes}");
    assert!(verified_files > 200 && known_bytes > 1_000_000, "{verified_files} {known_bytes}");
    assert_same(&facts(&out), &facts(&full_out));
    assert_ne!(
        facts(&out)["/usr/lib/file0200"],
        facts(&first)["/usr/lib/file0200"],
        "overwritten in place"
    );
    for (wim, out) in [("second.wim", "unpacked"), ("full.wim", "reference")] {
        run(folder, "wimlib-imagex", &["apply", wim, "1", out, "--quiet"]);
    }
    run(folder, "diff", &["-r", "--no-dereference", "unpacked", "reference"]);

    // The same disk again: nothing is read.
    let again = folder.join("again.wim");
    let third = lzx(&top, &again, Some(&out));
    assert!(
        matches!(third.incremental, Incremental::Used { changed_bytes: 0, .. }),
        "{:?}",
        third.incremental
    );
    assert_same(&facts(&again), &facts(&full_out));

    // A base that was written to since is not trusted.
    run(folder, "qemu-io", &["-c", "write 60M 4k", "base.qcow2"]);
    let ignored = lzx(&top, &again, Some(&out)).incremental;
    assert!(
        matches!(&ignored, Incremental::Ignored { reason } if reason.contains("not built over")),
        "{ignored:?}"
    );
}
