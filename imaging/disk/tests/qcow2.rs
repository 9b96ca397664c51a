//! qcow2 images made by QEMU read as QEMU reads them.

mod common;

use common::{by_qemu, noise, read_all, run};
use gilt_disk::{DiskError, ExtentContent, OpenOptions, extent_list, open, open_with};
use std::path::Path;

const MIB: usize = 1 << 20;

/// 12 MiB: noise, zeros, text, noise.
fn base_raw(folder: &Path) {
    let mut bytes = noise(1, 5 * MIB);
    bytes.resize(8 * MIB, 0);
    bytes.extend(b"the same line again and again\n".iter().cycle().take(2 * MIB));
    bytes.extend(noise(2, 2 * MIB));
    std::fs::write(folder.join("base.raw"), bytes).expect("base");
}

fn assert_same(folder: &Path, image: &str) {
    let want = by_qemu(folder, image);
    let disk = open(folder.join(image)).expect("open");
    // Steps that do and do not fit clusters and sub-clusters.
    for step in [MIB, 100_003] {
        let got = read_all(&disk, step);
        assert_eq!(got.len(), want.len(), "{image}: size");
        let differs = got.iter().zip(&want).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{image}: first difference, step {step}");
    }
    assert_eq!(disk.changed_file().expect("stamp"), None);
}

#[test]
fn every_cluster_layout_reads_as_qemu_reads_it() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    for (name, compress, options) in [
        ("plain", false, "cluster_size=64k"),
        ("v2", false, "compat=0.10"),
        ("tiny", false, "cluster_size=512"),
        ("large", true, "cluster_size=2M"),
        ("zlib", true, "compression_type=zlib"),
        ("zstd", true, "compression_type=zstd"),
        ("extl2", false, "extended_l2=on,cluster_size=128k"),
        ("extl2-zstd", true, "extended_l2=on,compression_type=zstd"),
        ("lazy", false, "lazy_refcounts=on"),
        ("outside", false, "data_file=outside.data"),
        ("outside-raw", false, "data_file=outside2.data,data_file_raw=on"),
    ] {
        let image = format!("{name}.qcow2");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        if compress {
            args.push("-c");
        }
        args.extend(["base.raw", &image]);
        run(folder, "qemu-img", &args);
        assert_same(folder, &image);
    }
}

#[test]
fn a_chain_of_three_with_a_growing_disk_reads_as_qemu_reads_it() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-c", "-O", "qcow2", "base.raw", "base.qcow2"]);
    let create = |options: &str, backing: &str, name: &str, size: &str| {
        let args = ["create", "-f", "qcow2", "-o", options, "-b", backing, "-F", "qcow2", name];
        run(folder, "qemu-img", &[args.as_slice(), &[size]].concat());
    };
    create("cluster_size=2M", "base.qcow2", "mid.qcow2", "14M");
    // An absolute name in the second link.
    let mid = folder.join("mid.qcow2");
    create("extended_l2=on", mid.to_str().expect("utf-8"), "top.qcow2", "15M");
    let io = |image: &str, commands: &[&str]| {
        let mut args = vec!["-f", "qcow2"];
        for command in commands {
            args.extend(["-c", command]);
        }
        args.push(image);
        run(folder, "qemu-io", &args);
    };
    io("mid.qcow2", &["write -P 7 100k 3000", "write -z 5M 2M", "write -P 9 13M 64k"]);
    io(
        "top.qcow2",
        &[
            "write -P 1 2048 2048",
            "write -P 2 512k 512",
            "write -z 1M 6k",
            "discard 3M 128k",
            "write -c -P 5 4M 64k",
            "write -P 3 14680064 100k",
        ],
    );
    assert_same(folder, "top.qcow2");

    // Only what the top layer wrote has depth 0.
    let disk = open(folder.join("top.qcow2")).expect("open");
    let reader = disk.reader();
    let list = extent_list(&*reader, 0..reader.len_bytes()).expect("extents");
    let total: u64 = list.iter().map(|extent| extent.len_bytes).sum();
    assert_eq!(total, reader.len_bytes(), "extents cover the disk");
    let at = |offset: u64| {
        let holds = |e: &&gilt_disk::Extent| (e.offset..e.offset + e.len_bytes).contains(&offset);
        list.iter().find(holds).expect("covered").content
    };
    assert_eq!(at(2048), ExtentContent::Data { depth: 0 });
    assert_eq!(at(4096), ExtentContent::Data { depth: 1 }, "2 MiB cluster of the middle");
    assert_eq!(at(1 << 20), ExtentContent::Zero { depth: 0 });
    assert_eq!(at(6 << 20), ExtentContent::Zero { depth: 1 });
    assert_eq!(at(11 << 20), ExtentContent::Data { depth: 2 });
    assert_eq!(disk.layers().len(), 3);
}

#[test]
fn a_snapshot_inside_the_image_is_opened_by_name() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-O", "qcow2", "base.raw", "disk.qcow2"]);
    run(folder, "qemu-img", &["snapshot", "-c", "before", "disk.qcow2"]);
    run(folder, "qemu-io", &["-c", "write -P 77 0 1M", "disk.qcow2"]);
    let named = |name: &str| OpenOptions { snapshot: Some(name.into()), ..Default::default() };
    let now = read_all(&open(folder.join("disk.qcow2")).expect("open"), MIB);
    assert_eq!(now[0], 77);
    let before = open_with(folder.join("disk.qcow2"), &named("before")).expect("snapshot");
    assert_eq!(read_all(&before, MIB), std::fs::read(folder.join("base.raw")).expect("base"));
    let missing = open_with(folder.join("disk.qcow2"), &named("after"));
    assert!(matches!(missing, Err(DiskError::NoSnapshot { .. })));
}

#[test]
fn a_raw_backing_image_is_never_probed_for_another_format() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    // A guest may write a qcow2 header into its raw disk to read files of the host.
    run(folder, "qemu-img", &["create", "-f", "qcow2", "trap.raw", "1M"]);
    let options = ["create", "-f", "qcow2", "-b", "trap.raw", "-F", "raw", "top.qcow2"];
    run(folder, "qemu-img", &options);
    let disk = open(folder.join("top.qcow2")).expect("open");
    assert_eq!(disk.layers()[1].format, gilt_disk::Format::Raw);
    assert_eq!(&read_all(&disk, MIB)[..4], b"QFI\xfb");
}

#[test]
fn a_backing_chain_that_turns_back_ends_with_an_error() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "qemu-img", &["create", "-f", "qcow2", "a.qcow2", "1M"]);
    run(folder, "qemu-img", &["create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2"]);
    run(folder, "qemu-img", &["rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2"]);
    let error = open(folder.join("b.qcow2")).err().expect("refused").to_string();
    assert!(error.contains("comes back"), "{error}");
}

#[test]
fn a_disk_of_a_running_machine_is_refused() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "qemu-img", &["create", "-f", "qcow2", "disk.qcow2", "1M"]);
    let socket = folder.join("nbd.sock");
    let mut server = std::process::Command::new("qemu-nbd")
        .args(["-k", socket.to_str().expect("utf-8"), "-f", "qcow2", "-t", "disk.qcow2"])
        .current_dir(folder)
        .spawn()
        .expect("needs qemu-nbd: run ci/setup");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !socket.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let refused = open(folder.join("disk.qcow2"));
    let diagnosis = OpenOptions { allow_in_use: true, ..Default::default() };
    let allowed = open_with(folder.join("disk.qcow2"), &diagnosis);
    server.kill().expect("stop");
    server.wait().expect("stopped");
    assert!(matches!(refused, Err(DiskError::InUse { .. })), "{:?}", refused.err());
    assert!(allowed.is_ok());

    // While we read, QEMU may not write.
    let _disk = open(folder.join("disk.qcow2")).expect("free again");
    let writer = std::process::Command::new("qemu-io")
        .args(["-c", "write 0 512", "disk.qcow2"])
        .current_dir(folder)
        .output()
        .expect("needs qemu-io: run ci/setup");
    let told = String::from_utf8_lossy(&writer.stderr).into_owned();
    assert!(!writer.status.success() && told.contains("lock"), "{told}");
}

#[test]
fn damaged_headers_are_errors_that_say_where() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "qemu-img", &["create", "-f", "qcow2", "disk.qcow2", "1M"]);
    let good = std::fs::read(folder.join("disk.qcow2")).expect("image");
    for (at, value) in [
        (4, 9_u32),         // version
        (20, 40),           // cluster bits
        (32, 1),            // encryption
        (36, u32::MAX),     // L1 entries
        (60, u32::MAX),     // snapshots
        (76, 1 << 30),      // unknown feature
        (100, 0xFFFF_FFF8), // header length
    ] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
        std::fs::write(folder.join("bad.qcow2"), bad).expect("write");
        let error = open(folder.join("bad.qcow2")).err().expect("refused").to_string();
        assert!(error.contains("bad.qcow2"), "{error}");
    }
}

#[test]
fn an_image_we_write_is_clean_and_equal() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    // A size that is no multiple of a cluster, and a hole over more than one L2 table.
    run(folder, "truncate", &["-s", "1200000512", "base.raw"]);
    let disk = open(folder.join("base.raw")).expect("open");
    gilt_disk::write_qcow2(&*disk.reader(), &folder.join("ours.qcow2")).expect("write");
    run(folder, "qemu-img", &["check", "ours.qcow2"]);
    run(folder, "qemu-img", &["compare", "base.raw", "ours.qcow2"]);
    let bytes = std::fs::metadata(folder.join("ours.qcow2")).expect("file").len();
    assert!(bytes < 11 << 20, "zeros are not stored: {bytes}");
}
