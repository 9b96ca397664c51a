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

mod contents;
mod earlier;
mod plain;
mod solid;
mod worker;
mod writer;

use super::WriteOptions;
use super::output::Output;
use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::header::ResourceHeader;
use crate::progress::Progress;
use crate::resource::Backing;
use crate::tree::{ContentId, ContentSource, Sha1};
use crate::wim::{Place, Wim};
use earlier::Earlier;
use solid::Solid;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use worker::Worker;
use writer::Writer;

/// Streams up to this are read whole, and hashed before anything is compressed.
const SMALL_BYTES: u64 = 2 << 20;
/// Copying goes in steps of this.
const COPY_BYTES: usize = 1 << 20;

/// How much is held in memory.
#[derive(Clone, Copy)]
struct Room {
    /// Larger streams go through in pieces of this (or one chunk, if that is more).
    segment_bytes: usize,
    /// Bytes read and not yet written: for all jobs, and more for each thread.
    budget_bytes: u64,
    budget_per_thread_bytes: u64,
    /// For the job next in order.
    reserve_bytes: u64,
}

/// Enough that no thread runs out of work while one chunk takes long.
const ROOM: Room = Room {
    segment_bytes: 1 << 20,
    budget_bytes: 32 << 20,
    budget_per_thread_bytes: 8 << 20,
    reserve_bytes: 16 << 20,
};
/// Without compression all is copying, which is several times as fast out of the processor's cache.
const ROOM_UNCOMPRESSED: Room = Room {
    segment_bytes: 256 << 10,
    budget_bytes: 4 << 20,
    budget_per_thread_bytes: 2 << 20,
    reserve_bytes: 2 << 20,
};
/// Buffers kept for reuse, and how large the smallest of them is: a small stream must not hold a
/// large buffer.
const IDLE_BUFFERS: usize = 64;
const POOLED_BYTES: usize = 128 << 10;

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
    Stream {
        contents: &'a dyn ContentSource,
        id: ContentId,
    },
    Memory(&'a [u8]),
    /// Of image `image`, counted from 0.
    Metadata {
        bytes: &'a [u8],
        image: usize,
    },
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
    /// Nothing is compressed.
    fn copies_only(&self) -> bool {
        self.options.compression == Compression::None && !self.solid
    }

    pub fn run(&self, jobs: Vec<Job<'_>>, output: &mut Output) -> Result<Stored> {
        let mut jobs = jobs;
        let threads = self.options.threads.max(1);
        let alone = self.options.lenders.is_empty() && self.options.references.is_empty();
        if self.copies_only() && alone {
            return plain::store(&jobs, output, threads, self.progress);
        }
        self.hash_large_twins(&mut jobs)?;
        let mut first_known = HashMap::new();
        for (index, job) in jobs.iter().enumerate() {
            if let Some(sha1) = job.known {
                first_known.entry(sha1).or_insert(index);
            }
        }
        let room = if self.copies_only() { ROOM_UNCOMPRESSED } else { ROOM };
        let (sender, receiver) = channel();
        let shared = Shared {
            options: self.options,
            progress: self.progress,
            jobs: &jobs,
            first_known,
            solid: self.solid,
            segment_bytes: room.segment_bytes.max(self.options.chunk_bytes as usize),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            claims: Mutex::default(),
            buffers: Mutex::default(),
            budget_bytes: room.budget_bytes + room.budget_per_thread_bytes * threads as u64,
            reserve_bytes: room.reserve_bytes,
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
    /// may be duplicates, and compressing to find out would cost more (writing them as they are does
    /// not: the writer takes the second one back). For a solid resource hashes all: the number of
    /// its chunks comes before the first one.
    fn hash_large_twins(&self, jobs: &mut [Job<'_>]) -> Result<()> {
        let mut sizes: HashMap<u64, u32> = HashMap::new();
        let is_large = |job: &Job<'_>| job.single && job.len_bytes > SMALL_BYTES;
        let copies_only = self.copies_only();
        for job in jobs.iter().filter(|job| is_large(job)) {
            let count = sizes.entry(job.len_bytes).or_default();
            *count += u32::from(!copies_only || *count == 0);
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
    reserve_bytes: u64,
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
    earlier: Option<Earlier>,
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

    /// A buffer that will hold about `bytes`.
    fn buffer(&self, bytes: usize) -> Vec<u8> {
        if bytes < POOLED_BYTES {
            return Vec::with_capacity(bytes);
        }
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < POOLED_BYTES {
            return;
        }
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
            state.reserve_used_bytes == 0 || state.reserve_used_bytes + bytes <= self.reserve_bytes;
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
        self.is_like_ours(backing).then(|| Lent { backing: backing.clone(), resource })
    }
}
