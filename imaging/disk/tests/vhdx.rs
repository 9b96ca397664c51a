//! VHDX and VHD: dynamic and fixed ones by QEMU; differencing ones and logs composed here from the
//! specification, because no free tool makes them. QEMU replays our logs to the same bytes.

mod common;
#[path = "common/vhdx.rs"]
mod compose;

use common::{by_qemu, noise, read_all, run};
use compose::{Own, active_header, data_write_id, differencing, into_log, le64, put, regions};
use gilt_disk::{DiskError, ExtentContent, Format, extent_list, open};
use std::path::Path;

const MIB: usize = 1 << 20;

fn base_raw(folder: &Path) {
    let mut bytes = noise(1, 3 * MIB);
    bytes.resize(40 * MIB, 0);
    bytes.extend(noise(2, 2 * MIB));
    bytes.resize(64 * MIB, 0);
    std::fs::write(folder.join("base.raw"), bytes).expect("base");
}

fn assert_equal(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: size");
    assert_eq!(got.iter().zip(want).position(|(a, b)| a != b), None, "{what}: first difference");
}

#[test]
fn images_made_by_qemu_read_as_qemu_reads_them() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    for (name, kind, options, format) in [
        ("dynamic.vhdx", "vhdx", "subformat=dynamic", Format::Vhdx),
        ("small.vhdx", "vhdx", "subformat=dynamic,block_size=1M", Format::Vhdx),
        ("fixed.vhdx", "vhdx", "subformat=fixed", Format::Vhdx),
        ("dynamic.vhd", "vpc", "subformat=dynamic,force_size=on", Format::Vhd),
        ("fixed.vhd", "vpc", "subformat=fixed,force_size=on", Format::Vhd),
    ] {
        run(folder, "qemu-img", &["convert", "-O", kind, "-o", options, "base.raw", name]);
        let disk = open(folder.join(name)).expect("open");
        assert_eq!(disk.layers()[0].format, format, "{name}");
        // QEMU takes a fixed VHD for a raw disk unless it is told.
        run(folder, "qemu-img", &["convert", "-f", kind, "-O", "raw", name, "oracle.raw"]);
        let theirs = std::fs::read(folder.join("oracle.raw")).expect("oracle");
        assert_equal(&read_all(&disk, 100_003), &theirs, name);
    }
}

#[test]
fn an_image_we_write_is_equal_and_the_same_disk_is_the_same_file() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    // No multiple of a block, and more blocks than one chunk has.
    run(folder, "truncate", &["-s", "5000000512", "base.raw"]);
    let disk = open(folder.join("base.raw")).expect("open");
    for name in ["ours.vhdx", "again.vhdx"] {
        gilt_disk::write_vhdx(&*disk.reader(), &folder.join(name)).expect("write");
    }
    run(folder, "qemu-img", &["compare", "-f", "raw", "-F", "vhdx", "base.raw", "ours.vhdx"]);
    let ours = std::fs::read(folder.join("ours.vhdx")).expect("file");
    assert!(ours.len() < 16 << 20, "zeros are not stored: {}", ours.len());
    assert!(ours == std::fs::read(folder.join("again.vhdx")).expect("file"));
    let reread = open(folder.join("ours.vhdx")).expect("open");
    let mut last = vec![0; 2 * MIB];
    reread.reader().read_at(40 * MIB as u64, &mut last).expect("read");
    assert_equal(&last, &noise(2, 2 * MIB), "through our own reader");

    // Another disk is known by another id, and a child of ours by the one it has.
    std::fs::write(folder.join("other.raw"), noise(9, MIB)).expect("other");
    let other = open(folder.join("other.raw")).expect("open");
    gilt_disk::write_vhdx(&*other.reader(), &folder.join("other.vhdx")).expect("write");
    let id = data_write_id(folder, "ours.vhdx");
    assert_ne!(id, data_write_id(folder, "other.vhdx"));
    child_of(folder, "child.avhdx", "ours.vhdx", &id);
    assert_eq!(open(folder.join("child.avhdx")).expect("open").layers().len(), 2);

    std::fs::write(folder.join("odd.raw"), noise(9, 1000)).expect("odd");
    let odd = open(folder.join("odd.raw")).expect("open");
    let error = gilt_disk::write_vhdx(&*odd.reader(), &folder.join("odd.vhdx")).unwrap_err();
    assert!(error.to_string().contains("whole sectors"), "{error}");
}

/// A child of `parent` in which 1 MiB block 1 is whole, block 2 is partial (sectors 1 and 100..200 are
/// its own), block 3 is zero.
fn child_of(folder: &Path, child: &str, parent: &str, linkage: &str) {
    let sectors = [1].into_iter().chain(100..200).collect();
    let own = [
        (1, Own::Whole(noise(31, MIB))),
        (2, Own::Sectors(sectors, noise(32, MIB))),
        (3, Own::Zeros),
    ];
    differencing(folder, child, parent, linkage, 64 << 20, &own);
}

fn expected_over(parent: &[u8]) -> Vec<u8> {
    let mut want = parent.to_vec();
    put(&mut want, MIB, &noise(31, MIB));
    let own = noise(32, MIB);
    put(&mut want, 2 * MIB + 512, &own[512..1024]);
    put(&mut want, 2 * MIB + 51_200, &own[51_200..102_400]);
    put(&mut want, 3 * MIB, &vec![0; MIB]);
    want
}

#[test]
fn a_differencing_chain_is_read_sector_by_sector_and_its_linkage_checked() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-O", "vhdx", "base.raw", "base.vhdx"]);
    child_of(folder, "child.avhdx", "base.vhdx", &data_write_id(folder, "base.vhdx"));
    let base = std::fs::read(folder.join("base.raw")).expect("base");
    let want = expected_over(&base);
    let disk = open(folder.join("child.avhdx")).expect("open");
    assert_eq!(disk.layers().len(), 2);
    assert_equal(&read_all(&disk, 70_001), &want, "child");
    let reader = disk.reader();
    let list = extent_list(&*reader, 0..reader.len_bytes()).expect("extents");
    let own: u64 = list
        .iter()
        .filter(|e| e.content == ExtentContent::Data { depth: 0 })
        .map(|e| e.len_bytes)
        .sum();
    assert_eq!(own, (MIB + 101 * 512) as u64, "what the child holds, by sectors");

    // A second child over the first.
    child_of(folder, "grandchild.avhdx", "child.avhdx", &data_write_id(folder, "child.avhdx"));
    let disk = open(folder.join("grandchild.avhdx")).expect("open");
    assert_equal(&read_all(&disk, MIB), &expected_over(&want), "grandchild");

    // A parent that is not the one it was made over.
    let stranger = "{00000000-1111-2222-3333-444444444444}";
    child_of(folder, "wrong.avhdx", "base.vhdx", stranger);
    let error = open(folder.join("wrong.avhdx")).err().expect("refused");
    assert!(matches!(&error, DiskError::Chain { .. }), "{error}");
    assert!(error.to_string().contains("not the parent"), "{error}");
    child_of(folder, "lost.avhdx", "gone.vhdx", stranger);
    let error = open(folder.join("lost.avhdx")).err().expect("refused").to_string();
    assert!(error.contains("gone.vhdx"), "{error}");
    child_of(folder, "own.avhdx", "own.avhdx", stranger);
    let error = open(folder.join("own.avhdx")).err().expect("refused").to_string();
    assert!(error.contains("comes back"), "{error}");
}

#[test]
fn a_log_is_replayed_in_memory_and_the_file_stays_as_it_is() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(
        folder,
        "qemu-img",
        &["convert", "-O", "vhdx", "-o", "block_size=1M", "base.raw", "clean.vhdx"],
    );
    let mut file = std::fs::read(folder.join("clean.vhdx")).expect("image");
    let (bat, metadata) = regions(&file);
    let data = file.len() - 3 * MIB;
    let data = data as u64 / 4096 * 4096;
    // The block table, the metadata and some data exist in the log only.
    let sectors = [bat as u64, metadata as u64, metadata as u64 + 65_536, data, data + 8192];
    let unused = regions(&file).1 as u64 + (256 << 10);
    into_log(&mut file, &sectors, &[(unused, 8192)]);
    std::fs::write(folder.join("dirty.vhdx"), &file).expect("dirty");

    let disk = open(folder.join("dirty.vhdx")).expect("open");
    let base = std::fs::read(folder.join("base.raw")).expect("base");
    assert_equal(&read_all(&disk, 100_003), &base, "replayed");
    assert!(disk.layers()[0].notes.iter().any(|note| note.starts_with("2 log entries")));
    assert!(file == std::fs::read(folder.join("dirty.vhdx")).expect("dirty"), "never written");

    // The referee replays the same log, into a copy.
    run(folder, "cp", &["dirty.vhdx", "theirs.vhdx"]);
    run(folder, "qemu-img", &["check", "-q", "-r", "all", "theirs.vhdx"]);
    assert_equal(&by_qemu(folder, "theirs.vhdx"), &base, "replayed by QEMU");

    // An entry cut short ends the sequence before it: then no whole sequence is left.
    let header = active_header(&file);
    let log_at = le64(&file, header + 72) as usize;
    let mut torn = file.clone();
    torn[log_at + 3 * 4096 + 5000] ^= 1;
    std::fs::write(folder.join("torn.vhdx"), &torn).expect("torn");
    let error = open(folder.join("torn.vhdx")).err().expect("refused").to_string();
    assert!(error.contains("no whole sequence"), "{error}");
}

#[test]
fn damage_is_an_error_and_the_second_copy_of_each_table_is_used() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-O", "vhdx", "base.raw", "good.vhdx"]);
    let good = std::fs::read(folder.join("good.vhdx")).expect("image");
    let read = |bytes: &[u8]| {
        std::fs::write(folder.join("bad.vhdx"), bytes).expect("write");
        open(folder.join("bad.vhdx"))
    };
    let mut bad = good.clone();
    bad[(192 << 10) + 100] ^= 1;
    assert!(read(&bad).is_ok(), "second region table");
    bad[(256 << 10) + 100] ^= 1;
    assert!(read(&bad).is_err(), "both region tables");
    let mut bad = good.clone();
    bad[(64 << 10) + 100] ^= 1;
    bad[(128 << 10) + 100] ^= 1;
    let error = read(&bad).err().expect("refused").to_string();
    assert!(error.contains("both headers"), "{error}");
}
