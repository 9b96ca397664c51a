//! Publishing: bytes first, then what names them, the manifest last.
//!
//! ```text
//! pin -> packs -> index -> manifest (claims the version number) -> latest -> unpin
//! ```
//! Cut off anywhere, the same publish run again finds the packs it sent, and if it had got as far
//! as the manifest, finds its version.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backend::Created;
use crate::channel::Action;
use crate::digest::Digest;
use crate::dsse;
use crate::error::{Error, Result};
use crate::guard::{self, Pinned};
use crate::ingest::{Base, Content, Done, Ingest};
use crate::log::pause;
use crate::manifest::{self, Manifest, ManifestFields, Stored};
use crate::name::{self, LATEST};
use crate::pack::{self, Pack};
use crate::policy::Role;
use crate::recipe::{Opaque, Recipe, Segments};
use crate::source::{Source, Watch};
use crate::store::Store;

/// Newest versions that are looked at for one that says the same.
const LOOK_BACK: usize = 16;
const ATTEMPTS: u32 = 1000;

/// A file that hangs on a version: logs, SBOM, reports, disks.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What it is for: `sbom`, `log`, `report`, `answer-file`, …
    pub role: String,
    pub name: String,
    pub media_type: String,
    pub source: Source,
}

pub struct PublishRequest {
    pub image: String,
    /// Name of the file for whoever pulls it, such as `install.wim`.
    pub file_name: String,
    pub media_type: String,
    pub file: Source,
    /// What the parts of the file are; [`Opaque`] where nothing is known.
    pub segments: Box<dyn Segments>,
    pub manifest: ManifestFields,
    pub artifacts: Vec<Artifact>,
    /// Who publishes; the user of this process if not given.
    pub by: Option<String>,
    /// Make a new version also when the newest ones hold one that says the same.
    pub again: bool,
    pub watch: Watch,
}

/// A version that is in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Published {
    pub image: String,
    pub version: u64,
    /// Of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes the store grew by: packs, index, manifest.
    pub bytes_new: u64,
    /// Bytes of the files that were there already.
    pub bytes_shared: u64,
    /// The version existed: this publish had been done before.
    pub already: bool,
}

impl Store {
    pub async fn publish(&self, request: PublishRequest) -> Result<Published> {
        name::check("image", &request.image)?;
        for artifact in &request.artifacts {
            name::check("role", &artifact.role)?;
        }
        let signer = self.signer(&[Role::Builder])?;
        let stamp = self.stamp_by(request.by.as_deref());
        let pin = Pinned::new(&self.backend, &request.image, &stamp.by, stamp.at).await?;
        // Read after the pin is written: see `guard`.
        let avoid = guard::trashed(&self.backend).await?;
        let base = self.delta_base(&request.image).await?;
        let (image, by) = (request.image.clone(), stamp.by.clone());
        let (again, fields) = (request.again, request.manifest.clone());

        let (file, artifacts, done) = self.ingest(request, avoid, base).await?;
        let mut bytes_new = done.stored + self.blobs.add_index(&done.contents).await?;
        self.check_relied(&done).await?;
        pin.check()?;

        let fingerprint = fingerprint(&image, &fields, &file, &artifacts)?;
        let mut manifest = Manifest {
            store: self.id().to_owned(),
            image: image.clone(),
            version: 0,
            at: stamp.at,
            by,
            fingerprint,
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            fields,
            file,
            artifacts,
        };
        let mut already = false;
        let mut claimed = false;
        for attempt in 0..ATTEMPTS {
            let versions = self.versions(&image).await?;
            if !again && let Some(same) = self.find_same(&image, &versions, fingerprint).await? {
                (already, claimed) = (true, true);
                manifest = same;
                break;
            }
            manifest.version = versions.last().copied().unwrap_or(0) + 1;
            let statement = manifest.statement()?;
            let bytes = dsse::seal(manifest::PAYLOAD, &statement, &signer.id, &signer.signing)?;
            let len = bytes.len() as u64;
            let key = manifest::key(&image, manifest.version);
            if self.backend.create(&key, bytes).await? == Created::New {
                bytes_new += len;
                claimed = true;
                break;
            }
            pause(attempt).await;
        }
        if !claimed {
            let what = format!("a version number of {image}");
            return Err(Error::Raced { what, attempts: ATTEMPTS });
        }
        self.advance_latest(&image, Action::Publish, "", &stamp).await?;
        pin.release().await?;
        self.blobs.merge_index().await?;
        Ok(Published {
            image,
            version: manifest.version,
            digest: manifest.file.content.digest,
            size: manifest.file.content.size,
            bytes_new,
            bytes_shared: done.shared,
            already,
        })
    }

    /// Takes the files apart and uploads what is new of them.
    async fn ingest(
        &self,
        request: PublishRequest,
        avoid: HashSet<Digest>,
        base: Option<Base>,
    ) -> Result<(Stored, Vec<Stored>, Done)> {
        let known = self.blobs.index().await?;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Pack>(1);
        let mut ingest =
            Ingest::new(self.blobs.clone(), known, avoid, sender, request.watch.clone());
        let take = tokio::task::spawn_blocking(move || -> Result<(Stored, Vec<Stored>, Done)> {
            let content = ingest.file(&request.file, &*request.segments, base.as_ref())?;
            let stored = |role: &str, name: &str, media_type: &str, content: Content| Stored {
                role: role.to_owned(),
                name: name.to_owned(),
                media_type: media_type.to_owned(),
                content,
            };
            let file = stored("image", &request.file_name, &request.media_type, content);
            let mut artifacts = Vec::new();
            for artifact in &request.artifacts {
                let content = ingest.file(&artifact.source, &Opaque, None)?;
                artifacts.push(stored(
                    &artifact.role,
                    &artifact.name,
                    &artifact.media_type,
                    content,
                ));
            }
            Ok((file, artifacts, ingest.finish()?))
        });
        let blobs = &self.blobs;
        let packs = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|pack| (pack, receiver))
        });
        let wide = if self.backend.is_local() { 1 } else { 4 };
        let upload = packs
            .map(|pack| async move { blobs.add_pack(&pack).await.map(|_| ()) })
            .buffer_unordered(wide)
            .try_for_each(|()| async { Ok(()) })
            .await;
        let taken = take.await.map_err(|error| {
            Error::io("publishing", "", std::io::Error::other(error.to_string()))
        })?;
        upload?;
        taken
    }

    /// A pack could have been deleted by whoever did not see our pin; then nothing is published.
    async fn check_relied(&self, done: &Done) -> Result<()> {
        let checks = done.relied.iter().copied().map(|id| async move {
            let key = pack::key(&id);
            match self.backend.size(&key).await? {
                Some(_) => Ok(()),
                None => Err(Error::refused(
                    "publishing",
                    format!("{key} is named by the index but is not there; run fsck --repair"),
                )),
            }
        });
        futures::stream::iter(checks).buffer_unordered(16).try_for_each(|()| async { Ok(()) }).await
    }

    /// The newest version whose file is there, to make deltas against.
    async fn delta_base(&self, image: &str) -> Result<Option<Base>> {
        for &version in self.versions(image).await?.iter().rev().take(LOOK_BACK) {
            if self.life(image, version).await?.state.is_good() {
                let (manifest, _) = self.manifest(image, version).await?;
                let Some(recipe_id) = manifest.file.content.recipe else { return Ok(None) };
                let bytes = self.blobs.fetch_kept(&recipe_id).await?;
                let recipe = Recipe::decode("the recipe of the version before", &bytes)?;
                return Ok(Some(Base { recipe_id, recipe }));
            }
        }
        Ok(None)
    }

    async fn find_same(
        &self,
        image: &str,
        versions: &[u64],
        fingerprint: Digest,
    ) -> Result<Option<Manifest>> {
        for &version in versions.iter().rev().take(LOOK_BACK) {
            let (manifest, _) = self.manifest(image, version).await?;
            if manifest.fingerprint == fingerprint
                && self.life(image, version).await?.state.is_good()
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// Version numbers of an image that were claimed, lowest first.
    pub async fn versions(&self, image: &str) -> Result<Vec<u64>> {
        name::check("image", image)?;
        let folder = manifest::versions_folder(image);
        let names = self.backend.names(&folder).await?;
        let number = |name: &String| {
            name.parse().ok().filter(|&n: &u64| n > 0 && format!("{n:08}") == *name).ok_or_else(
                || Error::corrupt(format!("{folder}/{name}"), "not the number of a version"),
            )
        };
        let mut versions = names.iter().map(number).collect::<Result<Vec<u64>>>()?;
        versions.sort_unstable();
        // A number whose manifest is not there yet: a process was killed between making the folder
        // and the manifest, or a mirror is being filled, lives first.
        while let Some(&last) = versions.last() {
            if !(self.backend.is_local() || self.is_mirror())
                || self.backend.size(&manifest::key(image, last)).await?.is_some()
            {
                break;
            }
            versions.pop();
        }
        Ok(versions)
    }

    /// A manifest, its signature checked, and the digest of the manifest itself.
    pub async fn manifest(&self, image: &str, version: u64) -> Result<(Manifest, Digest)> {
        name::check("image", image)?;
        let key = manifest::key(image, version);
        let bytes = match self.backend.get(&key).await {
            Err(error) if error.is_not_found() => {
                return Err(Error::not_found(format!("{image}@{version}")));
            }
            other => other?,
        };
        let manifest = self.check_manifest(&key, &bytes)?;
        if manifest.image != image || manifest.version != version {
            let what =
                format!("was signed as {}@{}; it was moved here", manifest.image, manifest.version);
            return Err(Error::corrupt(key, what));
        }
        Ok((manifest, Digest::of(&bytes)))
    }

    fn check_manifest(&self, key: &str, bytes: &[u8]) -> Result<Manifest> {
        let policy = self.policy();
        let sealed = dsse::open(key, bytes)?;
        policy.check_role(key, &sealed.key_id, &[Role::Builder])?;
        let trusted = policy.key(key, &sealed.key_id)?;
        let statement: serde_json::Value = sealed.verify(manifest::PAYLOAD, &trusted.public()?)?;
        let manifest = Manifest::from_statement(key, &statement)?;
        trusted.check_time(key, manifest.at)?;
        if manifest.store != self.id() {
            let what = format!("was signed for the store {}", manifest.store);
            return Err(Error::corrupt(key, what));
        }
        Ok(manifest)
    }

    /// The key that signed a manifest.
    pub(crate) async fn manifest_key(&self, image: &str, version: u64) -> Result<String> {
        let key = manifest::key(image, version);
        Ok(dsse::open(&key, &self.backend.get(&key).await?)?.key_id)
    }

    /// Moves `latest` to the newest good version, if it is not there.
    pub(crate) async fn advance_latest(
        &self,
        image: &str,
        action: Action,
        why: &str,
        stamp: &crate::log::Stamp,
    ) -> Result<()> {
        self.follow(image, LATEST, action, why, stamp).await
    }
}

fn fingerprint(
    image: &str,
    fields: &ManifestFields,
    file: &Stored,
    artifacts: &[Stored],
) -> Result<Digest> {
    // When it was built and the log of it differ each time; what was built may not.
    let fields = ManifestFields { started: None, ..fields.clone() };
    let text = serde_json::to_vec(&(image, fields, file, artifacts))
        .map_err(|error| Error::invalid("manifest", error.to_string()))?;
    Ok(Digest(Sha256::digest(&text).into()))
}
