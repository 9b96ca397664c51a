//! Index objects: in which pack each blob is.
//!
//! ```text
//! "giltidx1", then as one zstd frame:
//! packs      count u32, then per pack: id 32, bytes u64
//! blobs      count u32, then per blob, sorted by id: id 40, pack u32, offset u64, stored u64,
//!            encoding u8, base u32 (place in bases; u32::MAX: none)
//! bases      count u32, then ids of 40
//! resources  count u32, then per resource: sha1 20, content size u64, form u32,
//!            pieces u32, then ids of 40
//! ```
//! Named by the SHA-256 of all of it. Publishing adds one; when there are many small ones they
//! are merged into one, and only then deleted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

use bytes::Bytes;

use crate::digest::{BlobId, Cursor, Digest};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::pack::{Pack, Packed, put_id};

const MAGIC: &[u8; 8] = b"giltidx1";
const LEVEL: i32 = 3;
/// Unpacked bytes of an index object that are read at most, and at most so many for each byte of
/// the object: half of an index is digests, which do not shrink.
const MAX_INDEX: u64 = 4 << 30;
const MAX_SHRINK: u64 = 32;
const NO_BASE: u32 = u32::MAX;
const BLOB_LEN: usize = 40 + 4 + 8 + 8 + 1 + 4;

pub(crate) const FOLDER: &str = "index";

pub(crate) fn key(id: &Digest) -> String {
    format!("{FOLDER}/{}.idx", id.hex())
}

pub(crate) fn id_of_name(name: &str) -> Result<Digest> {
    name.strip_suffix(".idx")
        .and_then(Digest::from_hex)
        .ok_or_else(|| Error::corrupt(format!("{FOLDER}/{name}"), "not the name of an index"))
}

/// What is known of a resource beside its stored bytes: how it is found by other tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// SHA-1 of the contents, which the stored bytes hold in some compressed form.
    pub sha1: [u8; 20],
    /// Bytes of the contents.
    pub content_size: u64,
    /// What the publisher needs to read the stored form; means nothing to the store.
    pub form: u32,
    /// The stored bytes, in order.
    pub pieces: Vec<BlobId>,
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub pack: Digest,
    pub packed: Packed,
}

/// What one index object says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// Packs and their bytes.
    pub packs: BTreeMap<Digest, u64>,
    pub blobs: BTreeMap<BlobId, Location>,
    pub resources: BTreeMap<[u8; 20], Resource>,
}

impl Contents {
    pub fn add_pack(&mut self, pack: &Pack) {
        self.add_table(pack.id, pack.bytes.len() as u64, &pack.blobs);
    }

    pub fn add_table(&mut self, id: Digest, len: u64, blobs: &[Packed]) {
        self.packs.insert(id, len);
        for &packed in blobs {
            self.blobs.entry(packed.id).or_insert(Location { pack: id, packed });
        }
    }

    pub fn merge(&mut self, other: Self) {
        for (id, location) in other.blobs {
            self.blobs.entry(id).or_insert(location);
        }
        for (sha1, resource) in other.resources {
            self.resources.entry(sha1).or_insert(resource);
        }
        self.packs.extend(other.packs);
    }

    /// Drops packs, what is in them, and the resources that are then not whole.
    pub fn drop_packs(&mut self, gone: &HashSet<Digest>) {
        self.packs.retain(|id, _| !gone.contains(id));
        self.blobs.retain(|_, location| !gone.contains(&location.pack));
        self.resources
            .retain(|_, resource| resource.pieces.iter().all(|id| self.blobs.contains_key(id)));
    }

    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// The object and its name. The same contents give the same bytes.
    pub fn encode(&self) -> Result<(Digest, Bytes)> {
        let mut out = Vec::with_capacity(64 + self.blobs.len() * (BLOB_LEN + 12));
        out.extend_from_slice(&(self.packs.len() as u32).to_le_bytes());
        let mut places = HashMap::new();
        for (place, (id, len)) in self.packs.iter().enumerate() {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&len.to_le_bytes());
            places.insert(*id, place as u32);
        }
        let mut bases: Vec<BlobId> = Vec::new();
        out.extend_from_slice(&(self.blobs.len() as u32).to_le_bytes());
        for (id, Location { pack, packed }) in &self.blobs {
            put_id(&mut out, id);
            out.extend_from_slice(&places.get(pack).copied().unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&packed.offset.to_le_bytes());
            out.extend_from_slice(&packed.stored.to_le_bytes());
            out.push(packed.encoding.code());
            let base = packed.base.map_or(NO_BASE, |base| {
                bases.push(base);
                bases.len() as u32 - 1
            });
            out.extend_from_slice(&base.to_le_bytes());
        }
        out.extend_from_slice(&(bases.len() as u32).to_le_bytes());
        for base in &bases {
            put_id(&mut out, base);
        }
        out.extend_from_slice(&(self.resources.len() as u32).to_le_bytes());
        for resource in self.resources.values() {
            out.extend_from_slice(&resource.sha1);
            out.extend_from_slice(&resource.content_size.to_le_bytes());
            out.extend_from_slice(&resource.form.to_le_bytes());
            out.extend_from_slice(&(resource.pieces.len() as u32).to_le_bytes());
            for piece in &resource.pieces {
                put_id(&mut out, piece);
            }
        }
        let object = Index::wrap(&out)?;
        Ok((Digest::of(&object), object.into()))
    }

    /// All an index object says.
    pub fn of(index: &Index) -> Result<Self> {
        let packs = index.packs.iter().copied().collect();
        let mut contents = Self { packs, ..Self::default() };
        for n in 0..index.blob_count {
            let location = index.blob(n)?;
            contents.blobs.insert(location.packed.id, location);
        }
        contents.resources = index.resources()?.into_iter().map(|r| (r.sha1, r)).collect();
        Ok(contents)
    }
}

/// An index object in memory, searched where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    object: String,
    bytes: Bytes,
    pub packs: Vec<(Digest, u64)>,
    blobs_at: usize,
    pub blob_count: usize,
    bases_at: usize,
    base_count: usize,
    resources_at: usize,
}

impl Index {
    /// An object of these contents.
    pub fn wrap(contents: &[u8]) -> Result<Vec<u8>> {
        let mut object = MAGIC.to_vec();
        // Half of an entry is digests, the other half mostly zeros.
        let packed = zstd::bulk::compress(contents, LEVEL)
            .map_err(|error| Error::io("compressing", FOLDER, error))?;
        object.extend_from_slice(&packed);
        Ok(object)
    }

    /// Checks the frame; entries are checked when they are read. The caller has checked that the
    /// bytes are those its name says.
    pub fn parse(object: &str, bytes: Bytes) -> Result<Self> {
        let packed = bytes
            .strip_prefix(MAGIC.as_slice())
            .ok_or_else(|| Error::corrupt_at(object, 0, "does not begin as an index does"))?;
        let mut unpacked = Vec::new();
        let limit = MAX_INDEX.min((1 << 20) + packed.len() as u64 * MAX_SHRINK);
        zstd::stream::read::Decoder::new(packed)
            .and_then(|decoder| decoder.take(limit + 1).read_to_end(&mut unpacked))
            .map_err(|error| Error::corrupt_at(object, 8, error.to_string()))?;
        if unpacked.len() as u64 > limit {
            return Err(Error::corrupt_at(object, 8, "unpacks to more than an index can"));
        }
        let bytes = Bytes::from(unpacked);
        let mut cursor = Cursor::new(object, &bytes);
        let mut packs = Vec::new();
        for _ in 0..cursor.count(40)? {
            packs.push((cursor.digest()?, cursor.u64()?));
        }
        let blob_count = cursor.count(BLOB_LEN)?;
        let blobs_at = cursor.at() as usize;
        cursor.take(blob_count * BLOB_LEN)?;
        let base_count = cursor.count(40)?;
        let bases_at = cursor.at() as usize;
        cursor.take(base_count * 40)?;
        let resources_at = cursor.at() as usize;
        let object = object.to_owned();
        Ok(Self {
            object,
            bytes: bytes.clone(),
            packs,
            blobs_at,
            blob_count,
            bases_at,
            base_count,
            resources_at,
        })
    }

    fn blob(&self, n: usize) -> Result<Location> {
        let at = self.blobs_at + n * BLOB_LEN;
        let mut cursor = Cursor::new(&self.object, &self.bytes[at..at + BLOB_LEN]);
        let id = cursor.blob_id()?;
        let place = cursor.u32()? as usize;
        let (offset, stored) = (cursor.u64()?, cursor.u64()?);
        let encoding = Encoding::from_code(cursor.u8()?);
        let base = cursor.u32()?;
        let bad = |what: &str| Error::corrupt_at(&self.object, at as u64, what);
        let encoding = encoding.ok_or_else(|| bad("an encoding that is not known"))?;
        let &(pack, pack_len) =
            self.packs.get(place).ok_or_else(|| bad("a pack that is not listed"))?;
        if offset.checked_add(stored).is_none_or(|end| end > pack_len) {
            return Err(bad("a blob that reaches beyond its pack"));
        }
        let base = match base {
            NO_BASE => None,
            n if (n as usize) < self.base_count => {
                let at = self.bases_at + n as usize * 40;
                Some(Cursor::new(&self.object, &self.bytes[at..at + 40]).blob_id()?)
            }
            _ => return Err(bad("a base that is not listed")),
        };
        Ok(Location { pack, packed: Packed { id, offset, stored, encoding, base } })
    }

    /// Bytes of blobs in each pack.
    pub fn stored(&self) -> Result<HashMap<Digest, u64>> {
        let mut sums = HashMap::new();
        for n in 0..self.blob_count {
            let location = self.blob(n)?;
            *sums.entry(location.pack).or_default() += location.packed.stored;
        }
        Ok(sums)
    }

    /// Binary search by id.
    pub fn find(&self, id: &BlobId) -> Result<Option<Location>> {
        let (mut low, mut high) = (0, self.blob_count);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.blobs_at + middle * BLOB_LEN;
            match self.bytes[at..at + 32].cmp(&id.digest.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let location = self.blob(middle)?;
                    return Ok((location.packed.id == *id).then_some(location));
                }
            }
        }
        Ok(None)
    }

    pub fn resources(&self) -> Result<Vec<Resource>> {
        let mut cursor = Cursor::new(&self.object, &self.bytes[self.resources_at..]);
        let count = cursor.count(36)?;
        let mut resources = Vec::with_capacity(count);
        for _ in 0..count {
            let (sha1, content_size, form) = (cursor.array()?, cursor.u64()?, cursor.u32()?);
            let mut pieces = Vec::new();
            for _ in 0..cursor.count(40)? {
                pieces.push(cursor.blob_id()?);
            }
            resources.push(Resource { sha1, content_size, form, pieces });
        }
        cursor.finish()?;
        Ok(resources)
    }
}

/// Every index object of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexSet {
    pub parts: Vec<(Digest, Index)>,
}

impl IndexSet {
    /// Where a blob is, packs in `avoid` not counted.
    pub fn find(&self, id: &BlobId, avoid: &HashSet<Digest>) -> Result<Option<Location>> {
        for (_, index) in &self.parts {
            if let Some(location) = index.find(id)?
                && !avoid.contains(&location.pack)
            {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// Every place a blob is at.
    pub fn find_all(&self, id: &BlobId) -> Result<Vec<Location>> {
        let found = self.parts.iter().map(|(_, index)| index.find(id));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    pub fn resources(&self) -> Result<HashMap<[u8; 20], Resource>> {
        let mut all = HashMap::new();
        for (_, index) in &self.parts {
            all.extend(index.resources()?.into_iter().map(|resource| (resource.sha1, resource)));
        }
        Ok(all)
    }

    /// Deltas on the way from a blob to one that is whole.
    pub fn depth(&self, id: &BlobId, avoid: &HashSet<Digest>) -> Result<usize> {
        let mut depth = 0;
        let mut id = *id;
        while let Some(base) = self.find(&id, avoid)?.and_then(|found| found.packed.base) {
            depth += 1;
            id = base;
            if depth > 1000 {
                return Err(Error::corrupt(FOLDER, format!("deltas of {id} go in a circle")));
            }
        }
        Ok(depth)
    }
}
