//! A fresh FAT32 volume for a few files with short names.
//!
//! ```text
//! boot sector, FSInfo, their copies at 6 │ FAT │ FAT │ clusters: root, folders and files in order
//! ```
//! ([Microsoft, "FAT: General Overview of On-Disk Format", 1.03].) The library we read FAT with writes
//! folders that fsck.vfat finds fault with.

use crate::error::{CaptureError, Result};

const SECTOR: usize = 512;
const RESERVED_SECTORS: usize = 32;
/// Fewer make the volume a FAT16.
const MIN_CLUSTERS: usize = 65_525;
const END: u32 = 0x0FFF_FFFF;
const FOLDER: u8 = 0x10;
const FILE: u8 = 0x20;
const VOLUME_LABEL: u8 = 0x8;
/// 1980-01-01: no clock, so that equal requests give equal bytes.
const DATE: u16 = (1 << 5) | 1;

pub struct Fat32<'a> {
    pub len_bytes: u64,
    pub serial: u32,
    pub label: &'a str,
    /// Paths with `/` of names that fit 8.3, all lower or all upper case in each part.
    pub files: &'a [(&'a str, &'a [u8])],
}

struct Volume {
    cluster_bytes: usize,
    fat: Vec<u32>,
    /// The bytes of the clusters from number 2 on, as far as they are used.
    data: Vec<u8>,
}

impl Volume {
    /// Appends `bytes` in clusters of their own; the first one's number, 0 for nothing.
    fn put(&mut self, bytes: &[u8]) -> u32 {
        let count = bytes.len().div_ceil(self.cluster_bytes);
        if count == 0 {
            return 0;
        }
        let first = self.fat.len() as u32;
        self.fat.extend((1..count as u32).map(|index| first + index));
        self.fat.push(END);
        self.data.extend_from_slice(bytes);
        self.data.resize((self.fat.len() - 2) * self.cluster_bytes, 0);
        first
    }
}

#[derive(Default)]
struct Folder<'a> {
    folders: Vec<(&'a str, Folder<'a>)>,
    files: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Folder<'a> {
    fn add(&mut self, path: &'a str, bytes: &'a [u8]) {
        match path.split_once('/') {
            None => self.files.push((path, bytes)),
            Some((name, rest)) => {
                let index = match self.folders.iter().position(|(known, _)| *known == name) {
                    Some(index) => index,
                    None => {
                        self.folders.push((name, Folder::default()));
                        self.folders.len() - 1
                    }
                };
                self.folders[index].1.add(rest, bytes);
            }
        }
    }

    fn entries(&self, head: usize) -> usize {
        head + self.folders.len() + self.files.len()
    }

    /// Writes what is in the folder, whose own clusters are `own`; returns its entries.
    fn write(&self, volume: &mut Volume, own: u32, parent: Option<u32>) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        if let Some(parent) = parent {
            raw.extend(entry(*b".          ", FOLDER, 0, own, 0));
            raw.extend(entry(*b"..         ", FOLDER, 0, parent, 0));
        }
        for (name, folder) in &self.folders {
            // Reserve its clusters, then fill them: its entries name what comes after.
            let bytes = folder.entries(2) * 32;
            let first = volume.put(&vec![0; bytes]);
            // The root counts as 0 in `..`.
            let parent = if parent.is_none() { 0 } else { own };
            let inner = folder.write(volume, first, Some(parent))?;
            let at = (first as usize - 2) * volume.cluster_bytes;
            volume.data[at..at + inner.len()].copy_from_slice(&inner);
            let (short, case) = short_name(name)?;
            raw.extend(entry(short, FOLDER, case, first, 0));
        }
        for (name, bytes) in &self.files {
            let first = volume.put(bytes);
            let (short, case) = short_name(name)?;
            raw.extend(entry(short, FILE, case, first, bytes.len() as u32));
        }
        Ok(raw)
    }
}

fn entry(name: [u8; 11], attributes: u8, case: u8, cluster: u32, len: u32) -> [u8; 32] {
    let mut raw = [0; 32];
    raw[..11].copy_from_slice(&name);
    raw[11] = attributes;
    raw[12] = case;
    raw[16..18].copy_from_slice(&DATE.to_le_bytes());
    raw[18..20].copy_from_slice(&DATE.to_le_bytes());
    raw[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    raw[24..26].copy_from_slice(&DATE.to_le_bytes());
    raw[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    raw[28..].copy_from_slice(&len.to_le_bytes());
    raw
}

/// The 11 bytes of an 8.3 name, and the flags for parts in lower case.
fn short_name(name: &str) -> Result<([u8; 11], u8)> {
    let refused = || CaptureError::Layout { what: format!("{name:?} is no short name of FAT") };
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, len| {
        part.len() <= len && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let lower = |part: &str| part.bytes().any(|b| b.is_ascii_lowercase());
    let upper = |part: &str| part.bytes().any(|b| b.is_ascii_uppercase());
    let mixed = |part: &str| lower(part) && upper(part);
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) || mixed(base) || mixed(extension) {
        return Err(refused());
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.to_ascii_uppercase().as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.to_ascii_uppercase().as_bytes());
    let case = if lower(base) { 0x08 } else { 0 } | if lower(extension) { 0x10 } else { 0 };
    Ok((short, case))
}

impl Fat32<'_> {
    /// The volume, up to its last byte that is not zero.
    pub fn build(&self) -> Result<Vec<u8>> {
        let refused = |what: String| CaptureError::Layout { what };
        let sectors = usize::try_from(self.len_bytes).unwrap_or(usize::MAX) / SECTOR;
        // 4 KiB clusters where there are enough of them.
        let per_cluster = if sectors / 8 > MIN_CLUSTERS + 4096 { 8 } else { 1 };
        // Each FAT entry has 4 bytes; a little more room than needed does no harm.
        let fat_sectors = (sectors / per_cluster * 4).div_ceil(SECTOR);
        let data_at = RESERVED_SECTORS + 2 * fat_sectors;
        let clusters = sectors.saturating_sub(data_at) / per_cluster;
        if clusters < MIN_CLUSTERS || u32::try_from(sectors).is_err() {
            let what = format!("{} bytes are no size for a FAT32 volume", self.len_bytes);
            return Err(refused(what));
        }
        let cluster_bytes = per_cluster * SECTOR;
        let mut volume = Volume { cluster_bytes, fat: vec![0x0FFF_FFF8, END], data: Vec::new() };
        let mut root = Folder::default();
        for (path, bytes) in self.files {
            root.add(path, bytes);
        }
        let first = volume.put(&vec![0; root.entries(1) * 32]);
        let mut label = [b' '; 11];
        let text = self.label.as_bytes();
        if text.len() > 11 || !text.is_ascii() {
            return Err(refused(format!("label {:?} does not fit FAT", self.label)));
        }
        label[..text.len()].copy_from_slice(text);
        let mut entries = entry(label, VOLUME_LABEL, 0, 0, 0).to_vec();
        entries.extend(root.write(&mut volume, first, None)?);
        volume.data[..entries.len()].copy_from_slice(&entries);
        let used = volume.fat.len() - 2;
        if used > clusters {
            let what = format!("the ESP of {} bytes is too small for its files", self.len_bytes);
            return Err(refused(what));
        }

        let mut raw = vec![0; data_at * SECTOR];
        let boot = self.boot_sector(sectors, fat_sectors, per_cluster, label);
        let mut info = [0_u8; SECTOR];
        info[..4].copy_from_slice(b"RRaA");
        info[484..488].copy_from_slice(b"rrAa");
        info[488..492].copy_from_slice(&((clusters - used) as u32).to_le_bytes());
        info[492..496].copy_from_slice(&(volume.fat.len() as u32).to_le_bytes());
        info[510..].copy_from_slice(&[0x55, 0xAA]);
        for (sector, bytes) in [(0, &boot), (1, &info), (6, &boot), (7, &info)] {
            raw[sector * SECTOR..][..SECTOR].copy_from_slice(bytes);
        }
        let table: Vec<u8> = volume.fat.iter().flat_map(|next| next.to_le_bytes()).collect();
        for copy in 0..2 {
            let at = (RESERVED_SECTORS + copy * fat_sectors) * SECTOR;
            raw[at..at + table.len()].copy_from_slice(&table);
        }
        raw.extend(volume.data);
        Ok(raw)
    }

    fn boot_sector(
        &self,
        sectors: usize,
        fat_sectors: usize,
        per_cluster: usize,
        label: [u8; 11],
    ) -> [u8; SECTOR] {
        let mut raw = [0; SECTOR];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xEB, 0x58, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[per_cluster as u8]);
        put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
        put(16, &[2]);
        put(21, &[0xF8]);
        put(24, &63_u16.to_le_bytes());
        put(26, &255_u16.to_le_bytes());
        // The ESP begins at 1 MiB.
        put(28, &2048_u32.to_le_bytes());
        put(32, &(sectors as u32).to_le_bytes());
        put(36, &(fat_sectors as u32).to_le_bytes());
        put(44, &2_u32.to_le_bytes());
        put(48, &1_u16.to_le_bytes());
        put(50, &6_u16.to_le_bytes());
        put(64, &[0x80, 0, 0x29]);
        put(67, &self.serial.to_le_bytes());
        put(71, &label);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xAA]);
        raw
    }
}
