//! GPT and MBR partition tables, read-only.
//!
//! A GPT lies on the disk twice. Both copies are checked by their CRCs; the second is used when the
//! first is damaged, and every difference is told in [`PartitionTable::problems`]. The parser is our own
//! because the libraries that write tables trust the counts they read.
//!
//! ```text
//! LBA 0 protective MBR   LBA 1 header   LBA 2.. entries   ...   entries   header (last LBA)
//! ```

use crate::block::BlockRead;
use crate::bytes::{guid, le32, le64};
use crate::error::{DiskError, Result};
use crate::slice::Slice;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Windows writes 128, Linux tools up to 1024 or so.
const MAX_ENTRIES: u32 = 4096;
const MAX_ENTRY_BYTES: u32 = 4096;
const HEADER_BYTES: usize = 92;
/// Logical partitions in an extended one; Windows stops at 128 volumes.
const MAX_LOGICAL: usize = 256;
const LINE: usize = 512;

/// A GUID as it lies on the disk (first three groups little-endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        write!(
            f,
            "{:02X}{:02X}{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-",
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9]
        )?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Guid {
    /// From the usual text; for constants.
    pub const fn from_fields(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let r = rest;
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r[0], r[1], r[2], r[3], r[4], r[5],
            r[6], r[7],
        ])
    }
}

/// Partition types by their GUID (UEFI specification 5.3.3, systemd's Discoverable Partitions).
pub mod type_guid {
    use super::Guid;

    pub const ESP: Guid = Guid::from_fields(
        0xC12A_7328,
        0xF81F,
        0x11D2,
        [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B],
    );
    pub const MICROSOFT_RESERVED: Guid = Guid::from_fields(
        0xE3C9_E316,
        0x0B5C,
        0x4DB8,
        [0x81, 0x7D, 0xF9, 0x2D, 0xF0, 0x02, 0x15, 0xAE],
    );
    pub const BASIC_DATA: Guid = Guid::from_fields(
        0xEBD0_A0A2,
        0xB9E5,
        0x4433,
        [0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26, 0x99, 0xC7],
    );
    pub const WINDOWS_RECOVERY: Guid = Guid::from_fields(
        0xDE94_BBA4,
        0x06D1,
        0x4D40,
        [0xA1, 0x6A, 0xBF, 0xD5, 0x01, 0x79, 0xD6, 0xAC],
    );
    pub const LDM_METADATA: Guid = Guid::from_fields(
        0x5808_C8AA,
        0x7E8F,
        0x42E0,
        [0x85, 0xD2, 0xE1, 0xE9, 0x04, 0x34, 0xCF, 0xB3],
    );
    pub const LDM_DATA: Guid = Guid::from_fields(
        0xAF9B_60A0,
        0x1431,
        0x4F62,
        [0xBC, 0x68, 0x33, 0x11, 0x71, 0x4A, 0x69, 0xAD],
    );
    pub const STORAGE_SPACES: Guid = Guid::from_fields(
        0xE75C_AF8F,
        0xF680,
        0x4CEE,
        [0xAF, 0xA3, 0xB0, 0x01, 0xE5, 0x6E, 0xFC, 0x2D],
    );
    pub const LINUX_DATA: Guid = Guid::from_fields(
        0x0FC6_3DAF,
        0x8483,
        0x4772,
        [0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4],
    );
    pub const LINUX_ROOT_X86_64: Guid = Guid::from_fields(
        0x4F68_BCE3,
        0xE8CD,
        0x4DB1,
        [0x96, 0xE7, 0xFB, 0xCA, 0xF9, 0x84, 0xB7, 0x09],
    );

    /// A word for people.
    pub fn describe(kind: Guid) -> Option<&'static str> {
        Some(match kind {
            ESP => "EFI system partition",
            MICROSOFT_RESERVED => "Microsoft reserved",
            BASIC_DATA => "basic data",
            WINDOWS_RECOVERY => "Windows recovery",
            LDM_METADATA | LDM_DATA => "Windows dynamic disk",
            STORAGE_SPACES => "Storage Spaces",
            LINUX_DATA => "Linux file system",
            LINUX_ROOT_X86_64 => "Linux root (x86-64)",
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    Gpt,
    Mbr,
}

#[derive(Clone, Debug)]
pub struct PartitionTable {
    pub kind: TableKind,
    pub sector_bytes: u32,
    pub disk_guid: Guid,
    /// By number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the table though it can be read.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As Linux and Windows count: from 1, empty entries counted; logical ones from 5.
    pub number: u32,
    pub start: u64,
    pub len_bytes: u64,
    pub kind: PartitionKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    Gpt { type_guid: Guid, guid: Guid, attributes: u64, name: String },
    Mbr { type_id: u8, active: bool },
}

impl Partition {
    /// Its bytes.
    pub fn open(&self, disk: &Arc<dyn BlockRead>) -> Result<Slice> {
        Slice::new(disk.clone(), self.start..self.start.saturating_add(self.len_bytes))
    }

    pub fn type_guid(&self) -> Option<Guid> {
        match self.kind {
            PartitionKind::Gpt { type_guid, .. } => Some(type_guid),
            PartitionKind::Mbr { .. } => None,
        }
    }

    pub fn describe(&self) -> String {
        match &self.kind {
            PartitionKind::Gpt { type_guid, .. } => {
                type_guid::describe(*type_guid).map_or_else(|| type_guid.to_string(), str::to_owned)
            }
            PartitionKind::Mbr { type_id, .. } => match type_id {
                0x07 => "NTFS or exFAT".into(),
                0x0B | 0x0C => "FAT32".into(),
                0x04 | 0x06 | 0x0E => "FAT16".into(),
                0x27 => "Windows recovery".into(),
                0x42 => "Windows dynamic disk".into(),
                0x82 => "Linux swap".into(),
                0x83 => "Linux file system".into(),
                0xEF => "EFI system partition".into(),
                other => format!("type {other:#04x}"),
            },
        }
    }
}

/// Reads the partition table of `disk`.
pub fn partitions(disk: &dyn BlockRead) -> Result<PartitionTable> {
    let read_failed = |source: io::Error| DiskError::Io { path: "disk".into(), source };
    if disk.len_bytes() < LINE as u64 {
        return Err(none("the disk is smaller than a sector"));
    }
    let mut mbr = [0; LINE];
    disk.read_at(0, &mut mbr).map_err(read_failed)?;
    let has_mbr = mbr[510..] == [0x55, 0xAA];
    let entries = mbr_entries(&mbr);
    let protective = has_mbr && entries.iter().any(|entry| entry.type_id == 0xEE);

    if protective || !has_mbr {
        let hint = disk.sector_bytes();
        for sector_bytes in [hint, 512, 4096] {
            if let Some(table) = gpt(disk, sector_bytes).map_err(read_failed)? {
                return Ok(table);
            }
        }
    }
    if protective {
        return Err(none("the GPT is damaged in both copies"));
    }
    if !has_mbr {
        return Err(none("neither a GPT nor an MBR signature"));
    }
    // A boot sector of a file system carries the same signature.
    if entries.iter().any(|entry| !matches!(entry.status, 0x00 | 0x80)) {
        return Err(none("the first sector is not an MBR (it may be a bare file system)"));
    }
    let table = mbr_table(disk, &entries).map_err(read_failed)?;
    if table.partitions.is_empty() {
        return Err(none("the MBR has no partitions"));
    }
    Ok(table)
}

fn none(reason: &str) -> DiskError {
    DiskError::NoPartitionTable { reason: reason.into() }
}

struct GptCopy {
    disk_guid: Guid,
    other_header: u64,
    entries_raw: Vec<u8>,
    entry_bytes: usize,
    last_usable: u64,
}

/// `None` when neither copy is valid at this sector size.
fn gpt(disk: &dyn BlockRead, sector_bytes: u32) -> io::Result<Option<PartitionTable>> {
    let sector = u64::from(sector_bytes.max(512));
    let last_sector = (disk.len_bytes() / sector).saturating_sub(1);
    let first = gpt_copy(disk, sector, 1)?;
    // Where the first copy says the second is; else the last sector.
    let second_at = first.as_ref().map_or(last_sector, |copy| copy.other_header);
    let second = match gpt_copy(disk, sector, second_at)? {
        Ok(copy) => Ok(copy),
        Err(why) if second_at == last_sector => Err(why),
        Err(_) => gpt_copy(disk, sector, last_sector)?,
    };
    let mut problems = Vec::new();
    let copy = match (first, second) {
        (Err(_), Err(_)) => return Ok(None),
        (Ok(first), Err(why)) => {
            problems.push(format!("backup GPT is damaged ({why})"));
            first
        }
        (Err(why), Ok(second)) => {
            problems.push(format!("primary GPT is damaged ({why}); the backup is used"));
            second
        }
        (Ok(first), Ok(second)) => {
            if first.entries_raw != second.entries_raw || first.disk_guid != second.disk_guid {
                problems.push("primary and backup GPT differ; the primary is used".into());
            }
            if first.other_header != last_sector {
                problems.push(format!(
                    "backup GPT is at sector {}, not at the end of the disk ({last_sector})",
                    first.other_header
                ));
            }
            first
        }
    };
    let mut list = Vec::new();
    for (index, raw) in copy.entries_raw.chunks_exact(copy.entry_bytes).enumerate() {
        let Some(entry) = gpt_entry(raw, index, sector) else { continue };
        let end = entry.start.saturating_add(entry.len_bytes);
        if end > disk.len_bytes() {
            problems.push(format!("partition {} ends beyond the disk", entry.number));
            continue;
        }
        if end / sector > copy.last_usable.saturating_add(1) {
            problems.push(format!("partition {} leaves the usable area", entry.number));
        }
        list.push(entry);
    }
    note_overlaps(&list, &mut problems);
    Ok(Some(PartitionTable {
        kind: TableKind::Gpt,
        sector_bytes,
        disk_guid: copy.disk_guid,
        partitions: list,
        problems,
    }))
}

fn gpt_entry(raw: &[u8], index: usize, sector: u64) -> Option<Partition> {
    let type_guid = Guid(guid(raw, 0)?);
    if type_guid == Guid::default() {
        return None;
    }
    let (first, last) = (le64(raw, 32)?, le64(raw, 40)?);
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let units: Vec<u16> = raw
        .get(56..128)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Partition {
        number: u32::try_from(index).ok()?.checked_add(1)?,
        start: first.checked_mul(sector)?,
        len_bytes: sectors.checked_mul(sector)?,
        kind: PartitionKind::Gpt {
            type_guid,
            guid: Guid(guid(raw, 16)?),
            attributes: le64(raw, 48)?,
            name: String::from_utf16_lossy(&units),
        },
    })
}

/// One copy of the table, or why it is not valid.
fn gpt_copy(disk: &dyn BlockRead, sector: u64, lba: u64) -> io::Result<Result<GptCopy, String>> {
    let Some(raw) = read_sectors(disk, lba.checked_mul(sector), HEADER_BYTES as u64)? else {
        return Ok(Err(format!("header at sector {lba} is outside the disk")));
    };
    Ok(parse_header(&raw, lba).and_then(|header| {
        let (entries_lba, count, size, crc) = header.entries;
        let bytes = u64::from(count) * u64::from(size);
        let raw = read_sectors(disk, entries_lba.checked_mul(sector), bytes)
            .map_err(|error| format!("entries cannot be read: {error}"))?
            .ok_or("entries are outside the disk")?;
        if crc32fast::hash(&raw) != crc {
            return Err("checksum of the entries is wrong".into());
        }
        Ok(GptCopy {
            disk_guid: header.disk_guid,
            other_header: header.other,
            entries_raw: raw,
            entry_bytes: size as usize,
            last_usable: header.last_usable,
        })
    }))
}

struct GptHeader {
    other: u64,
    last_usable: u64,
    disk_guid: Guid,
    /// First sector, count, bytes each, CRC.
    entries: (u64, u32, u32, u32),
}

fn parse_header(raw: &[u8], lba: u64) -> Result<GptHeader, String> {
    let get32 = |at| le32(raw, at).ok_or("header is cut off");
    let get64 = |at| le64(raw, at).ok_or("header is cut off");
    if raw.get(..8) != Some(b"EFI PART") {
        return Err("no signature".into());
    }
    let size = get32(12)? as usize;
    if size != HEADER_BYTES {
        return Err(format!("header of {size} bytes is not known"));
    }
    let mut summed = raw[..HEADER_BYTES].to_vec();
    summed[16..20].fill(0);
    if crc32fast::hash(&summed) != get32(16)? {
        return Err("checksum of the header is wrong".into());
    }
    if get64(24)? != lba {
        return Err("header is not where it says it is".into());
    }
    let (count, entry_bytes) = (get32(80)?, get32(84)?);
    if count > MAX_ENTRIES || !(128..=MAX_ENTRY_BYTES).contains(&entry_bytes) {
        return Err(format!("{count} entries of {entry_bytes} bytes"));
    }
    Ok(GptHeader {
        other: get64(32)?,
        last_usable: get64(48)?,
        disk_guid: Guid(guid(raw, 56).ok_or("header is cut off")?),
        entries: (get64(72)?, count, entry_bytes, get32(88)?),
    })
}

/// `None` when the bytes are not on the disk.
fn read_sectors(disk: &dyn BlockRead, at: Option<u64>, len: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(at) = at else { return Ok(None) };
    if at.checked_add(len).is_none_or(|end| end > disk.len_bytes()) {
        return Ok(None);
    }
    let mut raw = vec![0; len as usize];
    disk.read_at(at, &mut raw)?;
    Ok(Some(raw))
}

#[derive(Clone, Copy)]
struct MbrEntry {
    status: u8,
    type_id: u8,
    first: u32,
    sectors: u32,
}

fn mbr_entries(raw: &[u8; LINE]) -> [MbrEntry; 4] {
    std::array::from_fn(|index| {
        let at = 446 + index * 16;
        MbrEntry {
            status: raw[at],
            type_id: raw[at + 4],
            first: le32(raw, at + 8).unwrap_or(0),
            sectors: le32(raw, at + 12).unwrap_or(0),
        }
    })
}

fn mbr_table(disk: &dyn BlockRead, entries: &[MbrEntry; 4]) -> io::Result<PartitionTable> {
    let sector = u64::from(disk.sector_bytes().max(512));
    let mut list = Vec::new();
    let mut problems = Vec::new();
    let mut add = |number: u32, entry: MbrEntry, first: u64, problems: &mut Vec<String>| {
        let (start, len_bytes) = (first * sector, u64::from(entry.sectors) * sector);
        if start + len_bytes > disk.len_bytes() {
            problems.push(format!("partition {number} ends beyond the disk"));
            return;
        }
        let kind = PartitionKind::Mbr { type_id: entry.type_id, active: entry.status & 0x80 != 0 };
        list.push(Partition { number, start, len_bytes, kind });
    };
    for (number, entry) in (1..).zip(entries) {
        let used = entry.type_id != 0 && entry.sectors != 0;
        if used && !is_extended(entry.type_id) {
            add(number, *entry, entry.first.into(), &mut problems);
        }
    }
    // The chain of logical partitions: each link must lie beyond the one before it.
    if let Some(extended) = entries.iter().find(|entry| is_extended(entry.type_id)) {
        let base = u64::from(extended.first);
        let mut link = 0_u64;
        for number in 5.. {
            let at = (base + link) * sector;
            let Some(raw) = read_sectors(disk, Some(at), LINE as u64)? else {
                problems.push(format!("logical partition {number} is described beyond the disk"));
                break;
            };
            let Ok(raw) = <[u8; LINE]>::try_from(raw) else { break };
            if raw[510..] != [0x55, 0xAA] {
                break;
            }
            let [partition, next, ..] = mbr_entries(&raw);
            if partition.type_id != 0 && partition.sectors != 0 {
                let first = base + link + u64::from(partition.first);
                add(number, partition, first, &mut problems);
            }
            if !is_extended(next.type_id) || next.first == 0 {
                break;
            }
            let next_link = u64::from(next.first);
            if next_link <= link || number as usize >= MAX_LOGICAL {
                problems.push(format!("chain of logical partitions turns back at {number}"));
                break;
            }
            link = next_link;
        }
    }
    note_overlaps(&list, &mut problems);
    Ok(PartitionTable {
        kind: TableKind::Mbr,
        sector_bytes: disk.sector_bytes(),
        disk_guid: Guid::default(),
        partitions: list,
        problems,
    })
}

fn is_extended(type_id: u8) -> bool {
    matches!(type_id, 0x05 | 0x0F | 0x85)
}

fn note_overlaps(list: &[Partition], problems: &mut Vec<String>) {
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_by_key(|partition| partition.start);
    for pair in sorted.windows(2) {
        if pair[0].start + pair[0].len_bytes > pair[1].start {
            problems.push(format!("partitions {} and {} overlap", pair[0].number, pair[1].number));
        }
    }
}
