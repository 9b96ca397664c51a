//! Gives every node an inode number, blocks, and its 256 bytes in the inode table.

use super::WriteAt;
use super::attributes::{self, FIELDS_END, Placed};
use super::data::{self, FileData, SPARSE_SCAN_BYTES};
use super::directory::{self, NewEntry, kind};
use super::geometry::{Allocator, BLOCK_BYTES, FIRST_INODE, Geometry, INODE_BYTES};
use super::superblock::{Ids, journal_superblock};
use crate::bytes::crc32c_raw;
use crate::error::{Ext4Error, Result};
use crate::inode::{flag, mode};
use gilt_wim::tree::{ContentSource, FileTime, Name, Node, NodeId, Tree, UnixData};
use gilt_wim::unix_names::{name_to_bytes, target_from_reparse};
use std::ops::Range;

const ROOT: u32 = 2;
pub const JOURNAL: u32 = 8;
const LOST_AND_FOUND: &str = "lost+found";
/// Longest extent the format has.
const MAX_EXTENT_BLOCKS: u64 = 32_768;
const ROOT_EXTENTS: usize = 4;
const LEAF_EXTENTS: usize = 340;
/// More links are noted as 1 ("dir_nlink").
const MAX_DIRECTORY_LINKS: u32 = 65_000;
/// e2fsck wants room in it.
const LOST_AND_FOUND_BLOCKS: usize = 4;

/// Inode numbers of the nodes, in the order directories are walked.
pub struct Numbers {
    of: Vec<u32>,
    /// Directories and the others, in order of their numbers; the root first.
    order: Vec<NodeId>,
    /// Names that point at each node; for directories, its folders.
    links: Vec<u32>,
    parents: Vec<NodeId>,
    last: u32,
    /// Whether the tree brought its own lost+found.
    has_lost_and_found: bool,
}

impl Numbers {
    pub fn assign(tree: &Tree) -> Result<Self> {
        let count = tree.nodes.len();
        let mut this = Self {
            of: vec![0; count],
            order: Vec::with_capacity(count),
            links: vec![0; count],
            parents: vec![Tree::ROOT; count],
            last: FIRST_INODE,
            has_lost_and_found: false,
        };
        let name = Name::from(LOST_AND_FOUND);
        if let Some(root) = tree.nodes.first()
            && let Some(found) = root.entries.iter().find(|entry| entry.name == name)
            && is_folder(tree.node(found.node))
        {
            this.has_lost_and_found = true;
            this.of[found.node.0 as usize] = FIRST_INODE;
        }
        this.of[0] = ROOT;
        this.links[0] = 2 + u32::from(!this.has_lost_and_found);
        this.order.push(Tree::ROOT);
        let mut seen = vec![false; count];
        seen[0] = true;
        let mut next = 0;
        while next < this.order.len() {
            let id = this.order[next];
            next += 1;
            for entry in &tree.node(id).entries {
                let slot = entry.node.0 as usize;
                let child = tree.node(entry.node);
                let folder = is_folder(child);
                let bytes = name_to_bytes(&entry.name).len();
                if bytes > 255 || entry.name.is_empty() {
                    let name = entry.name.to_display();
                    let what = format!("name {name:?} has {bytes} bytes, ext4 allows 255");
                    return Err(Ext4Error::Unsupported { what });
                }
                if folder {
                    this.links[id.0 as usize] += 1;
                }
                if std::mem::replace(&mut seen[slot], true) {
                    if folder {
                        let what = "a directory has two names".into();
                        return Err(Ext4Error::Unsupported { what });
                    }
                    this.links[slot] += 1;
                    continue;
                }
                this.links[slot] = if folder { 2 } else { 1 };
                this.parents[slot] = id;
                if this.of[slot] == 0 {
                    this.last += 1;
                    this.of[slot] = this.last;
                }
                this.order.push(entry.node);
            }
        }
        Ok(this)
    }

    pub fn last(&self) -> u32 {
        self.last
    }

    fn number(&self, id: NodeId) -> u32 {
        self.of[id.0 as usize]
    }
}

/// A directory and not a link to one.
fn is_folder(node: &Node) -> bool {
    node.is_directory() && node.reparse().is_none()
}

/// Everything but file data, ready to be written.
pub struct Plan {
    pub files: Vec<FileData>,
    /// Block number and contents, one or more blocks each.
    pub blocks: Vec<(u64, Vec<u8>)>,
    /// Number and raw bytes, ascending.
    pub inodes: Vec<(u32, Vec<u8>)>,
    pub directories: Vec<u32>,
    /// Extent root of the journal, kept a second time in the superblock.
    pub journal_map: [u8; 60],
}

struct Maker<'a> {
    ids: &'a Ids,
    space: &'a mut Allocator,
    plan: Plan,
}

/// The fields of an inode.
struct Fields<'a> {
    unix: Option<UnixData>,
    times: [FileTime; 4],
    size_bytes: u64,
    links: u32,
    flags: u32,
    map: [u8; 60],
    /// Blocks on the volume that belong to it, attributes not counted.
    blocks: u64,
    xattrs: &'a [gilt_wim::tree::Xattr],
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self {
            unix: None,
            times: [FileTime::default(); 4],
            size_bytes: 0,
            links: 1,
            flags: 0,
            map: [0; 60],
            blocks: 0,
            xattrs: &[],
        }
    }
}

impl Plan {
    pub fn new(
        tree: &Tree,
        contents: &dyn ContentSource,
        numbers: &Numbers,
        geometry: &Geometry,
        space: &mut Allocator,
        ids: &Ids,
    ) -> Result<Self> {
        let plan = Plan {
            files: vec![],
            blocks: vec![],
            inodes: vec![],
            directories: vec![],
            journal_map: [0; 60],
        };
        let mut maker = Maker { ids, space, plan };
        // Metadata first, so that it lies together at the front.
        let (folders, others): (Vec<NodeId>, Vec<NodeId>) =
            numbers.order.iter().partition(|id| is_folder(tree.node(**id)));
        for id in folders {
            maker.folder(tree, numbers, id)?;
        }
        if !numbers.has_lost_and_found {
            maker.lost_and_found()?;
        }
        maker.journal(geometry)?;
        for id in others {
            maker.file(tree, contents, numbers, id)?;
        }
        let mut plan = maker.plan;
        plan.inodes.sort_by_key(|(number, _)| *number);
        Ok(plan)
    }

    pub fn write_inode_tables(&self, geometry: &Geometry, out: &dyn WriteAt) -> Result<()> {
        let per_group = geometry.inodes_per_group;
        let mut at = 0;
        while let Some((first, _)) = self.inodes.get(at) {
            let group = u64::from(first - 1) / per_group;
            let end = self.inodes[at..]
                .partition_point(|(number, _)| u64::from(number - 1) / per_group == group)
                + at;
            let slots = &self.inodes[at..end];
            let index = |number: u32| u64::from(number - 1) % per_group;
            let (low, high) = (index(slots[0].0), index(slots[slots.len() - 1].0));
            let mut table = vec![0; ((high - low + 1) * INODE_BYTES) as usize];
            for (number, raw) in slots {
                let from = ((index(*number) - low) * INODE_BYTES) as usize;
                table[from..from + raw.len()].copy_from_slice(raw);
            }
            let start = geometry.place(group).inode_table * BLOCK_BYTES;
            out.write_at(start + low * INODE_BYTES, &table)?;
            at = end;
        }
        Ok(())
    }
}

impl Maker<'_> {
    fn unix_of(node: &Node, path: &dyn Fn() -> u32) -> Result<UnixData> {
        node.extra.as_ref().and_then(|extra| extra.unix).ok_or_else(|| Ext4Error::Unsupported {
            what: format!(
                "inode {} would have no owner and mode: the image was not captured from Unix",
                path()
            ),
        })
    }

    fn times(node: &Node) -> [FileTime; 4] {
        [node.accessed, node.modified, node.modified, node.created]
    }

    fn folder(&mut self, tree: &Tree, numbers: &Numbers, id: NodeId) -> Result<()> {
        let node = tree.node(id);
        let number = numbers.number(id);
        let parent = numbers.number(numbers.parents[id.0 as usize]);
        let mut names: Vec<(Vec<u8>, NodeId)> =
            node.entries.iter().map(|entry| (name_to_bytes(&entry.name), entry.node)).collect();
        names.sort();
        let mut entries = vec![
            NewEntry { inode: number, kind: kind::DIRECTORY, name: b"." },
            NewEntry { inode: parent, kind: kind::DIRECTORY, name: b".." },
        ];
        for (name, child) in &names {
            let kind = kind_of(tree.node(*child));
            entries.push(NewEntry { inode: numbers.number(*child), kind, name });
        }
        let lost = (number == ROOT && !numbers.has_lost_and_found).then_some(NewEntry {
            inode: FIRST_INODE,
            kind: kind::DIRECTORY,
            name: LOST_AND_FOUND.as_bytes(),
        });
        entries.extend(lost);
        let seed = self.ids.inode_seed(number);
        let bytes = directory::blocks(seed, &entries);
        let unix = Self::unix_of(node, &|| number)?;
        let links = numbers.links[id.0 as usize];
        self.directory_inode(
            number,
            bytes,
            Fields {
                unix: Some(unix),
                times: Self::times(node),
                links: if links > MAX_DIRECTORY_LINKS { 1 } else { links },
                xattrs: xattrs_of(node),
                ..Fields::default()
            },
        )
    }

    fn directory_inode(&mut self, number: u32, bytes: Vec<u8>, fields: Fields<'_>) -> Result<()> {
        let blocks = bytes.len() as u64 / BLOCK_BYTES;
        let runs = self.space.take(blocks)?;
        let mut at = 0;
        for run in &runs {
            let len = ((run.end - run.start) * BLOCK_BYTES) as usize;
            self.plan.blocks.push((run.start, bytes[at..at + len].to_vec()));
            at += len;
        }
        let (map, extra) = self.extents(number, &with_offsets(&runs))?;
        self.plan.directories.push(number);
        self.inode(
            number,
            Fields {
                size_bytes: bytes.len() as u64,
                flags: flag::EXTENTS,
                map,
                blocks: blocks + extra,
                ..fields
            },
        )
    }

    fn lost_and_found(&mut self) -> Result<()> {
        let entries = [
            NewEntry { inode: FIRST_INODE, kind: kind::DIRECTORY, name: b"." },
            NewEntry { inode: ROOT, kind: kind::DIRECTORY, name: b".." },
        ];
        let seed = self.ids.inode_seed(FIRST_INODE);
        let mut bytes = directory::blocks(seed, &entries);
        // Empty blocks, so that e2fsck need not allocate when it finds something.
        let empty = [NewEntry { inode: 0, kind: 0, name: b"" }];
        for _ in 1..LOST_AND_FOUND_BLOCKS {
            bytes.extend(directory::blocks(seed, &empty));
        }
        let time = FileTime::from_unix(self.ids.created.into(), 0);
        self.directory_inode(
            FIRST_INODE,
            bytes,
            Fields {
                unix: Some(UnixData { uid: 0, gid: 0, mode: mode::DIRECTORY | 0o700, rdev: 0 }),
                times: [time; 4],
                links: 2,
                ..Fields::default()
            },
        )
    }

    fn journal(&mut self, geometry: &Geometry) -> Result<()> {
        let blocks = geometry.journal_blocks;
        let runs = self.space.take(blocks)?;
        if let Some(first) = runs.first() {
            self.plan.blocks.push((first.start, journal_superblock(blocks, self.ids)));
        }
        let (map, extra) = self.extents(JOURNAL, &with_offsets(&runs))?;
        self.plan.journal_map = map;
        let time = FileTime::from_unix(self.ids.created.into(), 0);
        self.inode(
            JOURNAL,
            Fields {
                unix: Some(UnixData { uid: 0, gid: 0, mode: mode::REGULAR | 0o600, rdev: 0 }),
                times: [time; 4],
                size_bytes: blocks * BLOCK_BYTES,
                links: 1,
                flags: flag::EXTENTS,
                map,
                blocks: blocks + extra,
                ..Fields::default()
            },
        )
    }

    fn file(
        &mut self,
        tree: &Tree,
        contents: &dyn ContentSource,
        numbers: &Numbers,
        id: NodeId,
    ) -> Result<()> {
        let node = tree.node(id);
        let number = numbers.number(id);
        let unix = Self::unix_of(node, &|| number)?;
        let links = numbers.links[id.0 as usize];
        let mut fields = Fields {
            unix: Some(unix),
            times: Self::times(node),
            links,
            xattrs: xattrs_of(node),
            ..Fields::default()
        };
        if links > MAX_DIRECTORY_LINKS {
            let what = format!("a file has {links} names, ext4 allows {MAX_DIRECTORY_LINKS}");
            return Err(Ext4Error::Unsupported { what });
        }
        match unix.mode & mode::TYPE {
            mode::REGULAR => self.regular(node, contents, number, &mut fields)?,
            mode::SYMLINK => {
                let target = node.reparse().and_then(target_from_reparse);
                let target = target.ok_or_else(|| Ext4Error::Unsupported {
                    what: format!("inode {number} is a link without a target"),
                })?;
                fields.size_bytes = target.len() as u64;
                if target.len() < 60 {
                    fields.map[..target.len()].copy_from_slice(&target);
                } else {
                    let block = self.space.take_one()?;
                    let mut bytes = target;
                    if bytes.len() >= BLOCK_BYTES as usize {
                        let what = format!("inode {number} is a link of {} bytes", bytes.len());
                        return Err(Ext4Error::Unsupported { what });
                    }
                    bytes.resize(BLOCK_BYTES as usize, 0);
                    self.plan.blocks.push((block, bytes));
                    let (map, extra) = self.extents(number, &[(0, block..block + 1)])?;
                    (fields.map, fields.flags) = (map, flag::EXTENTS);
                    fields.blocks = 1 + extra;
                }
            }
            mode::CHARACTER | mode::BLOCK => {
                let (major, minor) =
                    (unix.rdev >> 8 & 0xFFF, unix.rdev & 0xFF | unix.rdev >> 12 & 0xF_FF00);
                if major < 256 && minor < 256 {
                    let old = major << 8 | minor;
                    fields.map[..4].copy_from_slice(&old.to_le_bytes());
                } else {
                    fields.map[4..8].copy_from_slice(&unix.rdev.to_le_bytes());
                }
            }
            mode::FIFO | mode::SOCKET => {}
            other => {
                let what = format!("inode {number} has file type {other:#o}");
                return Err(Ext4Error::Unsupported { what });
            }
        }
        self.inode(number, fields)
    }

    fn regular(
        &mut self,
        node: &Node,
        contents: &dyn ContentSource,
        number: u32,
        fields: &mut Fields<'_>,
    ) -> Result<()> {
        let stream = node.streams.iter().find(|stream| stream.name.is_none());
        let len_bytes = stream.map_or(0, |stream| stream.len_bytes);
        let mut runs: Vec<(u64, Range<u64>)> = Vec::new();
        if let Some(stream) = stream {
            let total = len_bytes.div_ceil(BLOCK_BYTES);
            let whole = 0..total;
            let mut pieces = if len_bytes >= SPARSE_SCAN_BYTES {
                data::data_ranges(contents, stream.content, len_bytes)?
            } else {
                vec![whole.clone()]
            };
            // A file of more pieces than its extent tree is made for is stored in full.
            if pieces.len() > ROOT_EXTENTS * LEAF_EXTENTS / 2 {
                pieces = vec![whole];
            }
            for piece in pieces {
                let mut first = piece.start;
                for run in self.space.take(piece.end - piece.start)? {
                    let len = run.end - run.start;
                    runs.push((first, run));
                    first += len;
                }
            }
            if len_bytes > 0 {
                let content = stream.content;
                let runs = runs.clone();
                self.plan.files.push(FileData { content, len_bytes, runs });
            }
        }
        let data: u64 = runs.iter().map(|(_, run)| run.end - run.start).sum();
        let (map, extra) = self.extents(number, &runs)?;
        fields.size_bytes = len_bytes;
        fields.flags = flag::EXTENTS;
        fields.map = map;
        fields.blocks = data + extra;
        Ok(())
    }

    /// The extent root for `runs`, and how many blocks its leaves took.
    fn extents(&mut self, number: u32, runs: &[(u64, Range<u64>)]) -> Result<([u8; 60], u64)> {
        let mut extents: Vec<[u8; 12]> = Vec::new();
        let mut firsts: Vec<u64> = Vec::new();
        for (first, run) in runs {
            let (mut logical, mut start) = (*first, run.start);
            while start < run.end {
                let len = MAX_EXTENT_BLOCKS.min(run.end - start);
                let mut raw = [0; 12];
                raw[..4].copy_from_slice(&(logical as u32).to_le_bytes());
                raw[4..6].copy_from_slice(&(len as u16).to_le_bytes());
                raw[6..8].copy_from_slice(&((start >> 32) as u16).to_le_bytes());
                raw[8..].copy_from_slice(&(start as u32).to_le_bytes());
                extents.push(raw);
                firsts.push(logical);
                logical += len;
                start += len;
            }
        }
        let mut root = [0; 60];
        if extents.len() <= ROOT_EXTENTS {
            head(&mut root, extents.len(), ROOT_EXTENTS, 0);
            for (slot, raw) in root[12..].chunks_exact_mut(12).zip(&extents) {
                slot.copy_from_slice(raw);
            }
            return Ok((root, 0));
        }
        let leaves = extents.len().div_ceil(LEAF_EXTENTS);
        if leaves > ROOT_EXTENTS {
            let what = format!("inode {number} would have {} extents", extents.len());
            return Err(Ext4Error::Unsupported { what });
        }
        head(&mut root, leaves, ROOT_EXTENTS, 1);
        for (index, part) in extents.chunks(LEAF_EXTENTS).enumerate() {
            let block = self.space.take_one()?;
            let mut leaf = vec![0; BLOCK_BYTES as usize];
            head(&mut leaf, part.len(), LEAF_EXTENTS, 0);
            for (slot, raw) in leaf[12..].chunks_exact_mut(12).zip(part) {
                slot.copy_from_slice(raw);
            }
            let end = BLOCK_BYTES as usize - 4;
            let crc = crc32c_raw(self.ids.inode_seed(number), &leaf[..end]);
            leaf[end..].copy_from_slice(&crc.to_le_bytes());
            self.plan.blocks.push((block, leaf));
            let at = 12 + index * 12;
            let first = firsts[index * LEAF_EXTENTS] as u32;
            root[at..at + 4].copy_from_slice(&first.to_le_bytes());
            root[at + 4..at + 8].copy_from_slice(&(block as u32).to_le_bytes());
            root[at + 8..at + 10].copy_from_slice(&((block >> 32) as u16).to_le_bytes());
        }
        Ok((root, leaves as u64))
    }

    fn inode(&mut self, number: u32, fields: Fields<'_>) -> Result<()> {
        let unix = fields.unix.unwrap_or(UnixData { uid: 0, gid: 0, mode: 0, rdev: 0 });
        let mut raw = vec![0; INODE_BYTES as usize];
        let mut blocks = fields.blocks;
        let mut xattr_block = 0;
        match attributes::place(number, fields.xattrs)? {
            Placed::None => {}
            Placed::Body(body) => raw[FIELDS_END..FIELDS_END + body.len()].copy_from_slice(&body),
            Placed::Block(mut block) => {
                xattr_block = self.space.take_one()?;
                attributes::sum_block(self.ids.checksum_seed, xattr_block, &mut block);
                self.plan.blocks.push((xattr_block, block));
                blocks += 1;
            }
        }
        let sectors = blocks * (BLOCK_BYTES / 512);
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x0, &(unix.mode as u16).to_le_bytes());
        put(0x2, &(unix.uid as u16).to_le_bytes());
        put(0x4, &(fields.size_bytes as u32).to_le_bytes());
        put(0x18, &(unix.gid as u16).to_le_bytes());
        put(0x1A, &(fields.links as u16).to_le_bytes());
        put(0x1C, &(sectors as u32).to_le_bytes());
        put(0x20, &fields.flags.to_le_bytes());
        put(0x28, &fields.map);
        put(0x68, &(xattr_block as u32).to_le_bytes());
        put(0x6C, &((fields.size_bytes >> 32) as u32).to_le_bytes());
        put(0x74, &((sectors >> 32) as u16).to_le_bytes());
        put(0x76, &((xattr_block >> 32) as u16).to_le_bytes());
        put(0x78, &((unix.uid >> 16) as u16).to_le_bytes());
        put(0x7A, &((unix.gid >> 16) as u16).to_le_bytes());
        put(0x80, &32_u16.to_le_bytes());
        // Access, change, modification, creation: seconds, and where their extra bits are.
        let places = [(0x8, 0x8C), (0xC, 0x84), (0x10, 0x88), (0x90, 0x94)];
        for (time, (at, extra_at)) in fields.times.iter().zip(places) {
            let (seconds, nanos) = time.to_unix();
            // From 1901 to 2446.
            let seconds = seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
            let low = seconds as i32;
            let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
            put(at, &low.to_le_bytes());
            put(extra_at, &(nanos << 2 | epoch).to_le_bytes());
        }
        let crc = crc32c_raw(self.ids.inode_seed(number), &raw);
        raw[0x7C..0x7E].copy_from_slice(&(crc as u16).to_le_bytes());
        raw[0x82..0x84].copy_from_slice(&((crc >> 16) as u16).to_le_bytes());
        self.plan.inodes.push((number, raw));
        Ok(())
    }
}

fn head(raw: &mut [u8], entries: usize, room: usize, depth: u16) {
    raw[..2].copy_from_slice(&0xF30A_u16.to_le_bytes());
    raw[2..4].copy_from_slice(&(entries as u16).to_le_bytes());
    raw[4..6].copy_from_slice(&(room as u16).to_le_bytes());
    raw[6..8].copy_from_slice(&depth.to_le_bytes());
}

fn with_offsets(runs: &[Range<u64>]) -> Vec<(u64, Range<u64>)> {
    let mut first = 0;
    runs.iter()
        .map(|run| {
            let at = first;
            first += run.end - run.start;
            (at, run.clone())
        })
        .collect()
}

fn xattrs_of(node: &Node) -> &[gilt_wim::tree::Xattr] {
    node.extra.as_ref().map_or(&[], |extra| &extra.xattrs)
}

fn kind_of(node: &Node) -> u8 {
    let mode = node.extra.as_ref().and_then(|extra| extra.unix).map_or(0, |unix| unix.mode);
    match mode & mode::TYPE {
        mode::REGULAR => kind::REGULAR,
        mode::DIRECTORY => kind::DIRECTORY,
        mode::CHARACTER => kind::CHARACTER,
        mode::BLOCK => kind::BLOCK,
        mode::FIFO => kind::FIFO,
        mode::SOCKET => kind::SOCKET,
        mode::SYMLINK => kind::SYMLINK,
        _ => 0,
    }
}
