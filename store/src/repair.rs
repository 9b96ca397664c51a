//! Puts back what `fsck` found damaged or missing: index objects from the packs, the rest from
//! another store that holds the same.

use std::collections::HashSet;

use bytes::Bytes;

use crate::backend::Created;
use crate::digest::{BlobId, Digest};
use crate::error::{Error, Result};
use crate::file;
use crate::fsck::{Found, FsckReport};
use crate::index::{self, Contents, Resource};
use crate::life;
use crate::pack;
use crate::policy;
use crate::recipe::{Kind, Recipe};
use crate::store::Store;

impl Store {
    /// Puts back records of the policy, versions and channels that are gone or not right.
    pub(crate) async fn repair_records(&self, from: &Store, report: &mut FsckReport) -> Result<()> {
        if from.id() != self.id() {
            let why = format!("it is another store ({})", from.id());
            return Err(Error::refused(format!("repairing from {}", from.url()), why));
        }
        let mut keys = Vec::new();
        keys.extend(from.backend.list(policy::FOLDER).await?);
        keys.extend(from.backend.list("images").await?);
        for object in keys {
            let right = from.backend.get(&object.key).await?;
            let ours = match self.backend.get(&object.key).await {
                Ok(bytes) => Some(bytes),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            if ours.as_ref() == Some(&right) {
                continue;
            }
            // Whose is right is for the signature to say, not for which store it came from.
            from.check_record(&object.key).await?;
            if ours.is_some() && self.check_record(&object.key).await.is_ok() {
                report
                    .add(&object.key, format!("differs from {}, and both are signed", from.url()));
                continue;
            }
            let problem = if ours.is_some() { "is damaged" } else { "is missing" };
            report.add(&object.key, problem);
            self.replace(&object.key, right).await?;
            report.repaired(&object.key);
        }
        Ok(())
    }

    /// Checks one manifest or log entry by its key.
    async fn check_record(&self, key: &str) -> Result<()> {
        let parts: Vec<&str> = key.split('/').collect();
        let number = |text: &str| text.trim_end_matches(".json").parse::<u64>().unwrap_or(0);
        match parts[..] {
            ["images", image, "versions", version, "manifest.json"] => {
                self.manifest(image, number(version)).await.map(|_| ())
            }
            ["images", image, "versions", version, "life", seq] => {
                let log = self.log(life::folder(image, number(version)), life::PAYLOAD);
                log.read::<crate::Change>(number(seq), &self.policy()).await.map(|_| ())
            }
            ["images", image, "channels", channel, seq] => {
                let folder = format!("images/{image}/channels/{channel}");
                let log = self.log(folder, crate::channel::PAYLOAD);
                log.read::<crate::Assignment>(number(seq), &self.policy()).await.map(|_| ())
            }
            ["policy", _] => Ok(()),
            _ => Err(Error::corrupt(key, "not a record of a store")),
        }
    }

    /// Puts the right bytes where damaged ones are. Only repair does this.
    async fn replace(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.backend.delete(key).await?;
        match self.backend.create(key, bytes).await? {
            Created::New => Ok(()),
            Created::Exists => Err(Error::Raced { what: key.to_owned(), attempts: 1 }),
        }
    }

    pub(crate) async fn repair_packs(
        &self,
        from: Option<&Store>,
        report: &mut FsckReport,
        found: &mut Found,
    ) -> Result<()> {
        let Some(from) = from else { return Ok(()) };
        let broken: Vec<Digest> = found.broken_packs.iter().copied().collect();
        for id in broken {
            let key = pack::key(&id);
            let right = from.backend.get(&key).await.ok().filter(|bytes| Digest::of(bytes) == id);
            if let Some(bytes) = right {
                let table = pack::parse(&key, &bytes)?;
                found.tables.insert(id, (bytes.len() as u64, table));
                self.replace(&key, bytes).await?;
                report.repaired(&key);
                continue;
            }
            // The other store packed them otherwise: take the blobs one by one.
            let mut builder = pack::Builder::default();
            let known = index::IndexSet { parts: found.index.clone() };
            let mut lost = false;
            for (_, index) in &known.parts {
                for location in Contents::of(index)?.blobs.into_values().filter(|l| l.pack == id) {
                    match from.blobs.fetch(&location.packed.id, &()).await {
                        Ok(bytes) => {
                            let (encoding, packed) = crate::encoding::pack(&bytes)?;
                            let stored = packed.as_deref().unwrap_or(&bytes);
                            builder.add(location.packed.id, encoding, None, stored);
                        }
                        Err(_) => lost = true,
                    }
                }
            }
            if !builder.is_empty() {
                // Not under the name of the damaged one, which goes.
                let pack = builder.finish_avoiding(&found.broken_packs);
                self.blobs.add_pack(&pack).await?;
                let mut contents = Contents::default();
                contents.add_pack(&pack);
                self.blobs.add_index(&contents).await?;
                found.tables.insert(pack.id, (pack.bytes.len() as u64, pack.blobs.clone()));
            }
            if !lost {
                self.blobs.forget_packs(&HashSet::from([id])).await?;
                self.backend.delete(&key).await?;
                report.repaired(&key);
            }
        }
        Ok(())
    }

    /// Fetches blobs that are in no pack here; an index object was lost, or a pack with it.
    pub(crate) async fn repair_missing(
        &self,
        from: Option<&Store>,
        report: &mut FsckReport,
        found: &mut Found,
    ) -> Result<()> {
        if found.missing_blobs.is_empty() {
            return Ok(());
        }
        // The packs may well be there.
        self.remake_index(report, found).await?;
        let index = index::IndexSet { parts: found.index.clone() };
        let mut builder = pack::Builder::default();
        let mut wanted: Vec<BlobId> = found.missing_blobs.iter().copied().collect();
        while let Some(id) = wanted.pop() {
            if index.find(&id, &HashSet::new())?.is_some() {
                continue;
            }
            let Some(from) = from else { return Ok(()) };
            let bytes = from.blobs.fetch(&id, &()).await?;
            let (encoding, packed) = crate::encoding::pack(&bytes)?;
            builder.add(id, encoding, None, packed.as_deref().unwrap_or(&bytes));
        }
        if !builder.is_empty() {
            let pack = builder.finish_avoiding(&HashSet::new());
            self.blobs.add_pack(&pack).await?;
            let mut contents = Contents::default();
            contents.add_pack(&pack);
            self.blobs.add_index(&contents).await?;
        }
        report.repaired(index::FOLDER);
        // What could not be read for want of those blobs is looked at again.
        self.blobs.index().await?;
        let broken: Vec<String> =
            report.findings.iter().filter(|f| !f.repaired).map(|f| f.object.clone()).collect();
        for key in broken {
            if key.starts_with("images/") && self.check_record(&key).await.is_ok() {
                report.repaired(&key);
            }
        }
        Ok(())
    }

    /// Makes the index again from the tables of packs that no good index object names; then the
    /// damaged objects go.
    pub(crate) async fn remake_index(
        &self,
        report: &mut FsckReport,
        found: &mut Found,
    ) -> Result<()> {
        let named: HashSet<Digest> = found
            .index
            .iter()
            .flat_map(|(_, index)| index.packs.iter().map(|pack| pack.0))
            .collect();
        let mut contents = Contents::default();
        for object in self.backend.list(pack::FOLDER).await? {
            let Ok(id) = pack::id_of(&object.key) else { continue };
            if named.contains(&id) {
                continue;
            }
            let bytes = self.backend.get(&object.key).await?;
            // A damaged one is reported when the packs are checked.
            if Digest::of(&bytes) == id {
                contents.add_table(id, object.size, &pack::parse(&object.key, &bytes)?);
            }
        }
        self.blobs.add_index(&contents).await?;
        for key in std::mem::take(&mut found.broken_index) {
            self.backend.delete(&key).await?;
            report.repaired(&key);
        }
        // Blobs can be read again now, so the recipes say which of them are resources.
        let resources = self.resources_of_recipes().await?;
        let (bare, _) = contents.encode()?;
        contents.resources = resources;
        contents.resources.retain(|_, r| r.pieces.iter().all(|id| contents.blobs.contains_key(id)));
        if !contents.resources.is_empty() && !contents.is_empty() {
            self.blobs.add_index(&contents).await?;
            self.backend.delete(&index::key(&bare)).await?;
        }
        found.index = self.blobs.index().await?.parts.clone();
        Ok(())
    }

    async fn resources_of_recipes(&self) -> Result<std::collections::BTreeMap<[u8; 20], Resource>> {
        let mut resources = std::collections::BTreeMap::new();
        for manifest in self.all_manifests().await? {
            // A recipe that is lost is reported elsewhere.
            let Ok(Recipe { parts, .. }) = file::recipe(&self.blobs, &manifest.file.content).await
            else {
                continue;
            };
            for part in parts {
                if let Kind::Resource(info) = part.kind {
                    let (sha1, content_size, form) = (info.sha1, info.content_size, info.form);
                    let resource = Resource { sha1, content_size, form, pieces: part.pieces };
                    resources.entry(sha1).or_insert(resource);
                }
            }
        }
        Ok(resources)
    }
}
