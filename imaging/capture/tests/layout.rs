//! Disks laid out from a WIM are right for sgdisk, fsck.vfat, e2fsck and for a second capture.

mod common;

use common::{assert_same, facts, noise, run, stage};
use gilt_capture::{
    CaptureError, CaptureRequest, ExcludeRules, ExtraFile, LayoutRequest, OutFormat, capture,
    layout,
};
use gilt_wim::Compression;
use std::path::Path;

fn wim(folder: &Path) {
    stage(folder);
    let grub = folder.join("stage/usr/lib/grub/x86_64-efi/monolithic");
    std::fs::create_dir_all(&grub).expect("folder");
    std::fs::write(grub.join("grubx64.efi"), noise(77, 2_000_003)).expect("file");
    run(
        folder,
        "wimlib-imagex",
        &["capture", "stage", "image.wim", "--unix-data", "--compress=LZX:1"],
    );
}

fn recapture(folder: &Path, disk: &str, out: &str) {
    let (disk, out) = (folder.join(disk), folder.join(out));
    let mut request = CaptureRequest::new(&disk, &out, "again", &());
    request.exclude = Some(ExcludeRules::none());
    request.write.compression = Compression::None;
    capture(&request).expect("capture");
}

#[test]
fn a_laid_out_disk_is_clean_and_holds_the_image() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    wim(folder);
    let (image, raw, qcow2) =
        (folder.join("image.wim"), folder.join("disk.raw"), folder.join("disk.qcow2"));
    let request = |out| LayoutRequest {
        seed: Some([7; 32]),
        created: 1_767_323_045,
        ..LayoutRequest::new(&image, out, 400 << 20, &())
    };
    layout(&LayoutRequest { format: OutFormat::Raw, ..request(&raw) }).expect("layout");
    layout(&request(&qcow2)).expect("layout");
    run(folder, "qemu-img", &["compare", "disk.raw", "disk.qcow2"]);
    run(folder, "qemu-img", &["check", "disk.qcow2"]);

    let told = run(folder, "sgdisk", &["-v", "disk.raw"]);
    assert!(told.contains("No problems found"), "{told}");
    run(folder, "dd", &["if=disk.raw", "of=esp.img", "bs=1M", "skip=1", "count=64", "status=none"]);
    run(folder, "fsck.vfat", &["-n", "esp.img"]);
    let config = run(folder, "mtype", &["-i", "esp.img", "::EFI/debian/grub.cfg"]);
    assert!(config.starts_with("search --no-floppy --label gilt-root --set=root"), "{config}");
    run(folder, "mcopy", &["-i", "esp.img", "::EFI/BOOT/BOOTX64.EFI", "loader"]);
    assert!(std::fs::read(folder.join("loader")).expect("loader") == noise(77, 2_000_003));
    run(
        folder,
        "dd",
        &["if=disk.raw", "of=root.img", "bs=1M", "skip=65", "count=334", "status=none"],
    );
    run(folder, "e2fsck", &["-fn", "root.img"]);

    recapture(folder, "disk.qcow2", "again.wim");
    let mut ours = facts(&folder.join("again.wim"));
    ours.remove("/lost+found");
    assert_same(&ours, &facts(&image));
    let left: Vec<_> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
        .filter(|name| name.contains(".layout-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn extra_files_are_in_the_disk_and_replace_what_was_there() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    wim(folder);
    let (image, raw) = (folder.join("image.wim"), folder.join("disk.raw"));
    let key = ExtraFile {
        path: "/root/.ssh/authorized_keys".into(),
        contents: b"ssh-ed25519 AAAA test\n".to_vec(),
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    // Through a link that the image has: /bin is usr/bin.
    let tool = ExtraFile { mode: 0o755, ..ExtraFile::text("/bin/tool", "replaced\n") };
    let request = LayoutRequest {
        format: OutFormat::Raw,
        hostname: Some("probe".into()),
        extra_files: vec![key, tool],
        ..LayoutRequest::new(&image, &raw, 400 << 20, &())
    };
    layout(&request).expect("layout");
    run(
        folder,
        "dd",
        &["if=disk.raw", "of=root.img", "bs=1M", "skip=65", "count=334", "status=none"],
    );
    run(folder, "e2fsck", &["-fn", "root.img"]);
    let cat = |path: &str| run(folder, "debugfs", &["-R", &format!("cat {path}"), "root.img"]);
    assert_eq!(cat("/root/.ssh/authorized_keys"), "ssh-ed25519 AAAA test\n");
    assert_eq!(cat("/etc/hostname"), "probe\n");
    assert_eq!(cat("/usr/bin/tool"), "replaced\n");
    // The other name of the replaced file keeps its contents.
    run(folder, "debugfs", &["-R", "dump /usr/bin/tool2 tool2", "root.img"]);
    assert!(std::fs::read(folder.join("tool2")).expect("tool2") == noise(2, 300_001));
}

#[test]
fn what_cannot_boot_or_fit_is_refused_and_leaves_nothing() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    run(
        folder,
        "wimlib-imagex",
        &["capture", "stage", "bare.wim", "--unix-data", "--compress=none"],
    );
    run(folder, "wimlib-imagex", &["capture", "stage", "windows.wim", "--compress=none"]);
    let (bare, windows, out) =
        (folder.join("bare.wim"), folder.join("windows.wim"), folder.join("disk.qcow2"));
    let error = layout(&LayoutRequest::new(&bare, &out, 400 << 20, &())).expect_err("no loader");
    assert!(matches!(error, CaptureError::Layout { .. }), "{error}");
    let no_boot = |wim, size| LayoutRequest {
        boot: gilt_capture::BootLoader::None,
        ..LayoutRequest::new(wim, &out, size, &())
    };
    let error = layout(&no_boot(&windows, 400 << 20)).expect_err("no owners").to_string();
    assert!(error.contains("not captured from Unix"), "{error}");
    let error = layout(&no_boot(&bare, 70 << 20)).expect_err("too small").to_string();
    assert!(error.contains("too small"), "{error}");
    assert!(!out.exists());
}
