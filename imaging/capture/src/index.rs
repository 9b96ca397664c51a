//! What a capture knew of each file, for the next capture of a disk built over the same one.
//!
//! ```text
//! magic │ length, JSON: disk, volume, WIM │ count, records │ count, files │ SHA-256 of all before
//! record: content stamp (where each byte of the file lies), SHA-1
//! file:   number of the file, number of its record
//! ```
//! A file need not be read again when its bytes lie where bytes lay that were hashed, and no layer
//! written since holds one of them. Whether layers were written since is told by the disk: its lower
//! layers must be the very files that were captured, untouched. Anything else makes the index not fit;
//! it is then ignored with the reason, never trusted in part. Times of files play no role.
//!
//! Of a file that was changed, the index tells what it was: chunks that are still the same need not be
//! compressed again. That is a hint only; the bytes are compared.

use crate::error::{CaptureError, Result};
use crate::partition::FoundVolume;
use crate::volume::VolumeReader;
use gilt_disk::{Disk, FileStamp};
use gilt_wim::tree::{ContentId, ContentSource, NodeId, Sha1, Tree};
use gilt_wim::{Hashes, Wim};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"GILTIDX2";
const RECORD_BYTES: usize = 20 + 20;
const FILE_BYTES: usize = 8 + 4;
/// 20 million files; more is a damaged or hostile file.
const MAX_INDEX_BYTES: u64 = 1 << 30;
const MAX_HEAD_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// GUID of the WIM this index was written with.
    wim: String,
    file_system: String,
    volume: String,
    start: u64,
    len_bytes: u64,
    /// Number of layers of the disk; files may be more (data files).
    layers: usize,
    files: Vec<Stamp>,
}

/// [`FileStamp`] as it is stored; times as text, because JSON has no such numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    len_bytes: u64,
    modified: String,
    changed: String,
}

impl From<FileStamp> for Stamp {
    fn from(stamp: FileStamp) -> Self {
        Self {
            device: stamp.device,
            inode: stamp.inode,
            len_bytes: stamp.len_bytes,
            modified: stamp.modified_ns.to_string(),
            changed: stamp.changed_ns.to_string(),
        }
    }
}

/// What [`VolumeReader::content_stamp`](crate::VolumeReader::content_stamp) tells.
type ContentStamp = [u8; 20];

/// Read from a file; whether it fits a disk is another question.
pub struct Index {
    head: Head,
    records: HashMap<ContentStamp, Sha1>,
    /// What each file was.
    files: HashMap<u64, Sha1>,
}

/// Where the index of a WIM is.
pub fn index_path(wim: &Path) -> PathBuf {
    wim.with_added_extension("index")
}

fn head_of(disk: &Disk, found: &FoundVolume, guid: [u8; 16]) -> Head {
    Head {
        wim: hex(&guid),
        file_system: found.reader.file_system().name().into(),
        volume: hex(&found.reader.identity()),
        start: found.start,
        len_bytes: found.len_bytes,
        layers: disk.layers().len(),
        files: disk.files().iter().map(|file| file.stamp().into()).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream of a captured tree, by where its bytes lie.
struct Stamped {
    stamp: ContentStamp,
    node: NodeId,
    /// Which stream of the node.
    place: usize,
    /// The number of the file, of unnamed streams.
    file: Option<u64>,
}

/// What an index is made of, but for the hashes, which the capture finds meanwhile.
pub struct Stamps(Vec<Stamped>);

impl Stamps {
    pub fn of(reader: &dyn VolumeReader, tree: &Tree) -> io::Result<Self> {
        let mut all = Vec::with_capacity(tree.nodes.len());
        for (number, node) in (0..).zip(&tree.nodes) {
            for (place, stream) in node.streams.iter().enumerate() {
                if stream.len_bytes == 0 {
                    continue;
                }
                let Some(stamp) = reader.content_stamp(stream.content)? else { continue };
                let file = match stream.name {
                    None => reader.file_number(stream.content),
                    Some(_) => None,
                };
                all.push(Stamped { stamp, node: NodeId(number), place, file });
            }
        }
        all.sort_unstable_by_key(|one| one.stamp);
        Ok(Self(all))
    }
}

/// Writes the index of a capture beside its WIM. `stamps` are of what was captured, `hashes` what
/// its contents are.
pub fn write(
    path: &Path,
    disk: &Disk,
    found: &FoundVolume,
    stamps: &Stamps,
    hashes: &Hashes,
    guid: [u8; 16],
) -> Result<()> {
    let failed = |source| CaptureError::Io { path: path.to_owned(), source };
    let mut raw = MAGIC.to_vec();
    let head = serde_json::to_vec(&head_of(disk, found, guid))
        .map_err(|error| failed(io::Error::other(error)))?;
    raw.extend((head.len() as u32).to_le_bytes());
    raw.extend(head);
    let records_at = raw.len();
    raw.reserve(8 + stamps.0.len() * (RECORD_BYTES + FILE_BYTES) + 8 + 32);
    raw.extend([0; 8]);
    let mut records = 0u64;
    let mut last = None;
    let mut files: Vec<(u64, u32)> = Vec::with_capacity(stamps.0.len());
    for one in &stamps.0 {
        let sha1 = hashes.stream(one.node, one.place);
        if sha1.is_zero() {
            continue;
        }
        if last != Some(one.stamp) {
            last = Some(one.stamp);
            raw.extend(one.stamp);
            raw.extend(sha1.0);
            records += 1;
        }
        if let Some(file) = one.file {
            // There are fewer than 2^32 streams.
            files.push((file, (records - 1) as u32));
        }
    }
    raw[records_at..records_at + 8].copy_from_slice(&records.to_le_bytes());
    files.sort_unstable();
    raw.extend((files.len() as u64).to_le_bytes());
    for (file, record) in &files {
        raw.extend(file.to_le_bytes());
        raw.extend(record.to_le_bytes());
    }
    let digest = Sha256::digest(&raw);
    raw.extend_from_slice(&digest);
    // Complete or not at all.
    let partial = path.with_added_extension("partial");
    std::fs::write(&partial, &raw).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

impl Index {
    /// Reads an index; `Err` says why it cannot be used.
    pub fn read(path: &Path) -> Result<Self, String> {
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let mut raw = Vec::new();
        let file = std::fs::File::open(path).map_err(told)?;
        file.take(MAX_INDEX_BYTES).read_to_end(&mut raw).map_err(told)?;
        Self::parse(&raw).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(raw: &[u8]) -> Result<Self, String> {
        let (body, digest) = raw.split_last_chunk::<32>().ok_or("is cut off")?;
        if !body.starts_with(MAGIC) {
            return Err("is no index".into());
        }
        if Sha256::digest(body)[..] != digest[..] {
            return Err("is damaged".into());
        }
        let cut = || "is cut off".to_owned();
        let (len, rest) = body[MAGIC.len()..].split_first_chunk::<4>().ok_or_else(cut)?;
        let len = u32::from_le_bytes(*len) as usize;
        let head = rest.get(..len).filter(|_| len <= MAX_HEAD_BYTES).ok_or_else(cut)?;
        let head: Head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
        let (records, rest) = counted(&rest[len..], RECORD_BYTES).ok_or_else(cut)?;
        let (files, rest) = counted(rest, FILE_BYTES).ok_or_else(cut)?;
        if !rest.is_empty() {
            return Err("has more than it says".into());
        }
        let records: Vec<(ContentStamp, Sha1)> = records
            .chunks_exact(RECORD_BYTES)
            .map(|raw| {
                let (mut stamp, mut sha1) = ([0; 20], [0; 20]);
                stamp.copy_from_slice(&raw[..20]);
                sha1.copy_from_slice(&raw[20..]);
                (stamp, Sha1(sha1))
            })
            .collect();
        let files = files.chunks_exact(FILE_BYTES).filter_map(|raw| {
            let (file, record) = raw.split_first_chunk::<8>()?;
            let record = u32::from_le_bytes(record.try_into().ok()?);
            let (_, sha1) = records.get(usize::try_from(record).ok()?)?;
            Some((u64::from_le_bytes(*file), *sha1))
        });
        let files = files.collect();
        Ok(Self { head, records: records.into_iter().collect(), files })
    }

    /// The files of `found` whose contents this index still knows; `Err` says why it does not fit.
    pub fn fit(
        &self,
        disk: &Disk,
        found: &FoundVolume,
        tree: &Tree,
        wim: &Wim,
    ) -> Result<Known, String> {
        let now = head_of(disk, found, wim.header().guid);
        let then = &self.head;
        if now.wim != then.wim {
            return Err("it belongs to another WIM".into());
        }
        if (&now.file_system, &now.volume) != (&then.file_system, &then.volume) {
            return Err("it is of another volume".into());
        }
        if (now.start, now.len_bytes) != (then.start, then.len_bytes) {
            return Err("the partition was moved or resized".into());
        }
        let above = now.files.len().checked_sub(then.files.len());
        let above = above.filter(|above| now.files[*above..] == then.files);
        if above.is_none() {
            return Err(
                "the disk is not built over the one that was captured, or that one was changed since"
                    .into(),
            );
        }
        let new_layers = now.layers.saturating_sub(then.layers) as u32;
        let changed = changed_ranges(disk, found, new_layers).map_err(|error| error.to_string())?;
        let mut known = Known {
            sha1s: HashMap::with_capacity(self.records.len()),
            earlier: HashMap::new(),
            changed_bytes: changed.iter().map(|range| range.end - range.start).sum(),
            known_bytes: 0,
        };
        for stream in tree.nodes.iter().flat_map(|node| &node.streams) {
            let id = stream.content;
            let fits = || -> io::Result<Option<Sha1>> {
                let Some(stamp) = found.reader.content_stamp(id)? else { return Ok(None) };
                let Some(sha1) = self.records.get(&stamp) else { return Ok(None) };
                let touched = !changed.is_empty()
                    && found.reader.ranges(id)?.iter().any(|range| touches(&changed, range));
                Ok((!touched).then_some(*sha1))
            };
            if stream.len_bytes == 0 {
                continue;
            }
            if let Some(sha1) = fits().map_err(|error| error.to_string())? {
                known.known_bytes += stream.len_bytes;
                known.sha1s.insert(id, sha1);
            } else if stream.name.is_none()
                && let Some(file) = found.reader.file_number(id)
                && let Some(sha1) = self.files.get(&file)
            {
                known.earlier.insert(id, *sha1);
            }
        }
        Ok(known)
    }
}

/// A count, and so many pieces of `each` bytes; then what follows.
fn counted(raw: &[u8], each: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = raw.split_first_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(each)?;
    rest.split_at_checked(len)
}

/// Byte ranges of the volume that the upper `new_layers` layers hold, sorted.
fn changed_ranges(
    disk: &Disk,
    found: &FoundVolume,
    new_layers: u32,
) -> io::Result<Vec<Range<u64>>> {
    let mut changed: Vec<Range<u64>> = Vec::new();
    if new_layers == 0 {
        return Ok(changed);
    }
    let volume = found.start..found.start + found.len_bytes;
    disk.reader().extents(volume, &mut |extent| {
        if extent.content.depth().is_some_and(|depth| depth < new_layers) {
            let start = extent.offset - found.start;
            let end = start + extent.len_bytes;
            match changed.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => changed.push(start..end),
            }
        }
    })?;
    Ok(changed)
}

fn touches(changed: &[Range<u64>], range: &Range<u64>) -> bool {
    let from = changed.partition_point(|one| one.end <= range.start);
    changed.get(from).is_some_and(|one| one.start < range.end)
}

/// What need not be read.
#[derive(Debug, Default)]
pub struct Known {
    pub sha1s: HashMap<ContentId, Sha1>,
    /// What files that have to be read were before.
    pub earlier: HashMap<ContentId, Sha1>,
    /// Bytes of the volume that were written since.
    pub changed_bytes: u64,
    /// Bytes of the files that are known, counted once for each.
    pub known_bytes: u64,
}

/// A volume's contents, some of them known.
pub struct WithKnown<'a> {
    pub contents: &'a dyn ContentSource,
    pub known: &'a Known,
}

impl ContentSource for WithKnown<'_> {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        self.contents.open(id)
    }

    fn position(&self, id: ContentId) -> u64 {
        self.contents.position(id)
    }

    fn known_sha1(&self, id: ContentId) -> Option<Sha1> {
        self.known.sha1s.get(&id).copied().or_else(|| self.contents.known_sha1(id))
    }

    fn earlier_sha1(&self, id: ContentId) -> Option<Sha1> {
        self.known.earlier.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_what_overlaps_it_and_not_its_neighbours() {
        let changed = [10..20, 30..40];
        assert!(touches(&changed, &(0..11)));
        assert!(touches(&changed, &(19..20)));
        assert!(touches(&changed, &(15..35)));
        assert!(!touches(&changed, &(0..10)));
        assert!(!touches(&changed, &(20..30)));
        assert!(!touches(&changed, &(40..99)));
    }

    #[test]
    fn a_damaged_index_is_refused() {
        assert!(Index::parse(b"").is_err());
        let mut raw = MAGIC.to_vec();
        raw.extend([0; 40]);
        assert_eq!(Index::parse(&raw).err().as_deref(), Some("is damaged"));
    }
}
