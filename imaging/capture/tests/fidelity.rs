//! What wimlib drops and we keep, and what we refuse: against what was put into the volume.

mod common;
mod containers;
#[path = "../../disk/tests/common/vhdx.rs"]
mod vhdx;

use containers::{Sectors, as_disk};
use gilt_capture::{CaptureRequest, ExcludeRules, PartitionChoice, SpecialPolicy, capture};
use gilt_ntfs_volumes::{Recipe, make};
use gilt_wim::tree::Tree;
use gilt_wim::{Compression, Wim};
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
