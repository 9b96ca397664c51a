//! A volume: checks, scan, and what is asked of it afterwards.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use gilt_disk::BlockRead;
use gilt_wim::tree::{ContentId, ContentSource, FileTime, Name, Node, NodeId, Stream, Tree};
use sha1::{Digest, Sha1};

use crate::boot::Geometry;
use crate::content::{Contents, Layout};
use crate::error::{Error, Fault, Result, Unclean};
use crate::link::Linked;
use crate::mft::Mft;
use crate::record::{FileRef, kind};
use crate::runs::{Device, Run};
use crate::scan::Scanner;
use crate::secure::{Descriptors, MAX_SDS_BYTES};
use crate::special::{Elsewhere, Encrypted, Special, SpecialKind, SpecialPolicy};
use crate::state::{LOG_HEAD, VolumeInformation, is_hibernated, log_state, unclean};

const VOLUME_RECORD: u64 = 3;
const LOG_RECORD: u64 = 2;
const SECURE_RECORD: u64 = 9;
/// `$LogFile` is at most 4 GiB; only its head is read.
const MAX_LABEL_BYTES: u64 = 1024;

/// How a volume is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub unclean: UncleanPolicy,
    pub damage: Damage,
    pub limits: Limits,
}

impl Options {
    /// For looking into a disk after something failed: takes what can be had.
    pub fn for_evidence() -> Self {
        Self { unclean: UncleanPolicy::Read, damage: Damage::Note, limits: Limits::default() }
    }
}

/// What to do with a volume that was not cleanly dismounted or is hibernated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UncleanPolicy {
    #[default]
    Refuse,
    /// Read what is on disk; recent changes may be missing. [`Volume::unclean`] tells why.
    Read,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    #[default]
    Refuse,
    /// Skip what is damaged and tell in [`Volume::notes`].
    Note,
}

/// Caps against hostile volumes, far above real ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// File records in `$MFT`, used or not. Windows with everything has half a million.
    pub records: u64,
    /// Bytes of one stream; a sparse file may claim 2^63.
    pub stream_bytes: u64,
    /// Memory for contents kept in records, and as much for run lists.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 4 << 20, stream_bytes: 1 << 40, memory_bytes: 1 << 30 }
    }
}

/// Something the reader of a volume should know and that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// File record it is about.
    pub record: u64,
    pub kind: NoteKind,
    pub name: Option<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// In use, but no directory leads to it.
    Orphan,
    /// A name in a directory that no longer exists.
    StaleName,
    /// Windows compares names in it by case. A WIM cannot say so.
    CaseSensitiveDirectory,
    /// Skipped; see [`Damage::Note`].
    Damaged(&'static str),
}

#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<Note>);

impl Notes {
    const MAX: usize = 1 << 16;

    pub fn add(&mut self, note: Note) -> Result<()> {
        if self.0.len() >= Self::MAX {
            return Err(Error::TooLarge { what: "damaged files", limit: Self::MAX as u64 });
        }
        self.0.push(note);
        Ok(())
    }
}

/// When a file's record last changed, by all the clocks NTFS has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub file: FileRef,
    /// `$LogFile` sequence number of the last change to the record; newest of all its records.
    pub lsn: u64,
    /// Change journal position of the last change; 0 where the journal is off.
    pub usn: u64,
    /// Time of the last change to the record.
    pub changed: FileTime,
}

/// Bytes of the volume, by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len_bytes: u64,
}

/// How a stream is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// In the file record.
    Resident,
    Plain,
    /// NTFS compression.
    Lznt1,
    /// System compression ("CompactOS").
    Wof,
    /// EFS; cannot be opened.
    Encrypted,
}

/// A whole NTFS volume: its tree, and the source of its contents.
pub struct Volume {
    device: Device,
    mft: Mft,
    label: Name,
    version: (u8, u8),
    unclean: Option<Unclean>,
    tree: Tree,
    stamps: Vec<Stamp>,
    specials: Vec<Special>,
    segments: HashMap<NodeId, Box<[u64]>>,
    contents: Contents,
    notes: Vec<Note>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("geometry", &self.device.geometry)
            .field("label", &self.label)
            .field("nodes", &self.tree.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Reads all metadata of the volume that `disk` is (a partition, not a whole disk).
    pub fn open(disk: Arc<dyn BlockRead>, options: &Options) -> Result<Self> {
        let mut sector = [0; 512];
        let volume_bytes = disk.len_bytes();
        if volume_bytes < 512 {
            return Err(Error::NotNtfs { found: "it is shorter than one sector" });
        }
        disk.read_at(0, &mut sector).map_err(|source| Error::Read { at: 0, source })?;
        let geometry = Geometry::parse(&sector, volume_bytes)?;
        let device = Device { disk, geometry };
        let mft = Mft::locate(&device)?;
        let limits = &options.limits;
        if mft.records > limits.records {
            return Err(Error::TooLarge { what: "file records", limit: limits.records });
        }

        let mut scanner = Scanner::new(&device, &mft, limits, options.damage);
        let information = volume_information(&scanner)?;
        let mut found_unclean = information.dirty.then_some(Unclean::DirtyFlag);
        if found_unclean.is_none() {
            found_unclean = match log_head(&scanner).and_then(|head| log_state(&head)) {
                Ok(state) => state,
                Err(Error::Corrupt { .. }) if options.unclean == UncleanPolicy::Read => {
                    Some(Unclean::LogOpen)
                }
                Err(error) => return Err(error),
            };
        }
        let refuse = |why: Option<Unclean>| match why {
            Some(why) if options.unclean == UncleanPolicy::Refuse => Err(unclean(why)),
            _ => Ok(()),
        };
        refuse(found_unclean)?;

        let label = scanner
            .system_value(VOLUME_RECORD, kind::VOLUME_NAME, &[], MAX_LABEL_BYTES)?
            .map_or_else(Name::default, |bytes| Name(crate::raw::utf16(&bytes)));
        scanner.run()?;
        let descriptors = descriptors(&mut scanner)?;
        let Linked { tree, stamps, specials, segments } = scanner.link(&descriptors)?;
        let contents = std::mem::take(&mut scanner.contents);
        let notes = std::mem::take(&mut scanner.notes).0;
        drop(scanner);

        let mut volume = Self {
            device,
            mft,
            label,
            version: information.version,
            unclean: found_unclean,
            tree,
            stamps,
            specials,
            segments,
            contents,
            notes,
        };
        if volume.holds_hibernated_system() {
            volume.unclean = Some(Unclean::Hibernated);
            refuse(volume.unclean)?;
        }
        Ok(volume)
    }

    fn holds_hibernated_system(&self) -> bool {
        let Some(node) = self.lookup("hiberfil.sys") else { return false };
        let stream = self.tree.node(node).streams.iter().find(|stream| stream.name.is_none());
        let mut head = [0; 4];
        stream.is_some_and(|stream| {
            let opened = ContentSource::open(self, stream.content);
            opened.and_then(|mut bytes| bytes.read_exact(&mut head)).is_ok() && is_hibernated(&head)
        })
    }

    pub fn geometry(&self) -> &Geometry {
        &self.device.geometry
    }

    pub fn label(&self) -> &Name {
        &self.label
    }

    /// Major and minor; 3.1 since Windows XP.
    pub fn version(&self) -> (u8, u8) {
        self.version
    }

    /// Why the volume should not be captured; only with [`UncleanPolicy::Read`].
    pub fn unclean(&self) -> Option<Unclean> {
        self.unclean
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The tree, to be changed by its new owner; contents are still opened here.
    pub fn take_tree(&mut self) -> Tree {
        std::mem::take(&mut self.tree)
    }

    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Files whose contents are not in the volume.
    pub fn specials(&self) -> &[Special] {
        &self.specials
    }

    /// Applies `policy` to the special files for which `captured` holds: an error names the first
    /// that is to be refused; else the nodes to leave out. Names come from `tree`, the one of this volume.
    pub fn judge_specials(
        &self,
        tree: &Tree,
        policy: SpecialPolicy,
        captured: impl Fn(NodeId) -> bool,
    ) -> Result<Vec<NodeId>> {
        let mut left_out = Vec::new();
        let mut refused: Option<(Special, usize)> = None;
        for &special in self.specials.iter().filter(|special| captured(special.node)) {
            let (refuse, leave) = match special.kind {
                SpecialKind::Encrypted => {
                    (policy.encrypted == Encrypted::Refuse, policy.encrypted == Encrypted::LeaveOut)
                }
                _ => {
                    (policy.elsewhere == Elsewhere::Refuse, policy.elsewhere == Elsewhere::LeaveOut)
                }
            };
            if refuse {
                match &mut refused {
                    Some((first, count)) if first.kind == special.kind => *count += 1,
                    Some(_) => {}
                    None => refused = Some((special, 1)),
                }
            } else if leave {
                left_out.push(special.node);
            }
        }
        match refused {
            None => Ok(left_out),
            Some((special, count)) => Err(Error::ContentsElsewhere {
                path: path_of(tree, special.node).unwrap_or_else(|| {
                    format!("file record {}", self.stamps[special.node.0 as usize].file.record)
                }),
                kind: special.kind.describe(),
                count,
                way_out: special.kind.way_out(),
            }),
        }
    }

    /// Change stamps of a node of the tree as it was read.
    pub fn stamp(&self, node: NodeId) -> Option<&Stamp> {
        self.stamps.get(node.0 as usize)
    }

    /// Where the file records of a node lie: the base record, then its extensions.
    pub fn record_extents(&self, node: NodeId) -> Vec<Extent> {
        let Some(stamp) = self.stamp(node) else { return Vec::new() };
        let extensions = self.segments.get(&node).map_or(&[][..], |numbers| numbers);
        std::iter::once(stamp.file.record)
            .chain(extensions.iter().copied())
            .filter_map(|number| self.record_extent(number))
            .collect()
    }

    fn record_extent(&self, number: u64) -> Option<Extent> {
        let geometry = &self.device.geometry;
        let offset = self.mft.position(geometry, number)?;
        Some(Extent { offset, len_bytes: geometry.record_bytes.into() })
    }

    /// The file record of the file a stream belongs to.
    pub fn record_of(&self, id: ContentId) -> Option<u64> {
        Some(self.contents.get(id)?.record)
    }

    pub fn storage(&self, id: ContentId) -> Option<Storage> {
        Some(match self.contents.get(id)?.layout {
            Layout::Resident(_) => Storage::Resident,
            Layout::Plain { .. } => Storage::Plain,
            Layout::Lznt1 { .. } => Storage::Lznt1,
            Layout::Wof { .. } => Storage::Wof,
            Layout::Encrypted { .. } => Storage::Encrypted,
        })
    }

    /// The clusters that hold a stream. Those of a resident stream are its file record.
    pub fn extents(&self, id: ContentId) -> Vec<Extent> {
        let Some(content) = self.contents.get(id) else { return Vec::new() };
        match &content.layout {
            Layout::Resident(_) => self.record_extent(content.record).into_iter().collect(),
            Layout::Wof { packed, .. } => self.extents(*packed),
            Layout::Plain { runs } | Layout::Lznt1 { runs, .. } | Layout::Encrypted { runs } => {
                let cluster = self.device.geometry.cluster();
                let stored = self.contents.runs(runs).iter().filter(|run| !run.is_hole());
                stored
                    .map(|run| Extent {
                        offset: run.lcn * cluster,
                        len_bytes: run.clusters * cluster,
                    })
                    .collect()
            }
        }
    }

    /// A digest of all that decides a stream's bytes but the clusters themselves: how it is
    /// stored, its sizes, its runs, or its bytes where they are in the file record. Equal stamps
    /// over clusters that nobody wrote in between mean equal contents.
    pub fn content_stamp(&self, id: ContentId) -> Option<[u8; 20]> {
        let mut hash = Sha1::new();
        self.hash_content(id, &mut hash)?;
        Some(hash.finalize().into())
    }

    fn hash_content(&self, id: ContentId, hash: &mut Sha1) -> Option<()> {
        let content = self.contents.get(id)?;
        let mut number = |n: u64| hash.update(n.to_le_bytes());
        number(content.len);
        number(content.valid);
        number(self.device.geometry.cluster());
        let runs = match &content.layout {
            Layout::Resident(range) => {
                number(0);
                hash.update(self.contents.resident(range));
                return Some(());
            }
            Layout::Wof { algorithm, packed } => {
                number(1);
                number(u64::from(algorithm.chunk_bytes()));
                return self.hash_content(*packed, hash);
            }
            Layout::Plain { runs } => {
                number(2);
                runs
            }
            Layout::Lznt1 { runs, unit_clusters } => {
                number(3);
                number(*unit_clusters);
                runs
            }
            Layout::Encrypted { runs } => {
                number(4);
                runs
            }
        };
        for Run { lcn, clusters } in self.contents.runs(runs) {
            number(*lcn);
            number(*clusters);
        }
        Some(())
    }

    /// Finds a file by its path from the root, parts divided by `\` or `/`, without regard to
    /// ASCII case.
    pub fn lookup(&self, path: &str) -> Option<NodeId> {
        lookup(&self.tree, path)
    }

    /// The unnamed stream of a file, whole, if it is at most `max_bytes` long.
    pub fn read_file(&self, node: NodeId, max_bytes: u64) -> io::Result<Vec<u8>> {
        let stream = contents_of(self.tree.node(node))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the file has no contents"))?;
        if stream.len_bytes > max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("file has {} bytes; {max_bytes} are the limit here", stream.len_bytes),
            ));
        }
        let mut bytes = Vec::new();
        ContentSource::open(self, stream.content)?.take(max_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl ContentSource for Volume {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        self.contents.open(&self.device, id)
    }

    fn position(&self, id: ContentId) -> u64 {
        let first = |id| -> Option<u64> {
            let content = self.contents.get(id)?;
            let id = match &content.layout {
                Layout::Wof { packed, .. } => *packed,
                _ => id,
            };
            let content = self.contents.get(id)?;
            match &content.layout {
                Layout::Plain { runs } | Layout::Lznt1 { runs, .. } => {
                    let run = self.contents.runs(runs).iter().find(|run| !run.is_hole())?;
                    Some(run.lcn * self.device.geometry.cluster())
                }
                _ => None,
            }
        };
        // Resident bytes are in memory: first of all.
        first(id).unwrap_or(0)
    }
}

fn volume_information(scanner: &Scanner<'_>) -> Result<VolumeInformation> {
    scanner
        .system_value(VOLUME_RECORD, kind::VOLUME_INFORMATION, &[], 64)?
        .and_then(|value| VolumeInformation::parse(&value))
        .ok_or_else(|| Fault::new(0, "$Volume has no version and flags").in_record(VOLUME_RECORD))
}

fn log_head(scanner: &Scanner<'_>) -> Result<Vec<u8>> {
    scanner
        .system_head(LOG_RECORD, kind::DATA, LOG_HEAD)?
        .ok_or_else(|| Fault::new(0, "$LogFile has no contents").in_record(LOG_RECORD))
}

fn descriptors(scanner: &mut Scanner<'_>) -> Result<Descriptors> {
    let name: Vec<u8> = "$SDS".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let parsed = scanner
        .system_value(SECURE_RECORD, kind::DATA, &name, MAX_SDS_BYTES)
        .map(|bytes| Descriptors::parse(bytes.unwrap_or_default()));
    match parsed {
        Ok(descriptors) => Ok(descriptors),
        Err(error) => {
            scanner.damaged(SECURE_RECORD, error)?;
            Ok(Descriptors::default())
        }
    }
}

fn contents_of(node: &Node) -> Option<&Stream> {
    node.streams.iter().find(|stream| stream.name.is_none())
}

fn lookup(tree: &Tree, path: &str) -> Option<NodeId> {
    let mut node = Tree::ROOT;
    if tree.nodes.is_empty() {
        return None;
    }
    for part in path.split(['\\', '/']).filter(|part| !part.is_empty()) {
        let entry = tree.node(node).entries.iter().find(|entry| {
            let text = entry.name.to_display();
            text.eq_ignore_ascii_case(part)
        })?;
        node = entry.node;
    }
    Some(node)
}

/// One path to a node, by search from the root.
fn path_of(tree: &Tree, wanted: NodeId) -> Option<String> {
    let mut parents: HashMap<NodeId, (NodeId, &Name)> = HashMap::new();
    for (parent, node) in (0u32..).zip(&tree.nodes) {
        for entry in &node.entries {
            parents.entry(entry.node).or_insert((NodeId(parent), &entry.name));
        }
    }
    let mut parts = Vec::new();
    let mut node = wanted;
    while node != Tree::ROOT {
        let (parent, name) = parents.get(&node)?;
        parts.push(name.to_display());
        node = *parent;
    }
    parts.reverse();
    Some(format!("\\{}", parts.join("\\")))
}
