//! Stores of many versions: what a command costs must not grow with all of the store.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use gilt_store::*;

async fn fill(home: &Home, images: u64, versions: u64) -> Store {
    let store = home.store().await;
    for image in 0..images {
        let name = format!("image-{image}");
        for version in 1..=versions {
            let text = format!("{name} version {version}");
            store.publish(small(&name, &text)).await.unwrap();
            if version % 10 == 0 {
                store.promote(promote(&name, version, "dev")).await.unwrap();
            }
        }
    }
    store
}

#[tokio::test]
async fn opening_and_promoting_read_the_same_little_of_a_small_store_and_a_larger_one() {
    let mut costs = Vec::new();
    for (images, versions) in [(2, 10), (6, 30)] {
        let home = Home::new();
        fill(&home, images, versions).await;
        let reads = Arc::new(AtomicU64::new(0));
        let (mut options, counter) = (home.client("main"), reads.clone());
        options.wrap = Some(Arc::new(move |inner| {
            let fuse = faults::Fuse::new(i64::MAX);
            Arc::new(faults::Faulty { inner, fuse, reads: counter.clone() })
        }));
        let path = home.store_path();
        let store = Store::open(path.to_str().unwrap(), options).await.unwrap();
        let open = (reads.load(Ordering::SeqCst), store.moved().0);
        store.promote(promote("image-1", 5, "dev")).await.unwrap();
        costs.push((open, reads.load(Ordering::SeqCst) - open.0, store.moved().0 - open.1));
    }
    assert_eq!(costs[0].0, costs[1].0, "objects and bytes read to open");
    assert!(costs[0].0.0 <= 4, "objects read to open: {costs:?}");
    assert_eq!(costs[0].1, costs[1].1, "objects read to promote");
    assert!(costs[1].2 < costs[0].2 + 2_000, "bytes read to promote: {costs:?}");
}

/// Wall time of a command of the CLI, from the start of its process to its end: median of five.
fn cli(gilt: &str, home: &Home, arguments: &dyn Fn(usize) -> Vec<String>) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|run| {
            let mut command = Command::new(gilt);
            command.args(arguments(run)).env("GILT_STORE", home.store_path());
            for name in ["CONFIG", "STATE", "CACHE"] {
                command.env(format!("XDG_{name}_HOME"), home.path().join("xdg").join(name));
            }
            let started = Instant::now();
            let output = command.output().unwrap();
            let took = started.elapsed();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            took
        })
        .collect();
    times.sort();
    times[2]
}

#[tokio::test]
#[ignore = "long: 10,000 versions; run by ci/bench-store"]
async fn ten_thousand_versions_of_fifty_images_answer_in_200_ms() {
    let home = Home::new();
    fill(&home, 50, 200).await;
    let limit = Duration::from_millis(200);
    let mut times = Vec::new();
    let mut timed = |what: &'static str, started: Instant| {
        let took = started.elapsed();
        times.push((what, took));
    };
    let started = Instant::now();
    let store = home.store().await;
    timed("open", started);
    let started = Instant::now();
    assert_eq!(store.ls().await.unwrap().len(), 50);
    timed("ls", started);
    let started = Instant::now();
    assert_eq!(store.list("image-7", 20).await.unwrap().len(), 20);
    timed("ls IMAGE", started);
    let started = Instant::now();
    assert!(store.events("image-7").await.unwrap().len() > 400);
    timed("history IMAGE", started);
    let started = Instant::now();
    assert_eq!(store.history("image-7", "dev").await.unwrap().len(), 20);
    timed("history IMAGE:dev", started);
    let started = Instant::now();
    store.promote(promote("image-7", 199, "dev")).await.unwrap();
    timed("promote", started);
    let started = Instant::now();
    store.publish(small("image-7", "one more")).await.unwrap();
    timed("publish a small file", started);
    // The same by the command line. It looks for its keys where the user's are.
    if let Ok(gilt) = std::env::var("GILT") {
        // These count; what this test program itself takes is for information.
        for (what, took) in times.drain(..) {
            eprintln!("         {what}, as a call: {:.1} ms", took.as_secs_f64() * 1000.0);
        }
        let config = home.path().join("xdg/CONFIG/gilt");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::create_dir(config.join("keys")).unwrap();
        for key in files(&home.path().join("config/keys")) {
            std::fs::copy(&key, config.join("keys").join(key.file_name().unwrap())).unwrap();
        }
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in ["store ls", "store ls image-7", "history image-7", "history image-7:dev"] {
            let took = cli(&gilt, &home, &|_| words(line));
            times.push((line, took));
        }
        let line = "promote image-7@N dev";
        let took = cli(&gilt, &home, &|run| words(&format!("promote image-7@{} dev", 150 + run)));
        times.push((line, took));
    }
    for (what, took) in times {
        let met = if took < limit { "met    " } else { "NOT MET" };
        eprintln!("{met}  {what}: {:.1} ms (at most 200)", took.as_secs_f64() * 1000.0);
        assert!(took < limit, "{what} took {took:?}");
    }
}
