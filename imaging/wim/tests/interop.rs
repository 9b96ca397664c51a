//! Our files read by wimlib and 7-Zip, theirs read by us.
#![cfg(unix)]

mod common;

use common::{assert_same, sample, seven_zip_test, text, wimlib};
use gilt_wim::{
    CaptureOptions, Compression, ExtractOptions, ImageInfo, ImageSource, Level, Wim, WriteOptions,
    capture_directory, create, extract_tree,
};
use std::path::Path;
use tempfile::TempDir;

fn options(compression: Compression) -> WriteOptions {
    WriteOptions {
        compression,
        chunk_bytes: compression.default_chunk_bytes(),
        level: Level::Fast,
        integrity: true,
        threads: 2,
        creation_time: Some(gilt_wim::tree::FileTime(0x01d9_0000_1234_5678)),
        sync: false,
        ..WriteOptions::default()
    }
}

fn create_from(dir: &Path, wim: &Path, options: &WriteOptions) {
    let (tree, contents) = capture_directory(dir, &CaptureOptions::default()).unwrap();
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("sample") };
    create(wim, &[image], options, &()).unwrap();
}

fn extract(wim: &Wim, target: &Path) {
    let (tree, contents) = wim.load_tree(1).unwrap();
    extract_tree(&tree, &contents, target, &ExtractOptions::default(), &()).unwrap();
}

const OURS: [Compression; 4] =
    [Compression::None, Compression::Xpress, Compression::Lzx, Compression::Lzms];

#[test]
fn wimlib_and_7zip_accept_ours_and_wimlib_applies_it_identically() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("in");
    sample(&dir);
    for compression in OURS {
        let wim = temp.path().join(format!("{}.wim", compression.name()));
        create_from(&dir, &wim, &options(compression));
        wimlib(&["verify", text(&wim)]);
        seven_zip_test(&wim);
        let out = temp.path().join(format!("{}-out", compression.name()));
        wimlib(&["apply", text(&wim), "1", text(&out), "--unix-data"]);
        assert_same(&dir, &out);
    }
}

#[test]
fn what_we_write_we_extract_identically() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("in");
    sample(&dir);
    for compression in OURS {
        let path = temp.path().join(format!("{}.wim", compression.name()));
        create_from(&dir, &path, &options(compression));
        let wim = Wim::open(&path).unwrap();
        let report = wim.verify(2, &()).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        assert!(report.integrity_table);
        let out = temp.path().join(format!("{}-out", compression.name()));
        extract(&wim, &out);
        assert_same(&dir, &out);
    }
}

#[test]
fn we_extract_what_wimlib_writes_identically() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("in");
    sample(&dir);
    let mut variants: Vec<Vec<&str>> = Vec::new();
    for compression in ["none", "xpress", "lzx"] {
        variants.push(vec!["--compress", compression]);
        variants.push(vec!["--compress", compression, "--check"]);
    }
    for compression in ["none", "xpress", "lzx"] {
        variants.push(vec!["--compress", compression, "--pipable"]);
        variants.push(vec!["--compress", compression, "--pipable", "--check"]);
    }
    variants.push(vec!["--compress", "lzms"]);
    variants.push(vec!["--solid"]);
    variants.push(vec![
        "--solid",
        "--solid-compress",
        "lzx",
        "--solid-chunk-size",
        "32768",
        "--check",
    ]);
    variants.push(vec!["--solid", "--solid-compress", "xpress", "--solid-chunk-size", "32768"]);
    variants.push(vec!["--solid", "--solid-chunk-size", "1048576", "--compress", "none"]);
    for chunk in ["4096", "8192", "16384", "65536"] {
        variants.push(vec!["--compress", "xpress", "--chunk-size", chunk]);
    }
    for chunk in ["65536", "131072", "2097152"] {
        variants.push(vec!["--compress", "lzx", "--chunk-size", chunk]);
    }
    for (number, variant) in variants.iter().enumerate() {
        let path = temp.path().join(format!("{number}.wim"));
        let mut args = vec!["capture", text(&dir), text(&path), "--unix-data", "--norpfix"];
        args.extend_from_slice(variant);
        wimlib(&args);
        let wim = Wim::open(&path).unwrap();
        let report = wim.verify(2, &()).unwrap();
        assert!(report.faults.is_empty(), "{variant:?}: {:?}", report.faults);
        let out = temp.path().join(format!("{number}-out"));
        extract(&wim, &out);
        assert_same(&dir, &out);
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_with_any_number_of_threads() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("in");
    sample(&dir);
    for compression in OURS {
        let mut files = Vec::new();
        for threads in [1, 2, 3, 8] {
            let path = temp.path().join(format!("{threads}.wim"));
            create_from(&dir, &path, &WriteOptions { threads, ..options(compression) });
            files.push(std::fs::read(&path).unwrap());
        }
        assert!(files.windows(2).all(|pair| pair[0] == pair[1]), "{compression:?}");
    }
}

#[test]
fn wimlib_and_7zip_read_our_solid_resources() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("in");
    sample(&dir);
    for (solid_compression, solid_chunk_bytes) in
        [(Compression::Lzms, 1 << 18), (Compression::Lzx, 1 << 16), (Compression::Xpress, 1 << 15)]
    {
        let options = WriteOptions {
            solid: true,
            solid_compression,
            solid_chunk_bytes,
            ..options(Compression::Lzx)
        };
        let path = temp.path().join(format!("{}.esd", solid_compression.name()));
        create_from(&dir, &path, &options);
        wimlib(&["verify", text(&path)]);
        let out = temp.path().join(format!("{}-wimlib", solid_compression.name()));
        wimlib(&["apply", text(&path), "1", text(&out), "--unix-data"]);
        assert_same(&dir, &out);
        let wim = Wim::open(&path).unwrap();
        assert_eq!(wim.header().version, 0xe00);
        assert!(wim.verify(2, &()).unwrap().faults.is_empty());
        let out = temp.path().join(format!("{}-ours", solid_compression.name()));
        extract(&wim, &out);
        assert_same(&dir, &out);
        let again = temp.path().join("again.esd");
        create_from(&dir, &again, &WriteOptions { threads: 1, ..options });
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
    }
}
