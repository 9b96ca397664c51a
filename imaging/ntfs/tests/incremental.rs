//! What an incremental capture builds on: equal stamps and untouched clusters mean equal contents.

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use gilt_ntfs::{Extent, Storage, Volume};
use gilt_ntfs_volumes::{Mount, Ownership, Recipe, make};
use support::{open, sha1_of_stream};

/// Stamp, extents and hash of every stream, by the file's name on the volume.
fn streams(volume: &Volume) -> BTreeMap<String, ([u8; 20], Vec<Extent>, String)> {
    let mut all = BTreeMap::new();
    let mut stack = vec![(String::new(), gilt_wim::tree::Tree::ROOT)];
    while let Some((path, id)) = stack.pop() {
        let node = volume.tree().node(id);
        for entry in &node.entries {
            stack.push((format!("{path}/{}", entry.name.to_display()), entry.node));
        }
        for stream in &node.streams {
            let name = stream.name.as_ref().map_or_else(String::new, |name| name.to_display());
            let id = stream.content;
            let stamp = volume.content_stamp(id).unwrap();
            let hash = sha1_of_stream(volume, id).0;
            all.insert(format!("{path}:{name}"), (stamp, volume.extents(id), hash));
        }
    }
    all
}

#[test]
fn every_changed_stream_has_another_stamp_or_touched_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.img");
    let manifest = make(&image, &Recipe { files: 300, ..Recipe::small() }).unwrap();
    let before_bytes = std::fs::read(&image).unwrap();
    let before = streams(&open(&image).unwrap());

    // Overwrite in place (the record need not change), append, make, remove.
    let mount = Mount::new(&image, Ownership::Ignored).unwrap();
    let mut large = manifest
        .streams
        .iter()
        .filter(|(path, known)| path.starts_with("Program Files/") && known.len_bytes > 20_000);
    let (in_place, appended) = (large.next().unwrap().0, large.next().unwrap().0);
    let mut file =
        std::fs::File::options().read(true).write(true).open(mount.path(in_place)).unwrap();
    file.seek(SeekFrom::Start(9000)).unwrap();
    file.write_all(b"other bytes in the same clusters").unwrap();
    drop(file);
    let mut file = std::fs::File::options().append(true).open(mount.path(appended)).unwrap();
    file.write_all(&[1; 5000]).unwrap();
    drop(file);
    std::fs::write(mount.path("new file"), vec![3; 10_000]).unwrap();
    std::fs::remove_file(mount.path("names/README")).unwrap();
    mount.finish().unwrap();

    let after = streams(&open(&image).unwrap());
    let mut after_bytes = Vec::new();
    std::fs::File::open(&image).unwrap().read_to_end(&mut after_bytes).unwrap();
    let touched = |extents: &[Extent]| {
        extents.iter().any(|extent| {
            let range = extent.offset as usize..(extent.offset + extent.len_bytes) as usize;
            before_bytes[range.clone()] != after_bytes[range]
        })
    };
    let mut skipped = 0;
    for (path, (stamp, extents, hash)) in &after {
        let Some((old_stamp, _, old_hash)) = before.get(path) else { continue };
        if stamp == old_stamp && !touched(extents) {
            assert_eq!(hash, old_hash, "{path} changed unnoticed");
            skipped += 1;
        }
    }
    assert!(after.contains_key("/new file:"));
    assert!(!after.contains_key("/names/README:"));
    let changed = |path: &str| before[path].2 != after[path].2;
    assert!(changed(&format!("/{in_place}:")) && changed(&format!("/{appended}:")));
    // Nearly all can be skipped; resident ones share their record with what changed around them.
    assert!(skipped + 10 > before.len(), "{skipped} of {}", before.len());
}

#[test]
fn storage_and_extents_tell_where_bytes_are() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.img");
    make(&image, &Recipe { files: 100, bytes: 1 << 20, ..Recipe::small() }).unwrap();
    let volume = open(&image).unwrap();
    let storage = |path: &str| {
        let node = volume.lookup(path).unwrap();
        let stream = volume.tree().node(node).streams.iter().find(|s| s.name.is_none()).unwrap();
        let extents = volume.extents(stream.content);
        (volume.storage(stream.content).unwrap(), extents.len(), node)
    };
    assert_eq!(storage("names/readme").0, Storage::Resident);
    assert_eq!(storage("lznt1/mixed").0, Storage::Lznt1);
    assert_eq!(storage("wof/Xpress4k 8").0, Storage::Wof);
    let (kind, extents, node) = storage("sparse/fragments");
    assert_eq!((kind, extents), (Storage::Plain, 3000));
    assert!(volume.record_extents(node).len() > 8, "the run list spreads over extension records");
    let stamp = volume.stamp(node).unwrap();
    assert!(stamp.file.record >= 24 && stamp.changed.0 > 0);
}
