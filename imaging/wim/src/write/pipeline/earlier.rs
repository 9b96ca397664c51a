//! Earlier contents, whose compressed chunks are taken where the new ones have the same bytes.
//!
//! Chunks are compressed each for itself, so one that did not change may be copied into another
//! resource. Unpacking and comparing costs a tenth of compressing.

use super::{Job, JobSource, Shared};
use crate::codec::Compression;
use crate::header::ResourceHeader;
use crate::resource::{Backing, Layout};
use crate::wim::{Place, Wim};
use std::sync::Arc;

/// After so many chunks in a row that differ no more are looked at: all has moved.
const MAX_MISSES: u32 = 8;

#[derive(Clone)]
pub(super) struct Earlier {
    backing: Arc<Backing>,
    layout: Layout,
    misses: u32,
    stored: Vec<u8>,
    unpacked: Vec<u8>,
}

impl Earlier {
    fn open(backing: &Arc<Backing>, resource: &ResourceHeader) -> Option<Self> {
        // A lender that cannot be read is no loss: what it would have lent is compressed.
        let layout = Layout::read(backing, resource).ok()?;
        let (stored, unpacked) = (Vec::new(), Vec::new());
        Some(Self { backing: backing.clone(), layout, misses: 0, stored, unpacked })
    }

    /// Chunk `index` as it is stored, if it unpacks to `expected`.
    pub fn chunk(&mut self, index: u64, expected: &[u8]) -> Option<&[u8]> {
        if self.misses >= MAX_MISSES {
            return None;
        }
        let read =
            self.layout.read_chunk(&self.backing, index, &mut self.stored, &mut self.unpacked);
        if read.is_ok() && self.unpacked == expected {
            self.misses = 0;
            return Some(&self.stored);
        }
        self.misses += 1;
        None
    }
}

impl Shared<'_> {
    /// What the contents of `job` were likely made from, if a lender has it in chunks like ours.
    pub(super) fn earlier(&self, job: &Job<'_>) -> Option<Earlier> {
        if self.solid || self.options.compression == Compression::None {
            return None;
        }
        let lenders = &self.options.lenders;
        let fits = |backing: &Arc<Backing>, resource: &ResourceHeader| {
            self.is_like_ours(backing) && resource.is_compressed()
        };
        match job.source {
            JobSource::Stream { contents, id } => {
                let sha1 = contents.earlier_sha1(id)?;
                lenders.iter().find_map(|wim| {
                    let inner = wim.inner();
                    let Place::Whole { file, resource } = inner.find_blob(sha1)?.place else {
                        return None;
                    };
                    let backing = &inner.files[usize::from(file)];
                    fits(backing, &resource).then(|| Earlier::open(backing, &resource))?
                })
            }
            JobSource::Metadata { image, .. } => lenders.iter().rev().find_map(|wim: &Wim| {
                let (backing, resource) = wim.inner().image_resource(image)?;
                fits(backing, &resource).then(|| Earlier::open(backing, &resource))?
            }),
            JobSource::Memory(_) => None,
        }
    }

    pub(super) fn is_like_ours(&self, backing: &Backing) -> bool {
        let options = self.options;
        backing.compression == options.compression
            && !backing.pipable
            && (backing.chunk_bytes == options.chunk_bytes
                || options.compression == Compression::None)
    }
}
