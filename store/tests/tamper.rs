//! No byte of a store can be changed without being noticed: every byte of every object, in several
//! ways, and the error says which object it is.

mod common;

use common::*;
use gilt_store::*;

/// Puts the bytes back when it is dropped.
struct Damaged<'a> {
    path: &'a std::path::Path,
    right: &'a [u8],
}

impl<'a> Damaged<'a> {
    fn new(path: &'a std::path::Path, right: &'a [u8], at: usize, mask: u8) -> Self {
        let mut bytes = right.to_vec();
        bytes[at] ^= mask;
        std::fs::write(path, bytes).unwrap();
        Self { path, right }
    }
}

impl Drop for Damaged<'_> {
    fn drop(&mut self) {
        std::fs::write(self.path, self.right).unwrap();
    }
}

const MASKS: [u8; 3] = [0x01, 0x80, 0xff];

/// A small store with one of each kind of object.
async fn small_store(home: &Home) -> Store {
    let store = home.store().await;
    let mut container = Container::new(1, 4, 300);
    container.metadata = noise(1, 300);
    store.publish(container.request("a")).await.unwrap();
    store.promote(promote("a", 1, "dev")).await.unwrap();
    store.change("a", 1, Change::Deprecate { why: "old".into() }, None).await.unwrap();
    store
}

/// Reads what an object is for, and no more.
async fn read(store: &Store, home: &Home, key: &str) -> Result<()> {
    let path = home.store_path();
    let open = || Store::open(path.to_str().unwrap(), home.client("main"));
    match key.split('/').collect::<Vec<_>>()[..] {
        ["policy", _] => open().await.map(|_| ()),
        ["images", image, "versions", _, "manifest.json"] => {
            store.manifest(image, 1).await.map(|_| ())
        }
        ["images", image, "versions", _, "life", _] => store.life(image, 1).await.map(|_| ()),
        ["images", image, "channels", channel, _] => store.head(image, channel).await.map(|_| ()),
        // A handle remembers an index it has read.
        ["index", _] => verify(&open().await?).await,
        ["packs", ..] => {
            // Who reads files reads no table of a pack; fsck does.
            let pulled = verify(&open().await?).await;
            let report = open().await?.fsck(&FsckOptions::default()).await?;
            let seen = report.findings.iter().any(|finding| finding.object == key);
            assert!(seen || report.is_clean(), "{key}: {report:#?}");
            match pulled {
                Ok(()) if seen => Err(Error::Refused { what: key.into(), why: "fsck".into() }),
                other => other,
            }
        }
        _ => panic!("an object nobody reads: {key}"),
    }
}

/// Reads every byte of the version's file.
async fn verify(store: &Store) -> Result<()> {
    store.verify(&"a@1".parse()?, &Watch::default()).await.map(|_| ())
}

#[tokio::test]
async fn every_byte_of_every_object_counts() {
    let home = Home::new();
    let store = small_store(&home).await;
    let root = home.store_path();
    let mut kinds = std::collections::BTreeMap::new();
    for file in files(&root) {
        let key = key_of(&file, &root);
        read(&store, &home, &key).await.unwrap();
        let right = std::fs::read(&file).unwrap();
        let is_record = key.ends_with(".json");
        for at in 0..right.len() {
            let masks = if is_record { &MASKS[..] } else { &MASKS[at % 3..at % 3 + 1] };
            for &mask in masks {
                let _damaged = Damaged::new(&file, &right, at, mask);
                let outcome = read(&store, &home, &key).await;
                let Err(error) = outcome else {
                    panic!("{key}: byte {at} ^ {mask:#x} went unseen")
                };
                let text = error.to_string();
                assert!(text.contains(&key), "{key}: byte {at} ^ {mask:#x}: {text}");
            }
        }
        *kinds.entry(key.split('/').next().unwrap().to_owned()).or_insert(0) += right.len();
        read(&store, &home, &key).await.unwrap();
    }
    let names: Vec<_> = kinds.keys().map(String::as_str).collect();
    assert_eq!(names, ["images", "index", "packs", "policy"], "{kinds:?}");
}

#[tokio::test]
async fn an_object_that_is_cut_or_longer_is_refused() {
    let home = Home::new();
    let store = small_store(&home).await;
    let root = home.store_path();
    for file in files(&root) {
        let key = key_of(&file, &root);
        let right = std::fs::read(&file).unwrap();
        let longer = [&right[..], b"\n"].concat();
        for bytes in [&right[..right.len() / 2], &right[..right.len() - 1], &[], &longer] {
            std::fs::write(&file, bytes).unwrap();
            let outcome = read(&store, &home, &key).await;
            let Err(error) = outcome else { panic!("{key}: {} bytes", bytes.len()) };
            assert!(error.to_string().contains(&key), "{key}: {} bytes: {error}", bytes.len());
        }
        std::fs::write(&file, &right).unwrap();
    }
}

/// Readers of bytes, given every object with bytes changed, cut out and put in.
#[test]
fn readers_survive_whatever_they_are_given() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    runtime.block_on(small_store(&home));
    let all: Vec<Vec<u8>> =
        files(&home.store_path()).iter().map(|file| std::fs::read(file).unwrap()).collect();
    let mut random = noise(3, 1 << 20).into_iter();
    let mut next = |below: usize| {
        let bytes = [random.next().unwrap_or(1), random.next().unwrap_or(2)];
        usize::from(u16::from_le_bytes(bytes)) % below.max(1)
    };
    for object in &all {
        for _ in 0..400 {
            let mut bytes = object.clone();
            for _ in 0..1 + next(4) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80][next(4)],
                    2 => drop(bytes.drain(at..(at + next(40)).min(bytes.len()))),
                    _ => bytes.insert(at, next(256) as u8),
                }
                if bytes.is_empty() {
                    bytes.push(0);
                }
            }
            hostile::pack(&bytes);
            hostile::index(&bytes);
            hostile::index_contents(&bytes);
            hostile::recipe(&bytes);
            hostile::record(&bytes);
            hostile::payload(&bytes);
            hostile::unsigned(&bytes);
            let (stored, base) = bytes.split_at(bytes.len() / 2);
            hostile::blob(stored, base, next(1 << 16) as u64);
        }
    }
}
