//! Copies file contents into their blocks, many files at once.

use super::geometry::BLOCK_BYTES;
use super::{Advance, WriteAt};
use crate::error::{Ext4Error, Result};
use gilt_wim::tree::{ContentId, ContentSource, Tree};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CHUNK_BYTES: usize = 1 << 20;
/// Zeros are found in pieces of this size.
pub const HOLE_BYTES: u64 = 64 << 10;
/// Files from here on are looked through for holes before they get blocks.
pub const SPARSE_SCAN_BYTES: u64 = 16 << 20;

/// A file to copy.
pub struct FileData {
    pub content: ContentId,
    pub len_bytes: u64,
    /// First block in the file, blocks on the volume; in order. What is not covered is a hole.
    pub runs: Vec<(u64, Range<u64>)>,
}

/// Which pieces of [`HOLE_BYTES`] of a stream hold something, as ranges of blocks.
pub fn data_ranges(
    contents: &dyn ContentSource,
    content: ContentId,
    len_bytes: u64,
) -> io::Result<Vec<Range<u64>>> {
    let mut reader = contents.open(content)?;
    let mut piece = vec![0; HOLE_BYTES as usize];
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < len_bytes {
        let len = HOLE_BYTES.min(len_bytes - at) as usize;
        reader.read_exact(&mut piece[..len])?;
        if piece[..len].iter().any(|byte| *byte != 0) {
            let blocks = at / BLOCK_BYTES..(at + len as u64).div_ceil(BLOCK_BYTES);
            match ranges.last_mut() {
                Some(last) if last.end == blocks.start => last.end = blocks.end,
                _ => ranges.push(blocks),
            }
        }
        at += len as u64;
    }
    Ok(ranges)
}

pub fn write(
    files: &[FileData],
    _tree: &Tree,
    contents: &dyn ContentSource,
    out: &dyn WriteAt,
    threads: usize,
    advance: Advance<'_>,
) -> Result<()> {
    // Read in the order of the source, whatever the order on the volume.
    let mut order: Vec<&FileData> = files.iter().collect();
    order.sort_by_key(|file| contents.position(file.content));
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<Ext4Error>> = Mutex::new(None);
    let fail = |error: Ext4Error| {
        stop.store(true, Ordering::Relaxed);
        failed.lock().unwrap_or_else(|poison| poison.into_inner()).get_or_insert(error);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| {
                let mut buf = vec![0; CHUNK_BYTES];
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = order.get(index) else { break };
                    match copy(file, contents, out, &mut buf, advance) {
                        Ok(true) => {}
                        Ok(false) => fail(io::Error::from(io::ErrorKind::Interrupted).into()),
                        Err(error) => fail(error.into()),
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// `false` when the work was stopped.
fn copy(
    file: &FileData,
    contents: &dyn ContentSource,
    out: &dyn WriteAt,
    buf: &mut [u8],
    advance: Advance<'_>,
) -> io::Result<bool> {
    let mut reader = contents.open(file.content)?;
    let mut at = 0;
    let mut runs = file.runs.iter().peekable();
    while at < file.len_bytes {
        while let Some((first, run)) = runs.peek()
            && (first + (run.end - run.start)) * BLOCK_BYTES <= at
        {
            runs.next();
        }
        let left = (file.len_bytes - at).min(buf.len() as u64);
        let (len, target) = match runs.peek() {
            Some((first, run)) if first * BLOCK_BYTES <= at => {
                let inside = at - first * BLOCK_BYTES;
                let room = (run.end - run.start) * BLOCK_BYTES - inside;
                (left.min(room), Some(run.start * BLOCK_BYTES + inside))
            }
            Some((first, _)) => (left.min(first * BLOCK_BYTES - at), None),
            None => (left, None),
        };
        let part = &mut buf[..len as usize];
        reader.read_exact(part)?;
        if let Some(target) = target {
            out.write_at(target, part)?;
        }
        at += len;
        if !advance(len) {
            return Ok(false);
        }
    }
    if reader.read(&mut [0])? != 0 {
        return Err(io::Error::other("a stream is longer than the tree says"));
    }
    Ok(true)
}
