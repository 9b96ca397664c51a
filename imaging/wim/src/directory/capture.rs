//! A directory -> [`Tree`].

use super::platform;
use crate::error::{Error, IoContext, Result};
use crate::tree::{ContentId, ContentSource, Entry, Name, Node, NodeId, Stream, Tree, attribute};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What to take from a directory.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Owner, mode, device nodes, pipes, sockets and extended attributes. Without it special
    /// files are left out.
    pub unix_data: bool,
    /// Access times as they are. Reading a tree changes them, so by default the time of the last
    /// change stands in for them and the same tree gives the same bytes.
    pub access_times: bool,
    /// Stay on the file system of the directory; mount points come out empty.
    pub one_file_system: bool,
    /// Paths to leave out, relative to the directory, without a slash in front.
    pub exclude: Vec<PathBuf>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { unix_data: true, access_times: false, one_file_system: false, exclude: Vec::new() }
    }
}

/// Opens the files of a captured directory.
pub struct DirectoryContents {
    folders: Vec<PathBuf>,
    /// Where each file is: which of the folders, and its name there.
    files: Vec<(u32, Box<OsStr>)>,
}

impl DirectoryContents {
    /// Of a file in the folder added last.
    fn place(&self, path: &Path) -> (u32, Box<OsStr>) {
        // There are fewer folders than nodes, whose numbers have 32 bits.
        let folder = self.folders.len().saturating_sub(1) as u32;
        (folder, path.file_name().unwrap_or_default().into())
    }
}

impl ContentSource for DirectoryContents {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        let file = usize::try_from(id.0).ok().and_then(|index| self.files.get(index));
        let (folder, name) = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let path = self.folders[*folder as usize].join(Path::new(name));
        let file = File::open(&path).map_err(|error| at_path(error, &path))?;
        Ok(Box::new(NamedFile { file, path }))
    }

    // No position: path order makes the bytes depend on the tree alone.
}

/// Names the file in its errors.
struct NamedFile {
    file: File,
    path: PathBuf,
}

impl Read for NamedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf).map_err(|error| at_path(error, &self.path))
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.file.read_to_end(buf).map_err(|error| at_path(error, &self.path))
    }
}

fn at_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads the tree under `root`. The contents are read later, through what comes with it.
pub fn capture_directory(
    root: &Path,
    options: &CaptureOptions,
) -> Result<(Tree, DirectoryContents)> {
    // The directory itself may be named by a symbolic link.
    let root = fs::canonicalize(root).at(root)?;
    let metadata = fs::symlink_metadata(&root).at(&root)?;
    if !metadata.is_dir() {
        return Err(Error::Tree {
            path: root.display().to_string(),
            why: "not a directory".into(),
        });
    }
    let device = platform::device(&metadata);
    let mut capture = Capture {
        options,
        tree: Tree::default(),
        contents: DirectoryContents { folders: Vec::new(), files: Vec::new() },
        links: HashMap::new(),
    };
    capture.add(&root, &metadata)?;
    let mut stack = vec![(Tree::ROOT, root.clone())];
    while let Some((id, folder)) = stack.pop() {
        let mut children = Vec::new();
        for child in fs::read_dir(&folder).at(&folder)? {
            children.push(child.at(&folder)?.file_name());
        }
        children.sort();
        capture.contents.folders.push(folder.clone());
        let mut entries = Vec::with_capacity(children.len());
        for name in children {
            let path = folder.join(&name);
            let relative = path.strip_prefix(&root).unwrap_or(&path);
            if options.exclude.iter().any(|excluded| excluded == relative) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).at(&path)?;
            let name = wim_name(&name, &path)?;
            let Some(node) = capture.add(&path, &metadata)? else { continue };
            let enters = !options.one_file_system || platform::device(&metadata) == device;
            // On Windows a link to a directory is both.
            if metadata.is_dir() && !metadata.is_symlink() && enters {
                stack.push((node, path));
            }
            entries.push(Entry { name, short_name: Name::default(), node });
        }
        capture.tree.nodes[id.0 as usize].entries = entries;
    }
    Ok((capture.tree, capture.contents))
}

fn wim_name(name: &OsStr, path: &Path) -> Result<Name> {
    platform::name_from_os(name).ok_or_else(|| Error::Tree {
        path: path.display().to_string(),
        why: "the name is not UTF-8, so it has no form in a WIM".into(),
    })
}

struct Capture<'a> {
    options: &'a CaptureOptions,
    tree: Tree,
    contents: DirectoryContents,
    /// Files with several names, by what the file system calls them.
    links: HashMap<(u64, u64), NodeId>,
}

impl Capture<'_> {
    /// Adds what is at `path`; `None` if it is of a kind that is left out.
    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<Option<NodeId>> {
        let kind = metadata.file_type();
        if platform::is_special(kind) && !self.options.unix_data {
            return Ok(None);
        }
        // A WIM cannot hard-link symbolic links.
        let shared = if kind.is_dir() || kind.is_symlink() {
            None
        } else {
            platform::shared_identity(path, metadata).at(path)?
        };
        if let Some(node) = shared.and_then(|identity| self.links.get(&identity)) {
            return Ok(Some(*node));
        }
        let mut node = Node::default();
        if kind.is_symlink() {
            node.attributes = attribute::REPARSE_POINT;
            // Windows has links to files and links to directories.
            if fs::metadata(path).is_ok_and(|target| target.is_dir()) {
                node.attributes |= attribute::DIRECTORY;
            }
            let target = fs::read_link(path).at(path)?;
            let reparse = platform::reparse(&target).ok_or_else(|| Error::Tree {
                path: path.display().to_string(),
                why: "the target of the link has no form in a WIM".into(),
            })?;
            node.extra_mut().reparse = Some(reparse);
        } else if kind.is_dir() {
            node.attributes = attribute::DIRECTORY;
        } else if kind.is_file() {
            node.attributes = attribute::NORMAL;
            let content = ContentId(self.contents.files.len() as u64);
            self.contents.files.push(self.contents.place(path));
            // Not `push`, which takes room for four.
            node.streams = vec![Stream { name: None, len_bytes: metadata.len(), content }];
        }
        platform::describe(&mut node, path, metadata, self.options).at(path)?;
        if !self.options.access_times {
            node.accessed = node.modified;
        }
        let id = u32::try_from(self.tree.nodes.len())
            .map_err(|_| Error::unsupported("more than 4,294,967,295 files"))?;
        self.tree.nodes.push(node);
        if let Some(identity) = shared {
            self.links.insert(identity, NodeId(id));
        }
        Ok(Some(NodeId(id)))
    }
}
