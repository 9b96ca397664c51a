//! Stores of many versions: what a command costs must not grow with all of the store.

mod common;

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
        let store = home.store().await;
        let open = store.moved().0;
        store.promote(promote("image-1", 5, "dev")).await.unwrap();
        costs.push((open, store.moved().0 - open));
    }
    assert_eq!(costs[0].0, costs[1].0, "bytes read to open");
    assert!(costs[1].1 < costs[0].1 + 2_000, "bytes read to promote: {costs:?}");
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
        eprintln!("{what}: {:.1} ms", took.as_secs_f64() * 1000.0);
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
    for (what, took) in times {
        assert!(took < limit, "{what} took {took:?}");
    }
}
