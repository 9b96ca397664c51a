//! Whole volumes against what was put in, and against wimlib's capture of the same volume.

mod support;

use std::collections::BTreeMap;

use gilt_ntfs_volumes::{Recipe, make};
use gilt_wim::tree::{attribute, reparse_tag};
use support::{Facts, facts_of, facts_of_wimlib, open};

/// Attribute bits that go with system compression, which we undo and wimlib keeps.
const WOF_BITS: u32 = attribute::SPARSE_FILE | attribute::REPARSE_POINT;

/// What wimlib 1.13 would have had to do like us; everything else must be the same.
fn as_we_mean_it(path: &str, reference: &Facts, ours: &Facts) -> Facts {
    let mut reference = reference.clone();
    if reference.reparse_tag == reparse_tag::WOF {
        reference.reparse_tag = 0;
        reference.attributes &= !WOF_BITS;
        if reference.attributes == 0 {
            reference.attributes = attribute::NORMAL;
        }
        assert!(reference.streams.remove("*").is_some(), "{path}");
        assert!(reference.streams.remove("WofCompressedData").is_some(), "{path}");
        // Contents are checked against the manifest.
        reference.streams.insert(String::new(), ours.streams[""].clone());
    }
    if reference.attributes & attribute::DIRECTORY != 0 {
        // wimlib shows an unnamed stream of length 0 for every directory.
        reference.streams.remove("");
    }
    for (hash, len) in reference.streams.values_mut() {
        if *len == 0 {
            *hash = "da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned();
        }
    }
    reference
}

fn check(recipe: &Recipe) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.img");
    let manifest = make(&image, recipe).unwrap();
    let volume = open(&image).unwrap();
    assert_eq!(volume.notes(), []);
    assert_eq!(volume.label().to_display(), "Gilt test");
    let ours = facts_of(&volume);

    for (path, known) in &manifest.streams {
        let (file, stream) = path.split_once(':').unwrap_or((path, ""));
        let facts = &ours.get(&format!("/{file}")).unwrap_or_else(|| panic!("{file} is missing"));
        let (sha1, len) = &facts.streams[stream];
        assert_eq!((*len, sha1.as_str()), (known.len_bytes, &*support::hex(&known.sha1)), "{path}");
    }

    let theirs = facts_of_wimlib(&image, dir.path());
    let names = |all: &BTreeMap<String, Facts>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (path, ours) in &ours {
        let reference = as_we_mean_it(path, &theirs[path], ours);
        assert_eq!(*ours, reference, "{path}");
    }
}

#[test]
fn a_volume_with_every_feature_is_read_as_it_was_made_and_as_wimlib_reads_it() {
    check(&Recipe::small());
}

#[test]
fn sectors_and_records_of_4096_bytes_are_read() {
    check(&Recipe { sector_bytes: 4096, seed: 2, ..Recipe::small() });
}

#[test]
fn clusters_smaller_than_a_record_are_read() {
    check(&Recipe { cluster_bytes: 512, seed: 3, ..Recipe::small() });
}

#[test]
fn clusters_of_64_kib_are_read() {
    check(&Recipe { cluster_bytes: 65536, files: 200, seed: 4, ..Recipe::small() });
}

#[test]
fn clusters_of_2_mib_are_read() {
    let recipe =
        Recipe { cluster_bytes: 2 << 20, files: 30, bytes: 1 << 20, seed: 5, ..Recipe::small() };
    check(&recipe);
}
