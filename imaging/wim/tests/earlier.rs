//! What is taken over from a WIM written before: whole resources, and of changed contents the chunks that
//! are still the same.

mod common;

use common::trees::{Memory, directory, entry};
use gilt_wim::tree::*;
use gilt_wim::{ImageInfo, ImageSource, Level, Wim, WriteOptions, create};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

const CHUNK: usize = 32 << 10;

/// Text-like bytes that differ from chunk to chunk.
fn text(seed: usize, chunks: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < chunks * CHUNK {
        let line = format!("line {} of {seed}, {:x}\n", bytes.len(), bytes.len() * 7919 + seed);
        bytes.extend(line.into_bytes());
    }
    bytes.truncate(chunks * CHUNK - 100);
    bytes
}

/// Contents that know what they were.
struct Later {
    memory: Memory,
    earlier: HashMap<ContentId, Sha1>,
}

impl ContentSource for Later {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        self.memory.open(id)
    }

    fn earlier_sha1(&self, id: ContentId) -> Option<Sha1> {
        self.earlier.get(&id).copied()
    }
}

fn write(path: &Path, files: &[Vec<u8>], earlier: &[Sha1], lenders: Vec<Wim>, level: Level) {
    let mut memory = Memory::default();
    let mut nodes = vec![directory()];
    for bytes in files {
        let stream = memory.add(None, bytes);
        nodes.push(Node { attributes: 0x80, streams: vec![stream], ..Node::default() });
    }
    nodes[0].entries = (1..nodes.len()).map(|n| entry(&format!("file{n}"), n)).collect();
    let tree = Tree { nodes, security: vec![] };
    let earlier = (0..).map(ContentId).zip(earlier.iter().copied()).collect();
    let contents = Later { memory, earlier };
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("x") };
    let options = WriteOptions { lenders, level, sync: false, ..WriteOptions::default() };
    create(path, &[image], &options, &()).unwrap();
}

fn sha1s(path: &Path) -> Vec<Sha1> {
    let wim = Wim::open(path).unwrap();
    let (tree, contents) = wim.load_tree(1).unwrap();
    let mut entries = tree.node(Tree::ROOT).entries.clone();
    entries.sort_by_key(|entry| entry.name.clone());
    let stream = |entry: &Entry| tree.node(entry.node).streams[0].content;
    entries.iter().map(|entry| contents.known_sha1(stream(entry)).unwrap()).collect()
}

/// The stored bytes of each chunk of the resource with these contents.
fn chunks(path: &Path, sha1: Sha1) -> Vec<Vec<u8>> {
    let wim = Wim::open(path).unwrap();
    let resource = wim.find(sha1).unwrap();
    assert!(resource.is_compressed());
    let mut raw = vec![0; resource.stored_bytes as usize];
    wim.read_stored(0, &mut raw, resource.offset).unwrap();
    let count = resource.size_bytes.div_ceil(CHUNK as u64) as usize;
    let table = 4 * (count - 1);
    let at = |n: usize| match n {
        0 => table,
        n if n == count => raw.len(),
        n => table + u32::from_le_bytes(raw[4 * (n - 1)..4 * n].try_into().unwrap()) as usize,
    };
    (0..count).map(|n| raw[at(n)..at(n + 1)].to_vec()).collect()
}

fn contents(path: &Path, sha1: Sha1) -> Vec<u8> {
    let mut bytes = Vec::new();
    let wim = Wim::open(path).unwrap();
    wim.open_contents(sha1).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn chunks_that_are_still_the_same_are_taken_over_and_the_others_compressed() {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (temp.path().join("old.wim"), temp.path().join("new.wim"));
    // One that goes through in one piece, one that goes through in pieces of a MiB.
    let mut files = vec![text(1, 6), text(2, 100)];
    write(&old, &files, &[], vec![], Level::Max);
    let before = sha1s(&old);
    files[0][2 * CHUNK + 5] ^= 1;
    files[1][70 * CHUNK + 5] ^= 1;
    files[1].extend_from_slice(b"and a tail");
    let lender = || vec![Wim::open(&old).unwrap()];
    write(&new, &files, &before, lender(), Level::Fast);
    for (n, sha1) in sha1s(&new).into_iter().enumerate() {
        assert_eq!(contents(&new, sha1), files[n]);
        let (was, is) = (chunks(&old, before[n]), chunks(&new, sha1));
        // The level shows which were compressed anew.
        let changed = if n == 0 { vec![2] } else { vec![70, 99] };
        for (chunk, (was, is)) in was.iter().zip(&is).enumerate() {
            assert_eq!(was != is, changed.contains(&chunk), "file {n}, chunk {chunk}");
        }
    }
    // Without the hint all are compressed anew.
    write(&new, &files, &[], lender(), Level::Fast);
    let fresh = chunks(&new, sha1s(&new)[0]);
    assert_ne!(fresh[0], chunks(&old, before[0])[0]);
}

#[test]
fn a_wrong_hint_or_a_damaged_lender_costs_nothing_but_time() {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (temp.path().join("old.wim"), temp.path().join("new.wim"));
    let files = vec![text(1, 20), text(2, 20)];
    write(&old, &files, &[], vec![], Level::Default);
    let mut before = sha1s(&old);
    before.reverse();
    let mut changed = files.clone();
    changed[0][3] ^= 1;
    changed[1][5 * CHUNK] ^= 1;
    let lender = || vec![Wim::open(&old).unwrap()];
    write(&new, &changed, &before, lender(), Level::Fast);
    for (file, sha1) in changed.iter().zip(sha1s(&new)) {
        assert_eq!(&contents(&new, sha1), file);
    }
    before.reverse();
    let place = Wim::open(&old).unwrap().find(before[0]).unwrap();
    let mut raw = std::fs::read(&old).unwrap();
    let at = place.offset as usize;
    raw[at + 400..at + 900].fill(0x55);
    std::fs::write(&old, raw).unwrap();
    write(&new, &changed, &before, lender(), Level::Fast);
    for (file, sha1) in changed.iter().zip(sha1s(&new)) {
        assert_eq!(&contents(&new, sha1), file);
    }
}

#[test]
fn many_neighbours_and_strangers_are_copied_to_the_byte() {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (temp.path().join("old.wim"), temp.path().join("new.wim"));
    // The last is so long that its copy is done in parts.
    let sizes = [1, 3, 40, 2, 7, 1, 1, 90, 5, 5, 900];
    let files: Vec<Vec<u8>> =
        sizes.iter().enumerate().map(|(seed, chunks)| text(seed + 9, *chunks)).collect();
    write(&old, &files, &[], vec![], Level::Fast);
    // In another order, with new ones between, so that runs break.
    let mut mixed = Vec::new();
    for (n, file) in files.iter().rev().enumerate() {
        mixed.push(file.clone());
        if n % 3 == 0 {
            mixed.push(text(100 + n, 2));
        }
    }
    write(&new, &mixed, &[], vec![Wim::open(&old).unwrap()], Level::Fast);
    let wim = Wim::open(&new).unwrap();
    wim.verify(2, &()).unwrap();
    let mut found: Vec<Vec<u8>> = sha1s(&new).into_iter().map(|s| contents(&new, s)).collect();
    found.sort();
    mixed.sort();
    assert!(found == mixed);
}
