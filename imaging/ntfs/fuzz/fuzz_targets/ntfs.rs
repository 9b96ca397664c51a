//! A whole volume with bytes replaced. The base is `GILT_FUZZ_VOLUME`, made by `make-ntfs-volume`
//! with few files; the input is a list of (block u16, offset u16, value u32), where a block is one
//! of the volume's file records and index blocks.
#![no_main]

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use gilt_disk::BlockRead;
use gilt_ntfs::{Damage, Limits, Options, UncleanPolicy, Volume};
use gilt_wim::tree::ContentSource;

struct Base {
    bytes: Vec<u8>,
    blocks: Vec<usize>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let path = std::env::var_os("GILT_FUZZ_VOLUME")
            .expect("GILT_FUZZ_VOLUME: a volume by `make-ntfs-volume IMAGE 40 500000`");
        let bytes = std::fs::read(path).expect("reading the base volume");
        let is_block = |at: &usize| matches!(&bytes[*at..at + 4], b"FILE" | b"INDX");
        let blocks = std::iter::once(0)
            .chain((0..bytes.len() - 1024).step_by(1024).filter(is_block))
            .collect();
        Base { bytes, blocks }
    })
}

struct Patched(Vec<(usize, [u8; 4])>);

impl BlockRead for Patched {
    fn len_bytes(&self) -> u64 {
        base().bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + buf.len();
        let bytes = base().bytes.get(start..end);
        buf.copy_from_slice(bytes.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?);
        for (at, value) in &self.0 {
            for (i, &byte) in value.iter().enumerate() {
                if (start..end).contains(&(at + i)) {
                    buf[at + i - start] = byte;
                }
            }
        }
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let blocks = &base().blocks;
    let patches = data
        .chunks_exact(8)
        .take(16)
        .map(|patch| {
            let block =
                blocks[usize::from(u16::from_le_bytes([patch[0], patch[1]])) % blocks.len()];
            let offset = usize::from(u16::from_le_bytes([patch[2], patch[3]])) % 1024;
            (block + offset, [patch[4], patch[5], patch[6], patch[7]])
        })
        .collect();
    let lenient = data.len() % 8 == 1;
    let options = Options {
        unclean: UncleanPolicy::Read,
        damage: if lenient { Damage::Note } else { Damage::Refuse },
        limits: Limits { records: 100_000, stream_bytes: 16 << 20, memory_bytes: 64 << 20 },
    };
    let Ok(volume) = Volume::open(Arc::new(Patched(patches)), &options) else { return };
    let mut buffer = vec![0; 1 << 16];
    for stream in volume.tree().nodes.iter().flat_map(|node| &node.streams) {
        let _ = (volume.extents(stream.content), volume.content_stamp(stream.content));
        if stream.len_bytes > 100_000 {
            continue;
        }
        let Ok(mut reader) = volume.open(stream.content) else { continue };
        let mut len = 0;
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            len += n as u64;
        }
        assert!(len <= stream.len_bytes);
    }
});
