//! One disk in every container: by qemu-img where it can, else composed from the specification.
#![allow(dead_code)]

use crate::common::run;
use crate::vhdx::{Own, data_write_id, differencing, into_log, regions};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MIB: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sectors {
    Bytes512,
    Bytes4096,
}

/// `volume` as the first partition of `disk`, 1 MiB from its start, in a GPT.
pub fn as_disk(folder: &Path, volume: &str, disk: &str, sectors: Sectors) {
    let len = std::fs::metadata(folder.join(volume)).expect("volume").len();
    let path = folder.join(disk);
    // Whole MiB, as VHDX wants it, with room for the second table.
    let disk_bytes = (len + 4 * MIB as u64).next_multiple_of(MIB as u64);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.as_mut().expect("disk");
    file.set_len(disk_bytes).expect("size");
    let sector_bytes = match sectors {
        Sectors::Bytes512 => 512,
        Sectors::Bytes4096 => 4096,
    };
    if sectors == Sectors::Bytes512 {
        let part = format!("1:2048:+{}", len.div_ceil(512) - 1);
        run(folder, "sgdisk", &["-n", &part, "-t", "1:0700", disk]);
    } else {
        // sgdisk writes tables for such sectors only into devices that have them.
        let mut table = gptman::GPT::new_from(file, sector_bytes, [7; 16]).expect("table");
        let first = MIB as u64 / sector_bytes;
        table[1] = gptman::GPTPartitionEntry {
            partition_type_guid: [
                0xA2, 0xA0, 0xD0, 0xEB, 0xE5, 0xB9, 0x33, 0x44, 0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26,
                0x99, 0xC7,
            ],
            unique_partition_guid: [1; 16],
            starting_lba: first,
            ending_lba: first + len.div_ceil(sector_bytes) - 1,
            attribute_bits: 0,
            partition_name: "Basic data".into(),
        };
        table.write_into(file).expect("write");
        gptman::GPT::write_protective_mbr_into(file, sector_bytes).expect("protective");
    }
    let input = format!("if={volume}");
    let place = ["bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"];
    run(folder, "dd", &[&[&input, &*format!("of={disk}")][..], &place].concat());
}

/// A SHA-256 of every file an image is made of, and of its modification time.
pub fn digest(folder: &Path, image: &str) -> Vec<String> {
    let mut told = Vec::new();
    let disk = gilt_disk::open(folder.join(image)).expect("image");
    for file in disk.files() {
        let name = file.path().file_name().expect("name").to_string_lossy().into_owned();
        told.push(run(folder, "sha256sum", &[&name]));
        told.push(run(folder, "stat", &["-c", "%y %z", &name]));
    }
    told
}

/// Blocks of 1 MiB with something in them.
fn used_blocks(bytes: &[u8]) -> Vec<usize> {
    let blocks = bytes.chunks(MIB).enumerate();
    blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(at, _)| at).collect()
}

fn inverted(bytes: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    for block in blocks {
        let end = ((block + 1) * MIB).min(all.len());
        all[block * MIB..end].iter_mut().for_each(|byte| *byte = !*byte);
    }
    all
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).expect("file");
    file.set_len(bytes.len() as u64).expect("size");
    for block in used_blocks(bytes) {
        let at = block * MIB;
        let end = (at + MIB).min(bytes.len());
        file.write_all_at(&bytes[at..end], at as u64).expect("write");
    }
}

/// The bytes of `raw` as qcow2 (plain, compressed in two ways, a chain of three of which the upper two
/// matter, one of them with extended L2), as VHDX (dynamic, over a parent, with its table and data in
/// a log).
pub fn every_container(folder: &Path, raw: &str) -> Vec<String> {
    let mut images = Vec::new();
    for (name, kind, options) in [
        ("plain.qcow2", "qcow2", &["-o", "cluster_size=64k"][..]),
        ("zlib.qcow2", "qcow2", &["-c"]),
        ("zstd.qcow2", "qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("dynamic.vhdx", "vhdx", &["-o", "subformat=dynamic,block_size=1M"]),
    ] {
        let convert = ["convert", "-f", "raw", "-O", kind];
        run(folder, "qemu-img", &[&convert[..], options, &[raw, name]].concat());
        images.push(name.to_owned());
    }
    let bytes = std::fs::read(folder.join(raw)).expect("raw");
    let used = used_blocks(&bytes);
    let (first, second): (Vec<_>, Vec<_>) =
        used.iter().step_by(3).enumerate().partition(|(index, _)| index % 2 == 0);
    let blocks = |list: Vec<(usize, &usize)>| list.into_iter().map(|(_, b)| *b).collect::<Vec<_>>();
    let (first, second) = (blocks(first), blocks(second));
    assert!(!first.is_empty() && !second.is_empty(), "blocks to differ in");
    chain(folder, raw, &bytes, &first, &second);
    images.push("top.qcow2".into());
    child(folder, &bytes, &first, &second);
    images.push("child.avhdx".into());
    logged(folder);
    images.push("logged.vhdx".into());
    images
}

/// `base.qcow2` is wrong in all blocks of both lists, `mid.qcow2` puts the second right, `top.qcow2` all.
fn chain(folder: &Path, raw: &str, bytes: &[u8], first: &[usize], second: &[usize]) {
    write_sparse(&folder.join("half.raw"), &inverted(bytes, first));
    let wrong = inverted(&inverted(bytes, first), second);
    write_sparse(&folder.join("wrong.raw"), &wrong);
    let convert = ["convert", "-f", "raw", "-O", "qcow2", "-c", "wrong.raw", "base.qcow2"];
    run(folder, "qemu-img", &convert);
    let layer = |name: &str, state: &str, below: &str, options: &str| {
        let create = ["create", "-q", "-f", "qcow2", "-o", options, "-b", state, "-F", "raw", name];
        run(folder, "qemu-img", &create);
        run(folder, "qemu-img", &["rebase", "-f", "qcow2", "-b", below, "-F", "qcow2", name]);
    };
    layer("mid.qcow2", "half.raw", "base.qcow2", "compression_type=zstd");
    layer("top.qcow2", raw, "mid.qcow2", "extended_l2=on,cluster_size=128k");
}

/// `parent.vhdx` is wrong in the blocks of both lists; `child.avhdx` has the first whole, and all
/// sectors but one in ten of the second, which are right in the parent.
fn child(folder: &Path, bytes: &[u8], first: &[usize], second: &[usize]) {
    let sectors: Vec<usize> = (0..MIB / 512).filter(|sector| sector % 10 != 3).collect();
    let mut wrong = inverted(&inverted(bytes, first), second);
    let mut own = Vec::new();
    let block_of = |block: usize| {
        let mut all = bytes[block * MIB..bytes.len().min((block + 1) * MIB)].to_vec();
        all.resize(MIB, 0);
        all
    };
    for block in first {
        own.push((*block, Own::Whole(block_of(*block))));
    }
    for block in second {
        for sector in (0..MIB / 512).filter(|sector| sector % 10 == 3) {
            let at = block * MIB + sector * 512;
            wrong[at..at + 512].copy_from_slice(&bytes[at..at + 512]);
        }
        let mut bytes = block_of(*block);
        // What is not told to be the child's own must not be taken from it.
        for sector in (0..MIB / 512).filter(|sector| sector % 10 == 3) {
            bytes[sector * 512..sector * 512 + 512].fill(0xA5);
        }
        own.push((*block, Own::Sectors(sectors.clone(), bytes)));
    }
    write_sparse(&folder.join("wrong.raw"), &wrong);
    let convert = ["convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", "wrong.raw"];
    run(folder, "qemu-img", &[&convert[..], &["parent.vhdx"]].concat());
    let linkage = data_write_id(folder, "parent.vhdx");
    differencing(folder, "child.avhdx", "parent.vhdx", &linkage, bytes.len() as u64, &own);
}

/// `dynamic.vhdx` with its block table, its metadata and some data only in the log.
fn logged(folder: &Path) {
    let mut file = std::fs::read(folder.join("dynamic.vhdx")).expect("image");
    let (bat, metadata) = regions(&file);
    let data = ((file.len() - 3 * MIB) / 4096 * 4096) as u64;
    let (bat, metadata) = (bat as u64, metadata as u64);
    into_log(&mut file, &[bat, metadata, metadata + 65_536, data, data + 8192], &[]);
    std::fs::write(folder.join("logged.vhdx"), file).expect("image");
}
