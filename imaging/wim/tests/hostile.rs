//! Files that lie.
#![cfg(unix)]

mod common;

use common::Random;
use common::trees::{Memory, directory, entry, facts, windows_tree};
use gilt_wim::tree::*;
use gilt_wim::{
    Compression, Error, ExtractOptions, ImageInfo, ImageSource, Level, Wim, WriteOptions, create,
    extract_tree, resource_flag,
};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

fn bytes_of(tree: &Tree, memory: &Memory, compression: Compression, integrity: bool) -> Vec<u8> {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    let options = WriteOptions {
        compression,
        integrity,
        level: Level::Fast,
        threads: 1,
        sync: false,
        ..WriteOptions::default()
    };
    let image = ImageSource { tree, contents: memory, info: ImageInfo::named("x") };
    create(&path, &[image], &options, &()).unwrap();
    fs::read(&path).unwrap()
}

fn open(bytes: Vec<u8>) -> Result<Wim, Error> {
    Wim::from_reader(Arc::new(bytes))
}

/// Reads everything; `Err` if any of it is wrong.
fn read_all(bytes: Vec<u8>) -> Result<Wim, String> {
    let wim = open(bytes).map_err(|error| error.to_string())?;
    let report = wim.verify(1, &()).map_err(|error| error.to_string())?;
    match report.faults.first() {
        Some(fault) => Err(fault.to_string()),
        None if report.missing > 0 => Err("contents missing".into()),
        None => Ok(wim),
    }
}

/// 10,000 flips over several files. A flip that verify does not see must leave the tree, the
/// contents and what programs act on as they were.
#[test]
fn every_flipped_bit_is_found_or_without_effect() {
    let mut random = Random(11);
    let mut harmless = 0;
    for (compression, integrity) in [
        (Compression::None, false),
        (Compression::Xpress, false),
        (Compression::Lzx, true),
        (Compression::Lzx, false),
    ] {
        // The first tree with several chunks and not too much to read 2500 times.
        let (tree, memory) = (0..)
            .map(|seed| windows_tree(&mut Random(seed)))
            .find(|(tree, memory)| {
                let bytes: usize = memory.0.iter().map(Vec::len).sum();
                tree.nodes.len() > 10 && (70_000..200_000).contains(&bytes)
            })
            .unwrap();
        let good = bytes_of(&tree, &memory, compression, integrity);
        let wim = open(good.clone()).unwrap();
        let (tree, contents) = wim.load_tree(1).unwrap();
        let expected = facts(&tree, &contents);
        for _ in 0..2500 {
            let mut bytes = good.clone();
            // Half of the flips hit the header and the tables, which are small.
            let end = bytes.len() as u64;
            let table = wim.header().blob_table.offset;
            let at = match random.below(4) {
                0 => random.below(208),
                1 => table + random.below(end - table),
                _ => random.below(end),
            } as usize;
            bytes[at] ^= 1 << random.below(8);
            let Ok(found) = read_all(bytes) else { continue };
            harmless += 1;
            let (tree, contents) = found.load_tree(1).unwrap();
            assert!(facts(&tree, &contents) == expected, "byte {at:#x} ({compression:?})");
        }
    }
    // The XML, unused header fields and reference counts can change without harm; not more.
    assert!(harmless < 4000, "{harmless}");
}

#[test]
fn sizes_that_add_up_to_more_than_there_is_are_faults() {
    let (tree, memory) = windows_tree(&mut Random(8));
    let mut bytes = bytes_of(&tree, &memory, Compression::Lzx, false);
    let wim = open(bytes.clone()).unwrap();
    let table = wim.header().blob_table;
    let (start, entries) = (table.offset as usize, table.stored_bytes as usize / 50);
    assert!(entries > 3);
    // Of an entry: stored size (7 bytes), flags, offset, size of the contents.
    for entry in bytes[start..].chunks_exact_mut(50).take(entries) {
        if entry[7] & (resource_flag::METADATA | resource_flag::COMPRESSED)
            == resource_flag::COMPRESSED
        {
            entry[16..24].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
        }
    }
    let report = open(bytes).unwrap().verify(1, &()).unwrap();
    assert!(!report.faults.is_empty());
}

#[test]
fn cutting_the_file_anywhere_is_an_error_not_a_panic() {
    let (tree, memory) = windows_tree(&mut Random(8));
    let good = bytes_of(&tree, &memory, Compression::Lzx, true);
    let mut random = Random(1);
    for _ in 0..300 {
        let len = random.below(good.len() as u64 - 1) as usize;
        assert!(read_all(good[..len].to_vec()).is_err(), "{len}");
    }
}

#[test]
fn random_damage_to_metadata_never_panics_or_hangs() {
    let (tree, memory) = windows_tree(&mut Random(21));
    let good = bytes_of(&tree, &memory, Compression::None, false);
    let resource = open(good.clone()).unwrap().resources().find(|r| r.is_metadata()).unwrap();
    let table = open(good.clone()).unwrap().header().blob_table;
    let (at, len) = (resource.offset as usize, resource.stored_bytes as usize);
    let mut random = Random(2);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(8) {
            let target = at + random.below(len as u64) as usize;
            bytes[target] = match random.below(3) {
                0 => 0xff,
                1 => random.next() as u8,
                _ => bytes[at + random.below(len as u64) as usize],
            };
        }
        // With the right hash, so that the parser sees it.
        use sha1::Digest;
        let hash = sha1::Sha1::digest(&bytes[at..at + len]);
        let start = table.offset as usize;
        for entry in bytes[start..start + table.stored_bytes as usize].chunks_exact_mut(50) {
            if entry[30..] == resource.sha1.0 {
                entry[30..].copy_from_slice(&hash);
            }
        }
        if let Ok(wim) = open(bytes) {
            let _ = wim.load_tree(1);
        }
    }
}

#[test]
fn directory_that_contains_itself_is_refused() {
    let mut nodes = vec![directory(), directory()];
    nodes[0].entries.push(entry("d", 1));
    let tree = Tree { nodes, security: Vec::new() };
    let good = bytes_of(&tree, &Memory::default(), Compression::None, false);
    let wim = open(good.clone()).unwrap();
    let mut metadata = wim.metadata(1).unwrap();
    // The children of `d` -> the children of the root.
    let root_children: [u8; 8] = metadata[8 + 16..8 + 24].try_into().unwrap();
    let d = u64::from_le_bytes(root_children) as usize;
    metadata[d + 16..d + 24].copy_from_slice(&root_children);
    let bytes = with_metadata(good, &wim, &metadata);
    let Err(error) = open(bytes).unwrap().load_tree(1) else { panic!("accepted") };
    assert!(error.to_string().contains("reached twice"), "{error}");
}

fn with_metadata(mut bytes: Vec<u8>, wim: &Wim, metadata: &[u8]) -> Vec<u8> {
    use sha1::Digest;
    let resource = wim.resources().find(|resource| resource.is_metadata()).unwrap();
    let at = resource.offset as usize;
    bytes[at..at + metadata.len()].copy_from_slice(metadata);
    let table = wim.header().blob_table;
    let start = table.offset as usize;
    for entry in bytes[start..start + table.stored_bytes as usize].chunks_exact_mut(50) {
        if entry[30..] == resource.sha1.0 {
            entry[30..].copy_from_slice(&sha1::Sha1::digest(metadata));
        }
    }
    bytes
}

#[test]
fn names_do_not_lead_out_of_the_target() {
    for name in ["..", ".", "a/b", "../x", "/etc", "nul\0byte"] {
        let mut memory = Memory::default();
        let stream = memory.add(None, b"x");
        let file = Node { streams: vec![stream], ..Node::default() };
        let mut nodes = vec![directory(), file];
        nodes[0].entries.push(entry(name, 1));
        let tree = Tree { nodes, security: Vec::new() };
        let temp = TempDir::new().unwrap();
        let out = temp.path().join("out");
        let error =
            extract_tree(&tree, &memory, &out, &ExtractOptions::default(), &()).unwrap_err();
        assert!(matches!(error, Error::Tree { .. }), "{name}: {error}");
        assert!(!temp.path().join("x").exists());
    }
}

#[test]
fn names_that_windows_takes_for_devices_are_reported() {
    let mut memory = Memory::default();
    let file = Node { streams: vec![memory.add(None, b"x")], ..Node::default() };
    let mut nodes = vec![directory(), file.clone(), file];
    nodes[0].entries = vec![entry("NUL.txt", 1), entry("null.txt", 2)];
    let tree = Tree { nodes, security: Vec::new() };
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    let done = extract_tree(&tree, &memory, &out, &ExtractOptions::default(), &()).unwrap();
    assert_eq!(done.warnings, ["/NUL.txt: the name of a device; Windows cannot have it"]);
    assert!(out.join("NUL.txt").exists(), "here it is a file like others");
}

#[test]
fn a_link_in_the_image_is_not_written_through() {
    // A link and, in another case, a directory with files: no order may follow the link.
    let temp = TempDir::new().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut memory = Memory::default();
    let stream = memory.add(None, b"x");
    let mut link = Node { attributes: attribute::REPARSE_POINT, ..Node::default() };
    let target = common::text(&outside).to_owned();
    link.extra_mut().reparse = gilt_wim::unix_names::reparse_from_target(target.as_bytes());
    // A reparse point that claims children, as only a hostile file has it.
    link.attributes |= attribute::DIRECTORY;
    link.entries.push(entry("f", 2));
    let file = Node { streams: vec![stream], ..Node::default() };
    let mut nodes = vec![directory(), link, file];
    nodes[0].entries.push(entry("l", 1));
    let tree = Tree { nodes, security: Vec::new() };
    let out = temp.path().join("out");
    extract_tree(&tree, &memory, &out, &ExtractOptions::default(), &()).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn sizes_beyond_the_file_are_refused_before_memory_is_taken() {
    let (tree, memory) = windows_tree(&mut Random(9));
    let good = bytes_of(&tree, &memory, Compression::Lzx, false);
    // The size fields of blob table and XML, each made huge.
    for at in [48usize, 64, 72, 88] {
        for value in [0xffu8, 0x7f] {
            let mut bytes = good.clone();
            bytes[at + 3..at + 6].fill(value);
            let opened = open(bytes);
            // XML that cannot be read is no reason not to open.
            assert!(opened.is_err() || at >= 72, "{at}");
        }
    }
}

#[test]
fn errors_name_offset_structure_found_and_expected() {
    let (tree, memory) = windows_tree(&mut Random(9));
    let mut bytes = bytes_of(&tree, &memory, Compression::Lzx, false);
    bytes[20..24].copy_from_slice(&12345u32.to_le_bytes());
    let Err(Error::Corrupt { at, what, found, expected }) = open(bytes) else { panic!("accepted") };
    assert_eq!((at, what, found.as_str()), (20, "chunk size", "12345"));
    assert!(expected.contains("power of two"));
}

#[test]
fn an_interrupted_write_leaves_the_old_file_and_no_litter() {
    struct Stop(std::sync::atomic::AtomicU64);
    impl gilt_wim::Progress for Stop {
        fn advance_bytes(&self, bytes: u64) {
            self.0.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        fn is_cancelled(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed) > 10_000
        }
    }
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    fs::write(&path, "the old file").unwrap();
    let mut memory = Memory::default();
    let mut nodes = vec![directory()];
    for number in 0..50u64 {
        let bytes = Random(number).bytes(3_000_000 / 50 + number as usize);
        nodes.push(Node { streams: vec![memory.add(None, &bytes)], ..Node::default() });
        let last = nodes.len() - 1;
        nodes[0].entries.push(entry(&number.to_string(), last));
    }
    let tree = Tree { nodes, security: Vec::new() };
    let image = ImageSource { tree: &tree, contents: &memory, info: ImageInfo::named("x") };
    let options = WriteOptions { threads: 2, ..WriteOptions::default() };
    let error = create(&path, &[image], &options, &Stop(0.into())).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"the old file");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_stream_that_changes_while_it_is_read_is_an_error() {
    for promised in [5u64, 50] {
        let mut memory = Memory::default();
        let mut stream = memory.add(None, &[1; 20]);
        stream.len_bytes = promised;
        let mut nodes = vec![directory(), Node { streams: vec![stream], ..Node::default() }];
        nodes[0].entries.push(entry("f", 1));
        let tree = Tree { nodes, security: Vec::new() };
        let temp = TempDir::new().unwrap();
        let image = ImageSource { tree: &tree, contents: &memory, info: ImageInfo::named("x") };
        let path = temp.path().join("x.wim");
        let error = create(&path, &[image], &WriteOptions::default(), &()).unwrap_err();
        assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    }
}
