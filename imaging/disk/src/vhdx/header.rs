//! Headers, region table, metadata and parent locator of a VHDX ([MS-VHDX] 2.2 and 2.6).

use super::log::{Log, Overlay};
use super::{corrupt, view};
use crate::bytes::{guid, le16, le32, le64};
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use crate::partition::Guid;
use std::collections::HashMap;

pub const MAGIC: &[u8; 8] = b"vhdxfile";
pub(super) const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
pub(super) const REGIONS_AT: [u64; 2] = [192 << 10, 256 << 10];
pub(super) const REGION_TABLE: usize = 64 << 10;
const MAX_REGIONS: u32 = 2047;
const MAX_METADATA_ITEMS: u16 = 2047;
/// [MS-VHDX] 2.6.1: an item has at most 1 MiB.
const MAX_ITEM: u32 = 1 << 20;
pub(super) const MAX_DISK_BYTES: u64 = 64 << 40;

const fn id(a: u32, b: u16, c: u16, rest: [u8; 8]) -> [u8; 16] {
    Guid::from_fields(a, b, c, rest).0
}

pub(super) const BAT: [u8; 16] =
    id(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);
pub(super) const METADATA: [u8; 16] =
    id(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E]);
pub(super) const FILE_PARAMETERS: [u8; 16] =
    id(0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B]);
pub(super) const DISK_SIZE: [u8; 16] =
    id(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8]);
pub(super) const DISK_ID: [u8; 16] =
    id(0xBECA_12AB, 0xB2E6, 0x4523, [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46]);
pub(super) const LOGICAL_SECTOR: [u8; 16] =
    id(0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F]);
pub(super) const PHYSICAL_SECTOR: [u8; 16] =
    id(0xCDA3_48C7, 0x445D, 0x4471, [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56]);
const PARENT_LOCATOR: [u8; 16] =
    id(0xA8D3_5F2D, 0xB30B, 0x454D, [0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C]);
const LOCATOR_TYPE: [u8; 16] =
    id(0xB04A_EFB7, 0xD19E, 0x4A81, [0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13]);

#[derive(Debug)]
pub struct Header {
    pub disk_bytes: u64,
    pub block_bytes: u64,
    pub sector_bytes: u32,
    /// Changes with every change of the data; what a child remembers of its parent.
    pub data_write: [u8; 16],
    pub bat_at: u64,
    pub bat_len: u64,
    pub overlay: Overlay,
    pub parent: Option<ParentLocator>,
}

/// How a differencing disk finds its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentLocator {
    entries: HashMap<String, String>,
}

impl ParentLocator {
    /// Paths to try, in the order the format asks for.
    pub fn paths(&self) -> Vec<&str> {
        ["relative_path", "volume_path", "absolute_win32_path"]
            .iter()
            .filter_map(|key| self.entries.get(*key).map(String::as_str))
            .collect()
    }

    /// Whether a parent with this data write id is the one meant.
    pub fn accepts(&self, data_write: [u8; 16]) -> bool {
        let text = Guid(data_write).to_string();
        ["parent_linkage", "parent_linkage2"].iter().any(|key| {
            let named = self.entries.get(*key).map(|value| value.trim_matches(['{', '}']));
            named.is_some_and(|named| named.eq_ignore_ascii_case(&text))
        })
    }
}

struct Active {
    sequence: u64,
    data_write: [u8; 16],
    log_id: [u8; 16],
    log_at: u64,
    log_len: u64,
}

pub fn read(file: &ImageFile) -> Result<Header> {
    let found = HEADERS_AT.iter().filter_map(|at| header_at(file, *at).transpose());
    let found: Vec<Active> = found.collect::<Result<_>>()?;
    let newest = found.into_iter().max_by_key(|header| header.sequence);
    let active = newest.ok_or_else(|| corrupt(file, HEADERS_AT[0], "both headers", 0, 0))?;
    let overlay = if active.log_id == [0; 16] {
        Overlay::default()
    } else {
        let log = Log { file, at: active.log_at, len: active.log_len, id: active.log_id };
        log.replay()?
    };
    // Everything from here on may have been written to the log only.
    let patched = |at: u64, buf: &mut [u8]| -> Result<()> {
        view(file, at, buf)?;
        overlay.apply(file, at, buf).map_err(DiskError::io(file.path()))
    };
    let (bat, metadata) = regions(file, &patched)?;
    let mut header = Header {
        disk_bytes: 0,
        block_bytes: 0,
        sector_bytes: 0,
        data_write: active.data_write,
        bat_at: bat.0,
        bat_len: bat.1,
        overlay: Overlay::default(),
        parent: None,
    };
    items(file, metadata, &patched, &mut header)?;
    header.overlay = overlay;
    Ok(header)
}

fn header_at(file: &ImageFile, at: u64) -> Result<Option<Active>> {
    let mut raw = vec![0; 4096];
    view(file, at, &mut raw)?;
    let stored = le32(&raw, 4);
    raw[4..8].fill(0);
    if raw[..4] != *b"head" || stored != Some(crc32c::crc32c(&raw)) {
        return Ok(None);
    }
    let version = le16(&raw, 66).unwrap_or(0);
    let log_version = le16(&raw, 64).unwrap_or(0);
    if version != 1 || log_version != 0 {
        return Err(DiskError::Unsupported {
            image: file.path().display().to_string(),
            what: format!("VHDX version {version}, log version {log_version} are not known"),
        });
    }
    Ok(Some(Active {
        sequence: le64(&raw, 8).unwrap_or(0),
        data_write: guid(&raw, 32).unwrap_or_default(),
        log_id: guid(&raw, 48).unwrap_or_default(),
        log_len: le32(&raw, 68).unwrap_or(0).into(),
        log_at: le64(&raw, 72).unwrap_or(0),
    }))
}

type Patched<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<()>;
type Region = (u64, u64);

fn regions(file: &ImageFile, patched: Patched<'_>) -> Result<(Region, Region)> {
    let mut raw = vec![0; REGION_TABLE];
    let mut valid = false;
    for at in REGIONS_AT {
        patched(at, &mut raw)?;
        let stored = le32(&raw, 4);
        raw[4..8].fill(0);
        valid = raw[..4] == *b"regi" && stored == Some(crc32c::crc32c(&raw));
        if valid {
            break;
        }
    }
    if !valid {
        return Err(corrupt(file, REGIONS_AT[0], "both region tables", 0, 0));
    }
    let count = le32(&raw, 8).unwrap_or(0);
    if count > MAX_REGIONS {
        let (found, limit) = (count.into(), MAX_REGIONS.into());
        return Err(corrupt(file, REGIONS_AT[0] + 8, "regions", found, limit));
    }
    let (mut bat, mut metadata) = (None, None);
    for entry in raw[16..].chunks_exact(32).take(count as usize) {
        let place = (le64(entry, 16).unwrap_or(0), u64::from(le32(entry, 24).unwrap_or(0)));
        match guid(entry, 0) {
            Some(BAT) => bat = Some(place),
            Some(METADATA) => metadata = Some(place),
            Some(other) if le32(entry, 28).unwrap_or(0) & 1 != 0 => {
                return Err(DiskError::Unsupported {
                    image: file.path().display().to_string(),
                    what: format!("needs a region we do not know ({})", Guid(other)),
                });
            }
            _ => {}
        }
    }
    bat.zip(metadata).ok_or_else(|| corrupt(file, REGIONS_AT[0], "a region is missing", 0, 2))
}

fn items(
    file: &ImageFile,
    region: Region,
    patched: Patched<'_>,
    header: &mut Header,
) -> Result<()> {
    let mut table = vec![0; REGION_TABLE];
    patched(region.0, &mut table)?;
    let count = le16(&table, 10).unwrap_or(0);
    if table[..8] != *b"metadata" || count > MAX_METADATA_ITEMS {
        return Err(corrupt(file, region.0, "metadata table", count.into(), 2047));
    }
    let mut has_parent = false;
    for entry in table[32..].chunks_exact(32).take(usize::from(count)) {
        let (at, len) = (le32(entry, 16).unwrap_or(0), le32(entry, 20).unwrap_or(0));
        let flags = le32(entry, 24).unwrap_or(0);
        if len > MAX_ITEM || u64::from(at) + u64::from(len) > region.1 {
            return Err(corrupt(file, region.0, "metadata item", len.into(), MAX_ITEM.into()));
        }
        let mut item = vec![0; len as usize];
        if len > 0 {
            patched(region.0 + u64::from(at), &mut item)?;
        }
        let number = |at| u64::from(le32(&item, at).unwrap_or(0));
        match guid(entry, 0) {
            Some(FILE_PARAMETERS) => {
                header.block_bytes = number(0);
                has_parent = number(4) & 2 != 0;
            }
            Some(DISK_SIZE) => header.disk_bytes = le64(&item, 0).unwrap_or(0),
            Some(LOGICAL_SECTOR) => header.sector_bytes = number(0) as u32,
            Some(PARENT_LOCATOR) => header.parent = Some(locator(file, region.0, &item)?),
            Some(DISK_ID | PHYSICAL_SECTOR) => {}
            Some(other) if flags & 4 != 0 => {
                return Err(DiskError::Unsupported {
                    image: file.path().display().to_string(),
                    what: format!("needs metadata we do not know ({})", Guid(other)),
                });
            }
            _ => {}
        }
    }
    let block = header.block_bytes;
    if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
        return Err(corrupt(file, region.0, "block size", block, 256 << 20));
    }
    if !matches!(header.sector_bytes, 512 | 4096) {
        return Err(corrupt(file, region.0, "sector size", header.sector_bytes.into(), 4096));
    }
    let size = header.disk_bytes;
    if size == 0 || size > MAX_DISK_BYTES || !size.is_multiple_of(header.sector_bytes.into()) {
        return Err(corrupt(file, region.0, "disk size", size, MAX_DISK_BYTES));
    }
    match (has_parent, &header.parent) {
        (true, None) => Err(corrupt(file, region.0, "parent locator is missing", 0, 1)),
        (false, Some(_)) => {
            header.parent = None;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn locator(file: &ImageFile, at: u64, raw: &[u8]) -> Result<ParentLocator> {
    if guid(raw, 0) != Some(LOCATOR_TYPE) {
        return Err(DiskError::Unsupported {
            image: file.path().display().to_string(),
            what: "names its parent in a way we do not know".into(),
        });
    }
    let text = |at: u32, len: u16| {
        let raw = raw.get(at as usize..at as usize + usize::from(len))?;
        let units: Vec<u16> =
            raw.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok()
    };
    let mut entries = HashMap::new();
    for index in 0..usize::from(le16(raw, 18).unwrap_or(0)) {
        let from = 20 + index * 12;
        let key = le32(raw, from).zip(le16(raw, from + 8)).and_then(|(at, len)| text(at, len));
        let value =
            le32(raw, from + 4).zip(le16(raw, from + 10)).and_then(|(at, len)| text(at, len));
        let (key, value) = key
            .zip(value)
            .ok_or_else(|| corrupt(file, at, "entry of the parent locator", index as u64, 0))?;
        entries.insert(key, value);
    }
    Ok(ParentLocator { entries })
}
