//! Metadata resource -> [`Tree`]. Iterative, and bounded by the resource's own length.

use super::{DENTRY_BYTES, STREAM_BYTES, align8, tagged};
use crate::error::{Error, Result};
use crate::header::{array_at, u16_at, u32_at, u64_at};
use crate::tree::{
    ContentId, Entry, Extra, FileTime, Name, Node, NodeId, Reparse, SecurityId, Sha1, Stream, Tree,
    attribute,
};
use std::collections::{HashMap, HashSet};

/// What the reader of metadata asks of the WIM around it.
pub(crate) trait Resolve {
    /// The id and length of the contents with this SHA-1.
    fn content(&mut self, sha1: Sha1) -> (ContentId, u64);
    /// The bytes of a reparse point (they are few).
    fn reparse_data(&mut self, sha1: Sha1) -> Result<Box<[u8]>>;
}

/// One dentry as it lies there, lengths checked.
struct Dentry<'a> {
    at: usize,
    fixed: &'a [u8],
    name: Name,
    short_name: Name,
    tagged: &'a [u8],
    streams: Vec<(Name, Sha1)>,
    next: usize,
}

pub(crate) fn read_tree(bytes: &[u8], resolve: &mut dyn Resolve) -> Result<Tree> {
    let (security, root_at) = read_security(bytes)?;
    // About what a dentry takes with its names; hostile ones are as long, or fewer.
    let nodes = Vec::with_capacity(bytes.len() / (DENTRY_BYTES + 58));
    let mut reader = Reader {
        bytes,
        resolve,
        tree: Tree { nodes, security },
        groups: HashMap::new(),
        entries_left: bytes.len() / DENTRY_BYTES + 1,
    };
    let Some(root) = reader.dentry(root_at)? else {
        return Err(reader.corrupt(root_at, "root dentry", "an end mark", "a dentry"));
    };
    let attributes = u32_at(root.fixed, 8);
    if attributes & attribute::DIRECTORY == 0 {
        return Err(reader.corrupt(
            root_at,
            "root dentry",
            format!("{attributes:#x}"),
            "a directory",
        ));
    }
    let mut stack = Vec::new();
    let mut seen = HashSet::new();
    reader.add_node(root, &mut stack)?;
    while let Some((parent, mut at)) = stack.pop() {
        if !seen.insert(at) {
            return Err(reader.corrupt(at, "directory", "reached twice", "a tree"));
        }
        let mut entries = Vec::new();
        while let Some(mut dentry) = reader.dentry(at)? {
            at = dentry.next;
            if dentry.name.is_empty() {
                return Err(reader.corrupt(dentry.at, "name", "an empty one", "one character"));
            }
            let name = std::mem::take(&mut dentry.name);
            let short_name = std::mem::take(&mut dentry.short_name);
            let node = reader.add_node(dentry, &mut stack)?;
            entries.push(Entry { name, short_name, node });
        }
        let mut names: Vec<&Name> = entries.iter().map(|entry| &entry.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let found = format!("{:?} twice", twice[0]);
            return Err(reader.corrupt(at, "names of a directory", found, "each once"));
        }
        reader.tree.nodes[parent.0 as usize].entries = entries;
    }
    Ok(reader.tree)
}

/// The descriptors, and where the root dentry starts.
fn read_security(bytes: &[u8]) -> Result<(Vec<Box<[u8]>>, usize)> {
    let fail = |found: String, expected: &'static str| {
        Err(Error::corrupt(0, "security data of the metadata", found, expected))
    };
    let Some(head) = bytes.get(..8) else {
        return fail(format!("{} bytes", bytes.len()), "8 at least");
    };
    let (total, count) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize);
    // Some writers leave the total at 0 where there are no descriptors.
    let total = if total == 0 && count == 0 { 8 } else { total };
    let heads = count.checked_mul(8).and_then(|n| n.checked_add(8));
    let (Some(body), Some(mut at)) = (bytes.get(..total), heads.filter(|end| *end <= total)) else {
        return fail(format!("{count} descriptors in {total} bytes"), "to lie within the metadata");
    };
    let mut list = Vec::with_capacity(count);
    for index in 0..count {
        let size = u64_at(body, 8 + 8 * index);
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
        let Some((end, descriptor)) = end.and_then(|end| Some((end, body.get(at..end)?))) else {
            return fail(format!("descriptor {index} of {size} bytes"), "to end within the data");
        };
        list.push(descriptor.into());
        at = end;
    }
    Ok((list, align8(total)))
}

/// A node of a hard-link group, with the names and hashes of its streams.
type GroupMember = (NodeId, Vec<(Name, Sha1)>);

struct Reader<'a> {
    bytes: &'a [u8],
    resolve: &'a mut dyn Resolve,
    tree: Tree,
    /// Hard-link group -> the nodes seen under that id. More than one where Windows 7's
    /// install.wim gave one id to different files.
    groups: HashMap<u64, Vec<GroupMember>>,
    /// Directories may overlap in a hostile file; a sane one has each dentry once.
    entries_left: usize,
}

impl<'a> Reader<'a> {
    fn corrupt(
        &self,
        at: usize,
        what: &'static str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Error {
        Error::corrupt(at as u64, what, format!("{found} (in the metadata)"), expected)
    }

    /// The dentry at `at`, or `None` for an end mark.
    fn dentry(&mut self, at: usize) -> Result<Option<Dentry<'a>>> {
        let bytes = self.bytes;
        let Some(length) = bytes.get(at..at.saturating_add(8)) else {
            return Err(self.corrupt(at, "dentry", "the end of the metadata", "an end mark"));
        };
        let length = u64_at(length, 0);
        if length <= 8 {
            return Ok(None);
        }
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
        let Some(whole) = end.and_then(|end| bytes.get(at..end)) else {
            return Err(self.corrupt(at, "dentry length", length, "to end within the metadata"));
        };
        if whole.len() < DENTRY_BYTES {
            return Err(self.corrupt(at, "dentry length", length, "102 at least"));
        }
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
            self.corrupt(at, "directories", "dentries shared by several", "each dentry once")
        })?;
        let extra_streams = usize::from(u16_at(whole, 96));
        let short_bytes = usize::from(u16_at(whole, 98));
        let name_bytes = usize::from(u16_at(whole, 100));
        let mut cursor = DENTRY_BYTES;
        let mut take = |bytes: usize| -> Option<Name> {
            if bytes == 0 {
                return Some(Name::default());
            }
            let name = read_name(whole.get(cursor..cursor + bytes)?)?;
            cursor += bytes + 2;
            Some(name)
        };
        let (Some(name), Some(short_name)) = (take(name_bytes), take(short_bytes)) else {
            let found = format!("{name_bytes} and {short_bytes} bytes");
            return Err(self.corrupt(
                at + 98,
                "lengths of the names",
                found,
                "even, and to end within the dentry",
            ));
        };
        let tagged = whole.get(align8(cursor)..).unwrap_or_default();
        let mut streams = Vec::with_capacity(extra_streams.min(64));
        let mut next = align8(at + whole.len());
        for _ in 0..extra_streams {
            let Some(fixed) = bytes.get(next..next + STREAM_BYTES) else {
                return Err(self.corrupt(
                    next,
                    "stream entry",
                    "the end of the metadata",
                    "38 bytes",
                ));
            };
            let length = u64_at(fixed, 0);
            let name_bytes = usize::from(u16_at(fixed, 36));
            let name = bytes
                .get(next + STREAM_BYTES..next + STREAM_BYTES + name_bytes)
                .and_then(read_name);
            let end = usize::try_from(length).ok().and_then(|length| next.checked_add(length));
            let (Some(name), Some(end)) = (name, end) else {
                return Err(self.corrupt(
                    next,
                    "stream entry",
                    length,
                    "to end within the metadata",
                ));
            };
            if end - next < STREAM_BYTES + name_bytes || end > bytes.len() {
                return Err(self.corrupt(
                    next,
                    "length of a stream entry",
                    length,
                    format!(
                        "{} at least, and to end within the metadata",
                        STREAM_BYTES + name_bytes
                    ),
                ));
            }
            streams.push((name, Sha1(array_at(fixed, 16))));
            next = align8(end);
        }
        let fixed = &whole[..DENTRY_BYTES];
        Ok(Some(Dentry { at, fixed, name, short_name, tagged, streams, next }))
    }

    /// The node of `dentry`: new, or the one its hard-link group has.
    fn add_node(
        &mut self,
        dentry: Dentry<'a>,
        directories: &mut Vec<(NodeId, usize)>,
    ) -> Result<NodeId> {
        let fixed = dentry.fixed;
        let attributes = u32_at(fixed, 8);
        let is_reparse = attributes & attribute::REPARSE_POINT != 0;
        let is_directory = attributes & attribute::DIRECTORY != 0;
        let group = if is_reparse || is_directory { 0 } else { u64_at(fixed, 88) };
        let mut hashes = Vec::with_capacity(1 + dentry.streams.len());
        hashes.push((Name::default(), Sha1(array_at(fixed, 64))));
        hashes.extend(dentry.streams);
        if group != 0 {
            for (node, others) in self.groups.get(&group).into_iter().flatten() {
                if *others == hashes {
                    return Ok(*node);
                }
            }
        }
        let security = match u32_at(fixed, 12) {
            u32::MAX => None,
            id if (id as usize) < self.tree.security.len() => Some(SecurityId(id)),
            id => {
                let count = self.tree.security.len();
                return Err(self.corrupt(
                    dentry.at + 12,
                    "security id",
                    id,
                    format!("less than {count}, or -1"),
                ));
            }
        };
        let mut node = Node {
            attributes,
            created: FileTime(u64_at(fixed, 40)),
            accessed: FileTime(u64_at(fixed, 48)),
            modified: FileTime(u64_at(fixed, 56)),
            security,
            ..Node::default()
        };
        if !dentry.tagged.is_empty() {
            let mut extra = Extra::default();
            tagged::read(dentry.tagged, &mut extra);
            if extra != Extra::default() {
                node.extra = Some(Box::new(extra));
            }
        }
        self.add_streams(&mut node, &hashes, fixed)?;
        let id = NodeId(
            u32::try_from(self.tree.nodes.len())
                .map_err(|_| Error::unsupported("an image of more than 4,294,967,295 files"))?,
        );
        self.tree.nodes.push(node);
        if group != 0 {
            self.groups.entry(group).or_default().push((id, hashes));
        }
        let children = u64_at(fixed, 16);
        if is_directory && children != 0 {
            let children = usize::try_from(children).unwrap_or(usize::MAX);
            directories.push((id, children));
        }
        Ok(id)
    }

    /// Sorts hashes into reparse data, contents and named streams.
    ///
    /// Of the unnamed ones in a reparse point, the first is the reparse data. A zero hash in the
    /// dentry itself says nothing: what there is comes in the entries after it.
    fn add_streams(
        &mut self,
        node: &mut Node,
        hashes: &[(Name, Sha1)],
        fixed: &[u8],
    ) -> Result<()> {
        let mut wants_reparse = node.attributes & attribute::REPARSE_POINT != 0;
        let mut has_contents = false;
        // Most files have one; a vector that grows by itself takes room for four.
        node.streams.reserve_exact(usize::from(!node.is_directory() && !wants_reparse));
        for (index, (name, sha1)) in hashes.iter().enumerate() {
            if !name.is_empty() {
                let (content, len_bytes) = self.resolve.content(*sha1);
                node.streams.push(Stream { name: Some(name.clone()), len_bytes, content });
                continue;
            }
            if index == 0 && sha1.is_zero() {
                continue;
            }
            if wants_reparse {
                wants_reparse = false;
                let data = if sha1.is_zero() {
                    Box::default()
                } else {
                    self.resolve.reparse_data(*sha1)?
                };
                let reparse = Reparse { tag: u32_at(fixed, 88), flags: u16_at(fixed, 94), data };
                node.extra_mut().reparse = Some(reparse);
            } else if !has_contents && !node.is_directory() {
                has_contents = true;
                if !sha1.is_zero() || node.reparse().is_none() {
                    let (content, len_bytes) = self.resolve.content(*sha1);
                    node.streams.insert(0, Stream { name: None, len_bytes, content });
                }
            }
        }
        if wants_reparse {
            // A reparse point without data: keep what there is of it.
            let reparse =
                Reparse { tag: u32_at(fixed, 88), flags: u16_at(fixed, 94), data: Box::default() };
            node.extra_mut().reparse = Some(reparse);
        } else if !has_contents && !node.is_directory() && node.reparse().is_none() {
            let (content, len_bytes) = self.resolve.content(Sha1::ZERO);
            node.streams.insert(0, Stream { name: None, len_bytes, content });
        }
        Ok(())
    }
}

fn read_name(bytes: &[u8]) -> Option<Name> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    Some(Name(bytes.chunks_exact(2).map(|unit| u16_at(unit, 0)).collect()))
}
