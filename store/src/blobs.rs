//! Blobs by id: finds them through the index, reads them out of packs, checks every byte.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::backend::{Backend, Created};
use crate::digest::{BlobId, Digest};
use crate::encoding::{self, Encoding};
use crate::error::{Error, Result};
use crate::index::{self, Contents, Index, IndexSet, Location};
use crate::pack;

/// Deltas between a blob and a whole one, at most: a longer way makes reading slow.
pub(crate) const MAX_DEPTH: usize = 16;
/// Index objects that may lie about before small ones are merged.
const MANY: usize = 24;
/// Of the blobs in an index object that is not merged any more.
const LARGE: usize = 200_000;

#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    backend: Backend,
    /// Index objects and recipes already fetched, for backends that are far away.
    cache: Option<PathBuf>,
    parsed: Arc<Mutex<HashMap<Digest, Index>>>,
    current: Arc<Mutex<Option<Arc<IndexSet>>>>,
}

/// Blobs somebody has at hand, so that they need not be fetched.
pub(crate) trait AtHand: Send + Sync {
    /// Without looking at the bytes.
    fn has(&self, id: &BlobId) -> bool;
    /// The bytes, checked.
    fn blob(&self, id: &BlobId) -> Option<Bytes>;
}

impl AtHand for () {
    fn has(&self, _: &BlobId) -> bool {
        false
    }

    fn blob(&self, _: &BlobId) -> Option<Bytes> {
        None
    }
}

impl Blobs {
    pub fn new(backend: Backend, cache: Option<PathBuf>) -> Self {
        let cache = cache.filter(|_| !backend.is_local());
        Self { backend, cache, parsed: Arc::default(), current: Arc::default() }
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// All index objects as they are now. Those read before are not read again.
    pub async fn index(&self) -> Result<Arc<IndexSet>> {
        for _ in 0..50 {
            match self.index_once().await {
                // Another process merged index objects between our listing and our reading.
                Err(error) if error.is_not_found() => {}
                Ok(set) => {
                    let set = Arc::new(set);
                    *self.current.lock().unwrap_or_else(|p| p.into_inner()) = Some(set.clone());
                    return Ok(set);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Raced { what: "a stable listing of the index".into(), attempts: 50 })
    }

    /// The index as last read; read now if it never was.
    async fn index_cached(&self) -> Result<Arc<IndexSet>> {
        let current = self.current.lock().unwrap_or_else(|p| p.into_inner()).clone();
        match current {
            Some(set) => Ok(set),
            None => self.index().await,
        }
    }

    async fn index_once(&self) -> Result<IndexSet> {
        let names = self.backend.names(index::FOLDER).await?;
        let ids = names.iter().map(|name| index::id_of_name(name)).collect::<Result<Vec<_>>>()?;
        let reads = ids.into_iter().map(|id| async move { Ok((id, self.index_part(id).await?)) });
        let wide = if self.backend.is_local() { 1 } else { 16 };
        let parts: Vec<Result<(Digest, Index)>> =
            futures::stream::iter(reads).buffered(wide).collect().await;
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut parsed = self.parsed.lock().unwrap_or_else(|p| p.into_inner());
        parsed.clear();
        parsed.extend(parts.iter().cloned());
        Ok(IndexSet { parts })
    }

    async fn index_part(&self, id: Digest) -> Result<Index> {
        let known = self.parsed.lock().unwrap_or_else(|p| p.into_inner()).get(&id).cloned();
        if let Some(index) = known {
            return Ok(index);
        }
        let key = index::key(&id);
        let cached = self.cache_path(&id);
        if let Some(path) = &cached
            && let Ok(bytes) = std::fs::read(path)
            && Digest::of(&bytes) == id
        {
            return Index::parse(&key, bytes.into());
        }
        let bytes = self.backend.get(&key).await?;
        let found = Digest::of(&bytes);
        if found != id {
            return Err(Error::corrupt(key, format!("its bytes have the digest {found}")));
        }
        self.cache_put(&id, &bytes);
        Index::parse(&key, bytes)
    }

    fn cache_path(&self, id: &Digest) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(id.hex()))
    }

    /// A cache that cannot be written is only slower.
    fn cache_put(&self, id: &Digest, bytes: &[u8]) {
        let Some(path) = self.cache_path(id) else { return };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            std::io::Write::write_all(&mut file, bytes)?;
            file.persist(&path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!("cannot cache {}: {error}", path.display());
        }
    }

    fn cached(&self, id: &BlobId) -> Option<Bytes> {
        let path = self.cache_path(&id.digest)?;
        let bytes = std::fs::read(&path).ok()?;
        // What is used stays: see `prune_cache`.
        let _ = std::fs::File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        (BlobId::of(&bytes) == *id).then(|| bytes.into())
    }

    /// Removes from the client's cache what nobody used for so long.
    pub fn prune_cache(&self, age: Duration) {
        let Some(entries) = self.cache.as_ref().and_then(|cache| std::fs::read_dir(cache).ok())
        else {
            return;
        };
        for entry in entries.flatten() {
            let old = entry.metadata().and_then(|meta| meta.modified());
            if old.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > age)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Fetches a blob and keeps it in the client's cache: for recipes, which the next pull needs
    /// as the base of a delta.
    pub async fn fetch_kept(&self, id: &BlobId) -> Result<Bytes> {
        let bytes = self.fetch(id, &()).await?;
        if self.cached(id).is_none() {
            self.cache_put(&id.digest, &bytes);
        }
        Ok(bytes)
    }

    /// Uses these index objects, and reads others only when a blob is in none of them.
    pub fn use_index(&self, set: IndexSet) {
        *self.current.lock().unwrap_or_else(|p| p.into_inner()) = Some(Arc::new(set));
    }

    pub async fn locate(&self, id: &BlobId) -> Result<Location> {
        let avoid = HashSet::new();
        if let Some(location) = self.index_cached().await?.find(id, &avoid)? {
            return Ok(location);
        }
        let found = self.index().await?.find(id, &avoid)?;
        found.ok_or_else(|| Error::corrupt(index::FOLDER, format!("blob {id} is in no pack")))
    }

    /// The bytes of a blob, checked against its id.
    pub async fn fetch(&self, id: &BlobId, hand: &dyn AtHand) -> Result<Bytes> {
        match self.fetch_once(id, hand).await {
            // The pack was repacked since we read the index.
            Err(error) if error.is_not_found() => {
                self.index().await?;
                self.fetch_once(id, hand).await
            }
            other => other,
        }
    }

    async fn fetch_once(&self, id: &BlobId, hand: &dyn AtHand) -> Result<Bytes> {
        let mut chain: Vec<Location> = Vec::new();
        let mut want = *id;
        let mut base: Option<Bytes> = None;
        loop {
            if let Some(bytes) = hand.blob(&want).or_else(|| self.cached(&want)) {
                base = Some(bytes);
                break;
            }
            let location = self.locate(&want).await?;
            chain.push(location);
            let Some(next) = location.packed.base else { break };
            want = next;
            if chain.len() > 10 * MAX_DEPTH {
                return Err(Error::corrupt(
                    index::FOLDER,
                    format!("deltas of {id} go in a circle"),
                ));
            }
        }
        while let Some(location) = chain.pop() {
            let stored = self.stored(&location).await?;
            base = Some(decode(&location, &stored, base.as_deref())?);
        }
        base.ok_or_else(|| Error::not_found(format!("blob {id}")))
    }

    /// The bytes of a blob as they are in its pack.
    pub async fn stored(&self, location: &Location) -> Result<Bytes> {
        let from = location.packed.offset;
        self.backend
            .get_range(&pack::key(&location.pack), from..from + location.packed.stored)
            .await
    }

    /// Writes an index object. From then on its blobs count as stored.
    pub async fn add_index(&self, contents: &Contents) -> Result<u64> {
        if contents.is_empty() {
            return Ok(0);
        }
        let (id, bytes) = contents.encode()?;
        let len = bytes.len() as u64;
        self.backend.create_addressed(&index::key(&id), bytes).await?;
        Ok(len)
    }

    /// Puts many small index objects into one. Only when the new one is written are they deleted,
    /// so at each moment some index object names each blob.
    pub async fn merge_index(&self) -> Result<()> {
        let set = self.index().await?;
        if set.parts.len() <= MANY {
            return Ok(());
        }
        let small: Vec<&(Digest, Index)> =
            set.parts.iter().filter(|(_, index)| index.blob_count < LARGE).collect();
        if small.len() < MANY / 2 {
            return Ok(());
        }
        let mut merged = Contents::default();
        for (_, index) in &small {
            merged.merge(Contents::of(index)?);
        }
        let (new, bytes) = merged.encode()?;
        self.backend.create_addressed(&index::key(&new), bytes).await?;
        for (id, _) in &small {
            if *id != new {
                self.backend.delete(&index::key(id)).await?;
            }
        }
        Ok(())
    }

    pub async fn add_pack(&self, pack: &pack::Pack) -> Result<Created> {
        self.backend.create_addressed(&pack::key(&pack.id), pack.bytes.clone()).await
    }
}

/// Decodes what is stored at a location and checks it.
pub(crate) fn decode(location: &Location, stored: &Bytes, base: Option<&[u8]>) -> Result<Bytes> {
    let packed = &location.packed;
    let key = pack::key(&location.pack);
    if packed.encoding == Encoding::Raw {
        let found = BlobId::of(stored);
        if found != packed.id {
            let what =
                format!("blob {}: its bytes have the digest {}", packed.id.digest, found.digest);
            return Err(Error::corrupt_at(key, packed.offset, what));
        }
        return Ok(stored.clone());
    }
    let bytes = encoding::decode(&packed.id, packed.encoding, stored, base, &key, packed.offset)?;
    Ok(bytes.into())
}
