//! [`Tree`] -> metadata resource, as DISM would write it.

use super::{DENTRY_BYTES, STREAM_BYTES, tagged};
use crate::error::{Error, Result};
use crate::tree::{Entry, Name, Node, NodeId, Sha1, Tree, attribute};
use std::collections::HashMap;

/// The SHA-1 of every stream of a tree. Zero for empty streams.
#[derive(Clone, Debug, Default)]
pub struct Hashes {
    /// Where the streams of each node start in `streams`.
    first: Vec<u32>,
    streams: Vec<Sha1>,
    reparse: HashMap<NodeId, Sha1>,
}

impl Hashes {
    pub(crate) fn new(tree: &Tree) -> Self {
        let mut first = Vec::with_capacity(tree.nodes.len());
        let mut count = 0u32;
        for node in &tree.nodes {
            first.push(count);
            count += node.streams.len() as u32;
        }
        Self { first, streams: vec![Sha1::ZERO; count as usize], reparse: HashMap::new() }
    }

    pub(crate) fn set_stream(&mut self, node: NodeId, stream: usize, sha1: Sha1) {
        self.streams[self.first[node.0 as usize] as usize + stream] = sha1;
    }

    pub(crate) fn set_reparse(&mut self, node: NodeId, sha1: Sha1) {
        self.reparse.insert(node, sha1);
    }

    /// Of the stream at place `stream` of a node.
    pub fn stream(&self, node: NodeId, stream: usize) -> Sha1 {
        self.streams[self.first[node.0 as usize] as usize + stream]
    }

    fn reparse(&self, node: NodeId) -> Sha1 {
        self.reparse.get(&node).copied().unwrap_or(Sha1::ZERO)
    }
}

/// Serializes `tree`. Directories come depth first, children in NTFS collation order.
pub(crate) fn write_tree(tree: &Tree, hashes: &Hashes) -> Result<Vec<u8>> {
    let mut out = write_security(tree)?;
    let mut links = vec![0u32; tree.nodes.len()];
    for node in &tree.nodes {
        for entry in &node.entries {
            links[entry.node.0 as usize] += 1;
        }
    }
    let mut writer = Writer { tree, hashes, groups: HashMap::new(), links, tagged: Vec::new() };
    let root = Entry { name: Name::default(), short_name: Name::default(), node: Tree::ROOT };
    let root_at = writer.dentry(&root, &mut out)?;
    // The list the root is in ends too. 7-Zip refuses an image without this end mark.
    out.extend_from_slice(&[0; 8]);
    // Directories still to write: the node, and where the offset of its children goes.
    let mut stack = vec![(Tree::ROOT, root_at + 16)];
    let mut order: Vec<(Vec<u16>, &Entry)> = Vec::new();
    while let Some((id, patch_at)) = stack.pop() {
        let node = tree.node(id);
        if node.entries.is_empty() && node.reparse().is_some() {
            continue;
        }
        let children = (out.len() as u64).to_le_bytes();
        out[patch_at..patch_at + 8].copy_from_slice(&children);
        order.clear();
        order.extend(node.entries.iter().map(|entry| (collation_key(&entry.name), entry)));
        order.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
        let first = stack.len();
        for (_, entry) in &order {
            let at = writer.dentry(entry, &mut out)?;
            if tree.node(entry.node).is_directory() {
                stack.push((entry.node, at + 16));
            }
        }
        stack[first..].reverse();
        out.extend_from_slice(&[0; 8]);
    }
    Ok(out)
}

/// NTFS compares names by their upper-case form.
pub(crate) fn collation_key(name: &Name) -> Vec<u16> {
    name.0.iter().map(|unit| upcase(*unit)).collect()
}

/// Upper case of one UTF-16 unit, where that is one unit itself.
pub(crate) fn upcase(unit: u16) -> u16 {
    if unit < 0x80 {
        return if (0x61..=0x7a).contains(&unit) { unit - 0x20 } else { unit };
    }
    let Some(char) = char::from_u32(u32::from(unit)) else { return unit };
    let mut upper = char.to_uppercase();
    match (upper.next().map(u32::from).map(u16::try_from), upper.next()) {
        (Some(Ok(upper)), None) => upper,
        _ => unit,
    }
}

fn write_security(tree: &Tree) -> Result<Vec<u8>> {
    let too_much = || Error::Tree {
        path: String::from("/"),
        why: String::from("its security descriptors take more than 4 GiB"),
    };
    let bytes: usize = tree.security.iter().map(|descriptor| descriptor.len()).sum();
    let total = (8 + 8 * tree.security.len() + bytes).next_multiple_of(8);
    let mut out = Vec::with_capacity(total + tree.nodes.len() * 160);
    out.extend_from_slice(&u32::try_from(total).map_err(|_| too_much())?.to_le_bytes());
    out.extend_from_slice(&(tree.security.len() as u32).to_le_bytes());
    for descriptor in &tree.security {
        out.extend_from_slice(&(descriptor.len() as u64).to_le_bytes());
    }
    for descriptor in &tree.security {
        out.extend_from_slice(descriptor);
    }
    out.resize(total, 0);
    Ok(out)
}

struct Writer<'a> {
    tree: &'a Tree,
    hashes: &'a Hashes,
    /// Group number of each node with several names.
    groups: HashMap<NodeId, u64>,
    links: Vec<u32>,
    tagged: Vec<u8>,
}

impl Writer<'_> {
    /// Appends the dentry of `entry` and its streams; returns where it starts.
    fn dentry(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<usize> {
        let node = self.tree.node(entry.node);
        let fail = |why: &str| Error::Tree { path: entry.name.to_display(), why: why.to_owned() };
        let name_bytes = u16::try_from(entry.name.0.len() * 2)
            .map_err(|_| fail("the name is longer than 32,767 characters"))?;
        let short_bytes = u16::try_from(entry.short_name.0.len() * 2)
            .map_err(|_| fail("the short name is longer than 32,767 characters"))?;
        self.tagged.clear();
        if let Some(extra) = &node.extra {
            tagged::write(extra, &mut self.tagged).map_err(|why| fail(&why))?;
        }
        let (main, extra) = self.streams(entry.node, node);
        let extra_count =
            u16::try_from(extra.len()).map_err(|_| fail("more than 65,535 streams"))?;
        if let Some(security) = node.security
            && security.0 as usize >= self.tree.security.len()
        {
            return Err(fail("its security descriptor is not in the tree"));
        }

        let at = out.len();
        debug_assert!(at.is_multiple_of(8));
        out.extend_from_slice(&[0; DENTRY_BYTES]);
        if name_bytes != 0 {
            write_name(out, &entry.name);
        }
        if short_bytes != 0 {
            write_name(out, &entry.short_name);
        }
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend_from_slice(&self.tagged);
        let length = (out.len() - at) as u64;
        let mut put = |offset: usize, bytes: &[u8]| {
            out[at + offset..at + offset + bytes.len()].copy_from_slice(bytes)
        };
        put(0, &length.to_le_bytes());
        put(8, &node.attributes.to_le_bytes());
        put(12, &node.security.map_or(u32::MAX, |id| id.0).to_le_bytes());
        put(40, &node.created.0.to_le_bytes());
        put(48, &node.accessed.0.to_le_bytes());
        put(56, &node.modified.0.to_le_bytes());
        put(64, &main.0);
        if let Some(reparse) = node.reparse() {
            put(88, &reparse.tag.to_le_bytes());
            put(94, &reparse.flags.to_le_bytes());
        } else if self.links[entry.node.0 as usize] > 1 && !node.is_directory() {
            let next = self.groups.len() as u64 + 1;
            let group = *self.groups.entry(entry.node).or_insert(next);
            put(88, &group.to_le_bytes());
        }
        put(96, &extra_count.to_le_bytes());
        put(98, &short_bytes.to_le_bytes());
        put(100, &name_bytes.to_le_bytes());
        for (name, sha1) in extra {
            let name_bytes = u16::try_from(name.map_or(0, |name| name.0.len() * 2))
                .map_err(|_| fail("the name of a stream is too long"))?;
            let start = out.len();
            out.extend_from_slice(&[0; 16]);
            out.extend_from_slice(&sha1.0);
            out.extend_from_slice(&name_bytes.to_le_bytes());
            debug_assert_eq!(out.len() - start, STREAM_BYTES);
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                write_name(out, name);
            }
            out.resize(out.len().next_multiple_of(8), 0);
            let length = ((out.len() - start) as u64).to_le_bytes();
            out[start..start + 8].copy_from_slice(&length);
        }
        Ok(at)
    }

    /// The hash of the dentry, and the stream entries after it.
    ///
    /// One stream that has no name goes into the dentry. More, or one with a name, all go into
    /// entries: reparse data, contents, then named streams. A directory never has an entry for
    /// contents (DISM refuses it), a file with entries always has one.
    fn streams<'n>(&self, id: NodeId, node: &'n Node) -> (Sha1, Vec<(Option<&'n Name>, Sha1)>) {
        let mut contents = Sha1::ZERO;
        let mut named = Vec::new();
        for (index, stream) in node.streams.iter().enumerate() {
            let sha1 = self.hashes.stream(id, index);
            match &stream.name {
                None => contents = sha1,
                Some(name) => named.push((Some(name), sha1)),
            }
        }
        let is_directory = node.attributes & attribute::DIRECTORY != 0;
        let reparse = node.reparse().map(|_| self.hashes.reparse(id));
        match (reparse, named.is_empty()) {
            (None, true) if is_directory => (Sha1::ZERO, named),
            (None, true) => (contents, named),
            (Some(reparse), true) if is_directory => (reparse, named),
            (reparse, _) => {
                let mut all = Vec::with_capacity(named.len() + 2);
                all.extend(reparse.map(|sha1| (None, sha1)));
                if !is_directory {
                    all.push((None, contents));
                }
                all.append(&mut named);
                (Sha1::ZERO, all)
            }
        }
    }
}

fn write_name(out: &mut Vec<u8>, name: &Name) {
    out.extend(name.0.iter().flat_map(|unit| unit.to_le_bytes()));
    out.extend_from_slice(&[0; 2]);
}
