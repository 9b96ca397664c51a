//! What wimlib drops and we keep, and what we refuse: against what was put into the volume.

mod common;
mod containers;
#[path = "../../disk/tests/common/vhdx.rs"]
mod vhdx;

use common::run;
use containers::{Sectors, as_disk, digest, every_container};
use gilt_capture::{CaptureRequest, ExcludeRules, PartitionChoice, SpecialPolicy, capture};
use gilt_ntfs_volumes::{Recipe, make};
use gilt_wim::tree::{Node, Tree, reparse_tag};
use gilt_wim::{Change, ChangeKind, Compression, Reason, Side, Wim, diff};
use std::path::Path;

fn take(folder: &Path, disk: &str, out: &str) {
    let (disk, out) = (folder.join(disk), folder.join(out));
    let mut request = CaptureRequest::new(&disk, &out, "test", &());
    request.exclude = Some(ExcludeRules::none());
    request.partition = PartitionChoice::Number(1);
    request.write.compression = Compression::None;
    request.write.sync = false;
    capture(&request).unwrap_or_else(|error| panic!("{}: {error}", disk.display()));
}

fn node<'a>(tree: &'a Tree, path: &str) -> &'a Node {
    path.split('/').filter(|step| !step.is_empty()).fold(tree.node(Tree::ROOT), |node, step| {
        let entry = node.entries.iter().find(|entry| entry.name.to_display() == step);
        tree.node(entry.unwrap_or_else(|| panic!("{step} of {path}")).node)
    })
}

fn differences(old: &Path, new: &Path) -> Vec<Change> {
    let [(a, x), (b, y)] =
        [old, new].map(|path| Wim::open(path).expect("wim").load_tree(1).expect("tree"));
    diff(Side { tree: &a, contents: &x }, Side { tree: &b, contents: &y }).expect("diff")
}

/// How many differences of each kind there are that the documentation lists. Any other fails.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    extended_attributes: usize,
    system_compressed: usize,
    links: usize,
}

/// Judges what is different in `ours`, a WIM of the volume that wimlib made `theirs` of.
fn listed(theirs: &Path, ours: &Path) -> Listed {
    let mut seen = Listed::default();
    let (their_tree, _) = Wim::open(theirs).expect("wim").load_tree(1).expect("tree");
    let (our_tree, _) = Wim::open(ours).expect("wim").load_tree(1).expect("tree");
    for change in differences(theirs, ours) {
        assert_eq!(change.kind, ChangeKind::Changed, "{change:?}");
        let (before, after) = (node(&their_tree, &change.path), node(&our_tree, &change.path));
        match before.reparse() {
            None => {
                assert_eq!(change.reasons, [Reason::ExtendedAttributes], "{change:?}");
                let had = before.extra.as_ref().and_then(|extra| extra.eas.as_ref());
                assert!(had.is_none(), "wimlib does not know them");
                seen.extended_attributes += 1;
            }
            Some(reparse) if reparse.tag == reparse_tag::WOF => {
                assert!(after.reparse().is_none(), "{change:?}");
                seen.system_compressed += 1;
            }
            Some(link) => {
                assert_eq!(change.reasons, [Reason::Reparse], "{change:?}");
                let ours = after.reparse().expect("a link");
                assert_eq!((ours.tag, &ours.data), (link.tag, &link.data), "{change:?}");
                assert!(matches!(link.tag, reparse_tag::SYMLINK | reparse_tag::MOUNT_POINT));
                // wimlib says links were made relative to the image; their targets are untouched.
                assert_eq!((link.flags, ours.flags), (0, 1), "{change:?}");
                seen.links += 1;
            }
        }
    }
    seen
}

fn volume_against_wimlib(sectors: Sectors) -> (tempfile::TempDir, Listed) {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let sector_bytes = match sectors {
        Sectors::Bytes512 => 512,
        Sectors::Bytes4096 => 4096,
    };
    let recipe = Recipe { files: 60, bytes: 1 << 20, sector_bytes, ..Recipe::small() };
    make(&folder.join("part.img"), &recipe).expect("volume");
    as_disk(folder, "part.img", "disk.raw", sectors);
    let theirs = ["capture", "part.img", "theirs.wim", "--compress=none", "--quiet"];
    run(folder, "wimlib-imagex", &theirs);
    take(folder, "disk.raw", "ours.wim");
    let seen = listed(&folder.join("theirs.wim"), &folder.join("ours.wim"));
    let all = [seen.extended_attributes, seen.system_compressed, seen.links];
    assert!(all.iter().all(|count| *count >= 5), "{seen:?}");
    (temp, seen)
}

#[test]
fn a_volume_with_every_feature_differs_from_wimlibs_capture_in_what_is_listed_alone() {
    let (temp, _) = volume_against_wimlib(Sectors::Bytes512);
    let folder = temp.path();
    for image in every_container(folder, "disk.raw") {
        let before = digest(folder, &image);
        take(folder, &image, "again.wim");
        let changes = differences(&folder.join("ours.wim"), &folder.join("again.wim"));
        assert_eq!(changes, [], "{image}");
        assert_eq!(digest(folder, &image), before, "{image} was written to");
    }
}

#[test]
fn so_does_a_volume_with_sectors_of_4096_bytes() {
    volume_against_wimlib(Sectors::Bytes4096);
}

#[test]
fn applied_again_both_captures_give_one_volume_but_for_system_compression() {
    let (temp, seen) = volume_against_wimlib(Sectors::Bytes512);
    let folder = temp.path();
    for name in ["theirs", "ours"] {
        let (wim, image) = (format!("{name}.wim"), format!("{name}.img"));
        run(folder, "truncate", &["-s", "256M", &image]);
        run(folder, "mkntfs", &["-F", "-Q", "-q", &image]);
        run(folder, "wimlib-imagex", &["apply", &wim, "1", &image, "--quiet"]);
        let again = format!("{name}-again.wim");
        let args = ["capture", &image, &again, "--compress=none", "--quiet", "--norpfix"];
        run(folder, "wimlib-imagex", &args);
    }
    let changes = differences(&folder.join("theirs-again.wim"), &folder.join("ours-again.wim"));
    let paths: Vec<&str> = changes.iter().map(|change| &*change.path).collect();
    assert!(paths.iter().all(|path| path.starts_with("/wof/")), "{changes:?}");
    assert_eq!(paths.len(), seen.system_compressed);
    // And what was applied from ours is what the volume had.
    let changes = differences(&folder.join("ours.wim"), &folder.join("ours-again.wim"));
    let strange: Vec<&Change> = changes
        .iter()
        .filter(|change| change.reasons != [Reason::ExtendedAttributes])
        .filter(|change| change.reasons != [Reason::Reparse])
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn extended_attributes_are_those_that_were_set() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let recipe = Recipe { files: 50, bytes: 1 << 20, ..Recipe::small() };
    make(&folder.join("part.img"), &recipe).expect("volume");
    as_disk(folder, "part.img", "disk.raw", Sectors::Bytes512);
    take(folder, "disk.raw", "ours.wim");
    let wim = Wim::open(folder.join("ours.wim")).expect("wim");
    let (tree, _) = wim.load_tree(1).expect("tree");
    let rare = tree.node(Tree::ROOT).entries.iter().find(|e| e.name.to_display() == "rare");
    let rare = tree.node(rare.expect("rare").node);
    let mut seen = 0;
    for entry in &rare.entries {
        let name = entry.name.to_display();
        let eas = tree.node(entry.node).extra.as_ref().and_then(|extra| extra.eas.as_deref());
        let Some(number) = name.strip_prefix("ea ") else {
            assert!(eas.is_none(), "{name}");
            continue;
        };
        let number: usize = number.parse().expect("number");
        let mut list = gilt_ntfs_volumes::ea("$LXUID", &[0, 0, 0, 0]);
        list.extend(gilt_ntfs_volumes::ea("$KERNEL.PURGE.ESBCACHE", &vec![7; 40 + number * 60]));
        list.extend(gilt_ntfs_volumes::ea("LAST", &[1, 2, 3]));
        assert_eq!(names_and_values(eas.expect("EAs")), names_and_values(&list), "{name}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

/// Of a list of `FILE_FULL_EA_INFORMATION`.
fn names_and_values(list: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let next = u32::from_le_bytes(list[at..at + 4].try_into().expect("4")) as usize;
        let name_len = usize::from(list[at + 5]);
        let value_len = usize::from(u16::from_le_bytes([list[at + 6], list[at + 7]]));
        let name = at + 8;
        let value = name + name_len + 1;
        let text = list[name..name + name_len].to_vec();
        found.push((text, list[value..value + value_len].to_vec()));
        if next == 0 || at + next >= list.len() {
            return found;
        }
        at += next;
    }
}

#[test]
fn files_whose_contents_are_elsewhere_are_refused_or_left_out_as_told() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    let recipe = Recipe { files: 40, bytes: 1 << 20, special: true, ..Recipe::small() };
    make(&folder.join("part.img"), &recipe).expect("volume");
    as_disk(folder, "part.img", "disk.raw", Sectors::Bytes512);
    let (disk, out) = (folder.join("disk.raw"), folder.join("out.wim"));
    let mut request = CaptureRequest::new(&disk, &out, "test", &());
    request.partition = PartitionChoice::Number(1);
    request.write.compression = Compression::None;
    request.write.sync = false;
    let error = capture(&request).expect_err("refused").to_string();
    assert!(error.contains("special") && error.contains("dedup"), "{error}");
    assert!(!out.exists());
    let options = gilt_capture::CaptureOptions {
        specials: SpecialPolicy {
            elsewhere: gilt_capture::Elsewhere::LeaveOut,
            ..SpecialPolicy::default()
        },
        ..gilt_capture::CaptureOptions::default()
    };
    let done = gilt_capture::capture_with(&request, &options).expect("capture");
    let told = |name: &str| done.excluded.paths.iter().any(|path| path == name);
    assert!(told("/special/dedup") && told("/special/cloud"), "{:?}", done.excluded.paths);
}
