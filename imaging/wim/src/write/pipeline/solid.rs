//! The solid resource: bytes in job order, cut into chunks that workers compress.

use super::writer::Writer;
use super::{Job, Shared, StoredBlob, Task, lock};
use crate::error::Result;
use crate::header::{ResourceHeader, resource_flag};
use crate::tree::{Sha1, total_bytes};
use std::collections::BTreeMap;

/// The solid resource being written.
pub(super) struct Solid {
    /// Where it starts in the file, and how long it is unpacked: set when something is in it.
    pub(super) start: Option<u64>,
    pub(super) size_bytes: u64,
    pub(super) chunk_bytes: usize,
    /// The chunk being filled.
    pub(super) filling: Vec<u8>,
    /// Chunks given to workers, and written.
    pub(super) queued: u64,
    pub(super) written: u64,
    pub(super) done: BTreeMap<u64, Vec<u8>>,
    pub(super) stored_sizes: Vec<u8>,
    /// Room kept for the sizes of chunks.
    pub(super) table_bytes: usize,
}

const SOLID_HEAD_BYTES: usize = 16;

impl Solid {
    pub(super) fn new(shared: &Shared<'_>) -> Self {
        let references = &shared.options.references;
        let is_stored = |index: usize, job: &Job<'_>| {
            job.known.is_some_and(|sha1| {
                shared.first_known.get(&sha1) == Some(&index)
                    && !references.iter().any(|wim| wim.inner().find_blob(sha1).is_some())
            })
        };
        let jobs = shared.jobs.iter().enumerate();
        let stored = jobs.filter(|(index, job)| is_stored(*index, job));
        let size = total_bytes(stored.map(|(_, job)| job.len_bytes));
        let options = shared.options;
        let chunks = size.div_ceil(u64::from(options.solid_chunk_bytes));
        Self {
            start: None,
            size_bytes: 0,
            chunk_bytes: options.solid_chunk_bytes as usize,
            filling: Vec::new(),
            queued: 0,
            written: 0,
            done: BTreeMap::new(),
            stored_sizes: Vec::new(),
            table_bytes: 4 * chunks as usize,
        }
    }
}

impl Writer<'_, '_> {
    pub(super) fn add_solid_blob(&mut self, sha1: Sha1, size_bytes: u64) {
        let Some(solid) = &mut self.solid else { return };
        // In a solid resource offsets and sizes are those of the unpacked bytes.
        let resource = ResourceHeader {
            offset: solid.size_bytes,
            stored_bytes: size_bytes,
            size_bytes: 0,
            flags: resource_flag::SOLID,
        };
        solid.size_bytes += size_bytes;
        self.stored.blobs.push(StoredBlob { sha1, resource });
    }

    pub(super) fn add_to_solid(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(solid) = &mut self.solid else { return Ok(()) };
            let room = solid.chunk_bytes - solid.filling.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            solid.filling.extend_from_slice(now);
            bytes = later;
            if solid.filling.len() == solid.chunk_bytes {
                self.queue_solid_chunk()?;
            }
        }
        Ok(())
    }

    fn queue_solid_chunk(&mut self) -> Result<()> {
        // One chunk per worker, and one to go on with.
        let most = self.shared.options.threads.max(1) as u64 + 1;
        while self.solid.as_ref().is_some_and(|solid| solid.queued - solid.written >= most) {
            self.write_solid_chunks()?;
            if self.solid.as_ref().is_some_and(|solid| solid.queued - solid.written >= most) {
                self.receive()?;
            }
        }
        let Some(solid) = &mut self.solid else { return Ok(()) };
        let bytes = std::mem::take(&mut solid.filling);
        let number = solid.queued;
        solid.queued += 1;
        lock(&self.shared.state).queue.push_back(Task::SolidChunk { number, bytes });
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Writes the chunks whose turn it is.
    fn write_solid_chunks(&mut self) -> Result<()> {
        let Some(solid) = &mut self.solid else { return Ok(()) };
        while let Some(bytes) = solid.done.remove(&solid.written) {
            if solid.start.is_none() {
                solid.start = Some(self.output.position());
                self.output.append(&vec![0; SOLID_HEAD_BYTES + solid.table_bytes])?;
            }
            // A chunk is at most 1 GiB.
            solid.stored_sizes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.output.append(&bytes)?;
            solid.written += 1;
            self.shared.give_back(bytes);
        }
        Ok(())
    }

    pub(super) fn finish_solid(&mut self) -> Result<()> {
        if self.solid.as_ref().is_some_and(|solid| !solid.filling.is_empty()) {
            self.queue_solid_chunk()?;
        }
        lock(&self.shared.state).streaming -= 1;
        self.shared.changed.notify_all();
        while self.solid.as_ref().is_some_and(|solid| solid.written < solid.queued) {
            self.write_solid_chunks()?;
            if self.solid.as_ref().is_some_and(|solid| solid.written < solid.queued) {
                self.receive()?;
            }
        }
        let Some(solid) = self.solid.take() else { return Ok(()) };
        let Some(start) = solid.start else { return Ok(()) };
        let mut head = Vec::with_capacity(SOLID_HEAD_BYTES + solid.stored_sizes.len());
        head.extend_from_slice(&solid.size_bytes.to_le_bytes());
        head.extend_from_slice(&(solid.chunk_bytes as u32).to_le_bytes());
        head.extend_from_slice(&self.shared.options.solid_compression.solid_format().to_le_bytes());
        head.extend_from_slice(&solid.stored_sizes);
        self.output.patch(start, &head)?;
        let end = self.output.position();
        self.stored.solid = Some(ResourceHeader {
            offset: start,
            stored_bytes: end - start,
            size_bytes: 0,
            flags: resource_flag::SOLID,
        });
        Ok(())
    }
}
