//! Partition tables made by sgdisk and sfdisk.

mod common;

use common::run;
use gilt_disk::{PartitionKind, TableKind, open, partitions, type_guid};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn gpt_disk(folder: &Path) -> Vec<u8> {
    run(folder, "truncate", &["-s", "64M", "disk.raw"]);
    let args = [
        "-a",
        "2048",
        "-n",
        "1:2048:+10M",
        "-t",
        "1:ef00",
        "-c",
        "1:ESP",
        "-n",
        "3:0:+20M",
        "-t",
        "3:8300",
        "-c",
        "3:Wurzel-ß",
        "-A",
        "3:set:60",
        "disk.raw",
    ];
    run(folder, "sgdisk", &args);
    std::fs::read(folder.join("disk.raw")).expect("disk")
}

fn check(bytes: Vec<u8>) -> gilt_disk::PartitionTable {
    let table = partitions(&bytes).expect("table");
    assert_eq!(table.kind, TableKind::Gpt);
    assert_eq!(table.partitions.len(), 2);
    let root = &table.partitions[1];
    assert_eq!((root.number, root.len_bytes), (3, 20 << 20));
    assert_eq!(root.start, (1 << 20) + (10 << 20));
    match &root.kind {
        PartitionKind::Gpt { name, attributes, .. } => {
            assert_eq!(name, "Wurzel-ß");
            assert_eq!(*attributes, 1 << 60);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(table.partitions[0].type_guid(), Some(type_guid::ESP));
    table
}

#[test]
fn both_copies_of_a_gpt_are_read_and_the_good_one_used() {
    let temp = tempfile::tempdir().expect("temp");
    let good = gpt_disk(temp.path());
    assert_eq!(check(good.clone()).problems, Vec::<String>::new());

    let mut first_bad = good.clone();
    first_bad[512 + 60] ^= 1;
    let problems = check(first_bad.clone()).problems;
    assert!(problems[0].contains("primary GPT is damaged (checksum of the header"), "{problems:?}");

    let mut entries_bad = good.clone();
    entries_bad[1024 + 130] ^= 1;
    let problems = check(entries_bad).problems;
    assert!(problems[0].contains("checksum of the entries"), "{problems:?}");

    let mut second_bad = good.clone();
    let last = second_bad.len() - 512;
    second_bad[last + 60] ^= 1;
    let problems = check(second_bad.clone()).problems;
    assert!(problems[0].contains("backup GPT is damaged"), "{problems:?}");

    first_bad[last + 60] ^= 1;
    let error = partitions(&first_bad).expect_err("both bad").to_string();
    assert!(error.contains("damaged in both copies"), "{error}");
}

#[test]
fn a_grown_disk_tells_that_the_backup_is_not_at_its_end() {
    let temp = tempfile::tempdir().expect("temp");
    let mut grown = gpt_disk(temp.path());
    grown.resize(80 << 20, 0);
    let problems = check(grown).problems;
    assert!(problems[0].contains("not at the end"), "{problems:?}");
}

#[test]
fn sectors_of_4096_bytes_are_found_by_content() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "truncate", &["-s", "64M", "disk.raw"]);
    // No tool of Debian 12 writes a table with these sectors into a file; gptman does.
    let path = folder.join("disk.raw");
    let mut file = std::fs::File::options().read(true).write(true).open(path).expect("open");
    let mut table = gptman::GPT::new_from(&mut file, 4096, [7; 16]).expect("table");
    for (number, first, last, kind) in
        [(1, 256, 1279, type_guid::ESP.0), (2, 2048, 4095, type_guid::LINUX_DATA.0)]
    {
        table[number] = gptman::GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: [number as u8; 16],
            starting_lba: first,
            ending_lba: last,
            attribute_bits: 0,
            partition_name: "part".into(),
        };
    }
    table.write_into(&mut file).expect("write");
    gptman::GPT::write_protective_mbr_into(&mut file, 4096).expect("protective");
    drop(file);
    let disk = open(folder.join("disk.raw")).expect("open");
    let table = partitions(&*disk.reader()).expect("table");
    assert_eq!(table.sector_bytes, 4096);
    assert_eq!(table.partitions[0].start, 1 << 20);
    assert_eq!(table.partitions[1].len_bytes, 8 << 20);
}

/// A disk with an MBR, and two logical partitions in its second one.
fn logical_partitions(folder: &Path) -> Vec<u8> {
    run(folder, "truncate", &["-s", "64M", "disk.raw"]);
    let mut child = Command::new("sfdisk")
        .arg("disk.raw")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("needs sfdisk: run ci/setup");
    let script = b"label: dos\nd1 : size=8M,type=7,bootable\nd2 : size=40M,type=5\nd5 : size=10M,type=83\nd6 : size=12M,type=83\n";
    child.stdin.take().expect("pipe").write_all(script).expect("script");
    assert!(child.wait().expect("sfdisk").success());
    std::fs::read(folder.join("disk.raw")).expect("disk")
}

#[test]
fn an_mbr_with_logical_partitions_is_read() {
    let temp = tempfile::tempdir().expect("temp");
    let bytes = logical_partitions(temp.path());
    let table = partitions(&bytes).expect("table");
    assert_eq!(table.kind, TableKind::Mbr);
    let numbers: Vec<_> = table.partitions.iter().map(|p| (p.number, p.len_bytes)).collect();
    assert_eq!(numbers, [(1, 8 << 20), (5, 10 << 20), (6, 12 << 20)]);
    assert_eq!(table.partitions[0].kind, PartitionKind::Mbr { type_id: 7, active: true });
    assert_eq!(table.problems, Vec::<String>::new());
}

#[test]
fn a_chain_of_logical_partitions_that_turns_back_is_told() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let mut bytes = logical_partitions(folder);
    let le32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
    let extended = le32(446 + 16 + 8) as usize * 512;
    let second = extended + le32(extended + 446 + 16 + 8) as usize * 512;
    // The last one names a next one: the first.
    bytes[second + 446 + 16 + 4] = 5;
    bytes[second + 446 + 16 + 8..second + 446 + 16 + 16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    let table = partitions(&bytes).expect("table");
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 5, 6]);
    let told = &table.problems;
    assert!(told.iter().any(|problem| problem.contains("turns back at 6")), "{told:?}");
}

#[test]
fn a_bare_file_system_has_no_table() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    run(folder, "truncate", &["-s", "64M", "fat.raw"]);
    run(folder, "mkfs.vfat", &["-F", "32", "fat.raw"]);
    let bytes = std::fs::read(folder.join("fat.raw")).expect("disk");
    assert!(partitions(&bytes).is_err());
}
