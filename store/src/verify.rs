//! Is it what was signed? With the store at hand, or with nothing but a file, the signed manifest
//! and a public key.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::dsse;
use crate::error::{Error, Result};
use crate::keys;
use crate::life::State;
use crate::manifest::{self, Manifest, Stored};
use crate::name::{Pick, Reference};
use crate::pull;
use crate::seen;
use crate::source::Watch;
use crate::store::{OpenOptions, Store};

/// What was checked and found right.
#[derive(Clone, Debug, Serialize)]
pub struct VersionVerified {
    pub image: String,
    pub version: u64,
    pub manifest_digest: Digest,
    /// Name of the key that signed the manifest.
    pub signed_by: String,
    pub state: State,
    /// Files whose every byte was read: role and digest.
    pub files: Vec<(String, Digest)>,
}

impl Store {
    /// Checks a version: signature, life, and every byte of its files.
    pub async fn verify(&self, reference: &Reference, watch: &Watch) -> Result<VersionVerified> {
        let detail = self.show(reference).await?;
        let manifest = detail.manifest;
        let mut files = Vec::new();
        for stored in manifest.contents() {
            self.verify_content(stored, watch).await?;
            files.push((stored.role.clone(), stored.content.digest));
        }
        Ok(VersionVerified {
            image: manifest.image,
            version: manifest.version,
            manifest_digest: detail.manifest_digest,
            signed_by: detail.signed_by,
            state: detail.life.state,
            files,
        })
    }

    async fn verify_content(&self, stored: &Stored, watch: &Watch) -> Result<()> {
        let file = self.file(&stored.content).await?;
        let mut hasher = Sha256::new();
        let mut stream = std::pin::pin!(file.stream(0..stored.content.size));
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            watch.step(bytes.len() as u64)?;
            hasher.update(&bytes);
        }
        let found = Digest(hasher.finalize().into());
        if found != stored.content.digest {
            let what = format!("has {found}, the manifest says {}", stored.content.digest);
            return Err(Error::corrupt(stored.name.clone(), what));
        }
        Ok(())
    }

    /// The signed manifest as it is stored, for [`verify_file`].
    pub async fn signed_manifest(&self, image: &str, version: u64) -> Result<Bytes> {
        self.manifest(image, version).await?;
        self.backend.get(&manifest::key(image, version)).await
    }
}

impl Store {
    /// Checks the file this client pulled of a version, with no store at hand: against the manifest
    /// that came with it and the key that was trusted then. `None`: it was not pulled to here from
    /// that store, or the file is gone. Cannot know whether the version was revoked since.
    pub fn verify_pulled(
        url: &str,
        options: &OpenOptions,
        reference: &Reference,
        watch: &Watch,
    ) -> Result<Option<(PathBuf, Manifest)>> {
        let (Some(state), Some(cache)) = (&options.state, &options.cache) else { return Ok(None) };
        let Pick::Version(version) = reference.pick else { return Ok(None) };
        let Some(id) = seen::known_store(state, url) else { return Ok(None) };
        let record = pull::records_of(cache, &id).into_iter().find(|record| {
            record.image == reference.image && record.version == version && record.path.exists()
        });
        let Some(record) = record else { return Ok(None) };
        let manifest = verify_file(record.manifest.as_bytes(), &record.key, &record.path, watch)?;
        if (&manifest.store, &manifest.image, manifest.version) != (&id, &reference.image, version)
        {
            let what = format!("is of {}@{}", manifest.image, manifest.version);
            return Err(Error::corrupt(record.path.display().to_string(), what));
        }
        Ok(Some((record.path, manifest)))
    }
}

/// Checks a file against a signed manifest and the public key (PEM) it must be signed by. Needs
/// no store; it therefore cannot know whether the version was revoked since.
pub fn verify_file(
    signed: &[u8],
    public_pem: &str,
    path: &Path,
    watch: &Watch,
) -> Result<Manifest> {
    let object = "the manifest";
    let key = keys::parse_public(public_pem)?;
    let statement = dsse::open(object, signed)?.verify(manifest::PAYLOAD, &key)?;
    let manifest = Manifest::from_statement(object, &statement)?;
    let io = |error| Error::io("reading", path, error);
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        watch.step(read as u64)?;
        hasher.update(&buffer[..read]);
    }
    let found = Digest(hasher.finalize().into());
    if !manifest.contents().any(|stored| stored.content.digest == found) {
        let what =
            format!("has {found}, which {}@{} does not name", manifest.image, manifest.version);
        return Err(Error::corrupt(path.display().to_string(), what));
    }
    Ok(manifest)
}
