//! FAT12, FAT16 and FAT32 volumes, read-only: the EFI system partition, mostly.
//!
//! ```text
//! boot sector │ FAT: next cluster of each │ FAT │ root (12 and 16) │ clusters
//! ```
//! ([Microsoft, "FAT: General Overview of On-Disk Format", 1.03].) Times are taken as UTC, because
//! the format does not say which zone they are of.

use crate::bytes::{le16, le32};
use crate::error::{Ext4Error, Place, Result};
use gilt_disk::BlockRead;
use gilt_wim::tree::{
    ContentId, ContentSource, Entry, FileTime, Name, Node, NodeId, Stream, Tree, attribute,
};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Largest FAT: 268 million clusters.
const MAX_FAT_BYTES: u64 = 1 << 30;
/// The format's own limit for a folder: 65,536 entries.
const MAX_FOLDER_BYTES: u64 = 2 << 20;
const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0F;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xE5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

pub struct FatVolume {
    disk: Arc<dyn BlockRead>,
    kind: Kind,
    fat: Vec<u8>,
    cluster_bytes: u64,
    /// Clusters are numbered from 2.
    clusters: u32,
    data_at: u64,
    /// Bytes of the root folder of FAT12 and FAT16.
    root: Range<u64>,
    root_cluster: u32,
    serial: u32,
    label: String,
    files: OnceLock<HashMap<u64, File>>,
}

#[derive(Clone, Copy)]
struct File {
    cluster: u32,
    len_bytes: u64,
}

fn corrupt(what: &'static str, found: u64, limit: u64) -> Ext4Error {
    Ext4Error::Corrupt { place: Place::Fat, what, found, limit }
}

impl FatVolume {
    /// Whether `disk` looks like FAT.
    pub fn probe(disk: &dyn BlockRead) -> io::Result<bool> {
        if disk.len_bytes() < 512 {
            return Ok(false);
        }
        let mut raw = [0; 512];
        disk.read_at(0, &mut raw)?;
        let jump = matches!(raw[0], 0xEB | 0xE9);
        Ok(jump
            && raw[510..] == [0x55, 0xAA]
            && (raw[82..87] == *b"FAT32" || raw[54..58] == *b"FAT1"))
    }

    pub fn open(disk: Arc<dyn BlockRead>) -> Result<Self> {
        let mut raw = [0; 512];
        disk.read_at(0, &mut raw)?;
        let word = |at| u64::from(le16(&raw, at).unwrap_or(0));
        let long = |at| u64::from(le32(&raw, at).unwrap_or(0));
        let sector = word(11);
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(corrupt("sector size", sector, 4096));
        }
        let per_cluster = u64::from(raw[13]);
        if !per_cluster.is_power_of_two() {
            return Err(corrupt("sectors per cluster", per_cluster, 128));
        }
        let (reserved, fats, root_entries) = (word(14), u64::from(raw[16]), word(17));
        let fat_sectors = if word(22) != 0 { word(22) } else { long(36) };
        let sectors = if word(19) != 0 { word(19) } else { long(32) };
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(sector);
        let head = reserved + fats * fat_sectors + root_sectors;
        if fats == 0 || reserved == 0 || fat_sectors == 0 || head >= sectors {
            return Err(corrupt("sectors before the data", head, sectors));
        }
        if sectors * sector > disk.len_bytes() {
            return Err(corrupt("sectors of the volume", sectors, disk.len_bytes() / sector));
        }
        let clusters = (sectors - head) / per_cluster;
        // The count of clusters alone decides the kind.
        let kind = match clusters {
            0..4085 => Kind::Fat12,
            4085..65_525 => Kind::Fat16,
            _ => Kind::Fat32,
        };
        let needed = match kind {
            Kind::Fat12 => (clusters + 2) * 3 / 2 + 1,
            Kind::Fat16 => (clusters + 2) * 2,
            Kind::Fat32 => (clusters + 2) * 4,
        };
        let fat_bytes = fat_sectors * sector;
        if needed > fat_bytes || needed > MAX_FAT_BYTES {
            return Err(corrupt("size of the FAT", fat_bytes, needed));
        }
        let mut fat = vec![0; needed as usize];
        disk.read_at(reserved * sector, &mut fat)?;
        let wide = kind == Kind::Fat32;
        let label_at = if wide { 71 } else { 43 };
        let label = String::from_utf8_lossy(&raw[label_at..label_at + 11]);
        let root_at = (reserved + fats * fat_sectors) * sector;
        Ok(Self {
            kind,
            fat,
            cluster_bytes: per_cluster * sector,
            clusters: u32::try_from(clusters)
                .map_err(|_| corrupt("clusters", clusters, 1 << 28))?,
            data_at: head * sector,
            root: root_at..root_at + root_entries * ENTRY as u64,
            root_cluster: if wide { long(44) as u32 } else { 0 },
            serial: long(if wide { 67 } else { 39 }) as u32,
            label: label.trim_end().to_owned(),
            disk,
            files: OnceLock::new(),
        })
    }

    pub fn label(&self) -> &str {
        if self.label == "NO NAME" { "" } else { &self.label }
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    fn next(&self, cluster: u32) -> Option<u32> {
        let index = cluster as usize;
        let (next, end) = match self.kind {
            Kind::Fat12 => {
                let pair = u32::from(le16(&self.fat, index + index / 2)?);
                (if index.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 }, 0xFF7)
            }
            Kind::Fat16 => (u32::from(le16(&self.fat, index * 2)?), 0xFFF7),
            Kind::Fat32 => (le32(&self.fat, index * 4)? & 0x0FFF_FFFF, 0x0FFF_FFF7),
        };
        (next < end).then_some(next)
    }

    /// Byte ranges of the first `len_bytes` of a chain; neighbours joined.
    fn chain(&self, first: u32, len_bytes: u64) -> Result<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut cluster = Some(first);
        let mut left = len_bytes;
        let mut seen = 0;
        while left > 0 {
            let number = cluster.ok_or_else(|| corrupt("chain ends early", len_bytes, left))?;
            if number < 2 || number - 2 >= self.clusters {
                return Err(corrupt("cluster number", number.into(), self.clusters.into()));
            }
            seen += 1;
            if seen > self.clusters {
                return Err(corrupt("chain turns back", first.into(), self.clusters.into()));
            }
            let len = left.min(self.cluster_bytes);
            let at = self.data_at + u64::from(number - 2) * self.cluster_bytes;
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = at + len,
                _ => ranges.push(at..at + len),
            }
            left -= len;
            cluster = self.next(number);
        }
        // A cluster that comes again would be read twice in silence.
        let mut sorted: Vec<&Range<u64>> = ranges.iter().collect();
        sorted.sort_by_key(|range| range.start);
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0].end > pair[1].start) {
            let number = (twice[1].start - self.data_at) / self.cluster_bytes + 2;
            return Err(corrupt("chain turns back", number, self.clusters.into()));
        }
        Ok(ranges)
    }

    /// The bytes of a folder, whose length only its chain tells.
    fn folder(&self, first: u32) -> Result<Vec<u8>> {
        let ranges = if first == 0 && self.kind != Kind::Fat32 {
            vec![self.root.clone()]
        } else {
            let mut len = 0;
            let mut cluster = Some(first);
            let mut seen = HashSet::new();
            while let Some(number) = cluster {
                if !seen.insert(number) {
                    return Err(corrupt("folder's chain turns back", number.into(), 0));
                }
                len += self.cluster_bytes;
                if len > MAX_FOLDER_BYTES.next_multiple_of(self.cluster_bytes) {
                    return Err(corrupt("folder size", len, MAX_FOLDER_BYTES));
                }
                cluster = self.next(number);
            }
            self.chain(first, len)?
        };
        let mut raw = Vec::new();
        for range in ranges {
            let from = raw.len();
            raw.resize(from + (range.end - range.start) as usize, 0);
            self.disk.read_at(range.start, &mut raw[from..])?;
        }
        Ok(raw)
    }

    /// All files and folders.
    pub fn tree(&self) -> Result<Tree> {
        let root = Node { attributes: attribute::DIRECTORY, ..Node::default() };
        let mut tree = Tree { nodes: vec![root], security: vec![] };
        let mut files = HashMap::new();
        let mut pending = vec![(NodeId(0), self.root_cluster)];
        let mut folders = HashSet::new();
        while let Some((id, cluster)) = pending.pop() {
            if !folders.insert(cluster) {
                return Err(corrupt("folder has two names", cluster.into(), 0));
            }
            let mut names = HashSet::new();
            for found in entries(&self.folder(cluster)?) {
                let node = NodeId(tree.nodes.len() as u32);
                let mut new = Node {
                    attributes: u32::from(found.attributes & 0x37),
                    created: found.created,
                    accessed: found.accessed,
                    modified: found.modified,
                    ..Node::default()
                };
                if !names.insert(found.name.clone()) {
                    return Err(corrupt("name is there twice", found.cluster.into(), 0));
                }
                if found.attributes & FOLDER != 0 {
                    pending.push((node, found.cluster));
                } else {
                    let content = ContentId(files.len() as u64);
                    let len_bytes = u64::from(found.len_bytes);
                    files.insert(content.0, File { cluster: found.cluster, len_bytes });
                    new.streams.push(Stream { name: None, len_bytes, content });
                    if new.attributes == 0 {
                        new.attributes = attribute::NORMAL;
                    }
                }
                tree.nodes.push(new);
                let entry = Entry { name: found.name, short_name: found.short_name, node };
                tree.nodes[id.0 as usize].entries.push(entry);
            }
        }
        let _ = self.files.set(files);
        Ok(tree)
    }

    fn file(&self, id: ContentId) -> io::Result<File> {
        let file = self.files.get().and_then(|files| files.get(&id.0).copied());
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no file {}", id.0)))
    }

    /// Where a file lies, in the order of the file.
    pub fn file_ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        let file = self.file(id)?;
        Ok(self.chain(file.cluster, file.len_bytes)?)
    }
}

struct Found {
    name: Name,
    short_name: Name,
    attributes: u8,
    cluster: u32,
    len_bytes: u32,
    created: FileTime,
    accessed: FileTime,
    modified: FileTime,
}

fn entries(raw: &[u8]) -> Vec<Found> {
    let mut list = Vec::new();
    // Units of the long name met so far, and the sum its pieces carry.
    let mut long: Option<(Vec<u16>, u8)> = None;
    for entry in raw.chunks_exact(ENTRY) {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (DELETED, _) => long = None,
            (order, LONG_NAME) => {
                let units = [1..11, 14..26, 28..32].into_iter().flat_map(|part| {
                    entry[part].chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]]))
                });
                let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
                // Pieces come last first.
                long = match (order & 0x40 != 0, long.take()) {
                    (true, _) => Some((units, entry[13])),
                    (false, Some((rest, sum))) if sum == entry[13] && rest.len() < 300 => {
                        Some(([units, rest].concat(), sum))
                    }
                    _ => None,
                };
            }
            (_, attributes) if attributes & VOLUME_LABEL != 0 => long = None,
            (b'.', _) => long = None,
            (_, attributes) => {
                let short = short_name(entry);
                let sum = entry[..11]
                    .iter()
                    .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
                let (name, short_name) = match long.take() {
                    Some((units, expected)) if expected == sum && !units.is_empty() => {
                        (Name(units.into()), Name::from(short.as_str()))
                    }
                    _ => (Name::from(short.as_str()), Name::default()),
                };
                let word = |at| le16(entry, at).unwrap_or(0);
                list.push(Found {
                    short_name: if short_name == name { Name::default() } else { short_name },
                    name,
                    attributes,
                    cluster: u32::from(word(20)) << 16 | u32::from(word(26)),
                    len_bytes: le32(entry, 28).unwrap_or(0),
                    created: time_of(word(16), word(14), entry[13]),
                    accessed: time_of(word(18), 0, 0),
                    modified: time_of(word(24), word(22), 0),
                });
            }
        }
    }
    list
}

fn short_name(entry: &[u8]) -> String {
    let part = |raw: &[u8], lower: bool| {
        let text: String = raw
            .iter()
            .map(|byte| match byte {
                // 0x05 stands for 0xE5, which marks a deleted entry.
                0x05 => '\u{e5}',
                byte if byte.is_ascii() => char::from(*byte),
                // Code pages differ; the long name, where there is one, tells.
                _ => '_',
            })
            .collect();
        let text = text.trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let base = part(&entry[..8], entry[12] & 0x08 != 0);
    let extension = part(&entry[8..11], entry[12] & 0x10 != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// Days and two-second steps since 1980, and hundredths of a second.
fn time_of(date: u16, time: u16, hundredths: u8) -> FileTime {
    if date == 0 {
        return FileTime::default();
    }
    let (year, month, day) = (
        i64::from(date >> 9) + 1980,
        i64::from(date >> 5 & 0xF).clamp(1, 12),
        i64::from(date & 0x1F).clamp(1, 31),
    );
    // Days since 1970, by counting years from March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = i64::from(time >> 11) * 3600
        + i64::from(time >> 5 & 0x3F) * 60
        + i64::from(time & 0x1F) * 2
        + i64::from(hundredths / 100);
    FileTime::from_unix(days * 86_400 + seconds, u32::from(hundredths % 100) * 10_000_000)
}

impl ContentSource for FatVolume {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        let ranges = self.file_ranges(id)?;
        Ok(Box::new(FatReader { volume: self, ranges: ranges.into_iter(), now: 0..0 }))
    }

    fn position(&self, id: ContentId) -> u64 {
        self.file(id).map_or(0, |file| u64::from(file.cluster) * self.cluster_bytes)
    }
}

struct FatReader<'a> {
    volume: &'a FatVolume,
    ranges: std::vec::IntoIter<Range<u64>>,
    now: Range<u64>,
}

impl Read for FatReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.now.is_empty() {
            match self.ranges.next() {
                Some(range) => self.now = range,
                None => return Ok(0),
            }
        }
        let len = (self.now.end - self.now.start).min(buf.len() as u64);
        self.volume.disk.read_at(self.now.start, &mut buf[..len as usize])?;
        self.now.start += len;
        Ok(len as usize)
    }
}
