//! Files of a tree by path, links followed.

use gilt_wim::tree::{ContentSource, Name, Node, NodeId, Tree};
use std::io::{self, Read};

/// Linux gives up after as many.
const MAX_LINKS: usize = 40;

/// A tree with its contents.
#[derive(Clone, Copy)]
pub struct TreeView<'a> {
    pub tree: &'a Tree,
    pub contents: &'a dyn ContentSource,
    /// As on NTFS and FAT.
    pub ignores_case: bool,
}

#[derive(Clone, Copy)]
pub struct Found<'a> {
    pub id: NodeId,
    pub node: &'a Node,
}

impl<'a> TreeView<'a> {
    /// The file at an absolute path with `/` or `\`; symbolic links are followed.
    pub fn find(&self, path: &str) -> Option<Found<'a>> {
        self.walk(path, true)
    }

    /// The same, but a link at the end is itself what is found.
    pub fn find_link(&self, path: &str) -> Option<Found<'a>> {
        self.walk(path, false)
    }

    pub fn is_directory(&self, path: &str) -> bool {
        self.find(path).is_some_and(|found| found.node.is_directory())
    }

    /// The contents of a file of at most `max_bytes`; `None` when it is not there.
    pub fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match self.find(path) {
            Some(found) => self.read_node(found.node, max_bytes),
            None => Ok(None),
        }
    }

    /// The unnamed stream of a node; `None` when it has none.
    pub fn read_node(&self, node: &Node, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(stream) = node.streams.iter().find(|stream| stream.name.is_none()) else {
            return Ok(None);
        };
        if stream.len_bytes > max_bytes {
            let text = format!("{} bytes, more than the {max_bytes} expected", stream.len_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let mut bytes = Vec::new();
        self.contents.open(stream.content)?.take(max_bytes).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Names and nodes of a directory.
    pub fn list(&self, path: &str) -> Vec<(String, Found<'a>)> {
        let Some(found) = self.find(path) else { return Vec::new() };
        let entries = found.node.entries.iter();
        entries
            .map(|entry| {
                let found = Found { id: entry.node, node: self.tree.node(entry.node) };
                (entry.name.to_display(), found)
            })
            .collect()
    }

    fn child(&self, directory: &'a Node, name: &str) -> Option<NodeId> {
        let wanted = Name::from(name);
        let exact = directory.entries.iter().find(|entry| entry.name == wanted);
        let found = exact.or_else(|| {
            let folded = name.to_lowercase();
            let same = |text: String| text.to_lowercase() == folded;
            let mut entries = directory.entries.iter().filter(|_| self.ignores_case);
            entries.find(|entry| same(entry.name.to_display()))
        })?;
        Some(found.node)
    }

    fn walk(&self, path: &str, follow_last: bool) -> Option<Found<'a>> {
        // The way down, for `..`.
        let mut trail: Vec<NodeId> = vec![Tree::ROOT];
        let split = |text: &str| -> Vec<String> {
            text.split(['/', '\\']).rev().filter(|s| !s.is_empty()).map(str::to_owned).collect()
        };
        let mut rest = split(path);
        let mut followed = 0;
        while let Some(step) = rest.pop() {
            match step.as_str() {
                "." => continue,
                ".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let at = *trail.last()?;
            let next = self.child(self.tree.node(at), &step)?;
            let node = self.tree.node(next);
            let target = node.reparse().and_then(gilt_wim::unix_names::target_from_reparse);
            match target {
                Some(target) if follow_last || !rest.is_empty() => {
                    followed += 1;
                    if followed > MAX_LINKS {
                        return None;
                    }
                    let text = String::from_utf8_lossy(&target);
                    if text.starts_with(['/', '\\']) {
                        trail.truncate(1);
                    }
                    rest.extend(split(&text));
                }
                _ => trail.push(next),
            }
        }
        let id = *trail.last()?;
        Some(Found { id, node: self.tree.node(id) })
    }
}
