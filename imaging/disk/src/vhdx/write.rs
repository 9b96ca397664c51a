//! Writes a disk as a fresh dynamic VHDX: nothing but what is not zero, and an empty log.
//!
//! ```text
//! 0 identifier │ 64K, 128K headers │ 192K, 256K region tables │ 1M log │ 2M metadata │ 3M BAT │ blocks in disk order
//! ```
//! Ids are made of the contents: the same disk is the same file, and another disk has other ids.

use super::header::{
    BAT, DISK_ID, DISK_SIZE, FILE_PARAMETERS, HEADERS_AT, LOGICAL_SECTOR, MAGIC, MAX_DISK_BYTES,
    METADATA, PHYSICAL_SECTOR, REGION_TABLE, REGIONS_AT,
};
use super::{SECTORS_PER_CHUNK, state};
use crate::block::{BlockRead, data_ranges};
use crate::error::{DiskError, Result};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

const MIB: u64 = 1 << 20;
/// The smallest there is: a guest's file system is scattered, and the file travels.
const BLOCK: u64 = MIB;
const SECTOR: u32 = 512;
const PHYSICAL: u32 = 4096;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const BAT_AT: u64 = 3 * MIB;
const BLOCKS_PER_CHUNK: u64 = SECTORS_PER_CHUNK * SECTOR as u64 / BLOCK;
/// Items of metadata begin behind their table.
const ITEMS_AT: u32 = REGION_TABLE as u32;
/// [MS-VHDX] 2.6.1.1: it is of the disk, not of the file; whoever does not know it must refuse.
const OF_THE_DISK: u32 = 2;
const REQUIRED: u32 = 4;

/// Writes `disk`, which consists of whole sectors of 512 bytes, to a new image at `path`. The file is
/// not synced.
pub fn write_vhdx(disk: &dyn BlockRead, path: &Path) -> Result<()> {
    let size = disk.len_bytes();
    if size == 0 || size > MAX_DISK_BYTES || !size.is_multiple_of(SECTOR.into()) {
        return Err(DiskError::Unsupported {
            image: path.display().to_string(),
            what: format!(
                "a VHDX holds whole sectors of {SECTOR} bytes, at most 64 TiB; not {size} bytes"
            ),
        });
    }
    let file = File::create(path).map_err(DiskError::io(path))?;
    write(disk, file).map_err(DiskError::io(path))
}

fn write(disk: &dyn BlockRead, mut file: File) -> io::Result<()> {
    let size = disk.len_bytes();
    let blocks = size.div_ceil(BLOCK);
    let entries = blocks + (blocks - 1) / BLOCKS_PER_CHUNK;
    let bat_bytes = (entries * 8).next_multiple_of(MIB);
    let mut bat = vec![0_u64; entries as usize];
    let mut next = BAT_AT + bat_bytes;
    let mut sums = Sums::default();
    file.seek(SeekFrom::Start(next))?;
    let mut buf = vec![0; BLOCK as usize];
    for (first, end) in data_ranges(disk, BLOCK)? {
        for block in first..end {
            let len = BLOCK.min(size - block * BLOCK) as usize;
            buf[len..].fill(0);
            disk.read_at(block * BLOCK, &mut buf[..len])?;
            if buf.iter().all(|byte| *byte == 0) {
                continue;
            }
            sums.add(block, &buf);
            file.write_all(&buf)?;
            bat[(block + block / BLOCKS_PER_CHUNK) as usize] = next | state::FULLY_PRESENT;
            next += BLOCK;
        }
    }
    let put = |file: &mut File, at: u64, bytes: &[u8]| -> io::Result<()> {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    };
    let table: Vec<u8> = bat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(&mut file, BAT_AT, &table)?;
    put(&mut file, METADATA_AT, &metadata(size, sums.id(size, 0)))?;
    let regions = regions(bat_bytes)?;
    for at in REGIONS_AT {
        put(&mut file, at, &regions)?;
    }
    for (sequence, at) in HEADERS_AT.into_iter().enumerate() {
        put(&mut file, at, &header(sequence as u64, sums.id(size, 1), sums.id(size, 2)))?;
    }
    let mut identifier = MAGIC.to_vec();
    identifier.extend("gilt".encode_utf16().flat_map(u16::to_le_bytes));
    put(&mut file, 0, &identifier)?;
    file.set_len(next)
}

/// A checksum of 64 bits over all that is written; enough to tell the disks of one host apart.
#[derive(Default)]
struct Sums {
    castagnoli: u32,
    ieee: crc32fast::Hasher,
}

impl Sums {
    fn add(&mut self, block: u64, bytes: &[u8]) {
        for piece in [&block.to_le_bytes(), bytes] {
            self.castagnoli = crc32c::crc32c_append(self.castagnoli, piece);
            self.ieee.update(piece);
        }
    }

    /// A version 4 GUID as it is stored; another one for each `of`.
    fn id(&self, size: u64, of: u8) -> [u8; 16] {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&self.castagnoli.to_le_bytes());
        id[4] = of;
        // Version 4, and the variant.
        id[7] = 0x40;
        id[8] = 0x80;
        id[9..12].copy_from_slice(&size.to_le_bytes()[2..5]);
        id[12..].copy_from_slice(&self.ieee.clone().finalize().to_le_bytes());
        id
    }
}

/// Puts the sum over `raw`, in which its own place is zero, into that place.
fn summed(mut raw: Vec<u8>, len: usize) -> Vec<u8> {
    raw.resize(len, 0);
    let sum = crc32c::crc32c(&raw);
    raw[4..8].copy_from_slice(&sum.to_le_bytes());
    raw
}

fn header(sequence: u64, file_write: [u8; 16], data_write: [u8; 16]) -> Vec<u8> {
    let mut raw = b"head\0\0\0\0".to_vec();
    raw.extend(sequence.to_le_bytes());
    raw.extend(file_write);
    raw.extend(data_write);
    raw.extend([0; 16]); // nothing in the log
    raw.extend(0_u16.to_le_bytes()); // version of the log
    raw.extend(1_u16.to_le_bytes()); // version of the format
    raw.extend((MIB as u32).to_le_bytes());
    raw.extend(LOG_AT.to_le_bytes());
    summed(raw, 4096)
}

fn regions(bat_bytes: u64) -> io::Result<Vec<u8>> {
    let bat_bytes = u32::try_from(bat_bytes).map_err(io::Error::other)?;
    let mut raw = b"regi\0\0\0\0".to_vec();
    raw.extend(2_u32.to_le_bytes());
    raw.extend([0; 4]);
    for (id, at, len) in [(BAT, BAT_AT, bat_bytes), (METADATA, METADATA_AT, MIB as u32)] {
        raw.extend(id);
        raw.extend(at.to_le_bytes());
        raw.extend(len.to_le_bytes());
        raw.extend(1_u32.to_le_bytes()); // required
    }
    Ok(summed(raw, REGION_TABLE))
}

fn metadata(size: u64, disk_id: [u8; 16]) -> Vec<u8> {
    let parameters = [(BLOCK as u32).to_le_bytes(), 0_u32.to_le_bytes()].concat();
    let items: [([u8; 16], u32, Vec<u8>); 5] = [
        (FILE_PARAMETERS, REQUIRED, parameters),
        (DISK_SIZE, REQUIRED | OF_THE_DISK, size.to_le_bytes().to_vec()),
        (DISK_ID, REQUIRED | OF_THE_DISK, disk_id.to_vec()),
        (LOGICAL_SECTOR, REQUIRED | OF_THE_DISK, SECTOR.to_le_bytes().to_vec()),
        (PHYSICAL_SECTOR, REQUIRED | OF_THE_DISK, PHYSICAL.to_le_bytes().to_vec()),
    ];
    let mut raw = b"metadata\0\0".to_vec();
    raw.extend((items.len() as u16).to_le_bytes());
    raw.extend([0; 20]);
    let mut at = ITEMS_AT;
    for (id, flags, value) in &items {
        raw.extend(id);
        raw.extend(at.to_le_bytes());
        raw.extend((value.len() as u32).to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend([0; 4]);
        at += value.len() as u32;
    }
    raw.resize(ITEMS_AT as usize, 0);
    raw.extend(items.into_iter().flat_map(|(_, _, value)| value));
    raw
}
