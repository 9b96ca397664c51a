//! A FAT volume of any bytes. Start it with small ones by `mkfs.vfat -C IMAGE 64` and mtools.
#![no_main]

use gilt_disk::BlockRead;
use gilt_ext4::FatVolume;
use gilt_wim::tree::ContentSource;
use std::io::Read;
use std::sync::Arc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let disk: Arc<dyn BlockRead> = Arc::new(data.to_vec());
    let _ = FatVolume::probe(&disk);
    let Ok(volume) = FatVolume::open(disk) else { return };
    let Ok(tree) = volume.tree() else { return };
    for stream in tree.nodes.iter().flat_map(|node| &node.streams) {
        let _ = volume.file_ranges(stream.content);
        if let Ok(reader) = volume.open(stream.content) {
            let _ = std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink());
        }
    }
});
