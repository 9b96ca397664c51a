//! What the store's tests share: a scratch home, and made-up container files with resources,
//! metadata and a table of offsets, as a WIM has them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gilt_store::*;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A folder with a client's keys, state and cache, and room for stores.
pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Options of a client: its own state and cache, the home's keys.
    pub fn client(&self, name: &str) -> OpenOptions {
        client_in(self.path(), name)
    }

    pub fn store_path(&self) -> PathBuf {
        self.path().join("store")
    }

    pub async fn store(&self) -> Store {
        Store::open(self.store_path().to_str().unwrap(), self.client("main")).await.unwrap()
    }
}

pub fn client_in(home: &Path, name: &str) -> OpenOptions {
    let mut options = OpenOptions::new(
        &home.join("config"),
        Some(home.join(name).join("state")),
        Some(home.join(name).join("cache")),
    );
    options.durable = false;
    options
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A container: header, resources, metadata, table of 50-byte records, trailer.
#[derive(Clone)]
pub struct Container {
    pub resources: Vec<Vec<u8>>,
    pub metadata: Vec<u8>,
}

pub const TABLE: TableLayout = TableLayout { record_len: 50, offset_at: 8, key_at: 30 };

impl Container {
    pub fn new(seed: u64, count: usize, len: usize) -> Self {
        let resources = (0..count)
            .map(|n| noise(seed * 10_000 + n as u64, len / 2 + n * len / count))
            .collect();
        Self { resources, metadata: noise(seed, 200_000) }
    }

    /// Stands in for a SHA-1: a key of the contents.
    fn key(resource: &[u8]) -> [u8; 20] {
        let mut key = [0; 20];
        key.copy_from_slice(&Sha256::digest(resource)[..20]);
        key
    }

    pub fn build(&self) -> (Vec<u8>, Vec<Segment>) {
        let mut bytes = noise(7, 208);
        let mut segments = Vec::new();
        let mut table = Vec::new();
        for resource in &self.resources {
            let offset = bytes.len() as u64;
            let sha1 = Self::key(resource);
            let info = ResourceInfo { sha1, content_size: resource.len() as u64 * 2, form: 1 };
            let len = resource.len() as u64;
            segments.push(Segment { offset, len, kind: Kind::Resource(info) });
            let mut record = vec![0; 50];
            record[..8].copy_from_slice(&len.to_le_bytes());
            record[8..16].copy_from_slice(&offset.to_le_bytes());
            record[30..].copy_from_slice(&sha1);
            table.extend(record);
            bytes.extend_from_slice(resource);
        }
        for (part, kind) in [(&self.metadata, Kind::Metadata), (&table, Kind::Table(TABLE))] {
            let (offset, len) = (bytes.len() as u64, part.len() as u64);
            segments.push(Segment { offset, len, kind });
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(b"<WIM>trailer</WIM>");
        (bytes, segments)
    }

    pub fn request(&self, image: &str) -> PublishRequest {
        let (bytes, segments) = self.build();
        PublishRequest {
            image: image.to_owned(),
            file_name: "install.wim".into(),
            media_type: "application/x-ms-wim".into(),
            file: Source::Bytes(bytes.into()),
            segments: Box::new(segments),
            manifest: fields(),
            artifacts: Vec::new(),
            by: None,
            again: false,
            watch: Watch::default(),
        }
    }
}

pub fn fields() -> ManifestFields {
    ManifestFields {
        tests: Some(Tests { passed: 3, failed: 0, skipped: 0 }),
        ..ManifestFields::default()
    }
}

/// A small file published as it is.
pub fn small(image: &str, text: &str) -> PublishRequest {
    PublishRequest {
        image: image.to_owned(),
        file_name: "file".into(),
        media_type: "text/plain".into(),
        file: Source::Bytes(text.to_owned().into()),
        segments: Box::new(Opaque),
        manifest: fields(),
        artifacts: Vec::new(),
        by: None,
        again: false,
        watch: Watch::default(),
    }
}

pub fn promote(image: &str, version: u64, to: &str) -> PromoteRequest {
    PromoteRequest {
        image: image.into(),
        version: Some(version),
        to: to.into(),
        why: "test".into(),
        ..PromoteRequest::default()
    }
}

pub fn move_to(image: &str, channel: &str, version: Option<u64>) -> MoveRequest {
    MoveRequest {
        image: image.into(),
        channel: channel.into(),
        version,
        by: None,
        why: "test".into(),
    }
}

pub async fn pull(store: &Store, reference: &str, to: &Path) -> gilt_store::Result<Pulled> {
    store
        .pull(PullRequest {
            reference: reference.parse().unwrap(),
            to: to.to_owned(),
            role: None,
            allow_revoked: false,
            watch: Watch::default(),
        })
        .await
}

/// Bytes of all files below a folder.
pub fn size_of(folder: &Path) -> u64 {
    files(folder).iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// What a store calls the file.
pub fn key_of(file: &Path, store: &Path) -> String {
    file.strip_prefix(store).unwrap().to_str().unwrap().replace('\\', "/")
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct TestClock(Arc<std::sync::atomic::AtomicI64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(jiff::Timestamp::now().as_second().into()))
    }

    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let this = self.0.clone();
        Arc::new(move || {
            jiff::Timestamp::from_second(this.load(std::sync::atomic::Ordering::SeqCst)).unwrap()
        })
    }
}
