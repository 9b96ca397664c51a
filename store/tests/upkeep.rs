//! Revoking, retention, gc, fsck with repair, mirrors, and the store over HTTP.

mod common;

use common::*;
use gilt_store::*;

/// A store without grace times, so that tests need not wait.
async fn hasty(home: &Home) -> Store {
    let store = home.store().await;
    store
        .change_policy(|policy| {
            policy.grace_seconds = 0;
            Ok(())
        })
        .await
        .unwrap();
    store
}

fn revoke(image: &str, version: u64) -> RevokeRequest {
    RevokeRequest { image: image.into(), version, why: "bad".into(), ..RevokeRequest::default() }
}

async fn child_of(store: &Store, image: &str, parent: (&str, u64)) -> u64 {
    let (manifest, _) = store.manifest(parent.0, parent.1).await.unwrap();
    let mut request = small(image, &format!("{image} on {parent:?}"));
    request.manifest.parents.push(Parent {
        image: parent.0.into(),
        version: parent.1,
        digest: manifest.file.content.digest,
    });
    store.publish(request).await.unwrap().version
}

#[tokio::test]
async fn a_revoked_version_is_neither_pulled_nor_promoted_until_restored() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(small("a", "one")).await.unwrap();
    store.publish(small("a", "two")).await.unwrap();
    for version in [1, 2] {
        store.promote(promote("a", version, "dev")).await.unwrap();
    }
    let refused = store.revoke(revoke("a", 2)).await.unwrap_err();
    assert!(refused.to_string().contains("a:dev is at 2"), "{refused}");
    let done =
        store.revoke(RevokeRequest { rollback_channels: true, ..revoke("a", 2) }).await.unwrap();
    assert_eq!((done.revoked.as_slice(), done.moved[0].to), (&["a@2".to_owned()][..], 1));
    let to = home.path().join("out");
    assert!(matches!(pull(&store, "a@2", &to).await, Err(Error::Revoked { .. })));
    assert!(matches!(store.promote(promote("a", 2, "dev")).await, Err(Error::Revoked { .. })));
    assert_eq!(pull(&store, "a:latest", &to).await.unwrap().version, 1);
    assert_eq!(pull(&store, "a:dev", &to).await.unwrap().version, 1);
    store.restore("a", 2, "was fine", None).await.unwrap();
    assert_eq!(pull(&store, "a:latest", &to).await.unwrap().version, 2);
}

#[tokio::test]
async fn revoke_takes_descendants_along_and_the_parent_gate_sees_it() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(small("base", "base")).await.unwrap();
    child_of(&store, "middle", ("base", 1)).await;
    child_of(&store, "top", ("middle", 1)).await;
    store.promote(promote("top", 1, "dev")).await.unwrap();
    store.revoke(revoke("base", 1)).await.unwrap();
    let refused = store.promote(promote("top", 1, "test")).await.unwrap_err();
    assert!(refused.to_string().contains("built on base@1"), "{refused}");
    let all = RevokeRequest { descendants: true, rollback_channels: true, ..revoke("base", 1) };
    let done = store.revoke(all).await.unwrap();
    assert_eq!(done.revoked, ["base@1", "middle@1", "top@1"]);
    assert_eq!(done.stuck, ["top:dev"]);
}

#[tokio::test]
async fn retention_keeps_channels_holds_ancestors_and_the_newest() {
    let home = Home::new();
    let store = hasty(&home).await;
    for n in 1..=8 {
        store.publish(small("a", &n.to_string())).await.unwrap();
    }
    for version in [1, 2] {
        store.promote(promote("a", version, "dev")).await.unwrap();
    }
    let hold = Change::Hold { name: "audit".into(), why: "case 7".into() };
    store.change("a", 3, hold, None).await.unwrap();
    child_of(&store, "b", ("a", 4)).await;
    let rule = RetentionRule { images: "a*".into(), keep_last: Some(2), keep_days: None };
    store
        .change_policy(|p| {
            p.retention = vec![rule.clone()];
            Ok(())
        })
        .await
        .unwrap();
    let plan = store.plan_retention().await.unwrap();
    let numbers: Vec<_> = plan.delete.iter().map(|doomed| doomed.version).collect();
    assert_eq!(numbers, [5, 6], "{plan:#?}");
    let refused = store.delete("a", 4, "x", None).await.unwrap_err();
    assert!(refused.to_string().contains("b@1 is built on it"), "{refused}");
    store.apply_retention(&plan, None).await.unwrap();
    assert_eq!(store.life("a", 5).await.unwrap().state, State::Deleted);
    assert!(store.plan_retention().await.unwrap().delete.is_empty());
}

#[tokio::test]
async fn gc_frees_what_nothing_needs_and_nothing_else() {
    let home = Home::new();
    let store = hasty(&home).await;
    let big = Container::new(1, 40, 100_000);
    let mut bigger = big.clone();
    bigger.resources.extend(Container::new(2, 60, 100_000).resources);
    store.publish(bigger.request("a")).await.unwrap();
    store.publish(big.request("b")).await.unwrap();
    store.publish(Container::new(3, 10, 10_000).request("a")).await.unwrap();
    assert!(store.gc().await.unwrap().marked.is_empty(), "all is in use");
    store.delete("a", 1, "old", None).await.unwrap();
    let before = size_of(&home.store_path());
    let plan = store.plan_gc().await.unwrap();
    let done = store.gc().await.unwrap();
    assert_eq!((&plan.purged, &plan.marked), (&done.purged, &done.marked));
    assert_eq!(done.repacked.len(), 1, "{done:?}");
    assert!(done.deleted.is_empty(), "the first run only marks");
    let done = store.gc().await.unwrap();
    assert_eq!(done.deleted.len(), 1, "{done:?}");
    let freed = before - size_of(&home.store_path());
    assert!(freed > 5_000_000, "freed {freed}");
    let to = home.path().join("out");
    pull(&store, "b@1", &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == big.build().0);
    assert!(pull(&store, "a@1", &to).await.is_err());
    assert!(store.restore("a", 1, "oops", None).await.is_err());
    let report = store.fsck(&FsckOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    // What was freed can be published again.
    store.publish(bigger.request("a")).await.unwrap();
    pull(&store, "a:latest", &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == bigger.build().0);
}

#[tokio::test]
async fn a_deleted_version_can_be_restored_within_its_grace_time() {
    let home = Home::new();
    let clock = TestClock::new();
    let mut options = home.client("main");
    options.clock = clock.clock();
    let store = Store::open(home.store_path().to_str().unwrap(), options).await.unwrap();
    let container = Container::new(1, 5, 10_000);
    store.publish(container.request("a")).await.unwrap();
    store.publish(small("a", "two")).await.unwrap();
    store.delete("a", 1, "old", None).await.unwrap();
    clock.advance(6 * 86_400);
    assert!(store.gc().await.unwrap().purged.is_empty());
    store.restore("a", 1, "needed", None).await.unwrap();
    clock.advance(60 * 86_400);
    assert!(store.gc().await.unwrap().marked.is_empty());
    pull(&store, "a@1", &home.path().join("out")).await.unwrap();
}

/// What is on disk of a store, to put back after a test damaged it.
fn flip(path: &std::path::Path, at: usize) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let mut damaged = bytes.clone();
    damaged[at] ^= 0x01;
    std::fs::write(path, damaged).unwrap();
    bytes
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_refused_with_what_and_where() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(Container::new(1, 6, 3_000).request("a")).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();
    store.change("a", 1, Change::Deprecate { why: "old".into() }, None).await.unwrap();
    let path = home.store_path();
    let to = home.path().join("out");
    let read = async || -> gilt_store::Result<()> {
        let store = Store::open(path.to_str().unwrap(), home.client("main")).await?;
        pull(&store, "a:dev", &to).await?;
        pull(&store, "a:latest", &to).await?;
        Ok(())
    };
    read().await.unwrap();
    for file in files(&path) {
        let key = key_of(&file, &path);
        let len = std::fs::metadata(&file).unwrap().len() as usize;
        let is_pack = key.starts_with("packs");
        // Every byte of small objects; of packs, bytes all over.
        let step = if len > 20_000 { len / 40 } else { len.div_ceil(150) };
        for at in (0..len).step_by(step).chain([len - 1]) {
            let right = flip(&file, at);
            let outcome = read().await;
            // A pull reads no table of a pack; fsck does.
            match &outcome {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(&key) || key.starts_with("index"), "{key}: {text}");
                }
                Ok(()) => {
                    assert!(is_pack, "a change at {at} of {key} went unseen");
                    let store = home.store().await;
                    let report = store.fsck(&FsckOptions::default()).await.unwrap();
                    assert!(!report.is_clean(), "a change at {at} of {key} went unseen by fsck");
                    assert_eq!(report.findings[0].object, key);
                }
            }
            std::fs::write(&file, right).unwrap();
        }
    }
    read().await.unwrap();
}

#[tokio::test]
async fn an_old_head_shown_again_is_refused() {
    let home = Home::new();
    let store = home.store().await;
    for text in ["one", "two"] {
        store.publish(small("a", text)).await.unwrap();
    }
    for version in [1, 2] {
        store.promote(promote("a", version, "dev")).await.unwrap();
    }
    let to = home.path().join("out");
    pull(&store, "a:dev", &to).await.unwrap();
    std::fs::remove_file(home.store_path().join("images/a/channels/dev/00000002.json")).unwrap();
    for store in [store, home.store().await] {
        let refused = pull(&store, "a:dev", &to).await.unwrap_err();
        assert!(matches!(refused, Error::Replayed { seen: 2, found: 1, .. }), "{refused}");
    }
    // The same entry under a higher number was signed for another place.
    let folder = home.store_path().join("images/a/channels/dev");
    std::fs::copy(folder.join("00000001.json"), folder.join("00000002.json")).unwrap();
    let fresh =
        Store::open(home.store_path().to_str().unwrap(), home.client("fresh")).await.unwrap();
    let refused = pull(&fresh, "a:dev", &to).await.unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn a_revocation_that_is_taken_out_of_the_store_is_noticed() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(small("a", "one")).await.unwrap();
    store.revoke(revoke("a", 1)).await.unwrap();
    std::fs::remove_dir_all(home.store_path().join("images/a/versions/00000001/life")).unwrap();
    let refused = pull(&home.store().await, "a@1", &home.path().join("out")).await.unwrap_err();
    assert!(matches!(refused, Error::Replayed { .. }), "{refused}");
}

#[tokio::test]
async fn a_mirror_gets_only_what_it_lacks_and_refuses_to_be_written() {
    let home = Home::new();
    let store = home.store().await;
    let mut container = Container::new(1, 30, 50_000);
    store.publish(container.request("a")).await.unwrap();
    let target = home.path().join("mirror");
    let url = target.to_str().unwrap();
    let all = MirrorRequest::default();
    let first = store.mirror(url, home.client("main"), &all).await.unwrap();
    assert!(first.bytes > 1_000_000);
    container.resources[3] = noise(1234, 40_000);
    store.publish(container.request("a")).await.unwrap();
    store.promote(promote("a", 2, "dev")).await.unwrap();
    let second = store.mirror(url, home.client("main"), &all).await.unwrap();
    assert!((40_000..60_000).contains(&second.bytes), "{second:?}");
    let third = store.mirror(url, home.client("main"), &all).await.unwrap();
    assert_eq!((third.bytes, third.records), (0, 0));
    let mirror = Store::open(url, home.client("main")).await.unwrap();
    let to = home.path().join("out");
    pull(&mirror, "a:dev", &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == container.build().0);
    let refused = mirror.promote(promote("a", 1, "dev")).await.unwrap_err();
    assert!(refused.to_string().contains("mirror"), "{refused}");
    assert!(mirror.fsck(&FsckOptions::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn fsck_puts_back_what_is_damaged_from_another_store() {
    let home = Home::new();
    let store = home.store().await;
    let container = Container::new(1, 30, 50_000);
    store.publish(container.request("a")).await.unwrap();
    store.publish(small("a", "two")).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();
    let target = home.path().join("mirror");
    let url = target.to_str().unwrap();
    store.mirror(url, home.client("main"), &MirrorRequest::default()).await.unwrap();
    let from = Store::open(url, home.client("main")).await.unwrap();
    let path = home.store_path();
    for file in files(&path) {
        let key = key_of(&file, &path);
        if key.starts_with("policy") {
            continue;
        }
        for damage in ["flip", "delete"] {
            if damage == "delete" {
                std::fs::remove_file(&file).unwrap();
            } else if file.exists() {
                let middle = file.metadata().unwrap().len() as usize / 2;
                flip(&file, middle);
            }
            let store = home.store().await;
            let report = store.fsck(&FsckOptions::default()).await;
            assert!(!report.is_ok_and(|report| report.is_clean()), "{damage} of {key} unseen");
            let repair = FsckOptions { repair: true, from: Some(from.clone()), skip_data: false };
            let report = store.fsck(&repair).await.unwrap();
            assert!(report.is_clean(), "{damage} of {key}: {report:#?}");
            let store = home.store().await;
            let report = store.fsck(&FsckOptions::default()).await.unwrap();
            assert!(report.findings.is_empty(), "after {damage} of {key}: {report:#?}");
            pull(&store, "a:dev", &home.path().join("out")).await.unwrap();
            if !file.exists() {
                break;
            }
        }
    }
}

/// One request to a server, by hand: status, headers, body.
async fn get(address: std::net::SocketAddr, path: &str, more: &str) -> (u16, String, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

#[tokio::test]
async fn the_file_is_served_whole_and_in_ranges() {
    let home = Home::new();
    let store = home.store().await;
    let container = Container::new(1, 100, 200_000);
    store.publish(container.request("a")).await.unwrap();
    let bytes = container.build().0;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = store.clone();
    let serving =
        tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    let path = "/images/a/latest/file";
    let (status, head, body) = get(address, path, "").await;
    assert_eq!(status, 200, "{head}");
    assert!(body == bytes);
    let tag = format!("\"{}\"", Digest::of(&bytes).hex());
    assert!(head.contains(&tag) && head.contains("x-gilt-version: a@1"), "{head}");
    let len = bytes.len();
    let middle = len / 2;
    for (range, want) in [
        (format!("bytes={middle}-{}", middle + 99_999), &bytes[middle..middle + 100_000]),
        ("bytes=-7".into(), &bytes[len - 7..]),
        (format!("bytes={}-", len - 300_000), &bytes[len - 300_000..]),
        ("bytes=0-0".into(), &bytes[..1]),
    ] {
        let (status, head, body) = get(address, path, &format!("Range: {range}\r\n")).await;
        assert_eq!(status, 206, "{head}");
        assert!(body == want, "{range}");
    }
    let (status, head, _) = get(address, path, &format!("Range: bytes={len}-\r\n")).await;
    assert_eq!(status, 416, "{head}");
    assert_eq!(get(address, path, &format!("If-None-Match: {tag}\r\n")).await.0, 304);
    let stale = "Range: bytes=0-9\r\nIf-Range: \"other\"\r\n";
    assert_eq!(get(address, path, stale).await.0, 200);
    assert_eq!(get(address, "/images/a/9/file", "").await.0, 404);
    assert_eq!(get(address, "/images/../x/1/file", "").await.0, 404);
    let (status, _, body) = get(address, "/", "").await;
    assert_eq!(status, 200);
    let listing: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(listing[0]["channels"]["latest"], 1);
    store.revoke(revoke("a", 1)).await.unwrap();
    assert_eq!(get(address, "/images/a/1/file", "").await.0, 410);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
