//! A worker: reads, hashes, compresses, and helps with what others queue.

use super::earlier::Earlier;
use super::{Job, Message, Outcome, Permit, SMALL_BYTES, Segment, Shared, State, Task, lock};
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use gilt_codec::Compressor;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{MutexGuard, PoisonError};

pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    sender: Sender<Message>,
    compressor: Option<Compressor>,
    chunk: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, sender: Sender<Message>) -> Result<Self> {
        let options = shared.options;
        let (compression, chunk_bytes) = if shared.solid {
            (options.solid_compression, options.solid_chunk_bytes)
        } else {
            (options.compression, options.chunk_bytes)
        };
        let compressor = match compression.codec() {
            Some(codec) => Some(
                Compressor::new(codec, chunk_bytes, options.level)
                    .map_err(|error| Error::unsupported(error.to_string()))?,
            ),
            None => None,
        };
        Ok(Self { shared, sender, compressor, chunk: Vec::new() })
    }

    pub(super) fn run(mut self) -> Result<()> {
        let shared = self.shared;
        loop {
            shared.check()?;
            let mut state = lock(&shared.state);
            if let Some(task) = state.queue.pop_front() {
                drop(state);
                self.do_task(task)?;
                continue;
            }
            let job = shared.next.fetch_add(1, Ordering::Relaxed);
            if job < shared.jobs.len() {
                state.streaming += 1;
                drop(state);
                let done = self.do_job(job);
                lock(&shared.state).streaming -= 1;
                shared.changed.notify_all();
                done?;
                continue;
            }
            // No more jobs: help whoever still streams.
            if state.streaming == 0 {
                return Ok(());
            }
            drop(self.wait(state));
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return state;
        }
        self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for leave to hold `bytes`, and compresses meanwhile.
    fn acquire(&mut self, job: usize, bytes: u64) -> Result<Permit> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(permit) = self.shared.permit(&mut state, job, bytes) {
                return Ok(permit);
            }
            if let Some(task) = state.queue.pop_front() {
                drop(state);
                self.do_task(task)?;
            } else {
                drop(self.wait(state));
            }
            self.shared.check()?;
            state = lock(&self.shared.state);
        }
    }

    fn send(&self, message: Message) -> Result<()> {
        // The writer goes away only when all stops.
        self.sender.send(message).map_err(|_| Error::Cancelled)
    }

    fn do_task(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Segment(segment) => self.compress_segment(segment),
            Task::SolidChunk { number, bytes } => {
                let mut out = self.shared.buffer(bytes.len());
                let smaller =
                    self.compressor.as_mut().is_some_and(|c| c.compress(&bytes, &mut out));
                let (kept, idle) = if smaller { (out, bytes) } else { (bytes, out) };
                self.shared.give_back(idle);
                self.send(Message::SolidChunk { number, bytes: kept })
            }
        }
    }

    fn do_job(&mut self, index: usize) -> Result<()> {
        let shared = self.shared;
        let job = &shared.jobs[index];
        if let Some(sha1) = job.known.filter(|_| job.single) {
            let is_first = shared.first_known.get(&sha1) == Some(&index);
            let outcome = if !is_first || !lock(&shared.claims).insert(sha1) {
                Some(Outcome::Seen)
            } else {
                shared.shortcut(sha1, job.len_bytes)
            };
            if let Some(outcome) = outcome {
                shared.progress.advance_bytes(job.len_bytes);
                let permit = Permit::default();
                return self.send(Message::Whole { job: index, sha1, outcome, permit });
            }
        }
        if job.len_bytes <= SMALL_BYTES {
            self.do_small(index, job)
        } else {
            self.do_large(index, job)
        }
    }

    fn do_small(&mut self, index: usize, job: &Job<'_>) -> Result<()> {
        let shared = self.shared;
        let permit = self.acquire(index, job.len_bytes)?;
        let want = job.len_bytes as usize;
        let mut bytes = shared.buffer(want + 1);
        bytes.resize(want + 1, 0);
        job.read_whole(&mut bytes)?;
        bytes.truncate(want);
        let sha1 = hash::sha1(&bytes);
        job.check_known(sha1)?;
        shared.progress.advance_bytes(job.len_bytes);
        let outcome = if job.known.is_some() || !job.single {
            let earlier = shared.earlier(job);
            self.pack(bytes, earlier)
        } else if !lock(&shared.claims).insert(sha1) {
            shared.give_back(bytes);
            Outcome::Seen
        } else if let Some(outcome) = shared.shortcut(sha1, job.len_bytes) {
            shared.give_back(bytes);
            outcome
        } else {
            let earlier = shared.earlier(job);
            self.pack(bytes, earlier)
        };
        let permit = match outcome {
            Outcome::Packed { .. } => permit,
            _ => {
                shared.release(permit);
                Permit::default()
            }
        };
        self.send(Message::Whole { job: index, sha1, outcome, permit })
    }

    /// The resource for `bytes`: chunk table and chunks, or the bytes if that is not smaller.
    fn pack(&mut self, bytes: Vec<u8>, mut earlier: Option<Earlier>) -> Outcome {
        let compressor = match &mut self.compressor {
            Some(compressor) if !self.shared.solid => compressor,
            _ => return Outcome::Packed { bytes, compressed: false },
        };
        let chunk_bytes = self.shared.options.chunk_bytes as usize;
        let chunks = bytes.len().div_ceil(chunk_bytes);
        let table_bytes = 4 * chunks.saturating_sub(1);
        let mut out = self.shared.buffer(bytes.len());
        out.resize(table_bytes, 0);
        for (index, chunk) in bytes.chunks(chunk_bytes).enumerate() {
            if index > 0 {
                // Small streams are far below 4 GiB.
                let offset = (out.len() - table_bytes) as u32;
                out[4 * (index - 1)..4 * index].copy_from_slice(&offset.to_le_bytes());
            }
            let had = earlier.as_mut().and_then(|earlier| earlier.chunk(index as u64, chunk));
            if let Some(stored) = had {
                out.extend_from_slice(stored);
            } else if compressor.compress(chunk, &mut self.chunk) {
                out.extend_from_slice(&self.chunk);
            } else {
                out.extend_from_slice(chunk);
            }
        }
        if out.len() < bytes.len() {
            self.shared.give_back(bytes);
            Outcome::Packed { bytes: out, compressed: true }
        } else {
            self.shared.give_back(out);
            Outcome::Packed { bytes, compressed: false }
        }
    }

    fn do_large(&mut self, index: usize, job: &Job<'_>) -> Result<()> {
        let shared = self.shared;
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut hasher = Hasher::default();
        let mut left = job.len_bytes;
        let mut number = 0;
        let earlier = shared.earlier(job);
        while left > 0 {
            let want = left.min(shared.segment_bytes as u64);
            let permit = self.acquire(index, want)?;
            shared.check()?;
            let mut bytes = shared.buffer(want as usize);
            bytes.resize(want as usize, 0);
            job.read_step(&mut reader, &mut bytes)?;
            hasher.update(&bytes);
            shared.progress.advance_bytes(want);
            left -= want;
            let earlier = earlier.clone();
            let segment = Segment { job: index, number, bytes, permit, earlier };
            if self.compressor.is_none() || shared.solid {
                self.compress_segment(segment)?;
            } else {
                lock(&shared.state).queue.push_back(Task::Segment(segment));
                shared.changed.notify_all();
            }
            number += 1;
        }
        job.expect_end(&mut reader)?;
        let sha1 = hasher.finish();
        job.check_known(sha1)?;
        self.send(Message::End { job: index, sha1, segments: number })
    }

    fn compress_segment(&mut self, segment: Segment) -> Result<()> {
        let Segment { job, number, bytes, permit, mut earlier } = segment;
        let chunk_bytes = self.shared.options.chunk_bytes as usize;
        let compressor = match &mut self.compressor {
            Some(compressor) if !self.shared.solid => compressor,
            _ => {
                let chunk_sizes = Vec::new();
                return self.send(Message::Segment { job, number, bytes, chunk_sizes, permit });
            }
        };
        let mut out = self.shared.buffer(bytes.len());
        let mut chunk_sizes = Vec::with_capacity(bytes.len().div_ceil(chunk_bytes));
        // Segments are whole chunks, but for the last.
        let first = u64::from(number) * (self.shared.segment_bytes / chunk_bytes) as u64;
        for (index, chunk) in (first..).zip(bytes.chunks(chunk_bytes)) {
            let before = out.len();
            let had = earlier.as_mut().and_then(|earlier| earlier.chunk(index, chunk));
            if let Some(stored) = had {
                out.extend_from_slice(stored);
            } else if compressor.compress(chunk, &mut self.chunk) {
                out.extend_from_slice(&self.chunk);
            } else {
                out.extend_from_slice(chunk);
            }
            // A chunk is at most 1 GiB.
            chunk_sizes.push((out.len() - before) as u32);
        }
        self.shared.give_back(bytes);
        self.send(Message::Segment { job, number, bytes: out, chunk_sizes, permit })
    }
}
