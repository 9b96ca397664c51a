//! The metadata of an image, inside a file that is otherwise sound. What is read must be written
//! and read again to the same tree.
#![no_main]

use gilt_wim::{Compression, ImageInfo, ImageSource, Wim, WriteOptions, create};
use libfuzzer_sys::fuzz_target;
use sha1::Digest;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let size = data.len() as u64;
    if size == 0 {
        return;
    }
    let mut file = vec![0u8; 208];
    file[..8].copy_from_slice(b"MSWIM\0\0\0");
    file[8..12].copy_from_slice(&208u32.to_le_bytes());
    file[12..16].copy_from_slice(&0x10d00u32.to_le_bytes());
    file[40..44].copy_from_slice(&[1, 0, 1, 0]);
    file[44..48].copy_from_slice(&1u32.to_le_bytes());
    file[48..56].copy_from_slice(&(50u64 | 2 << 56).to_le_bytes());
    file[56..64].copy_from_slice(&(208 + size).to_le_bytes());
    file[64..72].copy_from_slice(&50u64.to_le_bytes());
    file.extend_from_slice(data);
    file.extend_from_slice(&(size | 2 << 56).to_le_bytes());
    file.extend_from_slice(&208u64.to_le_bytes());
    file.extend_from_slice(&size.to_le_bytes());
    file.extend_from_slice(&[1, 0, 1, 0, 0, 0]);
    file.extend_from_slice(&sha1::Sha1::digest(data));
    let wim = Wim::from_reader(Arc::new(file)).expect("the file around the metadata is sound");
    let Ok((tree, contents)) = wim.load_outline(1) else { return };
    if !contents.missing().is_empty() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("x.wim");
    let options = WriteOptions {
        compression: Compression::None,
        threads: 1,
        sync: false,
        ..WriteOptions::default()
    };
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("x") };
    if create(&path, &[image], &options, &()).is_ok() {
        let wim = Wim::open(&path).expect("what we write we open");
        let (again, _) = wim.load_outline(1).expect("what we write we read");
        assert_eq!(again.security, tree.security);
    }
});
