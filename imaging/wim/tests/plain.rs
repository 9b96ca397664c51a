//! Contents stored as they are: order, single-instancing and ends, with any number of threads.

mod common;

use common::Random;
use common::trees::{Memory, directory, entry};
use gilt_wim::tree::*;
use gilt_wim::{Compression, Error, ImageInfo, ImageSource, Wim, WriteOptions, create};
use sha1::Digest;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use tempfile::TempDir;

/// Above it streams are not read whole.
const LARGE: usize = (2 << 20) + 1;

fn options(threads: usize) -> WriteOptions {
    WriteOptions {
        compression: Compression::None,
        threads,
        sync: false,
        creation_time: Some(FileTime(0x01d9_0000_1234_5678)),
        ..WriteOptions::default()
    }
}

fn tree_of(streams: Vec<Stream>) -> Tree {
    let mut nodes = vec![directory()];
    for (number, stream) in streams.into_iter().enumerate() {
        nodes.push(Node { streams: vec![stream], ..Node::default() });
        let last = nodes.len() - 1;
        nodes[0].entries.push(entry(&format!("{number:04}"), last));
    }
    Tree { nodes, security: Vec::new() }
}

fn write(
    path: &Path,
    tree: &Tree,
    contents: &dyn ContentSource,
    threads: usize,
) -> Result<(), Error> {
    let image = ImageSource { tree, contents, info: ImageInfo::named("x") };
    create(path, &[image], &options(threads), &()).map(drop)
}

fn sha1(bytes: &[u8]) -> Sha1 {
    Sha1(sha1::Sha1::digest(bytes).into())
}

/// Small and large contents, many of one size, duplicates of both near and far.
fn contents() -> Vec<Vec<u8>> {
    let mut random = Random(3);
    let large = random.bytes(LARGE + 300_000);
    let other = random.bytes(large.len());
    let mut all = vec![large.clone(), other.clone(), large.clone()];
    for number in 0..400usize {
        all.push(random.bytes(match number % 40 {
            0 => 300_000 + number,
            1 => 2 << 20,
            _ => 1 + number * 7 % 9000,
        }));
        match number {
            // A neighbour, one a batch away, and one of those read whole that is large.
            10 | 333 => all.push(all[all.len() - 1].clone()),
            100 | 101 | 250 => all.push(all[7].clone()),
            200 => all.push(all[4].clone()),
            150 => all.extend([random.bytes(LARGE), other.clone(), random.bytes(LARGE)]),
            _ => {}
        }
    }
    all.extend([random.bytes(5 << 20), large, other]);
    all
}

#[test]
fn each_content_lies_once_at_the_place_of_its_first_job() {
    let all = contents();
    let mut memory = Memory::default();
    let tree = tree_of(all.iter().map(|bytes| memory.add(None, bytes)).collect());
    let temp = TempDir::new().unwrap();
    let mut first: Option<Vec<u8>> = None;
    for threads in [1, 2, 3, 8] {
        let path = temp.path().join(format!("{threads}.wim"));
        write(&path, &tree, &memory, threads).unwrap();
        let raw = fs::read(&path).unwrap();
        assert!(first.as_ref().is_none_or(|first| *first == raw), "{threads} threads differ");
        first.get_or_insert(raw);
    }
    let raw = first.unwrap();
    let wim = Wim::open(temp.path().join("2.wim")).unwrap();
    assert!(wim.verify(2, &()).unwrap().faults.is_empty());
    let mut at = 208usize;
    let mut seen = HashSet::new();
    for bytes in all.iter().filter(|bytes| seen.insert(sha1(bytes))) {
        assert_eq!(wim.find(sha1(bytes)).map(|found| found.offset), Some(at as u64));
        assert!(raw[at..at + bytes.len()] == bytes[..], "other bytes at {at}");
        at += bytes.len();
    }
    assert!(seen.len() < all.len() - 8, "the sample has too few duplicates");
}

#[test]
fn a_large_stream_that_is_longer_or_shorter_than_it_was_is_an_error() {
    let bytes = Random(1).bytes(LARGE + 10);
    for off_by in [-1i64, 1] {
        for twin in [false, true] {
            let mut memory = Memory::default();
            let mut stream = memory.add(None, &bytes);
            stream.len_bytes = stream.len_bytes.checked_add_signed(off_by).unwrap();
            let mut before = vec![0; stream.len_bytes as usize];
            before.truncate(if twin { before.len() } else { 5 });
            let tree = tree_of(vec![memory.add(None, &before), stream]);
            let temp = TempDir::new().unwrap();
            let error = write(&temp.path().join("x.wim"), &tree, &memory, 2).unwrap_err();
            assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        }
    }
}

/// Delivers other bytes each time it is asked for contents 1.
struct Restless(std::sync::atomic::AtomicU64);

impl ContentSource for Restless {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        let seed = match id.0 {
            0 => 1000,
            _ => self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        };
        Ok(Box::new(io::Cursor::new(Random(seed).bytes(LARGE))))
    }
}

#[test]
fn a_large_stream_that_changes_between_hashing_and_writing_is_an_error() {
    let stream = |id| Stream { name: None, len_bytes: LARGE as u64, content: ContentId(id) };
    let tree = tree_of(vec![stream(0), stream(1)]);
    let temp = TempDir::new().unwrap();
    let error = write(&temp.path().join("x.wim"), &tree, &Restless(0.into()), 2).unwrap_err();
    assert!(matches!(&error, Error::SourceChanged { why, .. } if why.contains("now")), "{error}");
}

struct Panics;

impl ContentSource for Panics {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        assert!(id.0 != 3, "this source panics");
        Ok(Box::new(io::Cursor::new(Random(id.0).bytes(LARGE))))
    }
}

#[test]
fn a_source_that_panics_ends_the_write_and_leaves_no_litter() {
    let stream = |id| Stream { name: None, len_bytes: LARGE as u64, content: ContentId(id) };
    let tree = tree_of((0..9).map(stream).collect());
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    let ended = std::panic::catch_unwind(|| write(&path, &tree, &Panics, 3));
    assert!(ended.is_err());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
