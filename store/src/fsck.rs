//! Checks a whole store: every reference, every signature, every digest. What is wrong is put back by
//! `repair`.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;

use crate::blobs;
use crate::digest::{BlobId, Digest};
use crate::error::{Error, Result};
use crate::file;
use crate::index::{self, Index, Location};
use crate::life::State;
use crate::log::entry_key;
use crate::pack;
use crate::store::Store;
use crate::{guard, manifest};

#[derive(Clone, Debug, Default)]
pub struct FsckOptions {
    /// Do not read the packs: references and signatures only.
    pub skip_data: bool,
    /// Put back what is damaged: index objects from the packs, the rest from this store.
    pub repair: bool,
    pub from: Option<Store>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its key.
    pub object: String,
    pub problem: String,
    pub repaired: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct FsckReport {
    pub findings: Vec<Finding>,
    pub versions: u64,
    pub packs: u64,
    pub blobs: u64,
    /// Bytes of packs that were read.
    pub bytes: u64,
    /// Packs no index names: of a publish under way or cut off. Not wrong; gc collects them.
    pub orphans: u64,
    /// Publishes under way or cut off.
    pub pins: u64,
}

impl FsckReport {
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.repaired)
    }

    pub(crate) fn add(&mut self, object: impl Into<String>, problem: impl ToString) {
        let (object, problem) = (object.into(), problem.to_string());
        if !self.findings.iter().any(|f| f.object == object && f.problem == problem) {
            self.findings.push(Finding { object, problem, repaired: false });
        }
    }

    pub(crate) fn repaired(&mut self, object: &str) {
        for finding in self.findings.iter_mut().filter(|finding| finding.object == object) {
            finding.repaired = true;
        }
    }
}

/// What the walk over the store found.
#[derive(Default)]
pub(crate) struct Found {
    pub broken_index: Vec<String>,
    pub broken_packs: HashSet<Digest>,
    pub missing_blobs: HashSet<BlobId>,
    /// Tables of the packs that are right.
    pub tables: HashMap<Digest, (u64, Vec<pack::Packed>)>,
    pub index: Vec<(Digest, Index)>,
}

impl Found {
    /// True if the blob, and all it is made against, is in some pack by the index.
    fn holds(&self, id: &BlobId) -> Result<bool> {
        let mut wanted = Some(*id);
        let mut deltas = 0;
        // Deltas in a circle are reported by who reads them.
        while let Some(id) = wanted
            && deltas < 1000
        {
            let mut found = None;
            for (_, index) in &self.index {
                found = found.or(index.find(&id)?);
            }
            let Some(location) = found else { return Ok(false) };
            wanted = location.packed.base;
            deltas += 1;
        }
        Ok(true)
    }
}

impl Store {
    pub async fn fsck(&self, options: &FsckOptions) -> Result<FsckReport> {
        let mut report = FsckReport::default();
        let mut found = Found::default();
        if let Some(from) = &options.from
            && options.repair
        {
            self.repair_records(from, &mut report).await?;
        }
        self.check_index(&mut report, &mut found).await?;
        if options.repair && !found.broken_index.is_empty() {
            self.remake_index(&mut report, &mut found).await?;
        }
        // One damaged index object must not hide what the others say.
        self.blobs.use_index(index::IndexSet { parts: found.index.clone() });
        self.check_packs(options, &mut report, &mut found).await?;
        self.check_versions(&mut report, &mut found).await?;
        report.pins = guard::pins(&self.backend).await?.len() as u64;
        if options.repair {
            self.repair_packs(options.from.as_ref(), &mut report, &mut found).await?;
            self.repair_missing(options.from.as_ref(), &mut report, &mut found).await?;
        }
        Ok(report)
    }

    async fn check_index(&self, report: &mut FsckReport, found: &mut Found) -> Result<()> {
        for name in self.backend.names(index::FOLDER).await? {
            let key = format!("{}/{name}", index::FOLDER);
            let checked = async {
                let id = index::id_of_name(&name)?;
                let bytes = self.backend.get(&key).await?;
                let digest = Digest::of(&bytes);
                if digest != id {
                    return Err(Error::corrupt(
                        &key,
                        format!("its bytes have the digest {digest}"),
                    ));
                }
                let index = Index::parse(&key, bytes)?;
                index.resources()?;
                Ok((id, index))
            };
            match checked.await {
                Ok(part) => found.index.push(part),
                Err(Error::Backend { source: object_store::Error::NotFound { .. }, .. }) => {}
                Err(error) => {
                    report.add(&key, &error);
                    found.broken_index.push(key);
                }
            }
        }
        Ok(())
    }

    async fn check_packs(
        &self,
        options: &FsckOptions,
        report: &mut FsckReport,
        found: &mut Found,
    ) -> Result<()> {
        let mut there: HashMap<Digest, u64> = HashMap::new();
        for object in self.backend.list(pack::FOLDER).await? {
            match pack::id_of(&object.key) {
                Ok(id) => drop(there.insert(id, object.size)),
                Err(error) => report.add(object.key, error),
            }
        }
        let mut named: HashMap<Digest, u64> = HashMap::new();
        for (_, index) in &found.index {
            named.extend(index.packs.iter().copied());
        }
        for (id, len) in &named {
            match there.get(id) {
                Some(found) if found == len => {}
                Some(size) => {
                    report.add(pack::key(id), format!("has {size} bytes, the index says {len}"));
                    found.broken_packs.insert(*id);
                }
                None => {
                    report.add(pack::key(id), "is named by the index but is not there");
                    found.broken_packs.insert(*id);
                }
            }
        }
        report.orphans = there.keys().filter(|id| !named.contains_key(id)).count() as u64;
        report.packs = there.len() as u64;
        let mut ids: Vec<_> = there.into_iter().collect();
        ids.sort();
        for (id, size) in ids {
            if found.broken_packs.contains(&id) || options.skip_data {
                continue;
            }
            match self.check_pack(&id, size, report, found).await {
                Ok(()) => {}
                Err(error) => {
                    report.add(pack::key(&id), &error);
                    found.broken_packs.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Reads a whole pack: its digest, its table, and each blob in it.
    async fn check_pack(
        &self,
        id: &Digest,
        size: u64,
        report: &mut FsckReport,
        found: &mut Found,
    ) -> Result<()> {
        let key = pack::key(id);
        let bytes = self.backend.get(&key).await?;
        report.bytes += size;
        let table = pack::parse(&key, &bytes);
        // A damaged blob is named rather than only the pack it is in.
        if let Ok(table) = &table {
            for packed in table {
                let from = packed.offset as usize;
                let stored: Bytes = bytes.slice(from..from + packed.stored as usize);
                let base = match &packed.base {
                    // What gc has not deleted yet may be made against what it has. Where a version
                    // needs such a blob, its base is reported as missing.
                    Some(base) if !found.holds(base)? => continue,
                    Some(base) => Some(self.blobs.fetch(base, &()).await?),
                    None => None,
                };
                let location = Location { pack: *id, packed: *packed };
                blobs::decode(&location, &stored, base.as_deref())?;
                report.blobs += 1;
            }
        }
        let digest = Digest::of(&bytes);
        if digest != *id {
            return Err(Error::corrupt(key, format!("its bytes have the digest {digest}")));
        }
        let table = table?;
        for (index_id, index) in &found.index {
            if index.packs.iter().any(|(pack, _)| pack == id) {
                for packed in &table {
                    let said = index.find(&packed.id)?;
                    if said.is_some_and(|said| said.pack == *id && said.packed != *packed) {
                        let what = format!("blob {} is not where it says", packed.id.digest);
                        report.add(index::key(index_id), what);
                    }
                }
            }
        }
        found.tables.insert(*id, (size, table));
        Ok(())
    }

    async fn check_versions(&self, report: &mut FsckReport, found: &mut Found) -> Result<()> {
        let index = index::IndexSet { parts: found.index.clone() };
        let mut seen = HashSet::new();
        for image in self.images().await? {
            let versions = match self.versions(&image).await {
                Ok(versions) => versions,
                Err(error) => {
                    report.add(manifest::versions_folder(&image), error);
                    continue;
                }
            };
            for (n, &version) in versions.iter().enumerate() {
                if version != n as u64 + 1 {
                    let what = format!("version {} is missing", n + 1);
                    report.add(manifest::versions_folder(&image), what);
                    break;
                }
            }
            for &version in &versions {
                report.versions += 1;
                if let Err(error) =
                    self.check_version(&image, version, &index, &mut seen, found).await
                {
                    report.add(manifest::key(&image, version), error);
                }
            }
            for channel in self.channels(&image).await? {
                let folder = format!("images/{image}/channels/{channel}");
                match self.history(&image, &channel).await {
                    Err(error) => report.add(&folder, error),
                    Ok(history) => {
                        for entry in history {
                            let (seq, body) = (entry.entry.seq, entry.entry.body);
                            match self.manifest(&image, body.version).await {
                                Ok((_, digest)) if digest == body.manifest => {}
                                Ok((_, digest)) => {
                                    let what =
                                        format!("assigned {}, found {digest}", body.manifest);
                                    report.add(entry_key(&folder, seq), what);
                                }
                                // Already reported, or missing.
                                Err(error) => {
                                    report.add(manifest::key(&image, body.version), error)
                                }
                            }
                        }
                    }
                }
            }
        }
        for id in &found.missing_blobs {
            report.add(index::FOLDER, format!("blob {id} is needed but in no pack"));
        }
        Ok(())
    }

    async fn check_version(
        &self,
        image: &str,
        version: u64,
        index: &index::IndexSet,
        seen: &mut HashSet<BlobId>,
        found: &mut Found,
    ) -> Result<()> {
        let (manifest, _) = self.manifest(image, version).await?;
        if self.life(image, version).await?.state == State::Purged {
            return Ok(());
        }
        let nothing = HashSet::new();
        for stored in manifest.contents() {
            let mut wanted: Vec<BlobId> = stored.content.recipe.into_iter().collect();
            if let Some(id) = &stored.content.recipe
                && !seen.contains(id)
                && index.find(id, &nothing)?.is_none()
            {
                found.missing_blobs.insert(*id);
                continue;
            }
            let recipe = file::recipe(&self.blobs, &stored.content).await?;
            wanted.extend(recipe.parts.iter().flat_map(|part| &part.pieces));
            while let Some(id) = wanted.pop() {
                if !seen.insert(id) {
                    continue;
                }
                match index.find(&id, &nothing)? {
                    Some(location) => wanted.extend(location.packed.base),
                    None => drop(found.missing_blobs.insert(id)),
                }
            }
        }
        Ok(())
    }
}
