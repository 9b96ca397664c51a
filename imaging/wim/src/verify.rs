//! Reading everything back: each resource against its SHA-1, the metadata, the integrity table.

use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::integrity;
use crate::progress::Progress;
use crate::resource::ResourceReader;
use crate::tree::{Sha1, total_bytes};
use crate::wim::{Place, Wim};
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What [`Wim::verify`] found.
#[derive(Debug, Default)]
pub struct Verified {
    pub blobs: u64,
    pub bytes: u64,
    pub images: u32,
    /// Whether there was an integrity table to compare with.
    pub integrity_table: bool,
    /// Contents the images name that are in none of the files (a delta without its base).
    pub missing: u64,
    /// Every fault found; empty for a good file.
    pub faults: Vec<Error>,
}

const BUFFER_BYTES: usize = 128 * 1024;

impl Wim {
    /// Reads all of the file on `threads` threads. Faults are collected, not returned; an error
    /// means that verifying itself failed.
    pub fn verify(&self, threads: usize, progress: &dyn Progress) -> Result<Verified> {
        let inner = self.inner();
        let mut report = Verified { images: self.image_count(), ..Verified::default() };
        let claimed = total_bytes(inner.blobs.iter().map(|blob| blob.size_bytes));
        progress.total_bytes(claimed);
        self.verify_integrity(threads, progress, &mut report)?;
        self.verify_images(&mut report)?;

        let mut order: Vec<u32> = (0..inner.blobs.len() as u32).collect();
        order.sort_by_key(|index| inner.blob_position(*index));
        // Neighbours in one solid resource stay together: they share unpacked chunks.
        let solid_of = |index: u32| match inner.blobs[index as usize].place {
            Place::Whole { .. } => None,
            Place::Solid { solid, .. } => Some(solid),
        };
        let groups: Vec<&[u32]> =
            order.chunk_by(|a, b| solid_of(*a).is_some() && solid_of(*a) == solid_of(*b)).collect();
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let faults: Mutex<Vec<(u64, Error)>> = Mutex::default();
        let work = || -> Result<()> {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                for index in *group {
                    if stop.load(Ordering::Relaxed) || progress.is_cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let position = inner.blob_position(*index);
                    match self.verify_blob(*index, position, &mut buffer, progress) {
                        Ok(()) => {}
                        Err(error @ (Error::Io { .. } | Error::Cancelled)) => return Err(error),
                        Err(fault) => {
                            let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                            faults.push((position, fault));
                        }
                    }
                }
            }
            Ok(())
        };
        if threads <= 1 {
            work()?;
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads.clamp(1, groups.len().max(1)))
                    .map(|_| {
                        scope.spawn(|| {
                            let done = work();
                            stop.fetch_or(done.is_err(), Ordering::Relaxed);
                            done
                        })
                    })
                    .collect();
                let mut first = Ok(());
                for worker in workers {
                    let done = worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
                    if matches!(first, Ok(()) | Err(Error::Cancelled)) && done.is_err() {
                        first = done;
                    }
                }
                first
            })?;
        }
        let mut faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        faults.sort_by_key(|(position, _)| *position);
        report.faults.extend(faults.into_iter().map(|(_, fault)| fault));
        report.blobs = inner.blobs.len() as u64;
        report.bytes = claimed;
        Ok(report)
    }

    fn verify_blob(
        &self,
        index: u32,
        position: u64,
        buffer: &mut [u8],
        progress: &dyn Progress,
    ) -> Result<()> {
        let inner = self.inner();
        let blob = &inner.blobs[index as usize];
        let mut reader = inner.open_blob(index)?;
        let mut hasher = Hasher::default();
        loop {
            match reader.read(buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    progress.advance_bytes(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(crate::error::from_io(e, || "read a resource".into())),
            }
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
        }
        let found = hasher.finish();
        if found != blob.sha1 {
            let (at, size_bytes) = (position & ((1 << 47) - 1), blob.size_bytes);
            return Err(Error::HashMismatch { at, size_bytes, found, expected: blob.sha1 });
        }
        Ok(())
    }

    fn verify_integrity(
        &self,
        threads: usize,
        progress: &dyn Progress,
        report: &mut Verified,
    ) -> Result<()> {
        let header = self.header();
        if header.integrity.stored_bytes == 0 {
            return Ok(());
        }
        report.integrity_table = true;
        let backing = &self.inner().files[0];
        let end = header.blob_table.offset.saturating_add(header.blob_table.stored_bytes);
        let done = ResourceReader::open(backing.clone(), &header.integrity)
            .and_then(ResourceReader::read_rest)
            .and_then(|table| {
                let at = header.integrity.offset;
                let go_on = |_| !progress.is_cancelled();
                integrity::verify(&*backing.reader, &table, at, end, threads, &go_on)
            });
        keep_fault(done, report)
    }

    /// Reads the metadata of each image, and looks whether its contents are there.
    fn verify_images(&self, report: &mut Verified) -> Result<()> {
        let mut missing: HashSet<Sha1> = HashSet::new();
        for index in 1..=self.image_count() {
            let done = self.load_outline(index).map(|(_, contents)| {
                missing.extend(contents.missing());
            });
            keep_fault(done, report)?;
        }
        report.missing = missing.len() as u64;
        Ok(())
    }
}

fn keep_fault(done: Result<()>, report: &mut Verified) -> Result<()> {
    match done {
        Err(error @ (Error::Io { .. } | Error::Cancelled)) => return Err(error),
        Err(fault) => report.faults.push(fault),
        Ok(()) => {}
    }
    Ok(())
}
