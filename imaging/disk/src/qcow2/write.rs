//! Writes a disk as a fresh qcow2 image: version 3, 64 KiB clusters, nothing but what is not zero.
//!
//! ```text
//! header │ L1 │ data clusters in disk order │ L2 tables │ refcount blocks │ refcount table
//! ```

use crate::block::{BlockRead, data_ranges};
use crate::error::{DiskError, Result};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const L2_ENTRIES: u64 = CLUSTER / 8;
const REFCOUNTS_PER_BLOCK: u64 = CLUSTER / 2;
const COPIED: u64 = 1 << 63;
const READ_BYTES: u64 = 4 << 20;

/// Writes `disk` to a new image at `path`. The file is not synced.
pub fn write_qcow2(disk: &dyn BlockRead, path: &Path) -> Result<()> {
    let file = File::create(path).map_err(DiskError::io(path))?;
    write(disk, file).map_err(DiskError::io(path))
}

fn write(disk: &dyn BlockRead, file: File) -> io::Result<()> {
    let clusters = disk.len_bytes().div_ceil(CLUSTER);
    let l1_entries = clusters.div_ceil(L2_ENTRIES);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let mut l2 = vec![Vec::new(); l1_entries as usize];
    let mut next = 1 + l1_clusters;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.seek(SeekFrom::Start(next * CLUSTER))?;

    let ranges = data_ranges(disk, CLUSTER)?;
    let mut buf = vec![0; READ_BYTES as usize];
    for (first, end) in ranges {
        let mut at = first;
        while at < end {
            let count = (READ_BYTES / CLUSTER).min(end - at);
            let len = (count * CLUSTER).min(disk.len_bytes() - at * CLUSTER) as usize;
            buf[len..].fill(0);
            disk.read_at(at * CLUSTER, &mut buf[..len])?;
            for piece in buf[..(count * CLUSTER) as usize].chunks_exact(CLUSTER as usize) {
                if piece.iter().any(|byte| *byte != 0) {
                    out.write_all(piece)?;
                    let table: &mut Vec<u64> = &mut l2[(at / L2_ENTRIES) as usize];
                    table.resize(L2_ENTRIES as usize, 0);
                    table[(at % L2_ENTRIES) as usize] = (next * CLUSTER) | COPIED;
                    next += 1;
                }
                at += 1;
            }
        }
    }
    let mut l1 = vec![0_u64; l1_entries as usize];
    for (entry, table) in l1.iter_mut().zip(&l2).filter(|(_, table)| !table.is_empty()) {
        write_words(&mut out, table)?;
        *entry = (next * CLUSTER) | COPIED;
        next += 1;
    }
    // Refcount blocks count themselves and their table.
    let (mut blocks, mut table_clusters) = (0, 0);
    loop {
        let total = next + blocks + table_clusters;
        let need = total.div_ceil(REFCOUNTS_PER_BLOCK);
        let need_table = (need * 8).div_ceil(CLUSTER);
        if (need, need_table) == (blocks, table_clusters) {
            break;
        }
        (blocks, table_clusters) = (need, need_table);
    }
    let total = next + blocks + table_clusters;
    for block in 0..blocks {
        let used = (total - block * REFCOUNTS_PER_BLOCK).min(REFCOUNTS_PER_BLOCK);
        let mut raw = [0, 1].repeat(used as usize);
        raw.resize(CLUSTER as usize, 0);
        out.write_all(&raw)?;
    }
    let table: Vec<u64> = (0..blocks).map(|block| (next + block) * CLUSTER).collect();
    write_words(&mut out, &table)?;
    let end = total * CLUSTER;
    out.seek(SeekFrom::Start(CLUSTER))?;
    write_words(&mut out, &l1)?;
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&header(
        disk.len_bytes(),
        l1_entries,
        (next + blocks) * CLUSTER,
        table_clusters,
    ))?;
    out.flush()?;
    out.into_inner().map_err(|error| error.into_error())?.set_len(end)
}

fn write_words(out: &mut impl Write, words: &[u64]) -> io::Result<()> {
    let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    out.write_all(&raw)?;
    let padding = raw.len().next_multiple_of(CLUSTER as usize) - raw.len();
    out.write_all(&vec![0; padding])
}

fn header(disk_bytes: u64, l1_entries: u64, refcounts_at: u64, refcount_clusters: u64) -> Vec<u8> {
    let mut raw = b"QFI\xfb".to_vec();
    raw.extend(3_u32.to_be_bytes());
    raw.extend([0; 12]); // no backing image
    raw.extend(CLUSTER_BITS.to_be_bytes());
    raw.extend(disk_bytes.to_be_bytes());
    raw.extend(0_u32.to_be_bytes());
    raw.extend((l1_entries as u32).to_be_bytes());
    raw.extend(CLUSTER.to_be_bytes());
    raw.extend(refcounts_at.to_be_bytes());
    raw.extend((refcount_clusters as u32).to_be_bytes());
    raw.extend([0; 12]); // no snapshots
    raw.extend([0; 24]); // no features
    raw.extend(4_u32.to_be_bytes()); // refcounts of 16 bits
    raw.extend(104_u32.to_be_bytes());
    raw.extend([0; 8]); // end of extensions
    raw
}
