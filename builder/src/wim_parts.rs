//! What the parts of a WIM are, told to a store that does not know the format.

use gilt_store::{Kind, ResourceInfo, Segment, Segments, TableLayout};
use gilt_wim::Wim;

/// Bytes of an entry of the blob table, and where in it the offset and the SHA-1 are
/// (a resource header of 24 bytes: size and flags 8, offset 8, content size 8; part 2, refcount 4, SHA-1 20).
const ENTRY: TableLayout = TableLayout { record_len: 50, offset_at: 8, key_at: 30 };

/// The resources of one WIM file, in the order of their offsets.
pub struct WimParts {
    segments: Vec<Segment>,
}

impl WimParts {
    pub fn of(wim: &Wim) -> Self {
        let mut segments = Vec::new();
        for resource in wim.resources() {
            let kind = if resource.is_metadata() {
                Kind::Metadata
            } else if resource.is_solid() {
                Kind::Other
            } else {
                Kind::Resource(ResourceInfo {
                    sha1: resource.sha1.0,
                    content_size: resource.size_bytes,
                    form: form(wim, &resource),
                })
            };
            segments.push(Segment { offset: resource.offset, len: resource.stored_bytes, kind });
        }
        let table = &wim.header().blob_table;
        if table.stored_bytes > 0 && !table.is_compressed() {
            segments.push(Segment {
                offset: table.offset,
                len: table.stored_bytes,
                kind: Kind::Table(ENTRY),
            });
        }
        segments.sort_by_key(|segment| segment.offset);
        segments.dedup_by_key(|segment| segment.offset);
        Self { segments }
    }
}

/// Codec and chunk size: what must agree for a stored resource to be used as it is.
fn form(wim: &Wim, resource: &gilt_wim::ResourceInfo) -> u32 {
    if resource.is_compressed() { wim.header().chunk_bytes | wim.compression() as u32 } else { 0 }
}

impl Segments for WimParts {
    fn segments(&self) -> Vec<Segment> {
        self.segments.clone()
    }
}
