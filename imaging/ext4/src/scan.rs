//! The whole volume as a tree: inode tables front to back, then directories from the root.

use crate::dir;
use crate::error::{Ext4Error, Place, Result};
use crate::extents;
use crate::inode::{Inode, flag, mode};
use crate::volume::{Ext4Volume, FileInode};
use crate::xattr;
use gilt_wim::tree::{
    ContentId, Entry, Name, Node, NodeId, Stream, Tree, UnixData, attribute, reparse_tag,
};
use gilt_wim::unix_names::{name_from_bytes, reparse_from_target};
use std::collections::HashMap;

const ROOT: u32 = 2;
/// Bytes of an inode table read at once.
const TABLE_READ_BYTES: u64 = 1 << 20;
/// The kernel gives up after as many links.
const MAX_LINKS_FOLLOWED: usize = 40;
/// A directory of 10 million names; larger ones are a hostile image.
const MAX_DIRECTORY_BYTES: u64 = 1 << 30;

impl Ext4Volume {
    /// All files and folders. The contents can be opened on this volume afterwards.
    pub fn tree(&self) -> Result<Tree> {
        let mut inodes = self.all_inodes()?;
        let root = inodes.remove(&ROOT).filter(|inode| inode.kind() == mode::DIRECTORY);
        let root = root.ok_or(Ext4Error::Corrupt {
            place: Place::Inode(ROOT),
            what: "root directory is missing",
            found: 0,
            limit: 0,
        })?;
        let mut scan = Scan {
            volume: self,
            inodes,
            nodes: HashMap::new(),
            tree: Tree::default(),
            files: HashMap::new(),
            links: Vec::new(),
            parents: vec![NodeId(0)],
        };
        scan.tree.nodes.push(scan.node(&root)?);
        let mut pending = vec![(NodeId(0), root)];
        while let Some((id, directory)) = pending.pop() {
            scan.directory(id, &directory, &mut pending)?;
        }
        scan.mark_links_to_directories();
        let Scan { tree, files, .. } = scan;
        // A second scan of one volume finds the same files.
        let _ = self.files.set(files);
        Ok(tree)
    }

    fn all_inodes(&self) -> Result<HashMap<u32, Inode>> {
        let sb = self.superblock();
        let size = usize::from(sb.inode_bytes);
        let per_read = (TABLE_READ_BYTES / sb.block_bytes).max(1);
        let mut all = HashMap::new();
        let mut buf = Vec::new();
        for (index, group) in (0_u32..).zip(self.groups()) {
            if group.uninitialized {
                continue;
            }
            let used = sb.inodes_per_group.saturating_sub(group.unused_inodes);
            let blocks = (u64::from(used) * size as u64).div_ceil(sb.block_bytes);
            let mut number = u64::from(index) * u64::from(sb.inodes_per_group) + 1;
            let end = (number + u64::from(used)).min(u64::from(sb.inodes) + 1);
            let mut done = 0;
            while done < blocks {
                let now = per_read.min(blocks - done);
                buf.resize((now * sb.block_bytes) as usize, 0);
                self.read_blocks(group.inode_table + done, &mut buf)?;
                for raw in buf.chunks_exact(size) {
                    if number < end
                        && let Ok(small) = u32::try_from(number)
                        && raw[..2] != [0; 2]
                        && let Some(inode) = Inode::parse(raw, small, sb)?
                        && (small == ROOT || small >= 11)
                    {
                        all.insert(small, inode);
                    }
                    number += 1;
                }
                done += now;
            }
        }
        Ok(all)
    }
}

struct Scan<'a> {
    volume: &'a Ext4Volume,
    /// Those not yet in the tree.
    inodes: HashMap<u32, Inode>,
    nodes: HashMap<u32, NodeId>,
    tree: Tree,
    files: HashMap<u32, FileInode>,
    /// Symbolic links: node, folder they are in, target.
    links: Vec<(NodeId, NodeId, Vec<u8>)>,
    /// Parent of each node; for a hard link the first one met.
    parents: Vec<NodeId>,
}

impl Scan<'_> {
    fn directory(
        &mut self,
        id: NodeId,
        inode: &Inode,
        pending: &mut Vec<(NodeId, Inode)>,
    ) -> Result<()> {
        let corrupt = |what, found: u64, limit: u64| Ext4Error::Corrupt {
            place: Place::Inode(inode.number),
            what,
            found,
            limit,
        };
        if inode.has(flag::ENCRYPTED) {
            let what = format!("directory inode {} is encrypted (fscrypt)", inode.number);
            return Err(Ext4Error::Unsupported { what });
        }
        let mut found: Vec<(Name, u32)> = Vec::new();
        let mut each = |entry: dir::DirEntry<'_>| {
            let name = name_from_bytes(entry.name).ok_or_else(|| Ext4Error::Name {
                directory: inode.number,
                name: String::from_utf8_lossy(entry.name).into_owned(),
            })?;
            if entry.name.contains(&b'/') || entry.name.contains(&0) {
                return Err(corrupt("character in a name", entry.inode.into(), 0));
            }
            found.push((name, entry.inode));
            Ok(())
        };
        if inode.has(flag::INLINE_DATA) {
            let data = self.volume.inline_data(inode)?;
            // The first four bytes name the parent; the rest is two areas of entries.
            let (first, rest) = data.split_at(data.len().min(60));
            dir::entries(inode.number, first.get(4..).unwrap_or_default(), &mut each)?;
            dir::entries(inode.number, rest, &mut each)?;
        } else {
            if inode.size_bytes > MAX_DIRECTORY_BYTES {
                return Err(corrupt("directory size", inode.size_bytes, MAX_DIRECTORY_BYTES));
            }
            let mut last = 0;
            for mapping in extents::mappings(self.volume, inode)? {
                if mapping.logical < last {
                    return Err(corrupt("directory blocks", mapping.logical, last));
                }
                last = mapping.logical + mapping.blocks;
                for block in 0..mapping.blocks {
                    let raw = self.volume.read_block(mapping.physical + block)?;
                    dir::entries(inode.number, &raw, &mut each)?;
                }
            }
        }
        found.sort();
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(corrupt("name is there twice", pair[1].1.into(), 0));
        }
        let mut entries = Vec::with_capacity(found.len());
        for (name, number) in found {
            let node = match self.nodes.get(&number) {
                Some(known) if is_directory_proper(self.tree.node(*known)) => {
                    return Err(corrupt("directory has two names", number.into(), 0));
                }
                Some(known) => *known,
                None => self.add(id, number, pending)?,
            };
            entries.push(Entry { name, short_name: Name::default(), node });
        }
        self.tree.nodes[id.0 as usize].entries = entries;
        Ok(())
    }

    fn add(
        &mut self,
        parent: NodeId,
        number: u32,
        pending: &mut Vec<(NodeId, Inode)>,
    ) -> Result<NodeId> {
        let inode = self.inodes.remove(&number).ok_or(Ext4Error::Corrupt {
            place: Place::Inode(number),
            what: "a directory names an inode that is not in use",
            found: number.into(),
            limit: self.volume.superblock().inodes.into(),
        })?;
        let node = self.node(&inode)?;
        let id = NodeId(u32::try_from(self.tree.nodes.len()).map_err(|_| {
            Ext4Error::Unsupported { what: "volume has more files than a tree can hold".into() }
        })?);
        self.nodes.insert(number, id);
        self.tree.nodes.push(node);
        self.parents.push(parent);
        match inode.kind() {
            mode::DIRECTORY => pending.push((id, inode)),
            mode::REGULAR => {
                let position = self.position(&inode)?;
                self.files.insert(number, FileInode { inode, position });
            }
            mode::SYMLINK => {
                let target = self.volume.symlink_target(&inode)?;
                self.links.push((id, parent, target));
            }
            _ => {}
        }
        Ok(id)
    }

    /// First byte on the volume. Only the root of the extent tree is looked at: near enough.
    fn position(&self, inode: &Inode) -> Result<u64> {
        let bytes = self.volume.superblock().block_bytes;
        let word = |at| crate::bytes::le32(&inode.block, at).unwrap_or(0);
        let block = if inode.has(flag::INLINE_DATA) || inode.size_bytes == 0 {
            0
        } else if inode.has(flag::EXTENTS) {
            let depth = crate::bytes::le16(&inode.block, 6).unwrap_or(0);
            // A leaf entry has the block at 8 and an index entry at 4, after a header of 12.
            if depth == 0 { word(12 + 8) } else { word(12 + 4) }
        } else {
            word(0)
        };
        Ok(u64::from(block).saturating_mul(bytes))
    }

    fn node(&self, inode: &Inode) -> Result<Node> {
        let mut node = Node {
            attributes: match inode.kind() {
                mode::DIRECTORY => attribute::DIRECTORY,
                mode::REGULAR => attribute::NORMAL,
                mode::SYMLINK => attribute::REPARSE_POINT,
                _ => 0,
            },
            created: inode.created,
            accessed: inode.accessed,
            modified: inode.modified,
            ..Node::default()
        };
        let attributes = xattr::read(self.volume, inode)?;
        let extra = node.extra_mut();
        extra.unix =
            Some(UnixData { uid: inode.uid, gid: inode.gid, mode: inode.mode, rdev: inode.rdev() });
        extra.xattrs = xattr::for_users(inode, attributes)?;
        match inode.kind() {
            mode::REGULAR => node.streams.push(Stream {
                name: None,
                len_bytes: inode.size_bytes,
                content: ContentId(inode.number.into()),
            }),
            mode::SYMLINK => {
                let target = self.volume.symlink_target(inode)?;
                let reparse = reparse_from_target(&target).ok_or_else(|| Ext4Error::Name {
                    directory: inode.number,
                    name: String::from_utf8_lossy(&target).into_owned(),
                })?;
                node.extra_mut().reparse = Some(reparse);
            }
            mode::DIRECTORY | mode::FIFO | mode::SOCKET | mode::CHARACTER | mode::BLOCK => {}
            other => {
                return Err(Ext4Error::Corrupt {
                    place: Place::Inode(inode.number),
                    what: "file type",
                    found: other.into(),
                    limit: mode::TYPE.into(),
                });
            }
        }
        Ok(node)
    }

    /// Windows tells links to directories from links to files.
    fn mark_links_to_directories(&mut self) {
        let by_node: HashMap<NodeId, (NodeId, &[u8])> =
            self.links.iter().map(|(id, parent, target)| (*id, (*parent, &**target))).collect();
        let marked: Vec<NodeId> = self
            .links
            .iter()
            .filter(|(_, parent, target)| self.leads_to_directory(*parent, target, &by_node))
            .map(|(id, _, _)| *id)
            .collect();
        for id in marked {
            self.tree.nodes[id.0 as usize].attributes |= attribute::DIRECTORY;
        }
    }

    fn leads_to_directory(
        &self,
        parent: NodeId,
        target: &[u8],
        links: &HashMap<NodeId, (NodeId, &[u8])>,
    ) -> bool {
        let mut at = if target.first() == Some(&b'/') { Tree::ROOT } else { parent };
        let mut followed = 0;
        let mut rest: Vec<&[u8]> = target.split(|byte| *byte == b'/').rev().collect();
        while let Some(step) = rest.pop() {
            if step.is_empty() || step == b"." {
                continue;
            }
            if step == b".." {
                at = self.parents[at.0 as usize];
                continue;
            }
            let Some(name) = name_from_bytes(step) else { return false };
            let entries = &self.tree.node(at).entries;
            let Ok(index) = entries.binary_search_by(|entry| entry.name.cmp(&name)) else {
                return false;
            };
            let next = entries[index].node;
            match links.get(&next) {
                Some((_, target)) => {
                    followed += 1;
                    if followed > MAX_LINKS_FOLLOWED {
                        return false;
                    }
                    if target.first() == Some(&b'/') {
                        at = Tree::ROOT;
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev());
                }
                None => at = next,
            }
        }
        is_directory_proper(self.tree.node(at))
    }
}

/// A directory and not a link to one.
fn is_directory_proper(node: &Node) -> bool {
    node.is_directory() && node.reparse().is_none_or(|r| r.tag != reparse_tag::SYMLINK)
}
