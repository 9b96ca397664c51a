//! `measure IMAGE [--metadata | --hash]`: seconds for the metadata, and for reading (and hashing)
//! all contents in disk order on all cores. `IMAGE` is a volume, in any format gilt-disk reads.

use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use gilt_ntfs::{Options, Volume};
use gilt_wim::tree::ContentSource;
use sha1::{Digest, Sha1};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let image = args.next().ok_or("usage: measure IMAGE [--metadata | --hash]")?;
    let mode = args.next().unwrap_or_default();
    let hash = mode == "--hash";
    let disk = gilt_disk::open(&image)?;
    let start = Instant::now();
    let volume = Volume::open(disk.reader(), &Options::default())?;
    println!(
        "metadata: {:.3} s, {} nodes",
        start.elapsed().as_secs_f64(),
        volume.tree().nodes.len()
    );
    if mode == "--metadata" {
        return Ok(());
    }

    let start = Instant::now();
    let mut ids: Vec<_> = volume
        .tree()
        .nodes
        .iter()
        .flat_map(|node| node.streams.iter().map(|stream| stream.content))
        .collect();
    ids.sort_by_key(|&id| volume.position(id));
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 20];
                while let Some(&id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut reader = volume.open(id).expect("opening a stream");
                    let mut sha1 = Sha1::new();
                    loop {
                        let n = reader.read(&mut buffer).expect("reading a stream");
                        if n == 0 {
                            break;
                        }
                        if hash {
                            sha1.update(&buffer[..n]);
                        }
                        bytes.fetch_add(n as u64, Ordering::Relaxed);
                    }
                    std::hint::black_box(sha1.finalize());
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let gib = bytes.into_inner() as f64 / (1u64 << 30) as f64;
    println!(
        "contents: {seconds:.3} s, {} streams, {gib:.2} GiB, {:.2} GiB/s",
        ids.len(),
        gib / seconds
    );
    Ok(())
}
