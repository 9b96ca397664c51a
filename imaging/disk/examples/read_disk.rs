//! Reads a whole disk image front to back and says how long it took: what `ci/bench-capture` compares
//! with `qemu-img convert` to nowhere.
//!
//! ```text
//! read_disk IMAGE [threads]
//! ```

use gilt_disk::{ExtentContent, extent_list, open};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const STEP: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("read_disk IMAGE [threads]")?;
    let threads: usize = args.next().map_or(Ok(2), |text| text.parse())?;
    let began = Instant::now();
    let disk = open(path)?;
    let reader = disk.reader();
    // As qemu-img does: what no layer holds is not read.
    let mut steps = Vec::new();
    for extent in extent_list(&*reader, 0..reader.len_bytes())? {
        if matches!(extent.content, ExtentContent::Data { .. }) {
            let end = extent.offset + extent.len_bytes;
            let mut at = extent.offset;
            while at < end {
                let next = ((at / STEP + 1) * STEP).min(end);
                steps.push((at, next));
                at = next;
            }
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buf = vec![0; STEP as usize];
                while let Some((from, to)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let part = &mut buf[..(to - from) as usize];
                    if let Err(error) = reader.read_at(*from, part) {
                        eprintln!("{from:#x}: {error}");
                        std::process::exit(1);
                    }
                }
            });
        }
    });
    let bytes: u64 = steps.iter().map(|(from, to)| to - from).sum();
    println!("{bytes} bytes in {:.3} s", began.elapsed().as_secs_f64());
    Ok(())
}
