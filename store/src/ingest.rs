//! Takes files apart into blobs and puts the new ones into packs.
//!
//! ```text
//! reader thread ── batches ──> hasher of the whole file
//!                └─ batches ──> this thread: digest of each piece, known or new ── packs ──> uploads
//! ```

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::blobs::{Blobs, MAX_DEPTH};
use crate::digest::{BlobId, Digest};
use crate::encoding::{self, Encoding};
use crate::error::{Error, Result};
use crate::index::{Contents, IndexSet, Resource};
use crate::pack::{self, Pack};
use crate::recipe::{
    self, Kind, PIECE, Part, Places, Recipe, ResourceInfo, Segment, Segments, WHOLE,
};
use crate::source::{Source, Watch};

/// Bytes handed from the reader to the hashers at a time.
const BATCH: u64 = 2 << 20;

/// A file as it is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Of the whole file.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Blob that says how to put the file together. None: the file is itself one blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<BlobId>,
}

impl Content {
    pub(crate) fn id(&self) -> BlobId {
        BlobId { digest: self.digest, size: self.size }
    }
}

/// The file of the version before: what deltas are made against.
pub(crate) struct Base {
    pub recipe_id: BlobId,
    pub recipe: Recipe,
}

pub(crate) struct Ingest {
    pub blobs: Blobs,
    pub handle: Handle,
    pub known: Arc<IndexSet>,
    /// Packs gc has marked: what is only there is stored again.
    pub avoid: HashSet<Digest>,
    pub packs: tokio::sync::mpsc::Sender<Pack>,
    pub watch: Watch,
    pub done: Done,
    builder: pack::Builder,
    fresh: HashSet<BlobId>,
    resources: Option<HashMap<[u8; 20], Resource>>,
}

/// What an ingest did.
#[derive(Default)]
pub(crate) struct Done {
    /// What the new index object says.
    pub contents: Contents,
    /// Packs of before that are relied on.
    pub relied: HashSet<Digest>,
    /// Bytes of the files that the store had already.
    pub shared: u64,
    /// Bytes of new packs.
    pub stored: u64,
}

enum Treat<'a> {
    Raw,
    Pack,
    /// As a delta of this blob, if that is shorter.
    Against(Option<&'a BlobId>),
}

impl Ingest {
    pub fn new(
        blobs: Blobs,
        known: Arc<IndexSet>,
        avoid: HashSet<Digest>,
        packs: tokio::sync::mpsc::Sender<Pack>,
        watch: Watch,
    ) -> Self {
        Self {
            blobs,
            handle: Handle::current(),
            known,
            avoid,
            packs,
            watch,
            done: Done::default(),
            builder: pack::Builder::default(),
            fresh: HashSet::new(),
            resources: None,
        }
    }

    /// Takes in one file. Blocks; must not run on a thread of the runtime.
    pub fn file(
        &mut self,
        source: &Source,
        segments: &dyn Segments,
        base: Option<&Base>,
    ) -> Result<Content> {
        let size = source.len()?;
        let mut plan = recipe::complete(segments.segments(), size)?;
        for segment in &mut plan {
            if matches!(segment.kind, Kind::Table(_)) && segment.len > WHOLE {
                segment.kind = Kind::Other;
            }
        }
        let single = size <= PIECE && plan.iter().all(|segment| segment.kind == Kind::Other);
        if single {
            plan.truncate(1);
            if let Some(only) = plan.first_mut() {
                only.len = size;
            }
        }
        let mut maker =
            Maker { segments, base, places: places_of(&plan), ordinals: HashMap::new() };
        let (digest, parts) = self.take_apart(source, size, &plan, &mut maker)?;
        if single {
            if size == 0 {
                self.add(BlobId::of(&[]), &[], Treat::Raw)?;
            }
            return Ok(Content { digest, size, recipe: None });
        }
        let recipe = Recipe { size, parts }.encode();
        let id = BlobId::of(&recipe);
        self.add(id, &recipe, Treat::Against(base.map(|base| &base.recipe_id)))?;
        Ok(Content { digest, size, recipe: Some(id) })
    }

    fn take_apart(
        &mut self,
        source: &Source,
        size: u64,
        plan: &[Segment],
        maker: &mut Maker<'_>,
    ) -> Result<(Digest, Vec<Part>)> {
        let mut reader = source.open()?;
        // Pieces in groups of about a batch; a batch never ends inside a piece.
        let mut groups: Vec<u64> = Vec::new();
        let mut group = 0;
        for piece in plan.iter().flat_map(recipe::cut) {
            group += piece.end - piece.start;
            if group >= BATCH {
                groups.push(std::mem::take(&mut group));
            }
        }
        groups.push(group);
        let (to_whole, whole) = sync_channel::<Bytes>(2);
        let (to_pieces, pieces) = sync_channel::<Result<Bytes>>(2);
        std::thread::scope(|scope| {
            let hasher = scope.spawn(move || {
                let mut hasher = Sha256::new();
                for batch in whole {
                    hasher.update(&batch);
                }
                Digest(hasher.finalize().into())
            });
            let path = source.path();
            scope.spawn(move || {
                for len in groups {
                    let batch = read_batch(&mut reader, len, path);
                    let failed = batch.is_err();
                    if let Ok(batch) = &batch
                        && to_whole.send(batch.clone()).is_err()
                    {
                        return;
                    }
                    if to_pieces.send(batch).is_err() || failed {
                        return;
                    }
                }
            });
            let mut feed = Feed { batches: pieces, batch: Bytes::new(), path };
            let mut parts = Vec::with_capacity(plan.len());
            for segment in plan {
                parts.push(self.segment(segment, &mut feed, maker)?);
            }
            drop(feed);
            let digest = hasher
                .join()
                .map_err(|_| Error::io("hashing", path, std::io::Error::other("thread died")))?;
            debug_assert_eq!(plan.iter().map(|segment| segment.len).sum::<u64>(), size);
            Ok((digest, parts))
        })
    }

    fn segment(
        &mut self,
        segment: &Segment,
        feed: &mut Feed<'_>,
        maker: &mut Maker<'_>,
    ) -> Result<Part> {
        let like = maker.like(&segment.kind);
        let mut pieces = Vec::new();
        let mut loose = None;
        let mut all_known = true;
        let mut held: Vec<Bytes> = Vec::new();
        for (n, range) in recipe::cut(segment).enumerate() {
            let mut bytes = feed.next(range.end - range.start)?;
            self.watch.step(bytes.len() as u64)?;
            if let Kind::Table(layout) = &segment.kind {
                let mut stripped = bytes.to_vec();
                if layout.strip(&mut stripped, &maker.places) {
                    bytes = stripped.into();
                }
            }
            if segment.kind == Kind::Metadata
                && bytes.len() as u64 == segment.len
                && let Some(form) = maker.segments.loosen(segment, &bytes)
            {
                loose = Some(segment.len);
                bytes = form.into();
            }
            let id = BlobId::of(&bytes);
            let known = self.is_known(&id)?;
            if known {
                self.done.shared += id.size;
            } else {
                all_known = false;
                let against = like.and_then(|like| like.get(n));
                let treat = match segment.kind {
                    Kind::Resource(_) => Treat::Raw,
                    Kind::Metadata | Kind::Table(_) => Treat::Against(against),
                    Kind::Other => Treat::Pack,
                };
                // A resource is recorded only when its SHA-1 is known to be its own.
                if matches!(segment.kind, Kind::Resource(_)) {
                    held.push(bytes);
                } else {
                    self.store(id, &bytes, treat)?;
                }
            }
            pieces.push(id);
        }
        if let Kind::Resource(info) = &segment.kind
            && !all_known
        {
            self.record(info, &pieces, &held, maker.segments)?;
        }
        Ok(Part { kind: segment.kind, pieces, loose })
    }

    /// Notes a new resource; refuses it if its SHA-1 belongs to other contents.
    fn record(
        &mut self,
        info: &ResourceInfo,
        pieces: &[BlobId],
        held: &[Bytes],
        segments: &dyn Segments,
    ) -> Result<()> {
        if self.resources.is_none() {
            self.resources = Some(self.known.resources()?);
        }
        let known = self.resources.as_ref().and_then(|all| all.get(&info.sha1)).cloned();
        for bytes in held {
            self.store(BlobId::of(bytes), bytes, Treat::Raw)?;
        }
        // A record may outlive the bytes it is about.
        let mut there = known.is_some();
        for id in known.iter().flat_map(|known| &known.pieces) {
            there &= self.is_known(id)?;
        }
        let Some(known) = known.filter(|_| there) else {
            let resource = Resource {
                sha1: info.sha1,
                content_size: info.content_size,
                form: info.form,
                pieces: pieces.to_vec(),
            };
            self.done.contents.resources.insert(info.sha1, resource.clone());
            self.resources.get_or_insert_default().insert(info.sha1, resource);
            return Ok(());
        };
        if known.pieces == pieces {
            return Ok(());
        }
        let collision = |known: String, given: String| {
            Err(Error::Sha1Collision { sha1: hex::encode(info.sha1), known, given })
        };
        if known.content_size != info.content_size {
            let text = |size: u64| format!("{size} bytes");
            return collision(text(known.content_size), text(info.content_size));
        }
        // One file holds one resource of a SHA-1.
        if known.pieces.iter().all(|id| self.fresh.contains(id)) {
            let text =
                |ids: &[BlobId]| ids.iter().map(|id| id.digest.to_string()).collect::<String>();
            return collision(text(&known.pieces), text(pieces));
        }
        // The same contents in another compressed form, or a forgery: only the contents tell.
        let fetch = |this: &Self, ids: &[BlobId]| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            for id in ids {
                match held.iter().find(|bytes| BlobId::of(bytes) == *id) {
                    Some(piece) => bytes.extend_from_slice(piece),
                    None => {
                        let piece = this.handle.block_on(this.blobs.fetch(id, &()))?;
                        bytes.extend_from_slice(&piece);
                    }
                }
            }
            Ok(bytes)
        };
        let of = |stored: &[u8], form: u32| -> Result<Option<Digest>> {
            let info = ResourceInfo { form, ..*info };
            segments
                .content_digest(stored, &info)
                .transpose()
                .map(|digest| digest.map(Digest))
                .map_err(|error| Error::io("decoding a resource of", "the file", error))
        };
        let ours = of(&fetch(self, pieces)?, info.form)?;
        let theirs = of(&fetch(self, &known.pieces)?, known.form)?;
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                collision(theirs.to_string(), ours.to_string())
            }
            _ => Ok(()),
        }
    }

    fn is_known(&mut self, id: &BlobId) -> Result<bool> {
        if self.fresh.contains(id) {
            return Ok(true);
        }
        let Some(location) = self.known.find(id, &self.avoid)? else { return Ok(false) };
        self.done.relied.insert(location.pack);
        // A delta is of use only with the blobs it is made against.
        let mut base = location.packed.base;
        while let Some(id) = base {
            let Some(location) = self.known.find(&id, &self.avoid)? else { return Ok(false) };
            self.done.relied.insert(location.pack);
            base = location.packed.base;
        }
        Ok(true)
    }

    fn add(&mut self, id: BlobId, bytes: &[u8], treat: Treat<'_>) -> Result<()> {
        if self.is_known(&id)? {
            self.done.shared += id.size;
            return Ok(());
        }
        self.store(id, bytes, treat)
    }

    fn store(&mut self, id: BlobId, bytes: &[u8], treat: Treat<'_>) -> Result<()> {
        if !self.fresh.insert(id) {
            return Ok(());
        }
        match treat {
            Treat::Raw => self.builder.add(id, Encoding::Raw, None, bytes),
            Treat::Pack | Treat::Against(None) => self.store_packed(id, bytes)?,
            Treat::Against(Some(base)) => {
                let near = self.is_known(base)?
                    && !self.fresh.contains(base)
                    && self.known.depth(base, &self.avoid)? < MAX_DEPTH;
                if near {
                    let against = self.handle.block_on(self.blobs.fetch(base, &()))?;
                    let patch = encoding::patch(&against, bytes)?;
                    // Near-useless patches only make the chain longer.
                    if patch.len() < bytes.len() / 4 * 3 {
                        self.builder.add(id, Encoding::Delta, Some(*base), &patch);
                        return self.flush(false);
                    }
                }
                self.store_packed(id, bytes)?;
            }
        }
        self.flush(false)
    }

    fn store_packed(&mut self, id: BlobId, bytes: &[u8]) -> Result<()> {
        let (encoding, packed) = encoding::pack(bytes)?;
        self.builder.add(id, encoding, None, packed.as_deref().unwrap_or(bytes));
        Ok(())
    }

    fn flush(&mut self, last: bool) -> Result<()> {
        if self.builder.is_empty() || (!last && !self.builder.is_full()) {
            return Ok(());
        }
        let pack = std::mem::take(&mut self.builder).finish_avoiding(&self.avoid);
        self.done.stored += pack.bytes.len() as u64;
        self.done.contents.add_pack(&pack);
        // The receiver is gone only when an upload failed; its error is the one to report.
        self.packs.blocking_send(pack).map_err(|_| Error::Cancelled)
    }

    pub fn finish(mut self) -> Result<Done> {
        self.flush(true)?;
        Ok(self.done)
    }
}

/// What is known of the file being taken apart.
struct Maker<'a> {
    segments: &'a dyn Segments,
    base: Option<&'a Base>,
    places: Places,
    ordinals: HashMap<std::mem::Discriminant<Kind>, usize>,
}

impl<'a> Maker<'a> {
    /// The segment of the base file that corresponds to this one.
    fn like(&mut self, kind: &Kind) -> Option<&'a [BlobId]> {
        if !matches!(kind, Kind::Metadata | Kind::Table(_)) {
            return None;
        }
        let ordinal = self.ordinals.entry(std::mem::discriminant(kind)).or_default();
        let n = *ordinal;
        *ordinal += 1;
        self.base?.recipe.nth_like(kind, n)
    }
}

fn places_of(plan: &[Segment]) -> Places {
    let mut places = Places::new();
    for segment in plan {
        if let Kind::Resource(info) = &segment.kind {
            places.entry(info.sha1).or_insert(segment.offset);
        }
    }
    places
}

fn read_batch(reader: &mut dyn Read, len: u64, path: &Path) -> Result<Bytes> {
    let mut batch = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    reader.take(len).read_to_end(&mut batch).map_err(|error| Error::io("reading", path, error))?;
    if batch.len() as u64 != len {
        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file shrank");
        return Err(Error::io("reading", path, error));
    }
    Ok(batch.into())
}

/// Hands out pieces of the batches as they come.
struct Feed<'a> {
    batches: std::sync::mpsc::Receiver<Result<Bytes>>,
    batch: Bytes,
    path: &'a Path,
}

impl Feed<'_> {
    fn next(&mut self, len: u64) -> Result<Bytes> {
        if self.batch.is_empty() && len > 0 {
            self.batch = self.batches.recv().map_err(|_| {
                Error::io("reading", self.path, std::io::Error::other("the reader ended early"))
            })??;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.batch.len());
        Ok(self.batch.split_to(len))
    }
}
