//! Getting a file of a version back, bit for bit.
//!
//! ```text
//! pieces the client has (an older pull) ─┐
//! pieces from packs ─────────────────────┴─> .NAME.<digest>.part ─ sync, digest checked ─> NAME
//! ```
//! A part file that is left over is looked through, and what is right in it is not fetched again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::blobs::AtHand;
use crate::digest::{BlobId, Digest};
use crate::error::{Error, Result};
use crate::file::{self, Reading, StoredFile};
use crate::ingest::Content;
use crate::life::State;
use crate::name::Reference;
use crate::source::Watch;
use crate::store::Store;

/// Bytes handed to the writer at a time, at least.
const TOGETHER: usize = 512 << 10;
/// Bytes after which the disk is told to begin, so that little is left to wait for at the end.
const SYNC_EVERY: usize = 32 << 20;
/// What the client's cache holds of a store far away is kept for so long after its last use.
const CACHED: Duration = Duration::from_secs(60 * 24 * 3600);
/// Pulled files whose pieces are looked at for the next pull.
const SEEDS: usize = 8;

#[derive(Clone, Debug)]
pub struct PullRequest {
    pub reference: Reference,
    /// The file to make; what was there is replaced when the new one is whole.
    pub to: PathBuf,
    /// Role of the artifact; the image itself if not given.
    pub role: Option<String>,
    /// Pull also what is revoked.
    pub allow_revoked: bool,
    pub watch: Watch,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pulled {
    pub image: String,
    pub version: u64,
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes read from the store.
    pub bytes_fetched: u64,
    /// Bytes that came from files pulled before, or from a pull that was cut off.
    pub bytes_reused: u64,
    /// The version is deprecated, for this reason.
    pub deprecated: Option<String>,
}

/// A file pulled before, what it is made of, and what it can be verified with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    pub path: PathBuf,
    pub content: Content,
    pub at: jiff::Timestamp,
    pub image: String,
    pub version: u64,
    /// The signed manifest, as it is stored, and the key that signed it, as PEM.
    pub manifest: String,
    pub key: String,
}

/// What a client remembers of the files it pulled from a store.
pub(crate) fn records_of(cache: &Path, store: &str) -> Vec<Record> {
    let Ok(entries) = std::fs::read_dir(cache.join("pulled").join(store)) else {
        return Vec::new();
    };
    let record = |entry: std::io::Result<std::fs::DirEntry>| {
        serde_json::from_slice(&std::fs::read(entry.ok()?.path()).ok()?).ok()
    };
    entries.filter_map(record).collect()
}

impl Store {
    pub async fn pull(&self, request: PullRequest) -> Result<Pulled> {
        let before = self.moved().0;
        let resolved = self.resolve(&request.reference).await?;
        let (image, version) = (&resolved.image, resolved.version);
        let life = self.life(image, version).await?;
        if !(life.state.is_good() || life.state == State::Revoked && request.allow_revoked) {
            self.check_good(image, version).await?;
        }
        let content = match &request.role {
            None => resolved.manifest.file.content,
            Some(role) => {
                let found = resolved.manifest.contents().find(|stored| stored.role == *role);
                found
                    .ok_or_else(|| Error::not_found(format!("{role} of {image}@{version}")))?
                    .content
            }
        };
        let file = self.file(&content).await?;
        let seeds = self.seeds(&request.to).await;
        let reused = fetch(&file, &request.to, seeds, &request.watch).await?;
        self.remember_pull(&request.to, content, image, version).await;
        Ok(Pulled {
            image: image.clone(),
            version,
            digest: content.digest,
            size: content.size,
            bytes_fetched: self.moved().0 - before,
            bytes_reused: reused,
            deprecated: (life.state == State::Deprecated).then_some(life.why),
        })
    }

    /// The client's cache. A local store is as near as any file of the client.
    fn far_cache(&self) -> Option<&PathBuf> {
        self.options.cache.as_ref().filter(|_| !self.backend.is_local())
    }

    async fn remember_pull(&self, to: &Path, content: Content, image: &str, version: u64) {
        let Some(cache) = self.far_cache() else { return };
        self.blobs.prune_cache(CACHED);
        let folder = cache.join("pulled").join(self.id());
        let signed = async {
            let signed = self.signed_manifest(image, version).await?;
            let object = crate::manifest::key(image, version);
            let key = crate::dsse::open(&object, &signed)?.key_id;
            let key = self.policy().key(&object, &key)?.public_pem()?;
            Ok::<_, Error>((String::from_utf8_lossy(&signed).into_owned(), key))
        };
        let (manifest, key) = signed.await.unwrap_or_default();
        let remember = || -> std::io::Result<()> {
            let path = std::path::absolute(to)?;
            std::fs::create_dir_all(&folder)?;
            let name = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
            let (image, at) = (image.to_owned(), self.now());
            let record = Record { path, content, at, image, version, manifest, key };
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            serde_json::to_writer(&mut file, &record)?;
            file.persist(folder.join(name))?;
            Ok(())
        };
        if let Err(error) = remember() {
            tracing::debug!("cannot remember what was pulled: {error}");
        }
    }

    /// Pieces of files pulled before that are still there.
    async fn seeds(&self, to: &Path) -> Seeds {
        let mut seeds = Seeds::default();
        let Some(cache) = self.far_cache() else { return seeds };
        let to = std::path::absolute(to).ok();
        let mut records = records_of(cache, self.id());
        records.sort_by_key(|record| {
            (Some(&record.path) != to.as_ref(), std::cmp::Reverse(record.at))
        });
        for record in records.iter().take(SEEDS) {
            let same_size =
                std::fs::metadata(&record.path).is_ok_and(|m| m.len() == record.content.size);
            if !same_size {
                continue;
            }
            let (Ok(file), Ok(recipe)) =
                (File::open(&record.path), file::recipe(&self.blobs, &record.content).await)
            else {
                continue;
            };
            let number = seeds.files.len();
            seeds.files.push(std::sync::Mutex::new(file));
            // A table in a file has its offsets filled in; the blob has not.
            for piece in recipe.pieces().iter().filter(|piece| piece.as_it_is()) {
                seeds.places.entry(piece.id).or_insert((number, piece.offset));
            }
        }
        seeds
    }
}

#[derive(Default)]
struct Seeds {
    files: Vec<std::sync::Mutex<File>>,
    places: HashMap<BlobId, (usize, u64)>,
    reused: std::sync::atomic::AtomicU64,
}

impl AtHand for Seeds {
    fn has(&self, id: &BlobId) -> bool {
        self.places.contains_key(id)
    }

    /// The bytes, if the file still has them: it is the client's own and may have changed.
    fn blob(&self, id: &BlobId) -> Option<Bytes> {
        let &(file, offset) = self.places.get(id)?;
        let mut file = self.files.get(file)?.lock().ok()?;
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut bytes = vec![0; usize::try_from(id.size).ok()?];
        file.read_exact(&mut bytes).ok()?;
        if BlobId::of(&bytes) != *id {
            return None;
        }
        self.reused.fetch_add(id.size, std::sync::atomic::Ordering::Relaxed);
        Some(bytes.into())
    }
}

/// Puts the file together at `to`; returns the bytes that were not fetched.
async fn fetch(file: &StoredFile, to: &Path, seeds: Seeds, watch: &Watch) -> Result<u64> {
    let content = file.content;
    let name = to.file_name().ok_or_else(|| {
        Error::invalid(format!("path {}", to.display()), "want the name of a file")
    })?;
    let digits = &content.digest.hex()[..16];
    let part_name = format!(".{}.{digits}.part", name.to_string_lossy());
    let part = to.with_file_name(part_name);
    let (output, hasher, from) = resume(file, &part)?;

    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(2);
    let part_path = part.clone();
    let writer = tokio::task::spawn_blocking(move || write(output, &part_path, hasher, receiver));
    let seeds = Arc::new(seeds);
    let reading = Reading { hand: seeds.clone(), check: false };
    let mut stream = std::pin::pin!(file.stream_with(from..content.size, reading));
    let mut failed = None;
    // Small pieces are handed on together: waking the writer costs more than copying them.
    let mut small = Vec::new();
    while let Some(bytes) = stream.next().await {
        let step = bytes.and_then(|bytes| watch.step(bytes.len() as u64).map(|()| bytes));
        match step {
            // A send fails only when the writer has ended; then its error says why.
            Ok(bytes) => {
                let chunk = if small.is_empty() && bytes.len() >= TOGETHER {
                    bytes
                } else {
                    small.extend_from_slice(&bytes);
                    if small.len() < TOGETHER {
                        continue;
                    }
                    std::mem::take(&mut small).into()
                };
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if !small.is_empty() {
        // As above.
        let _ = sender.send(small.into()).await;
    }
    drop(sender);
    let written = writer
        .await
        .map_err(|error| Error::io("writing", &part, std::io::Error::other(error.to_string())))?;
    if let Some(error) = failed {
        return Err(error);
    }
    let digest = written?;
    if digest != content.digest {
        let _ = std::fs::remove_file(&part);
        // Says which piece of which pack it is.
        file.check_pieces().await?;
        let what =
            format!("the file put together has {digest}, the manifest says {}", content.digest);
        return Err(Error::corrupt(to.display().to_string(), what));
    }
    std::fs::rename(&part, to).map_err(|error| Error::io("renaming", to, error))?;
    let reused = from + seeds.reused.load(std::sync::atomic::Ordering::Relaxed);
    Ok(reused)
}

/// Opens the part file behind the pieces that are right in it.
fn resume(file: &StoredFile, part: &Path) -> Result<(File, Sha256, u64)> {
    if let Some(folder) = part.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("creating", folder, error))?;
    }
    let io = |error| Error::io("writing", part, error);
    let mut output = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(part)
        .map_err(io)?;
    let mut hasher = Sha256::new();
    let mut from = 0;
    if output.metadata().map_err(io)?.len() > 0 {
        let mut reader = BufReader::with_capacity(1 << 20, &mut output);
        let mut bytes = Vec::new();
        for piece in file.pieces() {
            bytes.clear();
            reader.by_ref().take(piece.id.size).read_to_end(&mut bytes).map_err(io)?;
            if !piece.as_it_is() || BlobId::of(&bytes) != piece.id {
                break;
            }
            hasher.update(&bytes);
            from += piece.id.size;
        }
        output.set_len(from).map_err(io)?;
        output.seek(SeekFrom::Start(from)).map_err(io)?;
    }
    Ok((output, hasher, from))
}

/// Writes, hashes and syncs side by side.
fn write(
    mut output: File,
    path: &Path,
    mut hasher: Sha256,
    mut chunks: tokio::sync::mpsc::Receiver<Bytes>,
) -> Result<Digest> {
    std::thread::scope(|scope| {
        let (to_hash, hashed) = sync_channel::<Bytes>(2);
        let hashing = scope.spawn(move || {
            for chunk in hashed {
                hasher.update(&chunk);
            }
            Digest(hasher.finalize().into())
        });
        let io = |error| Error::io("writing", path, error);
        let (to_sync, synced) = sync_channel::<()>(1);
        let early = output.try_clone().map_err(io)?;
        scope.spawn(move || {
            for () in synced {
                // What fails here fails again at the end, and is reported then.
                let _ = early.sync_data();
            }
        });
        let mut unsynced = 0;
        while let Some(chunk) = chunks.blocking_recv() {
            // The hasher lives as long as this thread sends.
            let _ = to_hash.send(chunk.clone());
            output.write_all(&chunk).map_err(io)?;
            unsynced += chunk.len();
            if unsynced >= SYNC_EVERY && to_sync.try_send(()).is_ok() {
                unsynced = 0;
            }
        }
        drop((to_sync, to_hash));
        output.sync_all().map_err(io)?;
        hashing.join().map_err(|_| io(std::io::Error::other("the hashing thread died")))
    })
}
