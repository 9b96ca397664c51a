//! Publishing, pulling, channels and the life of versions, on a local store.

mod common;

use common::*;
use gilt_store::*;

#[tokio::test]
async fn what_is_pulled_is_what_was_published_bit_for_bit() {
    let home = Home::new();
    let store = home.store().await;
    let container = Container::new(1, 60, 100_000);
    let (bytes, _) = container.build();
    let published = store.publish(container.request("win")).await.unwrap();
    assert_eq!((published.version, published.size), (1, bytes.len() as u64));
    for name in ["one.wim", "two.wim"] {
        let to = home.path().join(name);
        let pulled = pull(&store, "win@1", &to).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), bytes);
        assert_eq!(pulled.digest, Digest::of(&bytes));
    }
}

#[tokio::test]
async fn the_next_version_costs_only_what_is_new_in_it() {
    let home = Home::new();
    let store = home.store().await;
    let mut container = Container::new(1, 200, 100_000);
    store.publish(container.request("win")).await.unwrap();
    let before = size_of(&home.store_path());
    let mut new = 0;
    for n in [3, 77, 150] {
        container.resources[n] = noise(99 + n as u64, 60_000);
        container.metadata[n * 1000] ^= 0xff;
        new += 60_000;
    }
    let published = store.publish(container.request("win")).await.unwrap();
    let grown = size_of(&home.store_path()) - before;
    assert!(grown < new + 30_000, "{new} new bytes made the store grow by {grown}");
    assert!(published.bytes_new <= grown && published.bytes_new > new);
    let to = home.path().join("two.wim");
    pull(&store, "win:latest", &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), container.build().0);
}

/// Metadata of which each byte depends on all before it, as compressed metadata does.
fn chained(plain: &[u8]) -> Vec<u8> {
    let mut last = 0u8;
    plain
        .iter()
        .map(|&byte| {
            last = last.wrapping_mul(31).wrapping_add(byte);
            last
        })
        .collect()
}

fn unchained(bytes: &[u8]) -> Vec<u8> {
    let before = std::iter::once(&0).chain(bytes);
    bytes
        .iter()
        .zip(before)
        .map(|(&byte, &last)| byte.wrapping_sub(last.wrapping_mul(31)))
        .collect()
}

struct Loosened(Vec<Segment>);

impl Segments for Loosened {
    fn segments(&self) -> Vec<Segment> {
        self.0.clone()
    }

    fn loosen(&self, segment: &Segment, stored: &[u8]) -> Option<Vec<u8>> {
        assert_eq!((segment.kind, segment.len), (Kind::Metadata, stored.len() as u64));
        // A loose form need not have the length of what it stands for.
        Some([b"loose", &unchained(stored)[..]].concat())
    }
}

#[tokio::test]
async fn metadata_that_changes_all_over_costs_what_its_loose_form_changes() {
    let home = Home::new();
    let with_tighten = |name: &str| {
        let mut options = home.client(name);
        options.tighten = Some(std::sync::Arc::new(|loose| match loose.strip_prefix(b"loose") {
            Some(plain) => Ok(chained(plain)),
            None => Err(std::io::Error::other("not loose")),
        }));
        options
    };
    let path = home.store_path();
    let path = path.to_str().unwrap();
    let store = Store::open(path, with_tighten("main")).await.unwrap();
    let plain = noise(4, 300_000);
    let mut files = Vec::new();
    for change in 0..3u8 {
        let mut container = Container::new(1, 20, 20_000);
        let mut plain = plain.clone();
        plain[10] ^= change;
        container.metadata = chained(&plain);
        let (bytes, segments) = container.build();
        let mut request = container.request("win");
        request.segments = Box::new(Loosened(segments));
        let before = size_of(&home.store_path());
        store.publish(request).await.unwrap();
        let grown = size_of(&home.store_path()) - before;
        assert!(change == 0 || grown < 10_000, "version {change} took {grown} bytes");
        files.push(bytes);
    }
    let to = home.path().join("out");
    for (n, bytes) in files.iter().enumerate() {
        pull(&store, &format!("win@{}", n + 1), &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == *bytes);
    }
    // Any range, also one that begins within the metadata.
    let (manifest, _) = store.manifest("win", 2).await.unwrap();
    let file = store.file(&manifest.file.content).await.unwrap();
    let len = files[1].len() as u64;
    for range in [len - 200_000..len - 100_000, 0..len, len - 400_000..len - 1] {
        let mut got = Vec::new();
        let mut stream = std::pin::pin!(file.stream(range.clone()));
        while let Some(bytes) = futures::StreamExt::next(&mut stream).await {
            got.extend_from_slice(&bytes.unwrap());
        }
        assert!(got == files[1][range.start as usize..range.end as usize]);
    }
    assert!(store.fsck(&FsckOptions::default()).await.unwrap().is_clean());
    // A program that does not know the form says so.
    let other = Store::open(path, home.client("other")).await.unwrap();
    let refused = pull(&other, "win@2", &to).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn one_resource_is_stored_once_for_all_images() {
    let home = Home::new();
    let store = home.store().await;
    let container = Container::new(1, 50, 100_000);
    store.publish(container.request("one")).await.unwrap();
    let before = size_of(&home.store_path());
    store.publish(container.request("two")).await.unwrap();
    let grown = size_of(&home.store_path()) - before;
    assert!(grown < 10_000, "the same file under another name took {grown} bytes");
}

#[tokio::test]
async fn a_chain_of_many_versions_is_read_back_at_every_link() {
    let home = Home::new();
    let store = home.store().await;
    let mut container = Container::new(1, 20, 20_000);
    let mut files = Vec::new();
    for n in 0..40 {
        container.metadata[n * 100] ^= 0x5a;
        files.push(container.build().0);
        store.publish(container.request("win")).await.unwrap();
    }
    for (n, bytes) in files.iter().enumerate() {
        let to = home.path().join("out");
        pull(&store, &format!("win@{}", n + 1), &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == *bytes, "version {}", n + 1);
    }
}

#[tokio::test]
async fn publishing_the_same_again_finds_the_version_that_is_there() {
    let home = Home::new();
    let store = home.store().await;
    let first = store.publish(small("a", "text")).await.unwrap();
    let second = store.publish(small("a", "text")).await.unwrap();
    assert_eq!((first.already, second.already, second.version), (false, true, 1));
    let mut request = small("a", "text");
    request.again = true;
    assert_eq!(store.publish(request).await.unwrap().version, 2);
}

#[tokio::test]
async fn artifacts_hang_on_a_version_and_come_back() {
    let home = Home::new();
    let store = home.store().await;
    let mut request = small("a", "text");
    let log = noise(5, 9 << 20);
    for (role, bytes) in [("sbom", b"{}".to_vec()), ("disk", log.clone()), ("empty", Vec::new())] {
        request.artifacts.push(Artifact {
            role: role.into(),
            name: role.into(),
            media_type: "application/octet-stream".into(),
            source: Source::Bytes(bytes.into()),
        });
    }
    store.publish(request).await.unwrap();
    let (manifest, _) = store.manifest("a", 1).await.unwrap();
    let read = async |n: usize| store.read(&manifest.artifacts[n].content).await.unwrap();
    assert_eq!(read(0).await, b"{}");
    assert!(read(1).await == log);
    assert!(read(2).await.is_empty());
}

#[tokio::test]
async fn two_contents_with_one_sha1_are_refused() {
    let home = Home::new();
    let store = home.store().await;
    let with = |bytes: &'static [u8], content_size| {
        let info = ResourceInfo { sha1: [1; 20], content_size, form: 0 };
        let len = bytes.len() as u64;
        let mut request = small("a", "");
        request.file = Source::Bytes(bytes.into());
        request.segments = Box::new(vec![Segment { offset: 0, len, kind: Kind::Resource(info) }]);
        request
    };
    store.publish(with(b"one content", 100)).await.unwrap();
    let refused = store.publish(with(b"another content", 101)).await.unwrap_err();
    assert!(matches!(refused, Error::Sha1Collision { .. }), "{refused}");
    // Same size: who can read the resources tells.
    struct Reads(Segment);
    impl Segments for Reads {
        fn segments(&self) -> Vec<Segment> {
            vec![self.0.clone()]
        }
        fn content_digest(
            &self,
            stored: &[u8],
            _: &ResourceInfo,
        ) -> Option<std::io::Result<[u8; 32]>> {
            Some(Ok(Digest::of(&stored[..3]).0))
        }
    }
    for (bytes, same) in [(b"one packed otherwise".as_slice(), true), (b"forged", false)] {
        let mut request = with(b"", 100);
        let info = ResourceInfo { sha1: [1; 20], content_size: 100, form: 0 };
        let segment = Segment { offset: 0, len: bytes.len() as u64, kind: Kind::Resource(info) };
        request.file = Source::Bytes(bytes.into());
        request.segments = Box::new(Reads(segment));
        let outcome = store.publish(request).await;
        assert_eq!(outcome.is_ok(), same, "{outcome:?}");
    }
}

#[tokio::test]
async fn promote_goes_through_the_gates_and_force_is_recorded() {
    let home = Home::new();
    let store = home.store().await;
    let mut untested = small("a", "one");
    untested.manifest.tests = None;
    store.publish(untested).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();
    let refused = store.promote(promote("a", 1, "test")).await.unwrap_err();
    assert!(refused.to_string().contains("no test ran"), "{refused}");
    let forced = PromoteRequest { force: true, ..promote("a", 1, "test") };
    let entry = store.promote(forced).await.unwrap().entry.body;
    assert!(entry.forced && entry.gates.iter().any(|gate| !gate.passed));

    store.publish(small("a", "two")).await.unwrap();
    let refused = store.promote(promote("a", 2, "test")).await.unwrap_err();
    assert!(refused.to_string().contains("never in dev"), "{refused}");
    store.promote(promote("a", 2, "dev")).await.unwrap();
    let request = PromoteRequest { version: None, ..promote("a", 0, "test") };
    assert_eq!(store.promote(request).await.unwrap().entry.body.version, 2);
    let history = store.history("a", "test").await.unwrap();
    let moves: Vec<_> =
        history.iter().map(|c| (c.entry.body.from_version, c.entry.body.version)).collect();
    assert_eq!(moves, [(None, 1), (Some(1), 2)]);
}

#[tokio::test]
async fn rollback_goes_back_one_move_at_a_time() {
    let home = Home::new();
    let store = home.store().await;
    for text in ["one", "two", "three"] {
        store.publish(small("a", text)).await.unwrap();
    }
    for version in 1..=3 {
        store.promote(promote("a", version, "dev")).await.unwrap();
    }
    for expected in [2, 1] {
        let entry = store.rollback(move_to("a", "dev", None)).await.unwrap();
        assert_eq!(entry.entry.body.version, expected);
    }
    let refused = store.rollback(move_to("a", "dev", None)).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn a_min_age_counts_from_entering_the_channel_before() {
    let home = Home::new();
    let clock = TestClock::new();
    let mut options = home.client("main");
    options.clock = clock.clock();
    let store = Store::open(home.store_path().to_str().unwrap(), options).await.unwrap();
    store
        .change_policy(|policy| {
            policy.channels[1].gates = vec![Gate::MinAge { seconds: 3600 }];
            Ok(())
        })
        .await
        .unwrap();
    store.publish(small("a", "one")).await.unwrap();
    clock.advance(5000);
    store.promote(promote("a", 1, "dev")).await.unwrap();
    clock.advance(3000);
    assert!(matches!(store.promote(promote("a", 1, "test")).await, Err(Error::Gates { .. })));
    clock.advance(1000);
    store.promote(promote("a", 1, "test")).await.unwrap();
}

#[tokio::test]
async fn an_expired_head_is_refused_until_it_is_renewed() {
    let home = Home::new();
    let clock = TestClock::new();
    let mut options = home.client("main");
    options.clock = clock.clock();
    let store = Store::open(home.store_path().to_str().unwrap(), options).await.unwrap();
    store
        .change_policy(|p| {
            p.head_ttl_seconds = Some(100);
            Ok(())
        })
        .await
        .unwrap();
    store.publish(small("a", "one")).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();
    let to = home.path().join("out");
    pull(&store, "a:dev", &to).await.unwrap();
    clock.advance(101);
    let refused = pull(&store, "a:dev", &to).await.unwrap_err();
    assert!(matches!(refused, Error::Expired { .. }), "{refused}");
    store.renew(move_to("a", "dev", None)).await.unwrap();
    pull(&store, "a:dev", &to).await.unwrap();
}

#[tokio::test]
async fn a_key_counts_only_for_the_roles_the_policy_gives_it() {
    let home = Home::new();
    let store = home.store().await;
    store.publish(small("a", "one")).await.unwrap();
    let mut stranger = home.client("stranger");
    stranger.keys = Keys::new(home.path().join("stranger-keys"));
    let pair = stranger.keys.create("nightly").unwrap();
    let path = home.store_path();
    let other = Store::open(path.to_str().unwrap(), stranger.clone()).await.unwrap();
    let refused = other.publish(small("a", "two")).await.unwrap_err();
    assert!(matches!(refused, Error::NoKey { .. }), "{refused}");
    let pem = pair.public_pem().unwrap();
    store
        .change_policy(|p| {
            p.keys.push(TrustedKey::from_pem("nightly", &pem, &[Role::Builder])?);
            Ok(())
        })
        .await
        .unwrap();
    let other = Store::open(path.to_str().unwrap(), stranger).await.unwrap();
    other.publish(small("a", "two")).await.unwrap();
    let refused = other.promote(promote("a", 2, "prod")).await.unwrap_err();
    assert!(matches!(refused, Error::NoKey { .. }), "{refused}");
}

#[tokio::test]
async fn a_store_that_is_swapped_for_another_is_noticed() {
    let home = Home::new();
    home.store().await;
    std::fs::remove_dir_all(home.store_path()).unwrap();
    let path = home.store_path();
    let path = path.to_str().unwrap();
    Store::open(path, home.client("attacker")).await.unwrap();
    let refused = Store::open(path, home.client("main")).await.unwrap_err();
    assert!(matches!(refused, Error::Identity { .. }), "{refused}");
    Store::forget(path, &home.client("main")).unwrap();
    Store::open(path, home.client("main")).await.unwrap();
}

#[tokio::test]
async fn the_futures_can_run_on_any_thread() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let home = Home::new();
    let store = home.store().await;
    sent(store.publish(small("a", "one"))).await.unwrap();
    sent(store.promote(promote("a", 1, "dev"))).await.unwrap();
    sent(store.rollback(move_to("a", "dev", None))).await.unwrap_err();
    sent(pull(&store, "a@1", &home.path().join("x"))).await.unwrap();
}
