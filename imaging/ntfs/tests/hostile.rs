//! Damaged and hostile volumes: whatever the bytes are, opening and reading ends, without a panic,
//! and in bounded time.

mod support;

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gilt_disk::BlockRead;
use gilt_ntfs::{Damage, Limits, Options, UncleanPolicy, Volume};
use gilt_ntfs_volumes::{Recipe, Rng, make};
use gilt_wim::tree::ContentSource;

/// A volume with some bytes replaced.
struct Patched {
    base: Arc<Vec<u8>>,
    patches: Vec<(usize, Vec<u8>)>,
}

impl BlockRead for Patched {
    fn len_bytes(&self) -> u64 {
        self.base.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + buf.len();
        buf.copy_from_slice(
            self.base.get(start..end).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?,
        );
        for (at, bytes) in &self.patches {
            for (i, &byte) in bytes.iter().enumerate() {
                if (start..end).contains(&(at + i)) {
                    buf[at + i - start] = byte;
                }
            }
        }
        Ok(())
    }
}

fn exercise(disk: Arc<dyn BlockRead>, damage: Damage) {
    let limits = Limits { records: 100_000, stream_bytes: 64 << 20, memory_bytes: 64 << 20 };
    let options = Options { unclean: UncleanPolicy::Read, damage, limits };
    let Ok(volume) = Volume::open(disk, &options) else { return };
    let mut buffer = vec![0; 1 << 16];
    for node in &volume.tree().nodes {
        for stream in &node.streams {
            let _ = (volume.extents(stream.content), volume.content_stamp(stream.content));
            let _ = volume.position(stream.content);
            // Reading all of it every time would be most of the time.
            if stream.len_bytes > 300_000 {
                continue;
            }
            let Ok(mut reader) = volume.open(stream.content) else { continue };
            let mut len = 0;
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                len += n as u64;
            }
            assert!(len <= stream.len_bytes, "a reader delivers no more than it claims");
        }
    }
}

#[test]
fn random_damage_to_metadata_never_panics_or_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.img");
    let recipe = Recipe { files: 40, bytes: 1 << 19, ..Recipe::small() };
    make(&image, &recipe).unwrap();
    let base = Arc::new(std::fs::read(&image).unwrap());
    // File records, index blocks, the boot sector and $SDS are where damage is interesting.
    let mut interesting = vec![0usize];
    for at in (0..base.len()).step_by(1024) {
        if matches!(&base[at..at + 4], b"FILE" | b"INDX") {
            interesting.push(at);
        }
    }
    assert!(interesting.len() > 300, "{}", interesting.len());

    let seed = std::env::var("GILT_HOSTILE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let rounds = std::env::var("GILT_HOSTILE_ROUNDS").ok().and_then(|s| s.parse().ok());
    let mut rng = Rng::new(seed);
    for round in 0..rounds.unwrap_or(400) {
        let mut patches = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let block = interesting[rng.below(interesting.len() as u64) as usize];
            let within = if rng.one_in(3) { rng.below(0x40) } else { rng.below(1000) };
            let len = [1, 2, 4, 8][rng.below(4) as usize];
            let value = match rng.below(5) {
                0 => 0,
                1 => u64::MAX,
                2 => rng.below(64),
                3 => 1 << rng.below(64),
                _ => rng.next_u64(),
            };
            patches.push((block + within as usize, value.to_le_bytes()[..len].to_vec()));
        }
        let shown = patches.clone();
        let disk: Arc<dyn BlockRead> = Arc::new(Patched { base: base.clone(), patches });
        let start = Instant::now();
        exercise(disk.clone(), Damage::Refuse);
        exercise(disk, Damage::Note);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(180), "round {round} took {took:?}: {shown:x?}");
    }
}
