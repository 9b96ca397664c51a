//! The writer: puts results into the file in job order.

use super::solid::Solid;
use super::{COPY_BYTES, Lent, Message, Outcome, Permit, Shared, Stored, StoredBlob, lock};
use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::header::{ResourceHeader, resource_flag};
use crate::tree::Sha1;
use crate::write::output::Output;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::mpsc::Receiver;

/// The segments of a large job that came before their turn.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) segments: BTreeMap<u32, (Vec<u8>, Vec<u32>, Permit)>,
    pub(super) end: Option<(Sha1, u32)>,
    pub(super) whole: Option<(Sha1, Outcome, Permit)>,
}

pub(super) struct Writer<'a, 'o> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) receiver: Receiver<Message>,
    pub(super) output: &'o mut Output,
    pub(super) pending: HashMap<usize, Pending>,
    /// Finished contents by hash, for earlier jobs with the same.
    pub(super) ready: HashMap<Sha1, usize>,
    pub(super) stored: Stored,
    pub(super) seen: HashSet<Sha1>,
    pub(super) solid: Option<Solid>,
}

impl Writer<'_, '_> {
    pub(super) fn run(mut self) -> Result<Stored> {
        for job in 0..self.shared.jobs.len() {
            lock(&self.shared.state).head = job;
            self.shared.changed.notify_all();
            while !self.pending.contains_key(&job) {
                self.receive()?;
            }
            self.write_job(job)?;
            self.pending.remove(&job);
        }
        if self.solid.is_some() {
            self.finish_solid()?;
        }
        Ok(self.stored)
    }

    pub(super) fn receive(&mut self) -> Result<()> {
        match self.receiver.recv() {
            Ok(Message::Whole { job, sha1, outcome, permit }) => {
                if !matches!(outcome, Outcome::Seen) {
                    self.ready.insert(sha1, job);
                }
                self.pending.entry(job).or_default().whole = Some((sha1, outcome, permit));
            }
            Ok(Message::Segment { job, number, bytes, chunk_sizes, permit }) => {
                let pending = self.pending.entry(job).or_default();
                pending.segments.insert(number, (bytes, chunk_sizes, permit));
            }
            Ok(Message::End { job, sha1, segments }) => {
                self.pending.entry(job).or_default().end = Some((sha1, segments));
            }
            Ok(Message::SolidChunk { number, bytes }) => {
                if let Some(solid) = &mut self.solid {
                    solid.done.insert(number, bytes);
                }
            }
            Ok(Message::Failed(error)) => return Err(error),
            Err(_) => return Err(Error::Cancelled),
        }
        Ok(())
    }

    fn write_job(&mut self, job: usize) -> Result<()> {
        let pending = self.pending.entry(job).or_default();
        match pending.whole.take() {
            Some((sha1, outcome, permit)) => {
                self.stored.sha1s[job] = sha1;
                let single = self.shared.jobs[job].single;
                if single && !self.seen.insert(sha1) {
                    return Ok(());
                }
                match outcome {
                    Outcome::Seen => self.write_twin(sha1),
                    outcome => {
                        self.write_whole(sha1, self.shared.jobs[job].len_bytes, outcome, permit)
                    }
                }
            }
            None => self.write_large(job),
        }
    }

    /// These contents were claimed by a later job, a small one (large ones with equal sizes have
    /// known hashes): takes its result.
    fn write_twin(&mut self, sha1: Sha1) -> Result<()> {
        let twin = loop {
            match self.ready.get(&sha1) {
                Some(twin) => break *twin,
                None => self.receive()?,
            }
        };
        let len_bytes = self.shared.jobs[twin].len_bytes;
        match self.pending.entry(twin).or_default().whole.take() {
            Some((_, outcome, permit)) => {
                // The twin finds its contents written when its turn comes.
                let left = (sha1, Outcome::Seen, Permit::default());
                self.pending.entry(twin).or_default().whole = Some(left);
                self.write_whole(sha1, len_bytes, outcome, permit)
            }
            None => Err(Error::SourceChanged {
                what: format!("contents with SHA-1 {sha1}"),
                why: "the result of an equal stream is not there".into(),
            }),
        }
    }

    fn write_whole(
        &mut self,
        sha1: Sha1,
        size_bytes: u64,
        outcome: Outcome,
        permit: Permit,
    ) -> Result<()> {
        if !matches!(outcome, Outcome::Omitted | Outcome::Seen) {
            self.stored.unique_bytes += size_bytes;
        }
        let offset = self.output.position();
        match outcome {
            Outcome::Packed { bytes, .. } if self.solid.is_some() => {
                self.add_to_solid(&bytes)?;
                self.shared.give_back(bytes);
                self.shared.release(permit);
                self.add_solid_blob(sha1, size_bytes);
            }
            Outcome::Packed { bytes, compressed } => {
                self.output.append(&bytes)?;
                let flags = if compressed { resource_flag::COMPRESSED } else { 0 };
                let stored_bytes = bytes.len() as u64;
                let resource = ResourceHeader { offset, stored_bytes, size_bytes, flags };
                self.stored.blobs.push(StoredBlob { sha1, resource });
                self.shared.give_back(bytes);
                self.shared.release(permit);
            }
            Outcome::Lent(lent) => {
                self.shared.check()?;
                let Lent { backing, resource } = &lent;
                self.output.append_copy(backing, resource.offset, resource.stored_bytes)?;
                let flags = lent.resource.flags & resource_flag::COMPRESSED;
                let resource = ResourceHeader { offset, flags, ..lent.resource };
                self.stored.lent_bytes += resource.stored_bytes;
                self.stored.blobs.push(StoredBlob { sha1, resource });
            }
            Outcome::Omitted | Outcome::Seen => {}
        }
        Ok(())
    }

    /// Writes the segments of `job` as they come.
    fn write_large(&mut self, job: usize) -> Result<()> {
        let shared = self.shared;
        let len_bytes = shared.jobs[job].len_bytes;
        let start = self.output.position();
        let is_solid = self.solid.is_some();
        let compressing = shared.options.compression != Compression::None && !is_solid;
        let chunk_count = len_bytes.div_ceil(u64::from(shared.options.chunk_bytes.max(1)));
        let entry_bytes = if len_bytes > u64::from(u32::MAX) { 8 } else { 4 };
        let table_bytes = if compressing { entry_bytes * (chunk_count as usize - 1) } else { 0 };
        let mut table = Vec::with_capacity(table_bytes);
        self.output.append(&vec![0; table_bytes])?;
        let mut offset = 0u64;
        let mut next = 0;
        let sha1 = loop {
            let pending = self.pending.entry(job).or_default();
            if let Some((bytes, chunk_sizes, permit)) = pending.segments.remove(&next) {
                if is_solid {
                    self.add_to_solid(&bytes)?;
                } else {
                    self.output.append(&bytes)?;
                }
                for size in chunk_sizes {
                    if offset > 0 {
                        table.extend_from_slice(&offset.to_le_bytes()[..entry_bytes]);
                    }
                    offset += u64::from(size);
                }
                next += 1;
                shared.give_back(bytes);
                shared.release(permit);
            } else if let Some((sha1, _)) = pending.end.filter(|(_, segments)| *segments == next) {
                break sha1;
            } else {
                self.receive()?;
            }
        };
        self.stored.sha1s[job] = sha1;
        let mut stored_bytes = self.output.position() - start;
        let mut flags = 0;
        if shared.jobs[job].single && !self.seen.insert(sha1) {
            return self.take_back(sha1, start, len_bytes);
        }
        self.stored.unique_bytes += len_bytes;
        if is_solid {
            self.add_solid_blob(sha1, len_bytes);
            return Ok(());
        }
        if compressing && stored_bytes >= len_bytes {
            self.output.truncate(start)?;
            self.copy_raw(job, sha1)?;
            stored_bytes = len_bytes;
        } else if compressing {
            self.output.patch(start, &table)?;
            flags = resource_flag::COMPRESSED;
        }
        let resource = ResourceHeader { offset: start, stored_bytes, size_bytes: len_bytes, flags };
        self.stored.blobs.push(StoredBlob { sha1, resource });
        Ok(())
    }

    /// Drops what was written from `start` on: the same contents are in the file already.
    fn take_back(&mut self, sha1: Sha1, start: u64, len_bytes: u64) -> Result<()> {
        let mut written = self.stored.blobs.iter();
        let same = written.any(|blob| blob.sha1 == sha1 && blob.resource.size_bytes == len_bytes);
        if !same || self.solid.is_some() {
            // Two sizes, one SHA-1.
            return Err(Error::unsupported(format!("two contents with the SHA-1 {sha1}")));
        }
        self.output.truncate(start)
    }

    /// Stores a stream that did not shrink as it is. It is read once more.
    fn copy_raw(&mut self, job: usize, expected: Sha1) -> Result<()> {
        let job = &self.shared.jobs[job];
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut hasher = Hasher::default();
        let mut left = job.len_bytes;
        let mut buffer = self.shared.buffer(COPY_BYTES);
        while left > 0 {
            self.shared.check()?;
            let want = left.min(COPY_BYTES as u64);
            buffer.resize(want as usize, 0);
            reader.read_exact(&mut buffer).map_err(|e| job.io_error(e))?;
            hasher.update(&buffer);
            self.output.append(&buffer)?;
            left -= want;
        }
        self.shared.give_back(buffer);
        let found = hasher.finish();
        if found != expected {
            return Err(job.changed(format!("its SHA-1 was {expected} and is {found} now")));
        }
        Ok(())
    }
}
