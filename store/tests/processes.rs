//! Several processes at once, and processes that are killed: on a local folder, and on S3.
//!
//! A child process is this test program again, told by its environment what to do.

mod common;
#[path = "common/servers.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use gilt_store::*;

const WRITERS: usize = 8;

/// Not a test of its own: what the child processes run.
#[tokio::test]
#[ignore = "run by the other tests, as a child process"]
async fn child() {
    let Ok(role) = std::env::var("GILT_TEST_ROLE") else { return };
    let url = std::env::var("GILT_TEST_URL").unwrap();
    let home = PathBuf::from(std::env::var("GILT_TEST_HOME").unwrap());
    let number: u64 = std::env::var("GILT_TEST_NUMBER").unwrap().parse().unwrap();
    let store = Store::open(&url, client_in(&home, &format!("client-{number}"))).await.unwrap();
    match role.as_str() {
        "write" => write(&store, number).await,
        "step" => step(&store, number).await,
        other => panic!("no role {other}"),
    }
}

/// One of several writers: publishes three versions and promotes each.
async fn write(store: &Store, number: u64) {
    for n in 0..3 {
        let mut container = Container::new(1, 10, 20_000);
        container.resources[n] = noise(number * 100 + n as u64, 15_000);
        let published = store.publish(container.request("a")).await.unwrap();
        assert!(!published.already);
        store.promote(promote("a", published.version, "dev")).await.unwrap();
    }
}

/// One command that may be killed: which one, the number says.
async fn step(store: &Store, number: u64) {
    match number % 4 {
        0 | 1 => {
            let container = step_container(number);
            store.publish(container.request("a")).await.unwrap();
        }
        2 => {
            let latest = *store.versions("a").await.unwrap().last().unwrap();
            store.promote(promote("a", latest, "dev")).await.unwrap();
        }
        _ => {
            // Something to collect: the oldest version that nothing keeps.
            for version in store.versions("a").await.unwrap() {
                let state = store.life("a", version).await.unwrap().state;
                if state.is_good() && store.kept_because("a", version).await.unwrap().is_empty() {
                    store.delete("a", version, "test", None).await.unwrap();
                    break;
                }
            }
            store.gc().await.unwrap();
            store.gc().await.unwrap();
        }
    }
}

fn step_container(number: u64) -> Container {
    let mut container = Container::new(1, 12, 30_000);
    let n = (number % 12) as usize;
    container.resources[n] = noise(number, 25_000);
    container.metadata[n * 1000] ^= number as u8;
    container
}

type Settings = [(String, String)];

fn spawn(role: &str, url: &str, home: &Path, number: u64, settings: &Settings) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("GILT_TEST_ROLE", role)
        .env("GILT_TEST_URL", url)
        .env("GILT_TEST_HOME", home)
        .env("GILT_TEST_NUMBER", number.to_string())
        .envs(settings.iter().cloned())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn eight_writers(url: &str, home: &Home, settings: &Settings) {
    let children: Vec<Child> = (0..WRITERS as u64)
        .map(|number| spawn("write", url, home.path(), number, settings))
        .collect();
    children.into_iter().for_each(finish);
    let options = OpenOptions { s3: settings.to_vec(), ..home.client("reader") };
    let store = Store::open(url, options).await.unwrap();
    let versions = store.versions("a").await.unwrap();
    assert_eq!(versions, (1..=3 * WRITERS as u64).collect::<Vec<_>>(), "one winner per number");
    let mut digests = std::collections::HashSet::new();
    for &version in &versions {
        digests.insert(store.manifest("a", version).await.unwrap().0.file.content.digest);
    }
    assert_eq!(digests.len(), versions.len(), "every publish is there");
    let history = store.history("a", "dev").await.unwrap();
    let mut promoted: Vec<_> = history.iter().map(|entry| entry.entry.body.version).collect();
    promoted.sort_unstable();
    assert_eq!(promoted, versions, "every promotion is in the channel, once");
    assert_eq!(store.head("a", "latest").await.unwrap().unwrap().entry.body.version, 24);
    let report = store.fsck(&FsckOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.pins, 0);
}

#[tokio::test]
async fn eight_writers_on_a_folder_lose_nothing() {
    let home = Home::new();
    // They also race to make the store, its keys included.
    eight_writers(home.store_path().to_str().unwrap(), &home, &[]).await;
}

#[tokio::test]
async fn eight_writers_on_s3_lose_nothing() {
    let server = servers::moto();
    let home = Home::new();
    let url = server.bucket("eight");
    Store::init(&url, server.client(&home, "main")).await.unwrap();
    eight_writers(&url, &home, &server.settings()).await;
}

/// Kills commands at random moments; after each, the store is whole, and the same command run
/// again succeeds.
async fn kill_at_random(home: &Home, url: &str, settings: &Settings, points: usize, seed: u64) {
    let open = async || {
        let options = OpenOptions { s3: settings.to_vec(), ..home.client("main") };
        Store::open(url, options).await.unwrap()
    };
    let store = open().await;
    store
        .change_policy(|policy| {
            policy.grace_seconds = 0;
            Ok(())
        })
        .await
        .unwrap();
    store.publish(Container::new(1, 12, 30_000).request("a")).await.unwrap();
    // How long each command takes when it is left alone, starting a process included.
    let mut typical = [Duration::ZERO; 4];
    for number in 0..4u64 {
        let started = Instant::now();
        finish(spawn("step", url, home.path(), 1000 + number, settings));
        typical[number as usize] = started.elapsed();
    }
    let random = noise(seed, points * 8);
    let mut killed = 0;
    for point in 0..points {
        let number = 2000 + point as u64;
        let mut child = spawn("step", url, home.path(), number, settings);
        let part = u64::from_le_bytes(random[point * 8..point * 8 + 8].try_into().unwrap()) % 1000;
        let whole = typical[(number % 4) as usize].as_micros() as u64;
        std::thread::sleep(Duration::from_micros(whole * part / 1000));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        let _ = child.kill();
        child.wait().unwrap();
        // References and signatures after every kill; all the data now and then.
        let options = FsckOptions { skip_data: point % 10 != 9, ..FsckOptions::default() };
        let report = open().await.fsck(&options).await.unwrap();
        assert!(report.is_clean(), "after kill {point} of command {number}: {report:#?}");
        finish(spawn("step", url, home.path(), number, settings));
    }
    let report = open().await.fsck(&FsckOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(killed * 2 > points, "only {killed} of {points} were still running when killed");
    let store = open().await;
    for row in store.list("a", usize::MAX).await.unwrap() {
        if row.state.is_good() {
            pull(&store, &format!("a@{}", row.version), &home.path().join("out")).await.unwrap();
        }
    }
    eprintln!("{killed} of {points} killed while running; each left a whole store");
}

async fn kill_on_a_folder(points: usize, seed: u64) {
    let home = Home::new();
    let url = home.store_path();
    kill_at_random(&home, url.to_str().unwrap(), &[], points, seed).await;
}

async fn kill_on_s3(points: usize, seed: u64) {
    let server = servers::moto();
    let home = Home::new();
    let url = server.bucket("kills");
    Store::init(&url, server.client(&home, "main")).await.unwrap();
    kill_at_random(&home, &url, &server.settings(), points, seed).await;
}

#[tokio::test]
async fn a_killed_command_leaves_a_whole_store_and_succeeds_when_run_again() {
    kill_on_a_folder(16, 1).await;
}

#[tokio::test]
#[ignore = "long: 200 kills; run by ci/bench-store"]
async fn two_hundred_kills() {
    kill_on_a_folder(200, 7).await;
}

#[tokio::test]
async fn a_killed_command_on_s3_leaves_a_whole_store_too() {
    kill_on_s3(4, 2).await;
}

#[tokio::test]
#[ignore = "long: 40 kills on S3; run by ci/bench-store"]
async fn forty_kills_on_s3() {
    kill_on_s3(40, 9).await;
}

/// A disk that is full: a tmpfs in a mount namespace of its own.
#[tokio::test]
async fn a_full_disk_gives_an_error_and_a_whole_store() {
    let home = Home::new();
    let script = r#"
        set -e
        mount -t tmpfs -o size=1500k tmpfs "$MOUNT"
        export GILT_TEST_URL="$MOUNT/store"
        failed=0
        for number in 0 4 8 12 16 20 24 28 32 36 40 44 48 52 56 60 64 68 72 76 80 84 88 92 96; do
            export GILT_TEST_NUMBER=$number
            "$SELF" --exact child --ignored --test-threads=1 >"$MOUNT.log" 2>&1 || failed=$((failed + 1))
        done
        echo "failed $failed"
        tail -c 600 "$MOUNT.log"
        cp -r "$MOUNT/store" "$MOUNT.copy"
    "#;
    let mount = home.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("MOUNT", &mount)
        .env("SELF", std::env::current_exe().unwrap())
        .env("GILT_TEST_ROLE", "step")
        .env("GILT_TEST_HOME", home.path())
        .output()
        .expect("needs unshare: run ci/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("failed 0"), "the disk never got full: {said}");
    let copy = home.path().join("small.copy");
    let store = Store::open(copy.to_str().unwrap(), home.client("reader")).await.unwrap();
    let report = store.fsck(&FsckOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    let versions = store.versions("a").await.unwrap();
    assert!(versions.len() > 3, "{versions:?}");
    pull(&store, "a:latest", &home.path().join("out")).await.unwrap();
    // With room again, what failed succeeds.
    store.publish(step_container(96).request("a")).await.unwrap();
}
