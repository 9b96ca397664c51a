//! Real S3 servers, one that keeps its promises and one that does not; backends that fail.

mod common;
#[path = "common/faults.rs"]
mod faults;
#[path = "common/servers.rs"]
mod servers;

use std::sync::Arc;

use common::*;
use faults::{Faulty, Fuse};
use gilt_store::*;

fn with_fuse(mut options: OpenOptions, fuse: &Fuse) -> OpenOptions {
    let fuse = fuse.clone();
    options.wrap = Some(Arc::new(move |inner| {
        Arc::new(Faulty { inner, fuse: fuse.clone(), reads: Arc::default() })
    }));
    options
}

#[tokio::test]
async fn a_server_that_ignores_preconditions_is_refused() {
    let server = servers::s3rver();
    let home = Home::new();
    let url = format!("s3://{}/store", servers::LIES);
    let refused = Store::init(&url, server.client(&home, "main")).await.unwrap_err();
    let Error::BackendLies { promise, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*promise, "an object that exists is not created again");
    let refused = Store::open(&url, server.client(&home, "main")).await.unwrap_err();
    assert!(matches!(refused, Error::NotAStore { .. }), "{refused}");
}

#[tokio::test]
async fn versions_live_on_s3_as_they_do_in_a_folder() {
    let server = servers::moto();
    let home = Home::new();
    let url = server.bucket("life");
    let store = Store::init(&url, server.client(&home, "main")).await.unwrap();
    let mut container = Container::new(1, 100, 200_000);
    store.publish(container.request("a")).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();

    // A client that has version 1 moves for version 2 what is new, and little more.
    let client = Store::open(&url, server.client(&home, "client")).await.unwrap();
    let to = home.path().join("image.wim");
    let first = pull(&client, "a:dev", &to).await.unwrap();
    assert!(first.bytes_fetched >= first.size);
    let mut new = 0;
    for n in 0..10 {
        container.resources[n] = noise(50 + n as u64, 200_000);
        container.metadata[n * 999] ^= 1;
        new += 200_000;
    }
    store.publish(container.request("a")).await.unwrap();
    store.promote(promote("a", 2, "dev")).await.unwrap();
    let client = Store::open(&url, server.client(&home, "client")).await.unwrap();
    let second = pull(&client, "a:dev", &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == container.build().0);
    assert!(
        second.bytes_fetched < new + new / 20 + 20_000,
        "{new} new bytes, {} moved",
        second.bytes_fetched
    );

    store
        .revoke(RevokeRequest {
            image: "a".into(),
            version: 2,
            why: "test".into(),
            rollback_channels: true,
            ..RevokeRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(pull(&client, "a:dev", &to).await.unwrap().version, 1);
    store
        .change_policy(|p| {
            p.grace_seconds = 0;
            Ok(())
        })
        .await
        .unwrap();
    store.delete("a", 2, "test", None).await.unwrap();
    store.gc().await.unwrap();
    // The server's clock has whole seconds, and gc keeps two of them as a margin.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let done = store.gc().await.unwrap();
    assert_eq!(done.deleted.len(), 1, "{done:?}");
    let report = store.fsck(&FsckOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");

    // From S3 to a folder, and a damaged pack on the way back.
    let mirror = home.path().join("mirror");
    store
        .mirror(mirror.to_str().unwrap(), home.client("m"), &MirrorRequest::default())
        .await
        .unwrap();
    let local = Store::open(mirror.to_str().unwrap(), home.client("m")).await.unwrap();
    pull(&local, "a:dev", &to).await.unwrap();
}

#[tokio::test]
async fn a_publish_to_s3_that_was_cut_sends_only_the_rest_when_run_again() {
    let server = servers::moto();
    let home = Home::new();
    let url = server.bucket("cut");
    Store::init(&url, server.client(&home, "main")).await.unwrap();
    // Two packs of 64 MiB and some; the fourth write comes after the first pack is whole.
    let container = Container::new(1, 40, 3_600_000);
    let size = container.build().0.len() as u64;
    let fuse = Fuse::new(4);
    let store = Store::open(&url, with_fuse(server.client(&home, "main"), &fuse)).await.unwrap();
    let cut = store.publish(container.request("a")).await.unwrap_err();
    assert!(matches!(cut, Error::Backend { .. }), "{cut}");
    fuse.set(i64::MAX);
    let store = Store::open(&url, server.client(&home, "main")).await.unwrap();
    assert!(store.versions("a").await.unwrap().is_empty());
    store.publish(container.request("a")).await.unwrap();
    let sent = store.moved().1;
    assert!(sent < size - 60_000_000, "{sent} of {size} bytes were sent again");
    let to = home.path().join("out");
    pull(&store, "a@1", &to).await.unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().len(), size);
}

#[tokio::test]
async fn a_write_refused_at_any_point_leaves_a_whole_store() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(Container::new(1, 10, 20_000).request("a")).await.unwrap();
    let path = home.store_path();
    let path = path.to_str().unwrap();
    let mut version = 1;
    for command in 0..3 {
        for writes in 0.. {
            let fuse = Fuse::new(writes);
            let store = Store::open(path, with_fuse(home.client("main"), &fuse)).await.unwrap();
            let mut container = Container::new(1, 10, 20_000);
            container.resources[2] = noise(100 + command, 20_000);
            let outcome = match command {
                0 => store.publish(container.request("a")).await.map(|published| {
                    version = published.version;
                }),
                1 => store.promote(promote("a", version, "dev")).await.map(|_| ()),
                _ => store
                    .revoke(RevokeRequest {
                        image: "a".into(),
                        version,
                        why: "test".into(),
                        rollback_channels: true,
                        ..RevokeRequest::default()
                    })
                    .await
                    .map(|_| ()),
            };
            let whole = home.store().await.fsck(&FsckOptions::default()).await.unwrap();
            assert!(whole.is_clean(), "{whole:#?}");
            match outcome {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, Error::Backend { .. }), "{error}"),
            }
            assert!(writes < 20, "command {command} never succeeds");
        }
    }
    assert_eq!(home.store().await.versions("a").await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn what_was_pulled_is_verified_while_the_server_is_away() {
    let home = Home::new();
    let (server, to) = (servers::moto(), home.path().join("out.wim"));
    let url = server.bucket("away");
    let options = server.client(&home, "main");
    let store = Store::init(&url, options.clone()).await.unwrap();
    store.publish(Container::new(1, 10, 20_000).request("a")).await.unwrap();
    pull(&store, "a@1", &to).await.unwrap();
    drop(server);
    let gone = Store::open(&url, options.clone()).await.unwrap_err();
    assert!(matches!(gone, Error::Backend { .. }), "{gone}");
    let verify = |name: &str| {
        Store::verify_pulled(&url, &options, &name.parse().unwrap(), &Watch::default())
    };
    let (path, manifest) = verify("a@1").unwrap().unwrap();
    assert_eq!((path, manifest.version), (to.clone(), 1));
    assert!(verify("a@2").unwrap().is_none());
    let mut bytes = std::fs::read(&to).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&to, bytes).unwrap();
    assert!(matches!(verify("a@1").unwrap_err(), Error::Corrupt { .. }));
}

#[tokio::test]
async fn a_pull_that_was_cut_goes_on_where_it_was() {
    let server = servers::moto();
    let home = Home::new();
    let url = server.bucket("pull");
    let store = Store::init(&url, server.client(&home, "main")).await.unwrap();
    let container = Container::new(1, 100, 500_000);
    store.publish(container.request("a")).await.unwrap();
    let to = home.path().join("out.wim");
    let cancel = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stop, done) = (cancel.clone(), std::sync::atomic::AtomicU64::new(0));
    let watch = Watch {
        progress: Some(Arc::new(move |bytes| {
            if done.fetch_add(bytes, std::sync::atomic::Ordering::SeqCst) > 20_000_000 {
                stop.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        })),
        cancel: Some(cancel),
    };
    let request = PullRequest {
        reference: "a@1".parse().unwrap(),
        to: to.clone(),
        role: None,
        allow_revoked: false,
        watch,
    };
    let cut = store.pull(request).await.unwrap_err();
    assert!(matches!(cut, Error::Cancelled), "{cut}");
    assert!(!to.exists());
    let pulled = pull(&store, "a@1", &to).await.unwrap();
    assert!(pulled.bytes_reused > 20_000_000, "{pulled:?}");
    assert!(pulled.bytes_fetched < pulled.size - 15_000_000, "{pulled:?}");
    assert!(std::fs::read(&to).unwrap() == container.build().0);
}
