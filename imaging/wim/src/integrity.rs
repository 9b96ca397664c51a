//! The integrity table: SHA-1 of each 10 MiB from the end of the header to the end of the blob
//! table.
//!
//! `table bytes u32, entries u32, chunk bytes u32, SHA-1[20] × entries`

use crate::error::{Error, IoContext, Result};
use crate::hash::Hasher;
use crate::header::{HEADER_BYTES, u32_at};
use crate::read_at::ReadAt;
use crate::tree::Sha1;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const CHUNK_BYTES: u32 = 10 << 20;
const HEAD_BYTES: usize = 12;
const STEP_BYTES: usize = 256 * 1024;

/// The table for `file` up to `end`.
pub(crate) fn make(file: &dyn ReadAt, end: u64, threads: usize) -> Result<Vec<u8>> {
    let hashes = hash_chunks(file, end, u64::from(CHUNK_BYTES), threads, &|_| true)?;
    let total = HEAD_BYTES + 20 * hashes.len();
    let mut out = Vec::with_capacity(total);
    let size =
        u32::try_from(total).map_err(|_| Error::unsupported("an integrity table over 4 GiB"))?;
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
    out.extend_from_slice(&CHUNK_BYTES.to_le_bytes());
    hashes.iter().for_each(|hash| out.extend_from_slice(&hash.0));
    Ok(out)
}

/// Compares `table` (which lies at `table_at`) with `file`, whose blob table ends at `end`.
/// `advance` is told of bytes done and says whether to go on.
pub(crate) fn verify(
    file: &dyn ReadAt,
    table: &[u8],
    table_at: u64,
    end: u64,
    threads: usize,
    advance: &(dyn Fn(u64) -> bool + Sync),
) -> Result<()> {
    let fail = |found: String, expected: String| {
        Err(Error::corrupt(table_at, "integrity table", found, expected))
    };
    if table.len() < HEAD_BYTES {
        return fail(format!("{} bytes", table.len()), "12 at least".into());
    }
    let (total, count, chunk) = (u32_at(table, 0), u32_at(table, 4), u32_at(table, 8));
    let covered = end.saturating_sub(HEADER_BYTES as u64);
    if chunk == 0 || u64::from(count) != covered.div_ceil(u64::from(chunk)) {
        return fail(
            format!("{count} chunks of {chunk} bytes"),
            format!("to cover {covered} bytes"),
        );
    }
    if total as usize != table.len()
        || HEAD_BYTES as u64 + 20 * u64::from(count) != table.len() as u64
    {
        return fail(
            format!("{total} bytes for {count} entries"),
            format!("{} bytes", table.len()),
        );
    }
    let hashes = hash_chunks(file, end, u64::from(chunk), threads, advance)?;
    for (index, (hash, expected)) in
        hashes.iter().zip(table[HEAD_BYTES..].chunks_exact(20)).enumerate()
    {
        if hash.0 != expected {
            let at = HEADER_BYTES as u64 + index as u64 * u64::from(chunk);
            return Err(Error::IntegrityMismatch {
                at,
                chunk_bytes: u64::from(chunk).min(end - at),
            });
        }
    }
    Ok(())
}

fn hash_chunks(
    file: &dyn ReadAt,
    end: u64,
    chunk_bytes: u64,
    threads: usize,
    advance: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Vec<Sha1>> {
    let start = HEADER_BYTES as u64;
    let count =
        usize::try_from(end.saturating_sub(start).div_ceil(chunk_bytes)).unwrap_or(usize::MAX);
    let hashes = Mutex::new(vec![Sha1::ZERO; count]);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || -> Result<()> {
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut at = start + index as u64 * chunk_bytes;
            let chunk_end = (at + chunk_bytes).min(end);
            let mut hasher = Hasher::default();
            while at < chunk_end {
                let step = buffer.len().min((chunk_end - at) as usize);
                file.read_exact_at(&mut buffer[..step], at)
                    .doing(|| format!("read {step} bytes at {at:#x}"))?;
                hasher.update(&buffer[..step]);
                at += step as u64;
                if !advance(step as u64) {
                    return Err(Error::Cancelled);
                }
            }
            hashes.lock().unwrap_or_else(PoisonError::into_inner)[index] = hasher.finish();
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, count.max(1)))
            .map(|_| {
                scope.spawn(|| {
                    let done = work();
                    if done.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    done
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner))
}
