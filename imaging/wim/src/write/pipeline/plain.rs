//! Storing contents as they are: whoever hashed bytes writes them, too.
//!
//! ```text
//! batch of small jobs in a row, up to 256 KiB:  read, SHA-1 ── its turn: places of what is new ── write (any worker)
//! batch of one larger job:                      its turn: its place ── read, SHA-1 and write, step by step
//! turn: batch 0, 1, 2 … in job order
//! ```
//! Without compression the size of contents tells how long their resource is, so their place is known
//! before their bytes are read, unless they may be a duplicate. Bytes never leave the cache of the
//! processor that read them, and no thread is the only one that writes.
//!
//! **Invariant:** what is written depends on the jobs alone: places are given in job order.
//!
//! **Invariant:** a worker waits only for batches before its own, so the first of those that are being
//! worked on always goes on.

use super::{Job, JobSource, SMALL_BYTES, Stored, StoredBlob, lock};
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use crate::header::ResourceHeader;
use crate::progress::Progress;
use crate::tree::Sha1;
use crate::write::output::{Output, Places};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes read, hashed and written in one go: few enough to stay in the cache of a core.
const STEP_BYTES: usize = 256 << 10;
/// A step, and one byte to see that contents end where they should.
const SMALL_BUFFER_BYTES: usize = STEP_BYTES + 1;
/// Jobs of one batch, however small.
const BATCH_JOBS: usize = 256;
/// Buffers whose bytes wait for their turn or for being written: bytes, for each thread.
const HELD_BYTES_PER_THREAD: usize = 4 << 20;
/// Steps of a large stream handed to idle workers.
const MAX_HANDED: usize = 4;

/// Hashes, single-instances and stores `jobs`; nothing is compressed, lent or referred to.
pub(super) fn store(
    jobs: &[Job<'_>],
    output: &mut Output,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Stored> {
    let batches = batches(jobs);
    let places = output.places()?;
    let turns = Turns {
        position: places.start(),
        stored: Stored { sha1s: vec![Sha1::ZERO; jobs.len()], ..Stored::default() },
        ..Turns::default()
    };
    let shared = Shared {
        jobs,
        batches: &batches,
        places,
        progress,
        held_bytes: HELD_BYTES_PER_THREAD * threads,
        turns: Mutex::new(turns),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(batches.len()) {
            scope.spawn(|| {
                let _stop = StopOnPanic(&shared);
                if let Err(error) = Worker::new(&shared).run() {
                    lock(&shared.turns).failed.get_or_insert(error);
                    shared.changed.notify_all();
                }
            });
        }
    });
    let turns = shared.turns.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = turns.failed {
        return Err(error);
    }
    output.continue_at(turns.position)?;
    Ok(turns.stored)
}

/// Lets the others end when one panics.
struct StopOnPanic<'a>(&'a Shared<'a>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.turns).failed.get_or_insert(Error::Cancelled);
            self.0.changed.notify_all();
        }
    }
}

/// Jobs in a row that are read together; the larger ones each for itself.
enum Batch {
    Whole {
        jobs: Range<usize>,
        bytes: usize,
    },
    /// `twin`: another job before it has the same size, so it may be a duplicate.
    Large {
        job: usize,
        twin: bool,
    },
}

fn batches(jobs: &[Job<'_>]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut large: HashSet<u64> = HashSet::new();
    for (index, job) in jobs.iter().enumerate() {
        if job.len_bytes > SMALL_BYTES {
            let twin = job.single && !large.insert(job.len_bytes);
            batches.push(Batch::Large { job: index, twin });
            continue;
        }
        let len = job.len_bytes as usize;
        match batches.last_mut() {
            Some(Batch::Whole { jobs, bytes })
                if *bytes + len <= STEP_BYTES && jobs.len() < BATCH_JOBS =>
            {
                jobs.end += 1;
                *bytes += len;
            }
            _ => batches.push(Batch::Whole { jobs: index..index + 1, bytes: len }),
        }
    }
    batches
}

struct Shared<'a> {
    jobs: &'a [Job<'a>],
    batches: &'a [Batch],
    places: Places<'a>,
    progress: &'a dyn Progress,
    held_bytes: usize,
    turns: Mutex<Turns>,
    /// Woken when a turn is over, a write is queued or done, a large stream ends, or all stops.
    changed: Condvar,
}

#[derive(Default)]
struct Turns {
    /// The batch nobody has taken yet.
    next: usize,
    /// The batch whose turn it is to get its place.
    turn: usize,
    /// Where its first byte will be.
    position: u64,
    stored: Stored,
    /// Sizes of the contents that have a place.
    seen: HashMap<Sha1, u64>,
    /// Large streams that have a place and whose hash is not known yet: how many of each size.
    unhashed: HashMap<u64, u32>,
    /// Batches that are hashed and whose turn has not come.
    hashed: HashMap<usize, Hashed>,
    writes: VecDeque<Write>,
    held_bytes: usize,
    /// Workers that have a batch in hand.
    busy: usize,
    /// Workers that wait for something to do.
    idle: usize,
    /// Workers that wait at all.
    waiting: usize,
    /// For reuse: those of a step, and larger ones.
    buffers: Vec<Vec<u8>>,
    large_buffers: Vec<Vec<u8>>,
    failed: Option<Error>,
}

struct Hashed {
    buffer: Vec<u8>,
    sha1s: Vec<Sha1>,
}

/// Bytes that got their place.
struct Write {
    buffer: Vec<u8>,
    /// Where in the buffer, and where they go.
    runs: Vec<(Range<usize>, u64)>,
}

impl Turns {
    fn check_size(&self, sha1: Sha1, len_bytes: u64) -> Result<bool> {
        match self.seen.get(&sha1) {
            Some(size) if *size != len_bytes => {
                Err(Error::unsupported(format!("two contents with the SHA-1 {sha1}")))
            }
            seen => Ok(seen.is_some()),
        }
    }

    /// Gives contents the next place.
    fn place(&mut self, sha1: Sha1, len_bytes: u64) -> u64 {
        let offset = self.position;
        let resource =
            ResourceHeader { offset, stored_bytes: len_bytes, size_bytes: len_bytes, flags: 0 };
        self.stored.blobs.push(StoredBlob { sha1, resource });
        self.stored.unique_bytes += len_bytes;
        self.position += len_bytes;
        offset
    }

    /// Gives all that is hashed its place, as far as nothing before it is missing.
    fn advance(&mut self, shared: &Shared<'_>) -> Result<()> {
        while let Some(hashed) = self.hashed.remove(&self.turn) {
            let Some(Batch::Whole { jobs, .. }) = shared.batches.get(self.turn) else { break };
            let mut runs: Vec<(Range<usize>, u64)> = Vec::new();
            let mut at = 0;
            for (index, sha1) in jobs.clone().zip(hashed.sha1s) {
                let job = &shared.jobs[index];
                let range = at..at + job.len_bytes as usize;
                at = range.end;
                self.stored.sha1s[index] = sha1;
                if job.single {
                    if self.check_size(sha1, job.len_bytes)? {
                        continue;
                    }
                    self.seen.insert(sha1, job.len_bytes);
                }
                let offset = self.place(sha1, job.len_bytes);
                match runs.last_mut() {
                    // Neighbours here are neighbours there, unless one between was left out.
                    Some((last, _)) if last.end == range.start => last.end = range.end,
                    _ => runs.push((range, offset)),
                }
            }
            self.writes.push_back(Write { buffer: hashed.buffer, runs });
            self.turn += 1;
        }
        Ok(())
    }

    /// A buffer of at least `bytes`; what is in it is of no meaning.
    fn buffer(&mut self, bytes: usize) -> Vec<u8> {
        let len = buffer_len(bytes);
        let idle = match len {
            SMALL_BUFFER_BYTES => &mut self.buffers,
            _ => &mut self.large_buffers,
        };
        idle.pop().unwrap_or_else(|| vec![0; len])
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        if buffer.len() == SMALL_BUFFER_BYTES {
            self.buffers.push(buffer);
        } else {
            self.large_buffers.push(buffer);
        }
    }
}

/// How much memory a buffer for `bytes` takes.
fn buffer_len(bytes: usize) -> usize {
    if bytes <= SMALL_BUFFER_BYTES { SMALL_BUFFER_BYTES } else { SMALL_BYTES as usize + 1 }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared }
    }

    fn run(&self) -> Result<()> {
        let shared = self.shared;
        let mut turns = lock(&shared.turns);
        loop {
            self.check(&turns)?;
            if let Some(write) = turns.writes.pop_front() {
                turns = self.write(turns, write)?;
                continue;
            }
            let index = turns.next;
            let Some(batch) = shared.batches.get(index) else {
                if turns.busy == 0 {
                    return Ok(());
                }
                turns.idle += 1;
                turns = self.wait(turns);
                turns.idle -= 1;
                continue;
            };
            turns.next += 1;
            turns.busy += 1;
            turns = match batch {
                Batch::Whole { jobs, bytes } => self.whole(turns, index, jobs.clone(), *bytes)?,
                Batch::Large { job, twin } => self.large(turns, index, *job, *twin)?,
            };
            turns.busy -= 1;
            self.wake(&turns);
        }
    }

    fn check(&self, turns: &Turns) -> Result<()> {
        if turns.failed.is_some() || self.shared.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    fn wake(&self, turns: &Turns) {
        if turns.waiting > 0 {
            self.shared.changed.notify_all();
        }
    }

    fn wait(&self, mut turns: MutexGuard<'a, Turns>) -> MutexGuard<'a, Turns> {
        turns.waiting += 1;
        let mut turns = self.shared.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        turns.waiting -= 1;
        turns
    }

    /// Waits until `done`, and writes meanwhile what others have hashed.
    fn wait_until(
        &self,
        mut turns: MutexGuard<'a, Turns>,
        done: impl Fn(&Turns) -> bool,
    ) -> Result<MutexGuard<'a, Turns>> {
        while !done(&turns) {
            turns = match turns.writes.pop_front() {
                Some(write) => self.write(turns, write)?,
                None => self.wait(turns),
            };
            self.check(&turns)?;
        }
        Ok(turns)
    }

    fn write(&self, turns: MutexGuard<'a, Turns>, write: Write) -> Result<MutexGuard<'a, Turns>> {
        drop(turns);
        let Write { buffer, runs } = write;
        for (range, offset) in runs {
            self.shared.places.write(&buffer[range], offset)?;
        }
        let mut turns = lock(&self.shared.turns);
        turns.held_bytes -= buffer.len();
        turns.give_back(buffer);
        self.wake(&turns);
        Ok(turns)
    }

    fn whole(
        &self,
        turns: MutexGuard<'a, Turns>,
        index: usize,
        jobs: Range<usize>,
        bytes: usize,
    ) -> Result<MutexGuard<'a, Turns>> {
        let shared = self.shared;
        let holds = buffer_len(bytes + 1);
        let mut turns = self.wait_until(turns, |turns| {
            turns.turn == index || turns.held_bytes + holds <= shared.held_bytes
        })?;
        turns.held_bytes += holds;
        let mut buffer = turns.buffer(bytes + 1);
        drop(turns);
        let mut sha1s = Vec::with_capacity(jobs.len());
        let mut at = 0;
        for job in &shared.jobs[jobs] {
            let len = job.len_bytes as usize;
            job.read_whole(&mut buffer[at..=at + len])?;
            let sha1 = hash::sha1(&buffer[at..at + len]);
            at += len;
            job.check_known(sha1)?;
            sha1s.push(sha1);
            shared.progress.advance_bytes(job.len_bytes);
        }
        let mut turns = lock(&shared.turns);
        turns.hashed.insert(index, Hashed { buffer, sha1s });
        turns.advance(shared)?;
        Ok(turns)
    }

    fn large(
        &self,
        turns: MutexGuard<'a, Turns>,
        index: usize,
        number: usize,
        twin: bool,
    ) -> Result<MutexGuard<'a, Turns>> {
        let shared = self.shared;
        let job = &shared.jobs[number];
        let mut known = job.known;
        let mut turns = turns;
        if twin {
            if known.is_none() {
                drop(turns);
                known = Some(self.hash_twin(job)?);
                turns = lock(&shared.turns);
            }
            // All of its size that come before it have to be known, too.
            turns = self.wait_until(turns, |turns| {
                turns.turn == index && !turns.unhashed.contains_key(&job.len_bytes)
            })?;
        } else {
            turns = self.wait_until(turns, |turns| turns.turn == index)?;
        }
        if let Some(sha1) = known.filter(|_| twin)
            && turns.check_size(sha1, job.len_bytes)?
        {
            turns.stored.sha1s[number] = sha1;
            turns.turn += 1;
            turns.advance(shared)?;
            shared.progress.advance_bytes(job.len_bytes);
            return Ok(turns);
        }
        let blob = turns.stored.blobs.len();
        let offset = turns.place(Sha1::ZERO, job.len_bytes);
        if job.single {
            *turns.unhashed.entry(job.len_bytes).or_default() += 1;
        }
        turns.turn += 1;
        turns.advance(shared)?;
        self.wake(&turns);
        drop(turns);

        let sha1 = match job.source {
            JobSource::Memory(bytes) | JobSource::Metadata { bytes, .. } => {
                self.copy_memory(bytes, offset)?
            }
            JobSource::Stream { .. } => self.copy_stream(job, offset)?,
        };
        match known {
            Some(known) if job.known.is_none() && known != sha1 => {
                return Err(job.changed(format!("its SHA-1 was {known} and is {sha1} now")));
            }
            _ => job.check_known(sha1)?,
        }
        let mut turns = lock(&shared.turns);
        turns.stored.sha1s[number] = sha1;
        turns.stored.blobs[blob].sha1 = sha1;
        if job.single {
            // Of its own size there is none: that one would have waited for this.
            turns.check_size(sha1, job.len_bytes)?;
            turns.seen.insert(sha1, job.len_bytes);
            if let Some(count) = turns.unhashed.get_mut(&job.len_bytes) {
                *count -= 1;
                if *count == 0 {
                    turns.unhashed.remove(&job.len_bytes);
                }
            }
        }
        Ok(turns)
    }

    fn copy_memory(&self, bytes: &[u8], offset: u64) -> Result<Sha1> {
        let mut hasher = Hasher::default();
        for (step, at) in bytes.chunks(STEP_BYTES).zip((offset..).step_by(STEP_BYTES)) {
            self.go_on()?;
            hasher.update(step);
            self.shared.places.write(step, at)?;
            self.shared.progress.advance_bytes(step.len() as u64);
        }
        Ok(hasher.finish())
    }

    fn copy_stream(&self, job: &Job<'_>, offset: u64) -> Result<Sha1> {
        let shared = self.shared;
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut hasher = Hasher::default();
        let mut buffer = lock(&shared.turns).buffer(STEP_BYTES);
        let mut done = 0;
        while done < job.len_bytes {
            let step = (job.len_bytes - done).min(STEP_BYTES as u64) as usize;
            job.read_step(&mut reader, &mut buffer[..step])?;
            hasher.update(&buffer[..step]);
            shared.progress.advance_bytes(step as u64);
            let mut turns = lock(&shared.turns);
            self.check(&turns)?;
            if turns.idle > 0 && turns.writes.len() < MAX_HANDED {
                let next = turns.buffer(STEP_BYTES);
                let full = std::mem::replace(&mut buffer, next);
                let runs = vec![(0..step, offset + done)];
                turns.held_bytes += full.len();
                turns.writes.push_back(Write { buffer: full, runs });
                self.wake(&turns);
            } else {
                drop(turns);
                shared.places.write(&buffer[..step], offset + done)?;
            }
            done += step as u64;
        }
        job.expect_end(&mut reader)?;
        lock(&shared.turns).give_back(buffer);
        Ok(hasher.finish())
    }

    /// The hash of contents that may be a duplicate. If they are none they are read once more.
    fn hash_twin(&self, job: &Job<'_>) -> Result<Sha1> {
        let mut reader = job.open().map_err(|e| job.io_error(e))?;
        let mut buffer = lock(&self.shared.turns).buffer(STEP_BYTES);
        let mut hasher = Hasher::default();
        let mut left = job.len_bytes;
        while left > 0 {
            self.go_on()?;
            let step = left.min(STEP_BYTES as u64) as usize;
            job.read_step(&mut reader, &mut buffer[..step])?;
            hasher.update(&buffer[..step]);
            left -= step as u64;
        }
        job.expect_end(&mut reader)?;
        lock(&self.shared.turns).give_back(buffer);
        Ok(hasher.finish())
    }

    fn go_on(&self) -> Result<()> {
        self.check(&lock(&self.shared.turns))
    }
}
