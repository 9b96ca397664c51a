//! Recipes: how a file is put together from blobs, byte for byte.
//!
//! ```text
//! "giltrcp1", file size u64, segments u32
//! segment:  kind u8 (0 other, 1 resource, 2 metadata, 3 table)
//!           resource: sha1 20, content size u64, form u32
//!           table:    record u16, offset at u16, key at u16
//!           loose (4): metadata kept in its loose form: bytes of the file u64
//!           pieces u32, then ids of 40
//! ```
//! A *table* is a list of fixed-size records that say at which offset of this same file each
//! resource is. All offsets shift when one resource grows, so they are left out of what is stored
//! and filled in again from the recipe itself: then a table differs from the one of the version
//! before only where the records do.
//!
//! Metadata that comes compressed changes all over when a little changes in it. Who knows the format
//! may give a *loose form* of it ([`Segments::loosen`]) that changes only a little; that is what is
//! stored then, and made into the bytes of the file again on the way out.

use std::collections::HashMap;
use std::ops::Range;

use crate::digest::{BlobId, Cursor};
use crate::error::{Error, Result};
use crate::pack::put_id;

const MAGIC: &[u8; 8] = b"giltrcp1";

/// A part of a file handed over for publishing. Gaps between segments are taken as [`Kind::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    pub kind: Kind,
}

/// How the store treats a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stored once whoever holds it; compressed by its maker, so kept as it is.
    Resource(ResourceInfo),
    /// Changes a little from version to version: kept as a delta of the version before.
    Metadata,
    /// Offsets of resources; see the module.
    Table(TableLayout),
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// SHA-1 of the contents.
    pub sha1: [u8; 20],
    /// Bytes of the contents.
    pub content_size: u64,
    /// Kept beside the resource and given back; means nothing to the store.
    pub form: u32,
}

/// Where a record keeps the u64 offset and the SHA-1 of the resource it is about. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLayout {
    pub record_len: u16,
    pub offset_at: u16,
    pub key_at: u16,
}

/// Says what the parts of a file are. Implemented by whoever knows the format; the store does not.
pub trait Segments: Send + Sync {
    /// The segments of the file, in the order of their offsets.
    fn segments(&self) -> Vec<Segment>;

    /// Bytes of a metadata segment in another form, which differs little where contents differ little.
    /// [`crate::OpenOptions::tighten`] must give back exactly `stored`. `None`: kept as it is.
    fn loosen(&self, segment: &Segment, stored: &[u8]) -> Option<Vec<u8>> {
        let _ = (segment, stored);
        None
    }

    /// SHA-256 of the contents of a resource, from its stored bytes; asked only when two
    /// different stored forms claim one SHA-1. `None`: this format cannot tell.
    fn content_digest(
        &self,
        stored: &[u8],
        info: &ResourceInfo,
    ) -> Option<std::io::Result<[u8; 32]>> {
        let _ = (stored, info);
        None
    }
}

/// A file of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opaque;

impl Segments for Opaque {
    fn segments(&self) -> Vec<Segment> {
        Vec::new()
    }
}

impl Segments for Vec<Segment> {
    fn segments(&self) -> Vec<Segment> {
        self.clone()
    }
}

/// Pieces of opaque segments and of large resources: where they are cut.
pub(crate) const PIECE: u64 = 4 << 20;
/// Metadata up to this size is one blob, so that it can be one delta.
pub(crate) const WHOLE: u64 = 256 << 20;

/// Checks the segments of a file of `len` bytes and fills the gaps between them.
pub(crate) fn complete(segments: Vec<Segment>, len: u64) -> Result<Vec<Segment>> {
    let mut all: Vec<Segment> = Vec::with_capacity(segments.len() + 1);
    let mut end = 0u64;
    let other = |from: u64, to: u64| Segment { offset: from, len: to - from, kind: Kind::Other };
    for segment in segments {
        if segment.len == 0 {
            continue;
        }
        let bad = |why: &str| {
            let what = format!("segment of {} bytes at {:#x}", segment.len, segment.offset);
            Error::invalid(what, why)
        };
        if segment.offset < end {
            return Err(bad("overlaps the one before"));
        }
        let stop = segment.offset.checked_add(segment.len).filter(|&stop| stop <= len);
        let stop = stop.ok_or_else(|| bad("reaches beyond the file"))?;
        if segment.offset > end {
            all.push(other(end, segment.offset));
        }
        end = stop;
        all.push(segment);
    }
    if end < len {
        all.push(other(end, len));
    }
    Ok(all)
}

/// The ranges of the file that become blobs of one segment.
pub(crate) fn cut(segment: &Segment) -> impl Iterator<Item = Range<u64>> + use<> {
    let piece = match segment.kind {
        Kind::Metadata | Kind::Table(_) => WHOLE,
        Kind::Resource(_) | Kind::Other => PIECE,
    };
    let (start, end) = (segment.offset, segment.offset + segment.len);
    (0..segment.len.div_ceil(piece)).map(move |n| {
        let from = start + n * piece;
        from..(from + piece).min(end)
    })
}

/// A segment as it is in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub kind: Kind,
    pub pieces: Vec<BlobId>,
    /// Bytes of the file, where the one piece is a loose form of them.
    pub loose: Option<u64>,
}

impl Part {
    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.loose.unwrap_or_else(|| self.pieces.iter().map(|piece| piece.size).sum())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Bytes.
    pub size: u64,
    pub parts: Vec<Part>,
}

/// One blob of a file: where its bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub id: BlobId,
    /// From the start of the file.
    pub offset: u64,
    /// Bytes of the file.
    pub len: u64,
    pub made: Made,
}

/// How the bytes of the file come from the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    AsItIs,
    /// Offsets are filled in.
    Table(TableLayout),
    /// The blob is a loose form.
    Loose,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    pub fn as_it_is(&self) -> bool {
        self.made == Made::AsItIs
    }
}

impl Recipe {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.parts.len() * 80);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        for part in &self.parts {
            match &part.kind {
                Kind::Other => out.push(0),
                Kind::Resource(info) => {
                    out.push(1);
                    out.extend_from_slice(&info.sha1);
                    out.extend_from_slice(&info.content_size.to_le_bytes());
                    out.extend_from_slice(&info.form.to_le_bytes());
                }
                Kind::Metadata => match part.loose {
                    None => out.push(2),
                    Some(len) => {
                        out.push(4);
                        out.extend_from_slice(&len.to_le_bytes());
                    }
                },
                Kind::Table(layout) => {
                    out.push(3);
                    for field in [layout.record_len, layout.offset_at, layout.key_at] {
                        out.extend_from_slice(&field.to_le_bytes());
                    }
                }
            }
            out.extend_from_slice(&(part.pieces.len() as u32).to_le_bytes());
            for piece in &part.pieces {
                put_id(&mut out, piece);
            }
        }
        out
    }

    pub fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(object, bytes);
        if cursor.array::<8>()? != *MAGIC {
            return Err(Error::corrupt_at(object, 0, "does not begin as a recipe does"));
        }
        let size = cursor.u64()?;
        let count = cursor.count(5)?;
        let mut parts = Vec::with_capacity(count);
        let mut sum = 0u64;
        for _ in 0..count {
            let at = cursor.at();
            let mut loose = None;
            let kind = match cursor.u8()? {
                0 => Kind::Other,
                1 => Kind::Resource(ResourceInfo {
                    sha1: cursor.array()?,
                    content_size: cursor.u64()?,
                    form: cursor.u32()?,
                }),
                2 => Kind::Metadata,
                3 => Kind::Table(TableLayout {
                    record_len: cursor.u16()?,
                    offset_at: cursor.u16()?,
                    key_at: cursor.u16()?,
                }),
                4 => {
                    loose = Some(cursor.u64()?);
                    Kind::Metadata
                }
                n => {
                    return Err(Error::corrupt_at(
                        object,
                        at,
                        format!("segment kind {n} is not known"),
                    ));
                }
            };
            let more = || Error::corrupt_at(object, at, "more bytes than can be");
            let mut pieces = Vec::new();
            let mut len = 0u64;
            for _ in 0..cursor.count(40)? {
                let piece = cursor.blob_id()?;
                len = len.checked_add(piece.size).ok_or_else(more)?;
                pieces.push(piece);
            }
            if loose.is_some() && pieces.len() != 1 {
                return Err(Error::corrupt_at(object, at, "a loose form of several pieces"));
            }
            sum = sum.checked_add(loose.unwrap_or(len)).ok_or_else(more)?;
            parts.push(Part { kind, pieces, loose });
        }
        cursor.finish()?;
        if sum != size {
            let what = format!("its pieces have {sum} bytes, the file {size}");
            return Err(Error::corrupt(object, what));
        }
        Ok(Self { size, parts })
    }

    /// Every blob of the file, in order.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut offset = 0;
        let mut pieces = Vec::new();
        for part in &self.parts {
            let made = match (part.kind, part.loose) {
                (_, Some(_)) => Made::Loose,
                (Kind::Table(layout), None) => Made::Table(layout),
                _ => Made::AsItIs,
            };
            for &id in &part.pieces {
                let len = part.loose.unwrap_or(id.size);
                pieces.push(Piece { id, offset, len, made });
                offset += len;
            }
        }
        pieces
    }

    /// Where each resource begins: what the offsets of a table are filled in from.
    pub fn places(&self) -> Places {
        let mut offset = 0;
        let mut places = HashMap::new();
        for part in &self.parts {
            if let Kind::Resource(info) = &part.kind {
                places.entry(info.sha1).or_insert(offset);
            }
            offset += part.len();
        }
        places
    }

    /// The pieces of the `n`-th segment of the same sort, which a delta is made against.
    pub fn nth_like(&self, kind: &Kind, n: usize) -> Option<&[BlobId]> {
        let same =
            |part: &&Part| std::mem::discriminant(&part.kind) == std::mem::discriminant(kind);
        self.parts.iter().filter(same).nth(n).map(|part| &part.pieces[..])
    }
}

/// SHA-1 of a resource -> its offset in the file.
pub(crate) type Places = HashMap<[u8; 20], u64>;

const LEFT_OUT: u64 = u64::MAX;

impl TableLayout {
    fn fits(&self) -> bool {
        let end = |at: u16, len: u16| at.checked_add(len).is_some_and(|end| end <= self.record_len);
        end(self.offset_at, 8) && end(self.key_at, 20)
    }

    fn each(&self, bytes: &mut [u8], mut change: impl FnMut([u8; 20], u64) -> Option<u64>) {
        let offset_at = usize::from(self.offset_at);
        let key_at = usize::from(self.key_at);
        for record in bytes.chunks_exact_mut(usize::from(self.record_len)) {
            let (mut key, mut offset) = ([0; 20], [0; 8]);
            key.copy_from_slice(&record[key_at..key_at + 20]);
            offset.copy_from_slice(&record[offset_at..offset_at + 8]);
            if let Some(new) = change(key, u64::from_le_bytes(offset)) {
                record[offset_at..offset_at + 8].copy_from_slice(&new.to_le_bytes());
            }
        }
    }

    /// Leaves out the offsets that [`Self::fill`] can tell; false (and nothing changed) if it could not
    /// be undone.
    pub(crate) fn strip(&self, bytes: &mut [u8], places: &Places) -> bool {
        let mut free = self.fits();
        if free {
            self.each(bytes, |_, offset| {
                free &= offset != LEFT_OUT;
                None
            });
        }
        if free {
            self.each(bytes, |key, offset| (places.get(&key) == Some(&offset)).then_some(LEFT_OUT));
        }
        free
    }

    pub(crate) fn fill(&self, bytes: &mut [u8], places: &Places) {
        if self.fits() {
            self.each(
                bytes,
                |key, offset| {
                    if offset == LEFT_OUT { places.get(&key).copied() } else { None }
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: TableLayout = TableLayout { record_len: 50, offset_at: 8, key_at: 30 };

    fn record(offset: u64, key: u8) -> Vec<u8> {
        let mut record = vec![key; 50];
        record[8..16].copy_from_slice(&offset.to_le_bytes());
        record
    }

    #[test]
    fn a_table_without_its_offsets_is_filled_in_again() {
        let places = Places::from([([1; 20], 208), ([2; 20], 5000)]);
        let table = [record(208, 1), record(5000, 2), record(77, 2), record(9, 3)].concat();
        let mut bytes = table.clone();
        assert!(LAYOUT.strip(&mut bytes, &places));
        let moved = Places::from([([1; 20], 1), ([2; 20], 2)]);
        let mut elsewhere = bytes.clone();
        LAYOUT.fill(&mut elsewhere, &moved);
        assert_eq!(elsewhere, [record(1, 1), record(2, 2), record(77, 2), record(9, 3)].concat());
        LAYOUT.fill(&mut bytes, &places);
        assert_eq!(bytes, table);
    }

    #[test]
    fn a_table_that_uses_the_mark_itself_is_left_alone() {
        let table = [record(208, 1), record(u64::MAX, 2)].concat();
        let mut bytes = table.clone();
        assert!(!LAYOUT.strip(&mut bytes, &Places::from([([1; 20], 208)])));
        assert_eq!(bytes, table);
        let bad = TableLayout { record_len: 10, offset_at: 8, key_at: 0 };
        assert!(!bad.strip(&mut bytes, &Places::new()));
    }

    #[test]
    fn gaps_are_filled_and_overlaps_refused() {
        let segment = |offset, len| Segment { offset, len, kind: Kind::Metadata };
        let all = complete(vec![segment(10, 5), segment(15, 0), segment(20, 5)], 30).unwrap();
        let shape: Vec<_> =
            all.iter().map(|s| (s.offset, s.len, s.kind == Kind::Metadata)).collect();
        assert_eq!(
            shape,
            [(0, 10, false), (10, 5, true), (15, 5, false), (20, 5, true), (25, 5, false)]
        );
        assert!(complete(vec![segment(10, 5), segment(14, 2)], 30).is_err());
        assert!(complete(vec![segment(10, 21)], 30).is_err());
        assert!(complete(vec![segment(u64::MAX, 2)], 30).is_err());
    }

    #[test]
    fn a_recipe_is_read_as_it_was_written_and_damage_is_refused() {
        let id = |n: u8| BlobId::of(&vec![n; usize::from(n)]);
        let info = ResourceInfo { sha1: [9; 20], content_size: 77, form: 3 };
        let part = |kind, pieces| Part { kind, pieces, loose: None };
        let recipe = Recipe {
            size: 110,
            parts: vec![
                part(Kind::Other, vec![id(1)]),
                part(Kind::Resource(info), vec![id(2), id(3)]),
                part(Kind::Table(LAYOUT), vec![id(4)]),
                Part { kind: Kind::Metadata, pieces: vec![id(5)], loose: Some(100) },
            ],
        };
        let bytes = recipe.encode();
        assert_eq!(Recipe::decode("r", &bytes).unwrap(), recipe);
        assert_eq!(recipe.places(), Places::from([([9; 20], 1)]));
        for len in 0..bytes.len() {
            assert!(Recipe::decode("r", &bytes[..len]).is_err());
        }
    }
}
