//! What differs between two trees, and why.

use crate::error::{Result, from_io};
use crate::hash::Hasher;
use crate::tree::{ContentSource, Entry, Name, Node, NodeId, Sha1, Stream, Tree};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;

/// A file or directory that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `/` between names and in front.
    pub path: String,
    pub kind: ChangeKind,
    /// Why it counts as changed; empty for what is only in one.
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A file became a directory, a link, or the like.
    Type,
    Contents,
    /// Named streams.
    Streams,
    /// The target of a link, or other reparse data.
    Reparse,
    Attributes,
    Created,
    Modified,
    Accessed,
    Security,
    ShortName,
    ObjectId,
    /// Unix owner, mode or device number.
    Unix,
    /// NTFS or Linux extended attributes.
    ExtendedAttributes,
    /// Other tagged items.
    Tagged,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Contents => "contents",
            Self::Streams => "streams",
            Self::Reparse => "reparse",
            Self::Attributes => "attributes",
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Accessed => "accessed",
            Self::Security => "security",
            Self::ShortName => "short-name",
            Self::ObjectId => "object-id",
            Self::Unix => "unix",
            Self::ExtendedAttributes => "extended-attributes",
            Self::Tagged => "tagged",
        }
    }
}

/// One side of a comparison.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub tree: &'a Tree,
    pub contents: &'a dyn ContentSource,
}

/// Compares `old` with `new`, in path order. Contents are compared by SHA-1, read only where the
/// source does not know it. A directory in one tree only stands for all in it.
pub fn diff(old: Side<'_>, new: Side<'_>) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let (old_root, new_root) = (old.tree.node(Tree::ROOT), new.tree.node(Tree::ROOT));
    let reasons = compare(old, old_root, new, new_root)?;
    if !reasons.is_empty() {
        changes.push(Change { path: "/".into(), kind: ChangeKind::Changed, reasons });
    }
    let mut stack = vec![(Tree::ROOT, Tree::ROOT, String::new())];
    // Pairs of hard links are compared once.
    let mut same: HashSet<(NodeId, NodeId)> = HashSet::new();
    while let Some((a, b, path)) = stack.pop() {
        let by_name = |side: Side<'_>, id| -> BTreeMap<Name, Entry> {
            let entries = side.tree.node(id).entries.iter();
            entries.map(|entry| (entry.name.clone(), entry.clone())).collect()
        };
        let (a, mut b) = (by_name(old, a), by_name(new, b));
        for (name, before) in a {
            let path = format!("{path}/{}", name.to_display());
            let Some(after) = b.remove(&name) else {
                changes.push(Change { path, kind: ChangeKind::Removed, reasons: Vec::new() });
                continue;
            };
            let (x, y) = (old.tree.node(before.node), new.tree.node(after.node));
            let mut reasons = Vec::new();
            if before.short_name != after.short_name {
                reasons.push(Reason::ShortName);
            }
            if !same.contains(&(before.node, after.node)) {
                let found = compare(old, x, new, y)?;
                if found.is_empty() {
                    same.insert((before.node, after.node));
                }
                reasons.extend(found);
            }
            if x.is_directory() && y.is_directory() {
                stack.push((before.node, after.node, path.clone()));
            }
            if !reasons.is_empty() {
                changes.push(Change { path, kind: ChangeKind::Changed, reasons });
            }
        }
        for name in b.into_keys() {
            let path = format!("{path}/{}", name.to_display());
            changes.push(Change { path, kind: ChangeKind::Added, reasons: Vec::new() });
        }
    }
    changes.sort_by(|x, y| x.path.cmp(&y.path));
    Ok(changes)
}

fn compare(old: Side<'_>, a: &Node, new: Side<'_>, b: &Node) -> Result<Vec<Reason>> {
    let mut reasons = Vec::new();
    let mut note = |differs: bool, reason| {
        if differs {
            reasons.push(reason);
        }
    };
    let empty = Default::default();
    let (x, y) = (a.extra.as_deref().unwrap_or(&empty), b.extra.as_deref().unwrap_or(&empty));
    let kind = |node: &Node| (node.is_directory(), node.reparse().map(|reparse| reparse.tag));
    note(kind(a) != kind(b), Reason::Type);
    note(hashes(old, a, false)? != hashes(new, b, false)?, Reason::Contents);
    note(hashes(old, a, true)? != hashes(new, b, true)?, Reason::Streams);
    note(x.reparse != y.reparse, Reason::Reparse);
    note(a.attributes != b.attributes, Reason::Attributes);
    note(a.created != b.created, Reason::Created);
    note(a.modified != b.modified, Reason::Modified);
    note(a.accessed != b.accessed, Reason::Accessed);
    note(descriptor(old.tree, a) != descriptor(new.tree, b), Reason::Security);
    note(x.object_id != y.object_id, Reason::ObjectId);
    note(x.unix != y.unix, Reason::Unix);
    note(x.eas != y.eas || x.xattrs != y.xattrs, Reason::ExtendedAttributes);
    note(x.unknown != y.unknown, Reason::Tagged);
    Ok(reasons)
}

fn descriptor<'a>(tree: &'a Tree, node: &Node) -> Option<&'a [u8]> {
    tree.security.get(node.security?.0 as usize).map(|bytes| &**bytes)
}

/// Names and hashes of the named streams, or of the contents. Empty contents count as none.
fn hashes(side: Side<'_>, node: &Node, named: bool) -> Result<Vec<(Option<Name>, Sha1)>> {
    let mut list = Vec::new();
    for stream in node.streams.iter().filter(|stream| stream.name.is_some() == named) {
        let sha1 = stream_sha1(side.contents, stream)?;
        if named || !sha1.is_zero() {
            list.push((stream.name.clone(), sha1));
        }
    }
    list.sort();
    Ok(list)
}

fn stream_sha1(contents: &dyn ContentSource, stream: &Stream) -> Result<Sha1> {
    if let Some(sha1) = contents.known_sha1(stream.content) {
        return Ok(sha1);
    }
    if stream.len_bytes == 0 {
        return Ok(Sha1::ZERO);
    }
    let what = || "read contents to compare".to_owned();
    let mut reader = contents.open(stream.content).map_err(|e| from_io(e, what))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(from_io(e, what)),
        }
    }
}
