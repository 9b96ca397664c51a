//! Captures of ext4 disks against wimlib and against the tree the disk was made from.

mod common;

use common::{Cancelled, assert_same, disk, facts, run, stage};
use gilt_capture::{
    CaptureError, CaptureRequest, Captured, ExcludeRules, PartitionChoice, capture,
};
use gilt_disk::OpenOptions;
use gilt_wim::{Compression, ImageInfo, Progress, WriteOptions};
use std::path::Path;

fn request<'a>(disk: &'a Path, out: &'a Path, progress: &'a dyn Progress) -> CaptureRequest<'a> {
    CaptureRequest {
        disk,
        open: OpenOptions::default(),
        partition: PartitionChoice::Auto,
        exclude: Some(ExcludeRules::none()),
        out,
        info: ImageInfo::named("test"),
        write: WriteOptions { compression: Compression::None, sync: false, ..Default::default() },
        progress,
    }
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

    run(folder, "qemu-img", &["convert", "-c", "-O", "qcow2", "disk.raw", "base.qcow2"]);
    let overlay = ["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"];
    run(folder, "qemu-img", &overlay);
    take(folder, "base.qcow2", "base.wim");
    assert_same(&facts(&folder.join("base.wim")), &ours);
    take(folder, "top.qcow2", "top.wim");
    assert_same(&facts(&folder.join("top.wim")), &ours);
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
