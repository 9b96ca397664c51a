//! Volumes made by mke2fs and changed by debugfs are read back as they were made.

mod common;

use common::{contents, debugfs, find, noise, open_volume, run};
use gilt_wim::tree::{ContentSource, Name, Node, Tree, UnixData, attribute};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn mke2fs(folder: &Path, options: &[&str], image: &str, size: &str) {
    run(folder, "truncate", &["-s", size, image]);
    let fixed = ["-q", "-F", "-t", "ext4", "-d", "stage"];
    run(folder, "mke2fs", &[&fixed, options, &[image]].concat());
}

/// Files of every shape of block map.
fn stage(folder: &Path) {
    let stage = folder.join("stage");
    std::fs::create_dir_all(stage.join("many/deep/er")).expect("folders");
    std::fs::write(stage.join("empty"), b"").expect("file");
    std::fs::write(stage.join("tiny"), b"inline if the volume can").expect("file");
    std::fs::write(stage.join("small"), noise(1, 150)).expect("file");
    std::fs::write(stage.join("medium"), noise(2, 70_000)).expect("file");
    std::fs::write(stage.join("large"), noise(3, 6_000_001)).expect("file");
    std::fs::hard_link(stage.join("medium"), stage.join("many/linked")).expect("link");
    symlink("tiny", stage.join("link")).expect("symlink");
    symlink("/many/deep", stage.join("absolute")).expect("symlink");
    symlink("x/".repeat(60), stage.join("long-link")).expect("symlink");
    symlink("../many", stage.join("many/back")).expect("symlink");
    for index in 0..1500 {
        let name = format!("file-with-a-longer-name-{index:05}-ß");
        std::fs::write(stage.join("many").join(name), index.to_string()).expect("file");
    }
    use std::os::unix::fs::FileExt;
    let sparse = std::fs::File::create(stage.join("sparse")).expect("file");
    for index in 0..40 {
        sparse.write_all_at(&noise(100 + index, 5000), index * 300_000).expect("piece");
    }
    // With inline_data, mke2fs 1.47.0 forgets a hole at the end of a file.
    sparse.write_all_at(b"end", 20_000_000).expect("piece");
}

fn assert_same_as_stage(folder: &Path, image: &str) {
    let volume = open_volume(&folder.join(image));
    let tree = volume.tree().expect("tree");
    let mut pending = vec![(folder.join("stage"), Tree::ROOT)];
    let mut seen = 0;
    while let Some((path, id)) = pending.pop() {
        let mut want: Vec<_> = std::fs::read_dir(&path)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        want.sort();
        let entries = &tree.node(id).entries;
        let mut got: Vec<_> = entries.iter().map(|entry| entry.name.to_display()).collect();
        got.retain(|name| name != "lost+found");
        got.sort();
        assert_eq!(got, want, "{image}: {}", path.display());
        for name in want {
            let child = path.join(&name);
            let node = tree
                .node(entries.iter().find(|e| e.name == Name::from(&*name)).expect("entry").node);
            let metadata = child.symlink_metadata().expect("metadata");
            let unix = node.extra.as_ref().and_then(|extra| extra.unix).expect("unix data");
            let want = UnixData {
                uid: metadata.uid(),
                gid: metadata.gid(),
                mode: metadata.mode(),
                rdev: 0,
            };
            assert_eq!(unix, want, "{}", child.display());
            assert_eq!(node.modified.to_unix().0, metadata.mtime(), "{}", child.display());
            seen += 1;
            if metadata.is_dir() {
                let id = entries.iter().find(|e| e.name == Name::from(&*name)).expect("entry").node;
                pending.push((child, id));
            } else if metadata.is_symlink() {
                let target =
                    gilt_wim::unix_names::target_from_reparse(node.reparse().expect("reparse"));
                let want = std::fs::read_link(&child).expect("link");
                assert_eq!(target.expect("target"), want.to_str().expect("utf-8").as_bytes());
            } else {
                let want = std::fs::read(&child).expect("file");
                assert!(contents(&volume, node) == want, "{image}: {}", child.display());
            }
        }
    }
    assert!(seen > 1500);
    let attributes = |path: &str| tree.node(find(&tree, path)).attributes;
    assert_eq!(attributes("link"), attribute::REPARSE_POINT);
    assert_eq!(attributes("absolute"), attribute::REPARSE_POINT | attribute::DIRECTORY);
    assert_eq!(attributes("many/back"), attribute::REPARSE_POINT | attribute::DIRECTORY);
    assert_eq!(find(&tree, "medium"), find(&tree, "many/linked"), "hard link");
}

#[test]
fn every_block_map_and_block_size_reads_back() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    stage(folder);
    for (name, options) in [
        ("plain", &["-b", "4096"][..]),
        ("small-blocks", &["-b", "1024"]),
        ("inline", &["-O", "inline_data", "-I", "512"]),
        ("ext2-like", &["-O", "^extents,^has_journal,^metadata_csum,^64bit,^flex_bg", "-I", "128"]),
        ("meta-bg", &["-b", "1024", "-O", "meta_bg,^resize_inode"]),
        ("bigalloc", &["-O", "bigalloc", "-C", "16384"]),
        ("old-csum", &["-O", "uninit_bg,^metadata_csum"]),
    ] {
        let image = format!("{name}.img");
        mke2fs(folder, options, &image, "64M");
        assert_same_as_stage(folder, &image);
    }
}

fn node_at<'a>(tree: &'a Tree, path: &str) -> &'a Node {
    tree.node(find(tree, path))
}

#[test]
fn owners_devices_times_and_attributes_are_kept() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::create_dir_all(folder.join("stage/dev")).expect("folder");
    std::fs::write(folder.join("stage/file"), b"x").expect("file");
    std::fs::write(folder.join("long"), noise(9, 900)).expect("value");
    mke2fs(folder, &["-I", "256"], "disk.img", "8M");
    // ACL on disk: version 1; user::rw- user:1000:r-- group::r-- mask::r-- other::---
    let acl: &[u8] =
        &[1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xE8, 3, 0, 0, 4, 0, 4, 0, 16, 0, 4, 0, 32, 0, 0, 0];
    std::fs::write(folder.join("acl"), acl).expect("value");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    std::fs::write(folder.join("capability"), capability).expect("value");
    debugfs(
        folder,
        "disk.img",
        "cd /dev\nmknod console c 5 1\nmknod big b 259 7000\nmknod pipe p\ncd /\n\
         set_inode_field file uid 70001\nset_inode_field file gid 65536\n\
         set_inode_field file mode 0104750\nset_inode_field file mtime 20381231235959\n\
         set_inode_field file crtime 20200102030405\n\
         ea_set file user.short hello\nea_set -f long file user.long\n\
         ea_set -f capability file security.capability\n",
    );
    let volume = open_volume(&folder.join("disk.img"));
    let tree = volume.tree().expect("tree");
    let unix = |path: &str| node_at(&tree, path).extra.as_ref().and_then(|e| e.unix).expect("unix");
    assert_eq!(unix("file"), UnixData { uid: 70_001, gid: 65_536, mode: 0o104_750, rdev: 0 });
    assert_eq!((unix("dev/console").mode & 0xF000, unix("dev/console").rdev), (0x2000, 0x501));
    let (major, minor) = (259_u32, 7_000_u32);
    let makedev = (minor & 0xFF) | major << 8 | (minor & !0xFF) << 12;
    assert_eq!(unix("dev/big").rdev, makedev);
    assert_eq!(unix("dev/pipe").mode & 0xF000, 0x1000);
    let file = node_at(&tree, "file");
    assert_eq!(file.modified.to_unix().0, 2_177_452_799);
    assert_eq!(file.created.to_unix().0, 1_577_934_245);
    let xattrs = &file.extra.as_ref().expect("extra").xattrs;
    let value = |name: &str| {
        let found = xattrs.iter().find(|xattr| &*xattr.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no {name}: {xattrs:?}")).value.to_vec()
    };
    assert_eq!(value("user.short"), b"hello");
    assert_eq!(value("user.long"), noise(9, 900));
    assert_eq!(value("security.capability"), capability);
}

#[test]
fn a_volume_that_was_not_closed_is_read_with_its_journal_and_not_changed() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::create_dir_all(folder.join("stage")).expect("folder");
    std::fs::write(folder.join("stage/file"), b"old contents of the file").expect("file");
    std::fs::write(folder.join("stage/second"), b"second").expect("file");
    for (name, options) in
        [("v3", &["-O", "metadata_csum,64bit"][..]), ("v1", &["-O", "^metadata_csum,^64bit"])]
    {
        let image = format!("{name}.img");
        mke2fs(folder, &[options, &["-b", "4096"]].concat(), &image, "32M");
        let listed = run(folder, "debugfs", &["-R", "blocks file", &image]);
        let block: u64 = listed.trim().parse().expect("one block");
        let mut new = b"new contents, from the journal".to_vec();
        new.resize(4096, 0);
        std::fs::write(folder.join("new"), &new).expect("block");
        // A copy of the block in a committed transaction, never written to its place.
        debugfs(folder, &image, &format!("jo\njw -b {block} new\njc\n"));
        let features = run(folder, "dumpe2fs", &["-h", &image]);
        assert!(features.contains("needs_recovery"), "{features}");
        let before = std::fs::read(folder.join(&image)).expect("image");
        let volume = open_volume(&folder.join(&image));
        assert!(volume.info().replayed);
        let tree = volume.tree().expect("tree");
        assert_eq!(contents(&volume, node_at(&tree, "file")), new[..24], "{name}");
        assert_eq!(contents(&volume, node_at(&tree, "second")), b"second");
        drop(volume);
        assert!(before == std::fs::read(folder.join(&image)).expect("image"), "never written");
        // Referee: e2fsck replays it and then the file has the same contents.
        let replay = std::process::Command::new("e2fsck")
            .args(["-fy", &image])
            .current_dir(folder)
            .output()
            .expect("needs e2fsck: run ci/setup");
        assert!(replay.status.code().is_some_and(|code| code <= 1));
        let theirs = run(folder, "debugfs", &["-R", "cat file", &image]);
        assert_eq!(theirs.as_bytes(), &new[..24]);
    }
}

#[test]
fn damage_is_an_error_that_says_where() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::create_dir_all(folder.join("stage/sub/sub")).expect("folder");
    std::fs::write(folder.join("stage/file"), noise(4, 100_000)).expect("file");
    mke2fs(folder, &["-O", "^metadata_csum"], "good.img", "8M");
    for (what, script) in [
        ("directory has two names", "ln sub sub/sub/loop\n"),
        ("not in use", "clri file\n"),
        ("extent", "set_inode_field file block[0] 0x1234\n"),
    ] {
        run(folder, "cp", &["good.img", "bad.img"]);
        debugfs(folder, "bad.img", script);
        let disk = gilt_disk::open(folder.join("bad.img")).expect("open").reader();
        let result = gilt_ext4::Ext4Volume::open(disk).and_then(|volume| {
            let tree = volume.tree()?;
            let node = node_at(&tree, "file");
            volume.open(node.streams[0].content)?;
            Ok(())
        });
        let error = result.expect_err(what).to_string();
        assert!(error.contains(what) && error.contains("inode"), "{what}: {error}");
    }
}

#[test]
fn an_index_of_extents_that_names_itself_ends_with_an_error() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    std::fs::create_dir_all(folder.join("stage")).expect("folder");
    std::fs::write(folder.join("stage/file"), noise(4, 100_000)).expect("file");
    mke2fs(folder, &["-O", "^metadata_csum", "-b", "1024"], "loop.img", "8M");
    let blocks = run(folder, "debugfs", &["-R", "blocks file", "loop.img"]);
    let block: u32 = blocks.split_whitespace().next().expect("block").parse().expect("number");
    // The inode: an index of depth 1 with one entry, the file's first block. That block says the same.
    debugfs(
        folder,
        "loop.img",
        &format!(
            "set_inode_field file block[0] 0x1f30a\nset_inode_field file block[1] 0x10004\n\
             set_inode_field file block[2] 0\nset_inode_field file block[3] 0\n\
             set_inode_field file block[4] {block}\nset_inode_field file block[5] 0\n"
        ),
    );
    let mut image = std::fs::read(folder.join("loop.img")).expect("image");
    let at = block as usize * 1024;
    for (index, word) in [0x1F30A, 0x1_0054, 0, 0, block, 0].into_iter().enumerate() {
        image[at + index * 4..at + index * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    let volume = gilt_ext4::Ext4Volume::open(std::sync::Arc::new(image)).expect("volume");
    let read = || -> Result<(), Box<dyn std::error::Error>> {
        let tree = volume.tree()?;
        let node = node_at(&tree, "file");
        std::io::copy(&mut volume.open(node.streams[0].content)?, &mut std::io::sink())?;
        Ok(())
    };
    let error = read().expect_err("refused").to_string();
    assert!(error.contains("extent depth") && error.contains("inode"), "{error}");
}
