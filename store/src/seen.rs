//! What this client has seen of a store, kept on the client: so that a store cannot show less
//! later without being noticed.
//!
//! ```text
//! state/stores/<store id>+<digest of the url>/<log, '/' as '+'>   "<seq> <digest>"
//! state/locations/<digest of the url>         "<store id> <digest of its first policy>"
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The newest entry this client has seen of each log of one store.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `None`: remembered for the life of this handle only.
    folder: Option<PathBuf>,
    memory: Arc<Mutex<HashMap<String, (u64, Digest)>>>,
}

impl Seen {
    /// A mirror may be behind its original, so each place a store is read from is on its own.
    pub fn new(state: Option<&Path>, store: &str, url: &str) -> Self {
        let place = format!("{store}+{}", &Digest::of(url.as_bytes()).hex()[..16]);
        Self { folder: state.map(|state| state.join("stores").join(place)), memory: Arc::default() }
    }

    fn file(&self, log: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(log.replace('/', "+")))
    }

    pub fn get(&self, log: &str) -> Option<(u64, Digest)> {
        let on_disk = self.file(log).and_then(|path| read(&path));
        let memory = self.memory.lock().unwrap_or_else(|poison| poison.into_inner());
        let in_memory = memory.get(log).copied();
        // The higher number wins; a file another process wrote may be newer than our memory.
        match (on_disk, in_memory) {
            (Some(a), Some(b)) => Some(if a.0 >= b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Remembers an entry, if it is newer than the one known. A client that cannot write its
    /// state still works; it then notices replays only while it runs.
    pub fn note(&self, log: &str, seq: u64, digest: Digest) {
        if self.get(log).is_some_and(|(known, _)| known >= seq) {
            return;
        }
        let mut memory = self.memory.lock().unwrap_or_else(|poison| poison.into_inner());
        memory.insert(log.to_owned(), (seq, digest));
        drop(memory);
        if let Some(path) = self.file(log)
            && let Err(error) = write(&path, &format!("{seq} {digest}\n"))
        {
            tracing::warn!("cannot remember the head of {log}: {error}");
        }
    }
}

fn read(path: &Path) -> Option<(u64, Digest)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (seq, digest) = text.trim().split_once(' ')?;
    Some((seq.parse().ok()?, digest.parse().ok()?))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".seen-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// The identity a store showed when this client first met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub store: String,
    /// Of the first entry of its policy.
    pub genesis: Digest,
}

fn location(state: &Path, url: &str) -> PathBuf {
    state.join("locations").join(Digest::of(url.as_bytes()).hex())
}

/// Trust on first use: the first identity met at an address is the one expected there ever after.
pub(crate) fn check_identity(state: Option<&Path>, url: &str, found: &Identity) -> Result<()> {
    let Some(state) = state else { return Ok(()) };
    let path = location(state, url);
    if let Ok(text) = std::fs::read_to_string(&path) {
        let known = text.trim();
        let found = format!("{} {}", found.store, found.genesis);
        if known != found {
            return Err(Error::Identity { url: url.to_owned(), known: known.to_owned(), found });
        }
        return Ok(());
    }
    remember_identity(Some(state), url, found);
    Ok(())
}

/// The id of the store this client last met at an address.
pub(crate) fn known_store(state: &Path, url: &str) -> Option<String> {
    let text = std::fs::read_to_string(location(state, url)).ok()?;
    let id = text.split(' ').next()?;
    // It becomes the name of a folder.
    uuid::Uuid::parse_str(id).ok().map(|id| id.to_string())
}

/// For a store this client has just made, and for an operator who knows why it changed.
pub(crate) fn remember_identity(state: Option<&Path>, url: &str, identity: &Identity) {
    let Some(state) = state else { return };
    let text = format!("{} {}\n", identity.store, identity.genesis);
    if let Err(error) = write(&location(state, url), &text) {
        tracing::warn!("cannot remember the identity of the store at {url}: {error}");
    }
}

/// Forgets what was known of the address.
pub(crate) fn forget_identity(state: &Path, url: &str) -> Result<()> {
    let path = location(state, url);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("deleting", path, error)),
    }
}
