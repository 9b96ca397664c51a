//! Digests of the files that go into a build, and the cache that spares reading them twice.

use super::stamp::Stamp;
use crate::content_hash::{ContentHasher, Digest};
use crate::fetch::{FetchError, fetch};
use crate::template::{FileKind, FileRef, Location};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Smaller files are read anew each time; that costs no more than looking them up.
const CACHE_FROM_BYTES: u64 = 1 << 20;
/// A file that changed so recently may change again within the clock's grain, so it is not cached.
const SETTLED: Duration = Duration::from_secs(2);
/// More files in one input are a folder named by mistake.
const MAX_FILES: usize = 200_000;
/// Folders nested deeper are a mistake too.
const MAX_DEPTH: usize = 64;

/// Why an input has no digest, or the wrong one.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("there is no {} {path}", match kind { FileKind::File => "file", FileKind::Dir => "folder" })]
    Missing { path: PathBuf, kind: FileKind },
    #[error("{path} is a folder, not a file")]
    IsFolder { path: PathBuf },
    #[error("{path} is a file, not a folder")]
    IsFile { path: PathBuf },
    #[error("{path} is neither file, folder nor link")]
    Special { path: PathBuf },
    #[error("{path} holds more than {MAX_FILES} files, or folders more than {MAX_DEPTH} deep")]
    TooLarge { path: PathBuf },
    #[error("the name of {path} is not text in UTF-8")]
    NotText { path: PathBuf },
    #[error("nothing says what the digest of {url} is")]
    UnknownUrl { url: String },
    #[error("the digest of {location} is {found}, not {expected} as {said_by} says")]
    Mismatch { location: Location, expected: Digest, found: Digest, said_by: &'static str },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{name} is not in the lock file")]
    NotLocked { name: String },
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// Works out digests; remembers those of large files by path, size, times and file number.
#[derive(Debug, Default)]
pub struct Digests {
    /// Where an address nothing is known of is fetched to; without it, that is an error.
    fetch_to: Option<PathBuf>,
    fetched: BTreeMap<String, Digest>,
    cache_path: Option<PathBuf>,
    cache: BTreeMap<PathBuf, Known>,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    sha256: Digest,
}

impl Digests {
    /// With the cache at `cache_path`. A cache that cannot be read is an empty one.
    pub fn open(cache_path: Option<PathBuf>) -> Self {
        let cache = cache_path
            .as_deref()
            .and_then(|path| fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { cache_path, cache, ..Self::default() }
    }

    /// Fetches addresses nothing is known of, to files in `folder` named by their digests.
    pub fn fetch_to(mut self, folder: PathBuf) -> Self {
        self.fetch_to = Some(folder);
        self
    }

    /// Writes the cache, if it changed.
    pub fn save(&mut self) -> io::Result<()> {
        if let (Some(path), true) = (&self.cache_path, self.changed) {
            self.cache.retain(|path, _| path.exists());
            crate::home::write_atomically(path, &serde_json::to_vec(&self.cache)?)?;
            self.changed = false;
        }
        Ok(())
    }

    /// The digest of the file's or folder's bytes as they are on the disk.
    pub fn of(&mut self, file: &FileRef) -> Result<Digest, InputError> {
        match &file.location {
            Location::Url(url) => {
                if let Some(digest) = file.sha256.or_else(|| self.fetched.get(url).copied()) {
                    return Ok(digest);
                }
                let Some(folder) = &self.fetch_to else {
                    return Err(InputError::UnknownUrl { url: url.clone() });
                };
                let digest = fetch(url, folder, None, &mut |_, _| ControlFlow::Continue(()))?;
                self.fetched.insert(url.clone(), digest);
                Ok(digest)
            }
            Location::Path(path) => {
                let metadata = fs::metadata(path).map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => {
                        InputError::Missing { path: path.clone(), kind: file.kind }
                    }
                    _ => InputError::Io { path: path.clone(), source },
                })?;
                match (file.kind, metadata.is_dir()) {
                    (FileKind::File, true) => {
                        return Err(InputError::IsFolder { path: path.clone() });
                    }
                    (FileKind::Dir, false) => {
                        return Err(InputError::IsFile { path: path.clone() });
                    }
                    (FileKind::Dir, true) => return self.folder(path),
                    (FileKind::File, false) if !metadata.is_file() => {
                        return Err(InputError::Special { path: path.clone() });
                    }
                    (FileKind::File, false) => {}
                }
                self.file(path, &metadata)
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) -> Result<Digest, InputError> {
        let io = |source| InputError::Io { path: path.to_owned(), source };
        if metadata.len() < CACHE_FROM_BYTES {
            return digest_file(path).map_err(io);
        }
        let full = fs::canonicalize(path).map_err(io)?;
        let Some(stamp) = Stamp::of(&full).map_err(io)? else {
            return digest_file(path).map_err(io);
        };
        if let Some(known) = self.cache.get(&full)
            && known.stamp == stamp
        {
            return Ok(known.sha256);
        }
        let sha256 = digest_file(path).map_err(io)?;
        // Only if it did not change while it was read, and will not within the clock's grain.
        let settled = metadata
            .modified()
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > SETTLED));
        if settled && Stamp::of(&full).map_err(io)? == Some(stamp) {
            self.cache.insert(full, Known { stamp, sha256 });
            self.changed = true;
        }
        Ok(sha256)
    }

    /// Covers relative paths, kinds, contents and targets of links; not times, owners, permissions.
    fn folder(&mut self, root: &Path) -> Result<Digest, InputError> {
        let mut entries = BTreeMap::new();
        walk(root, root, 0, &mut entries)?;
        let mut hasher = ContentHasher::new();
        hasher.frame("folder", entries.len());
        for (name, entry) in entries {
            match entry {
                Entry::Folder => hasher.leaf("folder", name.as_bytes()),
                Entry::Link(target) => {
                    hasher.leaf("link", name.as_bytes());
                    hasher.leaf("target", target.as_bytes());
                }
                Entry::File(metadata) => {
                    hasher.leaf("file", name.as_bytes());
                    let digest = self.file(&root.join(&name), &metadata)?;
                    hasher.leaf("sha256", &digest.0);
                }
            }
        }
        Ok(hasher.digest())
    }
}

enum Entry {
    Folder,
    File(Metadata),
    Link(String),
}

fn walk(
    root: &Path,
    folder: &Path,
    depth: usize,
    out: &mut BTreeMap<String, Entry>,
) -> Result<(), InputError> {
    let io = |source| InputError::Io { path: folder.to_owned(), source };
    if depth > MAX_DEPTH {
        return Err(InputError::TooLarge { path: root.to_owned() });
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let name = parts.ok_or_else(|| InputError::NotText { path: path.clone() })?.join("/");
        let metadata = fs::symlink_metadata(&path).map_err(io)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            out.insert(name, Entry::Folder);
            walk(root, &path, depth + 1, out)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(io)?;
            let target =
                target.to_str().ok_or_else(|| InputError::NotText { path: path.clone() })?;
            out.insert(name, Entry::Link(target.to_owned()));
        } else if kind.is_file() {
            out.insert(name, Entry::File(metadata));
        } else {
            return Err(InputError::Special { path });
        }
        if out.len() > MAX_FILES {
            return Err(InputError::TooLarge { path: root.to_owned() });
        }
    }
    Ok(())
}

fn digest_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Digest(sha.finalize().into()));
        }
        sha.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::span::Span;

    fn file(path: &Path, kind: FileKind) -> FileRef {
        FileRef {
            location: Location::Path(path.to_owned()),
            sha256: None,
            kind,
            span: Span::default(),
        }
    }

    fn set_age(path: &Path, seconds: u64) {
        let at = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn a_changed_file_has_a_new_digest_even_with_its_old_size_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.iso");
        let cache = dir.path().join("digests.json");
        fs::write(&path, vec![1; 2 << 20]).unwrap();
        set_age(&path, 100);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();

        let mut digests = Digests::open(Some(cache.clone()));
        let first = digests.of(&file(&path, FileKind::File)).unwrap();
        assert_eq!(first, Digest::of(&vec![1; 2 << 20]));
        digests.save().unwrap();
        let mut digests = Digests::open(Some(cache));
        assert_eq!(digests.cache.len(), 1, "a settled large file is cached");
        assert_eq!(digests.of(&file(&path, FileKind::File)).unwrap(), first);

        fs::write(&path, vec![2; 2 << 20]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(digests.of(&file(&path, FileKind::File)).unwrap(), first);
    }

    #[test]
    fn a_file_that_just_changed_is_not_cached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        fs::write(&path, vec![1; 2 << 20]).unwrap();
        let mut digests = Digests::default();
        digests.of(&file(&path, FileKind::File)).unwrap();
        assert!(digests.cache.is_empty());
    }

    #[test]
    fn a_folders_digest_covers_names_and_contents_but_not_times() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("in");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a"), "1").unwrap();
        fs::write(root.join("b"), "2").unwrap();
        let mut digests = Digests::default();
        let mut digest = || digests.of(&file(&root, FileKind::Dir)).unwrap();
        let first = digest();
        set_age(&root.join("b"), 1000);
        assert_eq!(digest(), first);
        fs::rename(root.join("b"), root.join("c")).unwrap();
        let renamed = digest();
        assert_ne!(renamed, first);
        fs::write(root.join("c"), "3").unwrap();
        assert_ne!(digest(), renamed);
        fs::create_dir(root.join("empty")).unwrap();
        assert_ne!(digest(), renamed);
    }

    #[test]
    fn a_folder_for_a_file_and_the_other_way_round_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "").unwrap();
        let mut digests = Digests::default();
        let error = |kind, path: &Path| Digests::default().of(&file(path, kind)).unwrap_err();
        assert!(matches!(error(FileKind::File, dir.path()), InputError::IsFolder { .. }));
        assert!(matches!(error(FileKind::Dir, &path), InputError::IsFile { .. }));
        let missing = digests.of(&file(&dir.path().join("no"), FileKind::File)).unwrap_err();
        assert!(missing.to_string().starts_with("there is no file "), "{missing}");
    }
}
