//! Trees with everything NTFS has: through our writer, wimlib's, and an NTFS volume of libntfs-3g.
#![cfg(unix)]

mod common;

use common::trees::{Memory, assert_same_tree, descriptor, directory, entry, windows_tree};
use common::{Random, run, seven_zip_test, text, wimlib};
use gilt_wim::tree::*;
use gilt_wim::{Compression, ImageInfo, ImageSource, Level, Wim, WriteOptions, create};
use std::path::Path;
use tempfile::TempDir;

fn write(tree: &Tree, contents: &dyn ContentSource, path: &Path, compression: Compression) {
    let options = WriteOptions {
        compression,
        level: Level::Fast,
        threads: 2,
        sync: false,
        ..WriteOptions::default()
    };
    let image = ImageSource { tree, contents, info: ImageInfo::named("tree") };
    create(path, &[image], &options, &()).unwrap();
}

fn check_both_ways(seed: u64, folder: &Path) {
    let mut random = Random(seed);
    let (tree, memory) = windows_tree(&mut random);
    let compression =
        [Compression::None, Compression::Xpress, Compression::Lzx][random.below(3) as usize];
    let path = folder.join(format!("{seed}.wim"));
    write(&tree, &memory, &path, compression);
    let what = format!("seed {seed}");

    let (back, contents) = Wim::open(&path).unwrap().load_tree(1).unwrap();
    assert_same_tree((&tree, &memory), (&back, &contents), &what);

    wimlib(&["verify", text(&path)]);
    seven_zip_test(&path);
    // Adding and removing a file makes wimlib read our metadata and write its own.
    let commands = folder.join("commands");
    std::fs::write(&commands, "add /etc/hostname /added-for-test\n").unwrap();
    run(
        "sh",
        &["-c", &format!("wimlib-imagex update '{}' 1 < '{}'", text(&path), text(&commands))],
    );
    std::fs::write(&commands, "delete /added-for-test\n").unwrap();
    run(
        "sh",
        &["-c", &format!("wimlib-imagex update '{}' 1 < '{}'", text(&path), text(&commands))],
    );
    let (theirs, contents) = Wim::open(&path).unwrap().load_tree(1).unwrap();
    let mut tree = tree;
    // wimlib touches the directory it worked in.
    tree.nodes[0].modified = theirs.nodes[0].modified;
    tree.nodes[0].accessed = theirs.nodes[0].accessed;
    assert_same_tree((&tree, &memory), (&theirs, &contents), &format!("{what}, through wimlib"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn random_trees_survive_our_writer_and_wimlibs() {
    let temp = TempDir::new().unwrap();
    for seed in 0..40 {
        check_both_ways(seed, temp.path());
    }
}

#[test]
#[ignore = "long: ci/bench wim-trees"]
fn a_thousand_random_trees_survive_our_writer_and_wimlibs() {
    let temp = TempDir::new().unwrap();
    for seed in 0..1000 {
        check_both_ways(10_000 + seed, temp.path());
    }
}

#[test]
fn an_ntfs_volume_gives_back_what_we_wrote() {
    let temp = TempDir::new().unwrap();
    let mut memory = Memory::default();
    let mut random = Random(3);
    let file = |streams: Vec<Stream>| Node {
        attributes: attribute::ARCHIVE,
        created: FileTime(0x01d1_1111_2222_3333),
        accessed: FileTime(0x01d1_1111_2222_4444),
        modified: FileTime(0x01d1_1111_2222_5555),
        streams,
        ..Node::default()
    };
    let plain = memory.add(None, &random.words(100_000));
    let main = memory.add(None, b"main");
    let named = memory.add(Some("Zone.Identifier"), b"[ZoneTransfer]\r\nZoneId=3\r\n");
    let long = memory.add(Some("long"), &random.words(70_000));
    let on_directory = memory.add(Some("on-dir"), b"a stream of a directory");
    let mut nodes = vec![
        directory(),
        file(vec![plain]),
        file(vec![main, named, long]),
        directory(),
        file(Vec::new()),
        directory(),
    ];
    nodes[3].streams = vec![on_directory];
    nodes[4].attributes |= attribute::HIDDEN;
    nodes[1].security = Some(SecurityId(0));
    nodes[3].security = Some(SecurityId(1));
    nodes[2].extra_mut().object_id = Some((0..64).collect());
    // A junction.
    nodes[5].attributes |= attribute::REPARSE_POINT;
    let target: Vec<u8> =
        r"\??\C:\d".encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let bytes = target.len() as u16 - 2;
    let mut data: Vec<u8> =
        [0, bytes, bytes + 2, 0].iter().flat_map(|field: &u16| field.to_le_bytes()).collect();
    data.extend_from_slice(&target);
    data.extend_from_slice(&[0; 2]);
    let reparse = Reparse { tag: reparse_tag::MOUNT_POINT, flags: 1, data: data.into() };
    nodes[5].extra_mut().reparse = Some(reparse);
    nodes[0].entries = vec![
        Entry { short_name: "PLAIN~1.TXT".into(), ..entry("a plain file.txt", 1) },
        entry("second name", 1),
        entry("streams", 2),
        entry("d", 3),
        entry("junction", 5),
    ];
    nodes[3].entries = vec![entry("empty", 4)];
    let tree = Tree { nodes, security: vec![descriptor(0x1f01ff), descriptor(0x120089)] };
    let path = temp.path().join("ours.wim");
    write(&tree, &memory, &path, Compression::Lzx);
    seven_zip_test(&path);

    let volume = temp.path().join("ntfs.img");
    run("truncate", &["-s", "32M", text(&volume)]);
    run("mkntfs", &["-F", "-Q", "-q", text(&volume)]);
    wimlib(&["apply", text(&path), "1", text(&volume)]);
    let back = temp.path().join("back.wim");
    wimlib(&["capture", text(&volume), text(&back), "--compress=none", "--norpfix"]);
    let (found, contents) = Wim::open(&back).unwrap().load_tree(1).unwrap();
    let mut expected = tree.clone();
    // The volume has its own root, descriptors everywhere, and a descriptor's form of its own.
    let mut found = found;
    for tree in [&mut expected, &mut found] {
        tree.nodes[0] = Node { entries: std::mem::take(&mut tree.nodes[0].entries), ..directory() };
    }
    for name in ["d", "streams", "junction", "second name", "a plain file.txt"] {
        let id = |tree: &Tree| {
            tree.nodes[0].entries.iter().find(|e| e.name == name.into()).unwrap().node
        };
        let (x, y) = (id(&expected), id(&found));
        let wanted = expected.node(x).security.map(|id| expected.security[id.0 as usize].clone());
        let has = found.node(y).security.map(|id| found.security[id.0 as usize].clone());
        if let Some(wanted) = wanted {
            assert_eq!(has.as_deref(), Some(&*wanted), "{name}");
        }
        let (a, b) = (expected.node(x).clone(), found.node(y).clone());
        if a.modified != FileTime(0) {
            assert_eq!((a.created, a.accessed, a.modified), (b.created, b.accessed, b.modified));
        }
    }
    for tree in [&mut expected, &mut found] {
        for node in &mut tree.nodes {
            node.security = None;
            (node.created, node.accessed, node.modified) = Default::default();
        }
    }
    assert_same_tree((&expected, &memory), (&found, &contents), "through NTFS");
}
