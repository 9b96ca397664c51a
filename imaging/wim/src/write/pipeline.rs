//! Jobs in, resources out: read, hash, single-instance and compress on N threads, written in
//! job order by the calling thread.
//!
//! ```text
//! worker: take the next job ── small: read all, SHA-1 ─ new? compress ──────────┐
//!                           └─ large: read 1 MiB at a time, SHA-1, queue it ─┐  │
//! worker: take a queued segment, compress ───────────────────────────────────┤  │
//! writer: wait for job 0, 1, 2 …; append what is not there yet <─────────────┴──┘
//! ```
//! **Invariant:** what is written depends on the jobs alone. Two small jobs with one content are
//! compressed once, by whoever hashes first; the writer puts the result at the place of the
//! first in order, and waits for it there.
//!
//! **Invariant:** memory is bounded. A worker takes a permit for the bytes it reads; the writer
//! gives it back. The job the writer waits for may draw on a reserve, so it never starves behind
//! later ones. A worker that waits for a permit compresses queued segments meanwhile.

use super::WriteOptions;
use super::output::Output;
use crate::codec::Compression;
use crate::error::{Error, Result, from_io};
use crate::hash::{self, Hasher};
use crate::header::{ResourceHeader, resource_flag};
use crate::progress::Progress;
use crate::resource::Backing;
use crate::tree::{ContentId, ContentSource, Sha1};
use crate::wim::{Place, Wim};
use gilt_codec::Compressor;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Streams up to this are read whole, and hashed before anything is compressed.
const SMALL_BYTES: u64 = 2 << 20;
/// Larger ones go through in pieces of this (or one chunk, if that is more).
const SEGMENT_BYTES: usize = 1 << 20;
/// Bytes read and not yet written: for all jobs, plus this much per thread, and the reserve for
/// the job next in order.
const BUDGET_BYTES: u64 = 32 << 20;
const BUDGET_PER_THREAD_BYTES: u64 = 8 << 20;
const RESERVE_BYTES: u64 = 16 << 20;
/// Buffers kept for reuse.
const IDLE_BUFFERS: usize = 64;

/// Contents to store.
pub(super) struct Job<'a> {
    pub source: JobSource<'a>,
    pub len_bytes: u64,
    /// The SHA-1, where the source knows it.
    pub known: Option<Sha1>,
    /// Whether contents already stored, in a reference or in a lender count. Not for metadata.
    pub single: bool,
}

pub(super) enum JobSource<'a> {
    Stream { contents: &'a dyn ContentSource, id: ContentId },
    Memory(&'a [u8]),
}

impl<'a> Job<'a> {
    fn open(&self) -> io::Result<Box<dyn Read + Send + 'a>> {
        match self.source {
            JobSource::Stream { contents, id } => contents.open(id),
            JobSource::Memory(bytes) => Ok(Box::new(bytes)),
        }
    }

    fn io_error(&self, error: io::Error) -> Error {
        from_io(error, || format!("read contents of {} bytes", self.len_bytes))
    }

    fn changed(&self, why: impl Into<String>) -> Error {
        let what = match self.source {
            JobSource::Stream { id, .. } => format!("contents {} ({} bytes)", id.0, self.len_bytes),
            JobSource::Memory(_) => "data in memory".into(),
        };
        Error::SourceChanged { what, why: why.into() }
    }
}

/// A resource in the output.
#[derive(Clone, Copy)]
pub(super) struct StoredBlob {
    pub sha1: Sha1,
    pub resource: ResourceHeader,
}

/// What the pipeline did.
#[derive(Default)]
pub(super) struct Stored {
    /// The hash of each job.
    pub sha1s: Vec<Sha1>,
    /// What was written, in file order.
    pub blobs: Vec<StoredBlob>,
    pub lent_bytes: u64,
    /// Bytes of different contents.
    pub unique_bytes: u64,
    /// The solid resource the blobs are in, if they are.
    pub solid: Option<ResourceHeader>,
}

pub(super) struct Pipeline<'a> {
    pub options: &'a WriteOptions,
    pub progress: &'a dyn Progress,
    /// Put everything into one solid resource.
    pub solid: bool,
}

impl Pipeline<'_> {
    pub fn run(&self, jobs: Vec<Job<'_>>, output: &mut Output) -> Result<Stored> {
        let mut jobs = jobs;
        self.hash_large_twins(&mut jobs)?;
        let threads = self.options.threads.max(1);
        let mut first_known = HashMap::new();
        for (index, job) in jobs.iter().enumerate() {
            if let Some(sha1) = job.known {
                first_known.entry(sha1).or_insert(index);
            }
        }
        let (sender, receiver) = channel();
        let shared = Shared {
            options: self.options,
            progress: self.progress,
            jobs: &jobs,
            first_known,
            solid: self.solid,
            segment_bytes: SEGMENT_BYTES.max(self.options.chunk_bytes as usize),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            claims: Mutex::default(),
            buffers: Mutex::default(),
            budget_bytes: BUDGET_BYTES + BUDGET_PER_THREAD_BYTES * threads as u64,
            // The writer of a solid resource queues chunks until it is through.
            state: Mutex::new(State { streaming: usize::from(self.solid), ..State::default() }),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.min(jobs.len().max(1) + 1) {
                let (shared, sender) = (&shared, sender.clone());
                scope.spawn(move || {
                    let failed = sender.clone();
                    let worker = Worker::new(shared, sender);
                    if let Err(error) = worker.and_then(Worker::run) {
                        shared.stop();
                        // The writer may be gone with an error of its own.
                        let _ = failed.send(Message::Failed(error));
                    }
                });
            }
            drop(sender);
            let writer = Writer {
                shared: &shared,
                receiver,
                output,
                pending: HashMap::new(),
                ready: HashMap::new(),
                stored: Stored { sha1s: vec![Sha1::ZERO; jobs.len()], ..Stored::default() },
                seen: HashSet::new(),
                solid: self.solid.then(|| Solid::new(&shared)),
            };
            let done = writer.run();
            shared.stop();
            done
        })
    }

    /// Hashes large streams that share their size with another one or with something lent: they
    /// may be duplicates, and compressing to find out would cost more. For a solid resource hashes
    /// all: the number of its chunks comes before the first one.
    fn hash_large_twins(&self, jobs: &mut [Job<'_>]) -> Result<()> {
        let mut sizes: HashMap<u64, u32> = HashMap::new();
        let is_large = |job: &Job<'_>| job.single && job.len_bytes > SMALL_BYTES;
        for job in jobs.iter().filter(|job| is_large(job)) {
            *sizes.entry(job.len_bytes).or_default() += 1;
        }
        let others = self.options.lenders.iter().chain(&self.options.references);
        for blob in others.flat_map(|wim| &wim.inner().blobs) {
            if let Some(count) = sizes.get_mut(&blob.size_bytes) {
                *count += 1;
            }
        }
        let twins: Vec<usize> = (0..jobs.len())
            .filter(|index| {
                let job = &jobs[*index];
                let is_twin = is_large(job) && sizes[&job.len_bytes] > 1;
                job.known.is_none() && (self.solid || is_twin)
            })
            .collect();
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let shared_jobs = &*jobs;
        let found = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.options.threads.clamp(1, twins.len().max(1)))
                .map(|_| {
                    scope.spawn(|| {
                        let mut found = Vec::new();
                        while let Some(index) = twins.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let sha1 = self.hash_one(&shared_jobs[*index]);
                            stop.fetch_or(sha1.is_err(), Ordering::Relaxed);
                            found.push((*index, sha1?));
                        }
                        Ok(found)
                    })
                })
                .collect();
            let mut found = Vec::new();
            for worker in workers {
                found.extend(worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p))?);
            }
            Ok::<_, Error>(found)
        })?;
        for (index, sha1) in found {
            jobs[index].known = Some(sha1);
        }
        Ok(())
    }

    fn hash_one(&self, job: &Job<'_>) -> Result<Sha1> {
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut buffer = vec![0; 256 * 1024];
        let mut hasher = Hasher::default();
        loop {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(job.io_error(e)),
            }
        }
    }
}

/// What workers and the writer share.
struct Shared<'a> {
    options: &'a WriteOptions,
    progress: &'a dyn Progress,
    jobs: &'a [Job<'a>],
    /// Workers hand on bytes as they are; the writer makes chunks of them.
    solid: bool,
    segment_bytes: usize,
    /// The first job with each known hash. Others with it have nothing to do.
    first_known: HashMap<Sha1, usize>,
    next: AtomicUsize,
    stop: AtomicBool,
    /// Contents some worker has taken on.
    claims: Mutex<HashSet<Sha1>>,
    buffers: Mutex<Vec<Vec<u8>>>,
    budget_bytes: u64,
    state: Mutex<State>,
    /// Woken when a permit comes back, a segment is queued, the head moves, or all stops.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    /// Who may still queue tasks: workers that read large streams, the writer of a solid resource.
    streaming: usize,
    used_bytes: u64,
    reserve_used_bytes: u64,
    /// The job the writer waits for.
    head: usize,
}

enum Task {
    Segment(Segment),
    /// A chunk of a solid resource.
    SolidChunk {
        number: u64,
        bytes: Vec<u8>,
    },
}

/// A piece of a large stream, to compress.
struct Segment {
    job: usize,
    number: u32,
    bytes: Vec<u8>,
    permit: Permit,
}

/// Leave to hold some bytes.
#[derive(Default)]
struct Permit {
    bytes: u64,
    from_reserve: bool,
}

enum Message {
    /// A job that is done in one piece.
    Whole {
        job: usize,
        sha1: Sha1,
        outcome: Outcome,
        permit: Permit,
    },
    /// Chunks of a large job: their bytes in a row, and how long each is.
    Segment {
        job: usize,
        number: u32,
        bytes: Vec<u8>,
        chunk_sizes: Vec<u32>,
        permit: Permit,
    },
    /// All segments of a large job have been sent or queued.
    End {
        job: usize,
        sha1: Sha1,
        segments: u32,
    },
    /// A chunk of the solid resource, compressed if that is smaller.
    SolidChunk {
        number: u64,
        bytes: Vec<u8>,
    },
    Failed(Error),
}

enum Outcome {
    /// The resource as it goes to the file.
    Packed {
        bytes: Vec<u8>,
        compressed: bool,
    },
    /// Another job has these contents.
    Seen,
    /// A reference holds them.
    Omitted,
    Lent(Lent),
}

/// A compressed resource to copy as it is.
struct Lent {
    backing: Arc<Backing>,
    resource: ResourceHeader,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Taken so that a worker between its check and its wait does not miss the call.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    fn release(&self, permit: Permit) {
        if permit.bytes == 0 {
            return;
        }
        let mut state = lock(&self.state);
        if permit.from_reserve {
            state.reserve_used_bytes -= permit.bytes;
        } else {
            state.used_bytes -= permit.bytes;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = lock(&self.buffers);
        if buffers.len() < IDLE_BUFFERS {
            buffers.push(buffer);
        }
    }

    fn permit(&self, state: &mut State, job: usize, bytes: u64) -> Option<Permit> {
        if state.used_bytes == 0 || state.used_bytes + bytes <= self.budget_bytes {
            state.used_bytes += bytes;
            return Some(Permit { bytes, from_reserve: false });
        }
        let is_head = state.head == job;
        let fits =
            state.reserve_used_bytes == 0 || state.reserve_used_bytes + bytes <= RESERVE_BYTES;
        if is_head && fits {
            state.reserve_used_bytes += bytes;
            return Some(Permit { bytes, from_reserve: true });
        }
        None
    }

    /// Where contents with this hash need not be compressed.
    fn shortcut(&self, sha1: Sha1, len_bytes: u64) -> Option<Outcome> {
        if self.options.references.iter().any(|wim| wim.inner().find_blob(sha1).is_some()) {
            return Some(Outcome::Omitted);
        }
        self.options
            .lenders
            .iter()
            .find_map(|wim| self.lend(wim, sha1, len_bytes))
            .map(Outcome::Lent)
    }

    fn lend(&self, wim: &Wim, sha1: Sha1, len_bytes: u64) -> Option<Lent> {
        let inner = wim.inner();
        let blob = inner.find_blob(sha1).filter(|blob| blob.size_bytes == len_bytes)?;
        let Place::Whole { file, resource } = blob.place else { return None };
        let backing = &inner.files[usize::from(file)];
        let options = self.options;
        let same = backing.compression == options.compression
            && !backing.pipable
            && (backing.chunk_bytes == options.chunk_bytes
                || options.compression == Compression::None);
        same.then(|| Lent { backing: backing.clone(), resource })
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    sender: Sender<Message>,
    compressor: Option<Compressor>,
    chunk: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, sender: Sender<Message>) -> Result<Self> {
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

    fn run(mut self) -> Result<()> {
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
                let mut out = self.shared.buffer();
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
        let mut bytes = shared.buffer();
        let want = job.len_bytes as usize;
        bytes.reserve(want + 1);
        let reader = job.open().map_err(|e| job.io_error(e))?;
        reader.take(job.len_bytes + 1).read_to_end(&mut bytes).map_err(|e| job.io_error(e))?;
        if bytes.len() != want {
            let more = if bytes.len() > want { "more" } else { "fewer" };
            return Err(job.changed(format!("it delivers {more} bytes than {want}")));
        }
        let sha1 = hash::sha1(&bytes);
        if job.known.is_some_and(|known| known != sha1) {
            return Err(job.changed(format!("its SHA-1 is {sha1}, not what it was")));
        }
        shared.progress.advance_bytes(job.len_bytes);
        let outcome = if job.known.is_some() || !job.single {
            self.pack(bytes)
        } else if !lock(&shared.claims).insert(sha1) {
            shared.give_back(bytes);
            Outcome::Seen
        } else if let Some(outcome) = shared.shortcut(sha1, job.len_bytes) {
            shared.give_back(bytes);
            outcome
        } else {
            self.pack(bytes)
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
    fn pack(&mut self, bytes: Vec<u8>) -> Outcome {
        let compressor = match &mut self.compressor {
            Some(compressor) if !self.shared.solid => compressor,
            _ => return Outcome::Packed { bytes, compressed: false },
        };
        let chunk_bytes = self.shared.options.chunk_bytes as usize;
        let chunks = bytes.len().div_ceil(chunk_bytes);
        let table_bytes = 4 * chunks.saturating_sub(1);
        let mut out = self.shared.buffer();
        out.resize(table_bytes, 0);
        for (index, chunk) in bytes.chunks(chunk_bytes).enumerate() {
            if index > 0 {
                // Small streams are far below 4 GiB.
                let offset = (out.len() - table_bytes) as u32;
                out[4 * (index - 1)..4 * index].copy_from_slice(&offset.to_le_bytes());
            }
            if compressor.compress(chunk, &mut self.chunk) {
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
        while left > 0 {
            let want = left.min(shared.segment_bytes as u64);
            let permit = self.acquire(index, want)?;
            shared.check()?;
            let mut bytes = shared.buffer();
            bytes.reserve(want as usize);
            (&mut reader).take(want).read_to_end(&mut bytes).map_err(|e| job.io_error(e))?;
            if bytes.len() as u64 != want {
                return Err(job.changed(format!("it delivers fewer than {} bytes", job.len_bytes)));
            }
            hasher.update(&bytes);
            shared.progress.advance_bytes(want);
            left -= want;
            let segment = Segment { job: index, number, bytes, permit };
            if self.compressor.is_none() || shared.solid {
                self.compress_segment(segment)?;
            } else {
                lock(&shared.state).queue.push_back(Task::Segment(segment));
                shared.changed.notify_all();
            }
            number += 1;
        }
        if reader.read(&mut [0]).map_err(|e| job.io_error(e))? != 0 {
            return Err(job.changed(format!("it delivers more than {} bytes", job.len_bytes)));
        }
        let sha1 = hasher.finish();
        if job.known.is_some_and(|known| known != sha1) {
            return Err(job.changed(format!("its SHA-1 is {sha1}, not what it was")));
        }
        self.send(Message::End { job: index, sha1, segments: number })
    }

    fn compress_segment(&mut self, segment: Segment) -> Result<()> {
        let Segment { job, number, bytes, permit } = segment;
        let chunk_bytes = self.shared.options.chunk_bytes as usize;
        let compressor = match &mut self.compressor {
            Some(compressor) if !self.shared.solid => compressor,
            _ => {
                let chunk_sizes = Vec::new();
                return self.send(Message::Segment { job, number, bytes, chunk_sizes, permit });
            }
        };
        let mut out = self.shared.buffer();
        let mut chunk_sizes = Vec::with_capacity(bytes.len().div_ceil(chunk_bytes));
        for chunk in bytes.chunks(chunk_bytes) {
            let before = out.len();
            if compressor.compress(chunk, &mut self.chunk) {
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

/// The segments of a large job that came before their turn.
#[derive(Default)]
struct Pending {
    segments: BTreeMap<u32, (Vec<u8>, Vec<u32>, Permit)>,
    end: Option<(Sha1, u32)>,
    whole: Option<(Sha1, Outcome, Permit)>,
}

struct Writer<'a, 'o> {
    shared: &'a Shared<'a>,
    receiver: Receiver<Message>,
    output: &'o mut Output,
    pending: HashMap<usize, Pending>,
    /// Finished contents by hash, for earlier jobs with the same.
    ready: HashMap<Sha1, usize>,
    stored: Stored,
    seen: HashSet<Sha1>,
    solid: Option<Solid>,
}

impl Writer<'_, '_> {
    fn run(mut self) -> Result<Stored> {
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

    fn receive(&mut self) -> Result<()> {
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
                self.copy_lent(&lent)?;
                let flags = lent.resource.flags & resource_flag::COMPRESSED;
                let resource = ResourceHeader { offset, flags, ..lent.resource };
                self.stored.lent_bytes += resource.stored_bytes;
                self.stored.blobs.push(StoredBlob { sha1, resource });
            }
            Outcome::Omitted | Outcome::Seen => {}
        }
        Ok(())
    }

    fn copy_lent(&mut self, lent: &Lent) -> Result<()> {
        let mut buffer = self.shared.buffer();
        let mut left = lent.resource.stored_bytes;
        let mut at = lent.resource.offset;
        while left > 0 {
            self.shared.check()?;
            let step = left.min(SEGMENT_BYTES as u64);
            buffer.resize(step as usize, 0);
            lent.backing.read_exact(&mut buffer, at)?;
            self.output.append(&buffer)?;
            at += step;
            left -= step;
        }
        self.shared.give_back(buffer);
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
        self.stored.unique_bytes += len_bytes;
        if shared.jobs[job].single && !self.seen.insert(sha1) {
            // Two sizes, one SHA-1? The sizes were distinct, or the hash would have been known.
            return Err(Error::unsupported(format!("two contents with the SHA-1 {sha1}")));
        }
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

    /// Stores a stream that did not shrink as it is. It is read once more.
    fn copy_raw(&mut self, job: usize, expected: Sha1) -> Result<()> {
        let job = &self.shared.jobs[job];
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut hasher = Hasher::default();
        let mut left = job.len_bytes;
        let mut buffer = self.shared.buffer();
        while left > 0 {
            self.shared.check()?;
            let want = left.min(SEGMENT_BYTES as u64);
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

/// The solid resource being written.
struct Solid {
    /// Where it starts in the file, and how long it is unpacked: set when something is in it.
    start: Option<u64>,
    size_bytes: u64,
    chunk_bytes: usize,
    /// The chunk being filled.
    filling: Vec<u8>,
    /// Chunks given to workers, and written.
    queued: u64,
    written: u64,
    done: BTreeMap<u64, Vec<u8>>,
    stored_sizes: Vec<u8>,
    /// Room kept for the sizes of chunks.
    table_bytes: usize,
}

const SOLID_HEAD_BYTES: usize = 16;

impl Solid {
    fn new(shared: &Shared<'_>) -> Self {
        let references = &shared.options.references;
        let is_stored = |index: usize, job: &Job<'_>| {
            job.known.is_some_and(|sha1| {
                shared.first_known.get(&sha1) == Some(&index)
                    && !references.iter().any(|wim| wim.inner().find_blob(sha1).is_some())
            })
        };
        let jobs = shared.jobs.iter().enumerate();
        let size: u64 =
            jobs.filter(|(index, job)| is_stored(*index, job)).map(|(_, job)| job.len_bytes).sum();
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
    fn add_solid_blob(&mut self, sha1: Sha1, size_bytes: u64) {
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

    fn add_to_solid(&mut self, mut bytes: &[u8]) -> Result<()> {
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

    fn finish_solid(&mut self) -> Result<()> {
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
