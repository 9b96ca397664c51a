//! Files put into a disk that are in no WIM.

use crate::error::{CaptureError, Result};
use crate::lookup::TreeView;
use gilt_wim::tree::{
    ContentId, ContentSource, Entry, FileTime, Name, Node, NodeId, Sha1, Stream, Tree, UnixData,
    attribute,
};
use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor, Read};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Absolute. Folders that are missing are made for root with mode 755.
    pub path: String,
    pub contents: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl ExtraFile {
    /// A file of root that all may read.
    pub fn text(path: &str, contents: &str) -> Self {
        Self { path: path.into(), contents: contents.into(), mode: 0o644, uid: 0, gid: 0 }
    }
}

/// The contents of an image with those of extra files.
pub struct WithExtra<'a> {
    image: &'a dyn ContentSource,
    /// By ids that the image does not use.
    extra: HashMap<ContentId, Vec<u8>>,
}

impl ContentSource for WithExtra<'_> {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        match self.extra.get(&id) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.as_slice()))),
            None => self.image.open(id),
        }
    }

    fn position(&self, id: ContentId) -> u64 {
        if self.extra.contains_key(&id) { u64::MAX } else { self.image.position(id) }
    }

    fn known_sha1(&self, id: ContentId) -> Option<Sha1> {
        if self.extra.contains_key(&id) { None } else { self.image.known_sha1(id) }
    }
}

/// Adds `files` to `tree`.
pub fn inject<'a>(
    tree: &mut Tree,
    image: &'a dyn ContentSource,
    files: Vec<ExtraFile>,
) -> Result<WithExtra<'a>> {
    let streams = tree.nodes.iter().flat_map(|node| &node.streams);
    let taken: HashSet<ContentId> = streams.map(|stream| stream.content).collect();
    let mut free = (0..u64::MAX).map(ContentId).filter(|id| !taken.contains(id));
    let mut extra = HashMap::new();
    for file in files {
        let refused =
            |why: &str| CaptureError::Layout { what: format!("extra file {:?}: {why}", file.path) };
        let (folder, name) = file.path.rsplit_once('/').ok_or_else(|| refused("not absolute"))?;
        if !file.path.starts_with('/') || matches!(name, "" | "." | "..") {
            return Err(refused("not an absolute path of a file"));
        }
        let parent = make_folders(tree, folder).ok_or_else(|| refused("its folder is a file"))?;
        let content = free.next().ok_or_else(|| refused("no id is free"))?;
        let root = tree.node(Tree::ROOT).modified;
        let node = Node {
            attributes: attribute::NORMAL,
            streams: vec![Stream { name: None, len_bytes: file.contents.len() as u64, content }],
            ..unix_node(REGULAR | file.mode & 0o7777, file.uid, file.gid, root)
        };
        extra.insert(content, file.contents);
        // A new node even for a name that is there: its other names keep the old contents.
        let id = push(tree, node);
        let entries = &mut tree.nodes[parent.0 as usize].entries;
        let wanted = Name::from(name);
        match entries.iter().position(|entry| entry.name == wanted) {
            Some(index) => {
                let old = entries[index].node;
                entries[index].node = id;
                if tree.node(old).is_directory() && tree.node(old).reparse().is_none() {
                    return Err(CaptureError::Layout {
                        what: format!("extra file {:?}: a folder has that name", file.path),
                    });
                }
            }
            None => entries.push(Entry { name: wanted, short_name: Name::default(), node: id }),
        }
    }
    Ok(WithExtra { image, extra })
}

fn push(tree: &mut Tree, node: Node) -> NodeId {
    tree.nodes.push(node);
    NodeId(tree.nodes.len() as u32 - 1)
}

fn unix_node(mode: u32, uid: u32, gid: u32, time: FileTime) -> Node {
    let mut node = Node { created: time, accessed: time, modified: time, ..Node::default() };
    node.extra_mut().unix = Some(UnixData { uid, gid, mode, rdev: 0 });
    node
}

/// The folder at `path`, made where it is missing; links in it are followed.
fn make_folders(tree: &mut Tree, path: &str) -> Option<NodeId> {
    struct Nothing;
    impl ContentSource for Nothing {
        fn open(&self, _: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    let mut at = Tree::ROOT;
    let mut walked = String::new();
    for step in path.split('/').filter(|step| !step.is_empty()) {
        walked.push('/');
        walked.push_str(step);
        let view = TreeView { tree, contents: &Nothing, ignores_case: false };
        at = match view.find(&walked) {
            Some(found) if found.node.is_directory() => found.id,
            Some(_) => return None,
            // A link that leads nowhere is no place for a folder.
            None if view.find_link(&walked).is_some() => return None,
            None => {
                let time = tree.node(Tree::ROOT).modified;
                let mut node = unix_node(DIRECTORY | 0o755, 0, 0, time);
                node.attributes = attribute::DIRECTORY;
                let id = push(tree, node);
                let name = Name::from(step);
                let entry = Entry { name, short_name: Name::default(), node: id };
                tree.nodes[at.0 as usize].entries.push(entry);
                id
            }
        };
    }
    Some(at)
}
