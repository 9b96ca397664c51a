//! Where objects live. A backend knows keys and bytes, nothing of what they mean.
//!
//! The only way to write is [`Backend::create`]: it makes an object or finds that it is there.
//! **Invariant:** no object is ever overwritten; only gc, repair and the merging of index objects
//! (which are derived) delete.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};

use crate::error::{Error, Result};

/// Objects above this go up in parts.
const PART: usize = 16 << 20;

/// What [`Backend::create`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object did not exist; it does now, with our bytes.
    New,
    /// Somebody made it before.
    Exists,
}

#[derive(Clone, Debug)]
pub(crate) struct Backend {
    objects: Arc<dyn ObjectStore>,
    /// Prefix of every key, for stores that share a bucket.
    prefix: Path,
    url: String,
    /// The folder, when the backend is one: lets listings skip a stat for each file.
    local: Option<PathBuf>,
    moved: Arc<Moved>,
}

/// Bytes that went over the wire (or to and from the disk), for progress and for tests.
#[derive(Debug, Default)]
struct Moved {
    read: AtomicU64,
    written: AtomicU64,
}

impl Backend {
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: Path, url: String) -> Self {
        Self { objects, prefix, url, local: None, moved: Arc::default() }
    }

    /// A folder on this machine. It must exist.
    pub fn local(folder: &FsPath, durable: bool) -> Result<Self> {
        let objects = object_store::local::LocalFileSystem::new_with_prefix(folder)
            .map_err(|source| Error::Backend {
                doing: "opening",
                object: folder.display().to_string(),
                source,
            })?
            .with_fsync(durable);
        Ok(Self {
            objects: Arc::new(objects),
            prefix: Path::default(),
            url: folder.display().to_string(),
            local: Some(folder.to_owned()),
            moved: Arc::default(),
        })
    }

    /// S3 and what speaks it. `rest` is `bucket/prefix`; keys, region and endpoint come from
    /// `settings`, or else from the usual `AWS_*` variables.
    pub fn s3(rest: &str, url: &str, settings: &[(String, String)]) -> Result<Self> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Without a process-wide choice rustls refuses to start; a second install is harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setting = |name: &str| {
            let given =
                settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            given.or_else(|| std::env::var(name).ok())
        };
        // Who names an endpoint without TLS means it.
        let plain = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .iter()
            .filter_map(|name| setting(name))
            .any(|endpoint| endpoint.starts_with("http://"));
        // A server that is away is said to be after some seconds, not minutes; a part on a slow line
        // gets its time.
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(4), ..Default::default() },
            max_retries: 6,
            retry_timeout: Duration::from_secs(60),
        };
        let mut builder = AmazonS3Builder::from_env().with_retry(retry);
        if setting("AWS_TIMEOUT").is_none() {
            let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
            builder = builder.with_config(timeout, "5 minutes");
        }
        for (name, value) in settings {
            let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|_| {
                Error::invalid(format!("S3 setting {name}"), "not one that is known")
            })?;
            builder = builder.with_config(key, value);
        }
        let objects =
            builder.with_bucket_name(bucket).with_allow_http(plain).build().map_err(|source| {
                Error::Backend { doing: "opening", object: url.to_owned(), source }
            })?;
        let prefix = Path::parse(prefix.trim_matches('/'))
            .map_err(|error| Error::invalid(format!("store {url}"), error.to_string()))?;
        Ok(Self::new(Arc::new(objects), prefix, url.to_owned()))
    }

    /// The same store through other hands: tests put faults in between.
    pub fn wrap(self, with: &dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self { objects: with(self.objects), ..self }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Bytes read and written through this handle and its clones.
    pub fn moved(&self) -> (u64, u64) {
        (self.moved.read.load(Ordering::Relaxed), self.moved.written.load(Ordering::Relaxed))
    }

    fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }

    fn fail<'a>(
        &self,
        doing: &'static str,
        key: &'a str,
    ) -> impl Fn(object_store::Error) -> Error + 'a {
        move |source| Error::Backend { doing, object: key.to_owned(), source }
    }

    /// Makes the object if nothing has that key. Whole or not at all, and durable when it returns.
    pub async fn create(&self, key: &str, body: Bytes) -> Result<Created> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.moved.written.fetch_add(body.len() as u64, Ordering::Relaxed);
        let put = self.objects.put_opts(&self.path(key), body.clone().into(), options).await;
        match put {
            Ok(_) => Ok(Created::New),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {
                // A lost answer makes the client's own retry find its own object.
                if body.len() <= PART && self.get(key).await.is_ok_and(|found| found == body) {
                    return Ok(Created::New);
                }
                Ok(Created::Exists)
            }
            Err(source) => Err(self.fail("writing", key)(source)),
        }
    }

    /// Makes an object whose key is the digest of its bytes: who comes second finds the same
    /// bytes, so large ones are not even sent.
    pub async fn create_addressed(&self, key: &str, body: Bytes) -> Result<Created> {
        if self.size(key).await? == Some(body.len() as u64) {
            return Ok(Created::Exists);
        }
        if self.is_local() || body.len() <= PART {
            return match self.create(key, body).await? {
                Created::New => Ok(Created::New),
                Created::Exists => Ok(Created::Exists),
            };
        }
        let mut upload = self
            .objects
            .put_multipart(&self.path(key))
            .await
            .map_err(self.fail("starting the upload of", key))?;
        let mut parts = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART));
            self.moved.written.fetch_add(part.len() as u64, Ordering::Relaxed);
            parts.push(upload.put_part(PutPayload::from(part)));
        }
        let sent = futures::stream::iter(parts).buffer_unordered(4).try_collect::<Vec<_>>().await;
        let done = match sent {
            Ok(_) => upload.complete().await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(source) = done {
            // Best effort: what stays behind is what the bucket's lifecycle rule collects.
            let _ = upload.abort().await;
            return Err(self.fail("uploading", key)(source));
        }
        Ok(Created::New)
    }

    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let got = self.objects.get(&self.path(key)).await.map_err(self.fail("reading", key))?;
        let bytes = got.bytes().await.map_err(self.fail("reading", key))?;
        self.moved.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let want = range.end - range.start;
        let bytes = self
            .objects
            .get_range(&self.path(key), range.clone())
            .await
            .map_err(self.fail("reading", key))?;
        self.moved.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.len() as u64 != want {
            let what = format!("cut short: {} of {want} bytes", bytes.len());
            return Err(Error::corrupt_at(key, range.start, what));
        }
        Ok(bytes)
    }

    /// Bytes of the object, or `None` where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.objects.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.fail("looking for", key)(source)),
        }
    }

    /// Removing what is gone already is no error: deletes run again after a crash.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.objects.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.fail("deleting", key)(source)),
        }
    }

    fn key_of(&self, meta: &ObjectMeta) -> String {
        let skip = self.prefix.parts().count();
        let parts: Path = meta.location.parts().skip(skip).collect();
        parts.to_string()
    }

    /// Every object below the folder, in the order of their keys.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let listing = self.objects.list(Some(&self.path(folder)));
        let metas: Vec<ObjectMeta> =
            listing.try_collect().await.map_err(self.fail("listing", folder))?;
        let mut objects: Vec<Object> = metas
            .iter()
            .map(|meta| Object {
                key: self.key_of(meta),
                size: meta.size,
                modified: jiff::Timestamp::from_millisecond(meta.last_modified.timestamp_millis())
                    .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Names of the objects and folders directly in the folder, sorted. A folder that does not
    /// exist is empty.
    pub async fn names(&self, folder: &str) -> Result<Vec<String>> {
        if let Some(root) = &self.local {
            return local_names(&root.join(folder)).map_err(|e| Error::io("listing", folder, e));
        }
        let path = self.path(folder);
        let listing = self
            .objects
            .list_with_delimiter(Some(&path))
            .await
            .map_err(self.fail("listing", folder))?;
        let objects = listing.objects.iter().map(|meta| &meta.location);
        let mut names: Vec<String> = objects
            .chain(&listing.common_prefixes)
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Backend {
    /// Removes what killed writers left half-written in a folder: files named `KEY#N`, that no
    /// listing shows. Returns their bytes.
    pub fn sweep(&self, age: Duration) -> Result<u64> {
        match &self.local {
            Some(root) => sweep(root, age).map_err(|error| Error::io("sweeping", root, error)),
            None => Ok(0),
        }
    }
}

fn sweep(folder: &FsPath, age: Duration) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            bytes += sweep(&entry.path(), age)?;
        } else if name.to_string_lossy().contains('#') {
            let meta = entry.metadata()?;
            if meta.modified()?.elapsed().is_ok_and(|old| old >= age) {
                std::fs::remove_file(entry.path())?;
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}

/// An object as a listing shows it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// By the clock of the backend.
    pub modified: jiff::Timestamp,
}

fn local_names(folder: &FsPath) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // `name#1` is an upload under way, or what a crash left of one.
        if let Ok(name) = entry?.file_name().into_string()
            && !name.contains('#')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
