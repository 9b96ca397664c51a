//! Volumes we build are clean for e2fsck and hold what the tree holds.

mod common;

use common::{contents, debugfs, find, noise, open_volume, run};
use gilt_ext4::{BuildOptions, Ext4Volume, WriteAt, build};
use gilt_wim::tree::{NodeId, Tree};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

struct Image(std::fs::File);

impl WriteAt for Image {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

fn options(size_bytes: u64) -> BuildOptions {
    BuildOptions {
        size_bytes,
        label: "gilt-root".into(),
        uuid: *b"sixteen bytes...",
        created: 1_767_323_045,
        threads: 2,
    }
}

fn make(folder: &Path, name: &str, source: &Ext4Volume, tree: &Tree, size: u64) {
    let file = std::fs::File::create(folder.join(name)).expect("image");
    file.set_len(size).expect("length");
    build(tree, source, &Image(file), &options(size), &|_| true).expect("build");
    let output = run(folder, "e2fsck", &["-fn", name]);
    assert!(!output.contains("Fix?"), "{output}");
}

/// All that must be kept, by path.
fn facts(volume: &Ext4Volume, tree: &Tree) -> BTreeMap<String, String> {
    let mut names: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut pending = vec![(Tree::ROOT, String::new())];
    while let Some((id, path)) = pending.pop() {
        for entry in &tree.node(id).entries {
            pending.push((entry.node, format!("{path}/{}", entry.name.to_display())));
        }
        names.entry(id.0).or_default().push(path);
    }
    let mut all = BTreeMap::new();
    for (id, mut paths) in names {
        paths.sort();
        let node = tree.node(NodeId(id));
        let bytes = contents(volume, node);
        let sum = bytes.iter().fold(0_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3).rotate_left(5)
        });
        let fact = format!(
            "{:#x} {:?} {:?} {:?} {} {sum} {:?}",
            node.attributes,
            node.created,
            node.modified,
            node.extra,
            bytes.len(),
            paths
        );
        all.insert(paths[0].clone(), fact);
    }
    all
}

#[test]
fn a_built_volume_is_clean_and_holds_the_same_tree() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let stage = folder.join("stage");
    std::fs::create_dir_all(stage.join("many/deep/er")).expect("folders");
    std::fs::create_dir_all(stage.join("dev")).expect("folders");
    for (index, len) in [0, 1, 4095, 4096, 4097, 70_000, 6_000_001].into_iter().enumerate() {
        std::fs::write(stage.join(format!("size{len}")), noise(index as u64 + 1, len))
            .expect("file");
    }
    std::fs::hard_link(stage.join("size70000"), stage.join("many/linked")).expect("link");
    std::os::unix::fs::symlink("x/".repeat(60), stage.join("long")).expect("link");
    std::os::unix::fs::symlink("short", stage.join("short-link")).expect("link");
    for index in 0..3000 {
        let name = format!("many/a-name-of-some-length-{index:05}-ß");
        std::fs::write(stage.join(name), index.to_string()).expect("file");
    }
    let sparse = std::fs::File::create(stage.join("sparse")).expect("file");
    for index in 0..20 {
        sparse.write_all_at(&noise(100 + index, 5000), index * 3_000_000).expect("piece");
    }
    sparse.set_len(70_000_000).expect("length");
    run(folder, "truncate", &["-s", "128M", "source.img"]);
    run(folder, "mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-d", "stage", "source.img"]);
    std::fs::write(folder.join("long"), noise(9, 900)).expect("value");
    std::fs::write(
        folder.join("capability"),
        [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )
    .expect("value");
    debugfs(
        folder,
        "source.img",
        "cd /dev\nmknod console c 5 1\nmknod big b 259 7000\nmknod pipe p\ncd /\n\
         set_inode_field size1 uid 70001\nset_inode_field size1 mode 0104750\n\
         set_inode_field size4096 mtime 20381231235959\nset_inode_field size4096 mtime_extra 0x8\n\
         ea_set size1 user.short hello\nea_set -f capability size1 security.capability\n\
         ea_set -f long size4096 user.long\nea_set -f long many user.long\n",
    );
    let source = open_volume(&folder.join("source.img"));
    let mut tree = source.tree().expect("tree");
    // A time no 32-bit clock holds, and one before 1970.
    let far = find(&tree, "size4097").0 as usize;
    tree.nodes[far].modified = gilt_wim::tree::FileTime::from_unix(4_102_444_800, 123_456_700);
    tree.nodes[far].created = gilt_wim::tree::FileTime::from_unix(-1000, 500);
    let wanted = facts(&source, &tree);
    for (name, size) in [("small.img", 96 << 20), ("several-groups.img", 1_200 << 20)] {
        make(folder, name, &source, &tree, size);
        let volume = open_volume(&folder.join(name));
        assert_eq!(volume.info().label, "gilt-root");
        let got = facts(&volume, &volume.tree().expect("tree"));
        for (path, fact) in &wanted {
            assert_eq!(got.get(path), Some(fact), "{name}: {path}");
        }
        assert_eq!(got.len(), wanted.len());
        // The referee reads the same.
        let theirs =
            run(folder, "debugfs", &["-R", "cat /many/a-name-of-some-length-02999-ß", name]);
        assert_eq!(theirs, "2999");
        run(folder, "debugfs", &["-R", "dump /sparse theirs", name]);
        let same = std::fs::read(folder.join("theirs")).expect("theirs")
            == std::fs::read(stage.join("sparse")).expect("ours");
        assert!(same, "{name}: sparse");
    }
    // The same arguments give the same bytes.
    make(folder, "again.img", &source, &tree, 96 << 20);
    let read = |name: &str| std::fs::read(folder.join(name)).expect("image");
    assert!(read("again.img") == read("small.img"));
}

#[test]
fn a_volume_too_small_is_refused_with_the_sizes() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::create_dir_all(folder.join("stage")).expect("folder");
    std::fs::write(folder.join("stage/file"), noise(1, 30 << 20)).expect("file");
    run(folder, "truncate", &["-s", "64M", "source.img"]);
    run(folder, "mke2fs", &["-q", "-F", "-t", "ext4", "-d", "stage", "source.img"]);
    let source = open_volume(&folder.join("source.img"));
    let tree = source.tree().expect("tree");
    let file = std::fs::File::create(folder.join("out.img")).expect("image");
    let result = build(&tree, &source, &Image(file), &options(24 << 20), &|_| true);
    let error = result.expect_err("refused").to_string();
    assert!(error.contains("too small") && error.contains("MiB more"), "{error}");
}
