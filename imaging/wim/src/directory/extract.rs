//! [`Tree`] -> a directory.
//!
//! Order: directories, then file contents on N threads in the order the source holds them, then
//! other hard links, then special files and symbolic links, last the times and modes of the
//! directories. Links come after everything that is written through a path, so no name in the
//! tree leads out of the target.

use super::platform::{self, Kind};
use super::wanted::Wanted;
use crate::error::{Error, IoContext, Result, from_io};
use crate::hash::Hasher;
use crate::metadata::collation_key;
use crate::progress::Progress;
use crate::tree::{ContentId, ContentSource, Name, Node, NodeId, Stream, Tree, total_bytes};
use crate::windows_names;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How to write a tree to a directory.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Restore owner, mode, device nodes and extended attributes where the tree has them. Owner
    /// and device nodes need root; without it they are left, with a warning.
    pub unix_data: bool,
    /// Paths to extract, `/` between names; empty means all. Directories come with all in them.
    pub paths: Vec<String>,
    pub threads: usize,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self { unix_data: true, paths: Vec::new(), threads: crate::default_threads() }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Extracted {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// What could not be kept here: streams, descriptors, special files, clashing names.
    pub warnings: Vec<String>,
}

/// Contents up to this are unpacked once for all files that have them.
const SMALL_BYTES: u64 = 4 << 20;
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes `tree` into `target`, which is made if it is not there. Files that exist already are
/// an error.
pub fn extract_tree(
    tree: &Tree,
    contents: &dyn ContentSource,
    target: &Path,
    options: &ExtractOptions,
    progress: &dyn Progress,
) -> Result<Extracted> {
    fs::create_dir_all(target).at(target)?;
    // On Windows the full form lifts the limit of 260 characters and lets names such as `aux` be.
    let full = if cfg!(windows) { fs::canonicalize(target).at(target)? } else { target.to_owned() };
    let mut layout = Layout::new(tree, &full, options)?;
    for (_, path) in &layout.directories {
        make_directory(path)?;
    }
    let size =
        |file: &FileTarget| file_stream(tree.node(file.node)).map_or(0, |stream| stream.len_bytes);
    let total = total_bytes(layout.files.iter().map(size));
    progress.total_bytes(total);

    let writer = Writer {
        tree,
        contents,
        options,
        progress,
        rights: platform::Rights::now(),
        warnings: Mutex::new(std::mem::take(&mut layout.warnings)),
        stop: AtomicBool::new(false),
    };
    writer.write_files(&layout.files)?;
    for file in &layout.files {
        for other in &file.others {
            fs::hard_link(&file.path, other).at(other)?;
        }
    }
    for (node, path) in &layout.specials {
        let warn = |what: String| writer.warn(path, what);
        let node = tree.node(*node);
        if platform::make_special(&writer.rights, node, path, &warn).at(path)? {
            writer.set_metadata(node, path, &Kind::Other)?;
        }
    }
    for (node, path) in layout.directories.iter().rev() {
        writer.set_metadata(tree.node(*node), path, &Kind::Directory)?;
    }
    let files = layout.files.iter().map(|file| 1 + file.others.len() as u64).sum::<u64>();
    Ok(Extracted {
        files: files + layout.specials.len() as u64,
        directories: layout.directories.len() as u64,
        bytes: total,
        warnings: writer.warnings.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

fn make_directory(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path).at(path)?;
            if metadata.is_dir() { Ok(()) } else { Err(error).at(path) }
        }
        Err(error) => Err(error).at(path),
    }
}

/// A regular file and its other names.
struct FileTarget {
    node: NodeId,
    path: PathBuf,
    others: Vec<PathBuf>,
}

/// Where everything goes.
struct Layout {
    directories: Vec<(NodeId, PathBuf)>,
    files: Vec<FileTarget>,
    specials: Vec<(NodeId, PathBuf)>,
    warnings: Vec<String>,
}

impl Layout {
    fn new(tree: &Tree, target: &Path, options: &ExtractOptions) -> Result<Self> {
        let wanted = Wanted::new(&options.paths);
        let mut layout = Self {
            directories: vec![(Tree::ROOT, target.to_owned())],
            files: Vec::new(),
            specials: Vec::new(),
            warnings: Vec::new(),
        };
        let mut by_node: HashMap<NodeId, usize> = HashMap::new();
        // The path within the tree, for messages and for choosing.
        let mut stack = vec![(Tree::ROOT, target.to_owned(), String::new())];
        while let Some((id, folder, inner)) = stack.pop() {
            let mut folded = HashSet::new();
            for entry in &tree.node(id).entries {
                let inner = format!("{inner}/{}", entry.name.to_display());
                if !wanted.leads_to(&inner) {
                    continue;
                }
                let name = safe_name(&entry.name, &inner)?;
                if !folded.insert(collation_key(&entry.name)) {
                    let text = "differs from a neighbour only in case; Windows cannot have both";
                    layout.warnings.push(format!("{inner}: {text}"));
                }
                let path = folder.join(name);
                let node = tree.node(entry.node);
                let is_of_unix = node.extra.as_ref().is_some_and(|extra| extra.unix.is_some());
                if let Some(why) = windows_names::refusal(&entry.name).filter(|_| !is_of_unix) {
                    layout.warnings.push(format!("{inner}: {why}; Windows cannot have it"));
                }
                if node.is_directory() && node.reparse().is_none() {
                    layout.directories.push((entry.node, path.clone()));
                    stack.push((entry.node, path, inner));
                    continue;
                }
                if !wanted.has(&inner) {
                    continue;
                }
                if node.reparse().is_some() || is_special(node) && options.unix_data {
                    layout.specials.push((entry.node, path));
                } else if let Some(index) = by_node.get(&entry.node) {
                    layout.files[*index].others.push(path);
                } else {
                    by_node.insert(entry.node, layout.files.len());
                    layout.files.push(FileTarget { node: entry.node, path, others: Vec::new() });
                }
                if node.streams.iter().any(|stream| stream.name.is_some()) {
                    let text = "has named streams, which this file system cannot keep";
                    layout.warnings.push(format!("{inner}: {text}"));
                }
            }
        }
        wanted.check(tree)?;
        if !options.paths.is_empty() {
            layout.drop_empty_directories(target);
        }
        Ok(layout)
    }

    /// Of the directories on the way, keeps those that lead to something wanted.
    fn drop_empty_directories(&mut self, target: &Path) {
        let mut used: HashSet<PathBuf> = HashSet::from([target.to_owned()]);
        let files =
            self.files.iter().flat_map(|file| std::iter::once(&file.path).chain(&file.others));
        for path in files.chain(self.specials.iter().map(|(_, path)| path)) {
            for folder in path.ancestors().skip(1).take_while(|folder| *folder != target) {
                used.insert(folder.to_owned());
            }
        }
        self.directories.retain(|(_, path)| used.contains(path));
    }
}

/// The name as this system has it; an error if it would not stay in its directory.
fn safe_name(name: &Name, inner: &str) -> Result<OsString> {
    platform::name_to_os(name)
        .map_err(|why| Error::Tree { path: inner.to_owned(), why: why.to_owned() })
}

fn file_stream(node: &Node) -> Option<&Stream> {
    node.streams.iter().find(|stream| stream.name.is_none() && stream.len_bytes > 0)
}

const TYPE_MASK: u32 = 0o170_000;

fn is_special(node: &Node) -> bool {
    let mode = node.extra.as_ref().and_then(|extra| extra.unix).map(|unix| unix.mode & TYPE_MASK);
    // Character and block devices, pipes, sockets.
    matches!(mode, Some(0o020_000 | 0o060_000 | 0o010_000 | 0o140_000))
}

struct Writer<'a> {
    tree: &'a Tree,
    contents: &'a dyn ContentSource,
    options: &'a ExtractOptions,
    progress: &'a dyn Progress,
    rights: platform::Rights,
    warnings: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Writer<'_> {
    fn write_files(&self, files: &[FileTarget]) -> Result<()> {
        // Files of one content after one another, contents in the order of the source.
        let mut order: Vec<(u64, ContentId, usize)> = files
            .iter()
            .enumerate()
            .map(|(index, file)| match file_stream(self.tree.node(file.node)) {
                Some(stream) => (self.contents.position(stream.content), stream.content, index),
                None => (0, ContentId(u64::MAX), index),
            })
            .collect();
        order.sort_unstable();
        let groups: Vec<&[(u64, ContentId, usize)]> =
            order.chunk_by(|a, b| a.1 == b.1 && a.1 != ContentId(u64::MAX)).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                let targets = group.iter().map(|(_, _, index)| &files[*index]);
                self.write_group(targets, &mut buffer)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.options.threads.clamp(1, groups.len().max(1)))
                .map(|_| {
                    scope.spawn(|| {
                        let done = work();
                        self.stop.fetch_or(done.is_err(), Ordering::Relaxed);
                        done
                    })
                })
                .collect();
            let mut first = Ok(());
            for worker in workers {
                let done = worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
                // What stopped the others matters, not that they were stopped.
                if matches!(first, Ok(()) | Err(Error::Cancelled)) && done.is_err() {
                    first = done;
                }
            }
            first
        })
    }

    /// Writes all files of one content.
    fn write_group<'t>(
        &self,
        targets: impl ExactSizeIterator<Item = &'t FileTarget>,
        buffer: &mut [u8],
    ) -> Result<()> {
        let several = targets.len() > 1;
        let mut held: Option<Vec<u8>> = None;
        for target in targets {
            self.check()?;
            let node = self.tree.node(target.node);
            let path = &target.path;
            let mut file = platform::create_file(path, node).at(path)?;
            if let Some(stream) = file_stream(node) {
                if several && stream.len_bytes <= SMALL_BYTES {
                    if held.is_none() {
                        let mut bytes = Vec::with_capacity(stream.len_bytes as usize);
                        self.copy(stream, path, &mut bytes, buffer)?;
                        held = Some(bytes);
                    }
                    file.write_all(held.as_deref().unwrap_or_default()).at(path)?;
                } else {
                    self.copy(stream, path, &mut file, buffer)?;
                }
                self.progress.advance_bytes(stream.len_bytes);
            }
            self.set_metadata(node, path, &Kind::File(&file))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Copies a stream and checks its length, and its hash where that is known.
    fn copy(
        &self,
        stream: &Stream,
        path: &Path,
        out: &mut dyn Write,
        buffer: &mut [u8],
    ) -> Result<()> {
        let what = || path.display().to_string();
        let expected = self.contents.known_sha1(stream.content);
        let mut reader = self.contents.open(stream.content).map_err(|e| from_io(e, what))?;
        let mut hasher = expected.map(|_| Hasher::default());
        let mut left = stream.len_bytes;
        loop {
            let n = match reader.read(buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(from_io(e, what)),
            };
            self.check()?;
            left = left.checked_sub(n as u64).ok_or_else(|| Error::SourceChanged {
                what: what(),
                why: format!("it has more than {} bytes", stream.len_bytes),
            })?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer[..n]);
            }
            out.write_all(&buffer[..n]).at(path)?;
        }
        if left != 0 {
            let why = format!("it has {left} bytes fewer than {}", stream.len_bytes);
            return Err(Error::SourceChanged { what: what(), why });
        }
        match (expected, hasher.map(Hasher::finish)) {
            (Some(expected), Some(found)) if expected != found => Err(Error::HashMismatch {
                at: self.contents.position(stream.content),
                size_bytes: stream.len_bytes,
                found,
                expected,
            }),
            _ => Ok(()),
        }
    }

    fn warn(&self, path: &Path, what: impl std::fmt::Display) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(format!("{}: {what}", path.display()));
    }

    /// Owner, mode, attributes and times.
    fn set_metadata(&self, node: &Node, path: &Path, kind: &Kind<'_>) -> Result<()> {
        let warn = |what: String| self.warn(path, what);
        platform::set_metadata(&self.rights, node, path, kind, self.options.unix_data, &warn)
            .at(path)
    }
}
