//! qcow2 header, header extensions and snapshot table (QEMU `docs/interop/qcow2.txt`).
//!
//! ```text
//! 0 magic "QFI\xfb"   4 version   8 backing name offset   16 its length   20 cluster bits
//! 24 disk size   32 encryption   36 L1 entries   40 L1 offset   48 refcount table offset
//! 56 its clusters   60 snapshots   64 snapshot table offset
//! version 3: 72 incompatible   80 compatible   88 autoclear   96 refcount order   100 header length
//!            104 compression type
//! then extensions: type, length, data padded to 8
//! ```

use crate::bytes::{be16, be32, be64};
use crate::decompress::Compression;
use crate::error::{DiskError, Result};
use crate::file::ImageFile;

pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Version 2 headers end here.
const V2_LEN: usize = 72;
const V3_LEN: usize = 104;
/// Header, extensions and backing name lie in the first cluster, at most 2 MiB.
const MAX_HEADER: u64 = 2 << 20;
/// QEMU's own limit for an L1 table: 32 MiB.
const MAX_L1_ENTRIES: u32 = 4 << 20;
/// QEMU's own limits for snapshots.
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_SNAPSHOT_EXTRA: usize = 1024;
const MAX_SNAPSHOT_TABLE: u64 = 64 << 20;
const MAX_BACKING_NAME: u32 = 1023;

mod incompatible {
    pub const DIRTY: u64 = 1;
    pub const CORRUPT: u64 = 1 << 1;
    pub const DATA_FILE: u64 = 1 << 2;
    pub const COMPRESSION: u64 = 1 << 3;
    pub const EXTENDED_L2: u64 = 1 << 4;
}

mod extension {
    pub const END: u32 = 0;
    pub const BACKING_FORMAT: u32 = 0xE279_2ACA;
    pub const DATA_FILE: u32 = 0x4441_5441;
}

#[derive(Clone, Debug)]
pub struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub disk_bytes: u64,
    pub l1_entries: u32,
    pub l1_offset: u64,
    pub extended_l2: bool,
    /// Refcounts may be wrong; the data is not.
    pub dirty: bool,
    pub compression: Compression,
    pub backing_name: Option<String>,
    pub backing_format: Option<String>,
    /// Name of the file that holds the clusters, when it is not this one.
    pub data_file: Option<String>,
    pub snapshots: Vec<Snapshot>,
}

/// A disk state kept inside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    pub l1_entries: u32,
    pub l1_offset: u64,
    /// `None` where the image does not say: the size of the disk.
    pub disk_bytes: Option<u64>,
}

impl Header {
    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Reads and checks the header of `file`.
    pub fn read(file: &ImageFile) -> Result<Self> {
        read(file)
    }

    /// What else is worth telling a user.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("version {}", self.version)];
        if self.compression == Compression::Zstd {
            notes.push("zstd".into());
        }
        if self.extended_l2 {
            notes.push("extended L2".into());
        }
        if self.dirty {
            notes.push("reference counts not up to date".into());
        }
        if let Some(name) = &self.data_file {
            notes.push(format!("data in {name}"));
        }
        if !self.snapshots.is_empty() {
            let names: Vec<_> = self.snapshots.iter().map(|s| s.name.as_str()).collect();
            notes.push(format!("snapshots: {}", names.join(", ")));
        }
        notes
    }

    /// Guest bytes that one L2 table maps.
    pub fn l2_span_bytes(&self) -> u64 {
        (self.cluster_bytes() / self.l2_entry_bytes()) << self.cluster_bits
    }
}

fn read(file: &ImageFile) -> Result<Header> {
    let image = file.path().display().to_string();
    let unsupported = |what: String| DiskError::Unsupported { image: image.clone(), what };
    let corrupt = |at: u64, what: &'static str, found: u64, limit: u64| DiskError::Corrupt {
        image: image.clone(),
        at,
        what,
        found,
        limit,
    };
    let len = file.len_bytes().min(MAX_HEADER);
    let mut raw = vec![0; len as usize];
    file.read_exact_at(0, &mut raw).map_err(DiskError::io(file.path()))?;
    let truncated = || corrupt(0, "length of the file", len, V3_LEN as u64);
    let get32 = |at| be32(&raw, at).ok_or_else(truncated);
    let get64 = |at| be64(&raw, at).ok_or_else(truncated);

    if raw.get(..4) != Some(&MAGIC) {
        return Err(unsupported("is not a qcow2 image".into()));
    }
    let version = get32(4)?;
    if !(2..=3).contains(&version) {
        return Err(unsupported(format!("qcow2 version {version} is not known (2 and 3 are)")));
    }
    let cluster_bits = get32(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(corrupt(20, "cluster bits", cluster_bits.into(), 21));
    }
    if get32(32)? != 0 {
        return Err(unsupported("is encrypted; decrypt it with qemu-img convert first".into()));
    }
    let (features, header_len, compression_type) = if version == 3 {
        let header_len = get32(100)? as usize;
        if header_len < V3_LEN || header_len as u64 > len || !header_len.is_multiple_of(8) {
            return Err(corrupt(100, "header length", header_len as u64, len));
        }
        let kind = if header_len > 104 { raw.get(104).copied().unwrap_or(0) } else { 0 };
        (get64(72)?, header_len, kind)
    } else {
        (0, V2_LEN, 0)
    };
    use incompatible as f;
    let unknown =
        features & !(f::DIRTY | f::CORRUPT | f::DATA_FILE | f::COMPRESSION | f::EXTENDED_L2);
    if unknown != 0 {
        return Err(unsupported(format!("has unknown incompatible features {unknown:#x}")));
    }
    if features & f::CORRUPT != 0 {
        return Err(unsupported(
            "is marked corrupt by QEMU; run qemu-img check -r on a copy first".into(),
        ));
    }
    let extended_l2 = features & f::EXTENDED_L2 != 0;
    if extended_l2 && cluster_bits < 14 {
        return Err(corrupt(20, "cluster bits with extended L2", cluster_bits.into(), 14));
    }
    let compression = match (features & f::COMPRESSION != 0, compression_type) {
        (false, 0) => Compression::Deflate,
        (true, 1) => Compression::Zstd,
        (_, kind) => return Err(unsupported(format!("compression type {kind} is not known"))),
    };

    let mut header = Header {
        version,
        cluster_bits,
        disk_bytes: get64(24)?,
        l1_entries: get32(36)?,
        l1_offset: get64(40)?,
        extended_l2,
        dirty: features & f::DIRTY != 0,
        compression,
        backing_name: None,
        backing_format: None,
        data_file: None,
        snapshots: Vec::new(),
    };
    if header.disk_bytes > 1 << 62 {
        return Err(corrupt(24, "disk size", header.disk_bytes, 1 << 62));
    }
    check_l1(&header, header.l1_entries, header.disk_bytes)
        .map_err(|(found, limit)| corrupt(36, "L1 entries", found, limit))?;

    let end_of_extensions = header.cluster_bytes().min(len) as usize;
    let mut at = header_len;
    while at + 8 <= end_of_extensions {
        let (kind, size) = (get32(at)?, get32(at + 4)? as usize);
        if kind == extension::END {
            break;
        }
        let data = at.checked_add(8).zip(at.checked_add(8).and_then(|from| from.checked_add(size)));
        let text = data
            .and_then(|(from, to)| raw.get(from..to.min(end_of_extensions + size)))
            .filter(|text| text.len() == size)
            .ok_or_else(|| corrupt(at as u64, "extension length", size as u64, len))?;
        match kind {
            extension::BACKING_FORMAT => header.backing_format = Some(text_of(text)),
            extension::DATA_FILE => header.data_file = Some(text_of(text)),
            _ => {}
        }
        at += 8 + size.next_multiple_of(8);
    }
    if features & f::DATA_FILE == 0 {
        header.data_file = None;
    } else if header.data_file.is_none() {
        return Err(unsupported("keeps its data in another file but does not name it".into()));
    }

    let (name_offset, name_len) = (get64(8)?, get32(16)?);
    if name_offset != 0 && name_len != 0 {
        if name_len > MAX_BACKING_NAME {
            return Err(corrupt(
                16,
                "backing name length",
                name_len.into(),
                MAX_BACKING_NAME.into(),
            ));
        }
        let name = usize::try_from(name_offset)
            .ok()
            .and_then(|from| raw.get(from..from.checked_add(name_len as usize)?))
            .ok_or_else(|| corrupt(8, "backing name offset", name_offset, len))?;
        header.backing_name = Some(text_of(name));
    }
    header.snapshots = snapshots(file, get32(60)?, get64(64)?, &header)?;
    Ok(header)
}

/// Whether an L1 table of `entries` maps `disk_bytes`.
fn check_l1(header: &Header, entries: u32, disk_bytes: u64) -> Result<(), (u64, u64)> {
    if entries > MAX_L1_ENTRIES {
        return Err((entries.into(), MAX_L1_ENTRIES.into()));
    }
    let needed = disk_bytes.div_ceil(header.l2_span_bytes());
    if u64::from(entries) < needed {
        return Err((entries.into(), needed));
    }
    Ok(())
}

fn text_of(raw: &[u8]) -> String {
    let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
    String::from_utf8_lossy(&raw[..end]).into_owned()
}

fn snapshots(file: &ImageFile, count: u32, offset: u64, header: &Header) -> Result<Vec<Snapshot>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let corrupt = |at: u64, what: &'static str, found: u64, limit: u64| DiskError::Corrupt {
        image: file.path().display().to_string(),
        at,
        what,
        found,
        limit,
    };
    if count > MAX_SNAPSHOTS {
        return Err(corrupt(60, "snapshots", count.into(), MAX_SNAPSHOTS.into()));
    }
    let mut list = Vec::new();
    let mut at = offset;
    for _ in 0..count {
        if at - offset > MAX_SNAPSHOT_TABLE {
            return Err(corrupt(at, "snapshot table", at - offset, MAX_SNAPSHOT_TABLE));
        }
        // Fixed part, extra data and the two names together are below 64 KiB * 2 + 1064.
        let want = (40 + MAX_SNAPSHOT_EXTRA + 2 * 65_536) as u64;
        let have = file.len_bytes().saturating_sub(at).min(want);
        let mut raw = vec![0; have as usize];
        file.read_exact_at(at, &mut raw).map_err(DiskError::io(file.path()))?;
        let cut = || corrupt(at, "snapshot entry", have, want);
        let extra_len = be32(&raw, 36).ok_or_else(cut)? as usize;
        if extra_len > MAX_SNAPSHOT_EXTRA {
            return Err(corrupt(at + 36, "snapshot extra data", extra_len as u64, 1024));
        }
        let id_len = usize::from(be16(&raw, 12).ok_or_else(cut)?);
        let name_len = usize::from(be16(&raw, 14).ok_or_else(cut)?);
        let id_at = 40 + extra_len;
        let snapshot = Snapshot {
            l1_offset: be64(&raw, 0).ok_or_else(cut)?,
            l1_entries: be32(&raw, 8).ok_or_else(cut)?,
            disk_bytes: if extra_len >= 16 { be64(&raw, 48) } else { None },
            id: text_of(raw.get(id_at..id_at + id_len).ok_or_else(cut)?),
            name: text_of(raw.get(id_at + id_len..id_at + id_len + name_len).ok_or_else(cut)?),
        };
        let disk_bytes = snapshot.disk_bytes.unwrap_or(header.disk_bytes);
        check_l1(header, snapshot.l1_entries, disk_bytes)
            .map_err(|(found, limit)| corrupt(at + 8, "snapshot L1 entries", found, limit))?;
        list.push(snapshot);
        let entry_len = (id_at + id_len + name_len).next_multiple_of(8) as u64;
        at =
            at.checked_add(entry_len).ok_or_else(|| corrupt(at, "snapshot table", at, u64::MAX))?;
    }
    Ok(list)
}
