//! A whole volume with numbers replaced. The base is `GILT_FUZZ_VOLUME`, made by `mke2fs -O
//! ^metadata_csum -b 1024 -d FOLDER` with few files; the input is a list of (place u24, value u32).
#![no_main]

use gilt_ext4::Ext4Volume;
use gilt_wim::tree::ContentSource;
use std::io::Read;
use std::sync::{Arc, OnceLock};

fn base() -> &'static Vec<u8> {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| {
        let path = std::env::var_os("GILT_FUZZ_VOLUME").expect("GILT_FUZZ_VOLUME: a small volume");
        std::fs::read(path).expect("reading the base volume")
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut image = base().clone();
    for change in data.chunks_exact(7).take(64) {
        let at = usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2]);
        let at = at % (image.len() - 4);
        image[at..at + 4].copy_from_slice(&change[3..]);
    }
    let Ok(volume) = Ext4Volume::open(Arc::new(image)) else { return };
    let Ok(tree) = volume.tree() else { return };
    for stream in tree.nodes.iter().flat_map(|node| &node.streams) {
        let _ = volume.content_stamp(stream.content);
        if let Ok(reader) = volume.open(stream.content) {
            let _ = std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink());
        }
    }
});
