//! The blob table: which contents a WIM holds, under which SHA-1, and where.
//!
//! 50 bytes an entry: resource header, part number u16, reference count u32, SHA-1. Images are
//! the entries with the METADATA flag, in order. Solid resources come as an entry of their own
//! whose size field is 0x1_0000_0000; the blobs in them follow, with offsets counted as if all
//! solid resources of the run were one.

use crate::error::{Error, Result};
use crate::header::{ResourceHeader, array_at, resource_flag, u16_at, u32_at};
use crate::tree::Sha1;

pub(crate) const ENTRY_BYTES: usize = 50;
/// The size field of the entry that stands for a whole solid resource.
pub(crate) const SOLID_MARK: u64 = 0x1_0000_0000;

/// An entry of the blob table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    pub resource: ResourceHeader,
    pub part: u16,
    pub references: u32,
    pub sha1: Sha1,
}

impl BlobEntry {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self {
            resource: ResourceHeader::parse(&array_at(bytes, 0)),
            part: u16_at(bytes, 24),
            references: u32_at(bytes, 26),
            sha1: Sha1(array_at(bytes, 30)),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.resource.to_bytes());
        out.extend_from_slice(&self.part.to_le_bytes());
        out.extend_from_slice(&self.references.to_le_bytes());
        out.extend_from_slice(&self.sha1.0);
    }
}

/// A blob table taken apart.
#[derive(Default)]
pub(crate) struct BlobTable {
    /// The metadata resource of each image, in order.
    pub images: Vec<BlobEntry>,
    /// Contents outside solid resources.
    pub blobs: Vec<BlobEntry>,
    /// Solid resources and the contents in them.
    pub solids: Vec<SolidRun>,
}

/// Neighbouring solid resources, numbered through as one: with each its blobs after it, or all
/// resources first.
#[derive(Default)]
pub(crate) struct SolidRun {
    pub resources: Vec<ResourceHeader>,
    pub blobs: Vec<BlobEntry>,
}

impl BlobTable {
    /// `at` is where the table starts in the file, for messages.
    pub fn parse(bytes: &[u8], at: u64, part: u16) -> Result<Self> {
        if !bytes.len().is_multiple_of(ENTRY_BYTES) {
            return Err(Error::corrupt(
                at,
                "blob table size",
                bytes.len(),
                format!("a multiple of {ENTRY_BYTES}"),
            ));
        }
        let mut table = Self::default();
        let mut run = SolidRun::default();
        for (index, entry) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
            let entry_at = at + (index * ENTRY_BYTES) as u64;
            let entry = BlobEntry::parse(entry);
            let flags = entry.resource.flags;
            if entry.part != part {
                return Err(Error::corrupt(entry_at + 24, "part number", entry.part, part));
            }
            if flags & resource_flag::SOLID != 0 {
                if flags & resource_flag::METADATA != 0 {
                    return Err(Error::corrupt(entry_at, "metadata", "solid", "not solid"));
                }
                if entry.resource.size_bytes == SOLID_MARK {
                    run.resources.push(entry.resource);
                } else if run.resources.is_empty() {
                    return Err(Error::corrupt(
                        entry_at,
                        "blob in a solid resource",
                        "no solid resource before it",
                        "one",
                    ));
                } else {
                    run.blobs.push(entry);
                }
                continue;
            }
            if !run.resources.is_empty() {
                table.solids.push(std::mem::take(&mut run));
            }
            if flags & resource_flag::METADATA != 0 {
                // WinPE of WAIK 2.1 leaves metadata nobody refers to.
                if entry.references != 0 {
                    table.images.push(entry);
                }
            } else if entry.resource.size_bytes != 0 && flags & resource_flag::FREE == 0 {
                table.blobs.push(entry);
            }
        }
        if !run.resources.is_empty() {
            table.solids.push(run);
        }
        Ok(table)
    }
}
