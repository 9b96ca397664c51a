//! Copies a store to another place, moving only what that place lacks.
//!
//! ```text
//! policy -> packs -> index -> lives and manifests of versions -> channels
//! ```
//! So the mirror is whole at every moment, and a version is never there before the word that it
//! is revoked.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::backend::Created;
use crate::blobs;
use crate::digest::BlobId;
use crate::error::{Error, Result};
use crate::file;
use crate::guard::{self, Pinned};
use crate::index::Contents;
use crate::life::{self, State};
use crate::manifest;
use crate::pack::Builder;
use crate::policy;
use crate::source::Watch;
use crate::store::{OpenOptions, Store};

#[derive(Clone, Debug, Default)]
pub struct MirrorRequest {
    /// Images to mirror; all if empty.
    pub images: Vec<String>,
    pub watch: Watch,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct MirrorReport {
    pub versions: u64,
    pub blobs: u64,
    /// Bytes of the blobs.
    pub bytes: u64,
    /// Manifests and log entries.
    pub records: u64,
}

/// Blobs read from the source at a time: neighbours in a pack.
const RUN: u64 = 16 << 20;

impl Store {
    /// Brings the store at `url` up to date with this one. It is made if it does not exist.
    pub async fn mirror(
        &self,
        url: &str,
        options: OpenOptions,
        request: &MirrorRequest,
    ) -> Result<MirrorReport> {
        let target = self.open_mirror(url, options).await?;
        let mut report = MirrorReport::default();
        for object in self.backend.list(policy::FOLDER).await? {
            self.copy_record(&target, &object.key, &mut report).await?;
        }
        let mut images = self.images().await?;
        if !request.images.is_empty() {
            images.retain(|image| request.images.contains(image));
        }
        let stamp = self.stamp();
        let pin = Pinned::new(&target.backend, "mirror", &stamp.by, stamp.at).await?;
        self.copy_blobs(&target, &images, request, &mut report).await?;
        pin.check()?;
        for image in &images {
            for version in self.versions(image).await? {
                report.versions += 1;
                for object in self.backend.list(&life::folder(image, version)).await? {
                    self.copy_record(&target, &object.key, &mut report).await?;
                }
                self.copy_record(&target, &manifest::key(image, version), &mut report).await?;
            }
            for object in self.backend.list(&format!("images/{image}/channels")).await? {
                self.copy_record(&target, &object.key, &mut report).await?;
            }
        }
        pin.release().await?;
        target.blobs.merge_index().await?;
        Ok(report)
    }

    async fn copy_record(
        &self,
        target: &Store,
        key: &str,
        report: &mut MirrorReport,
    ) -> Result<()> {
        if target.backend.size(key).await?.is_some() {
            // Records are small and never change; a mirror that has another one has its own life.
            if target.backend.get(key).await? != self.backend.get(key).await? {
                let why = "it holds something else there; it was written to, or is damaged";
                return Err(Error::refused(format!("mirroring {key} to {}", target.url()), why));
            }
            return Ok(());
        }
        if target.backend.create(key, self.backend.get(key).await?).await? == Created::New {
            report.records += 1;
        }
        Ok(())
    }

    async fn copy_blobs(
        &self,
        target: &Store,
        images: &[String],
        request: &MirrorRequest,
        report: &mut MirrorReport,
    ) -> Result<()> {
        let avoid = guard::trashed(&target.backend).await?;
        let there = target.blobs.index().await?;
        let ours = self.blobs.index().await?;
        let nothing = HashSet::new();
        let mut wanted: Vec<BlobId> = Vec::new();
        for image in images {
            for version in self.versions(image).await? {
                if self.life(image, version).await?.state == State::Purged {
                    continue;
                }
                let (manifest, _) = self.manifest(image, version).await?;
                for stored in manifest.contents() {
                    // Its recipe is stored after all it needs, so it stands for them.
                    if let Some(recipe) = &stored.content.recipe
                        && target.backend.size(&manifest::key(image, version)).await?.is_some()
                        && there.find(recipe, &avoid)?.is_some()
                    {
                        continue;
                    }
                    wanted.extend(stored.content.recipe);
                    let recipe = file::recipe(&self.blobs, &stored.content).await?;
                    wanted.extend(recipe.parts.iter().flat_map(|part| &part.pieces));
                }
            }
        }
        let mut moving = HashMap::new();
        while let Some(id) = wanted.pop() {
            if moving.contains_key(&id) || there.find(&id, &avoid)?.is_some() {
                continue;
            }
            let location = match ours.find(&id, &nothing)? {
                Some(location) => location,
                None => self.blobs.locate(&id).await?,
            };
            wanted.extend(location.packed.base);
            moving.insert(id, location);
        }
        let resources = ours.resources()?;
        let mut locations: Vec<_> = moving.into_values().collect();
        locations.sort_by_key(|location| (location.pack, location.packed.offset));
        let mut contents = Contents::default();
        let mut builder = Builder::default();
        let mut rest = &locations[..];
        while let Some(first) = rest.first() {
            let start = first.packed.offset;
            let mut end = start;
            let run = rest.iter().take_while(|next| {
                let near = next.pack == first.pack
                    && next.packed.offset == end
                    && next.packed.offset + next.packed.stored - start
                        <= RUN.max(first.packed.stored);
                end = if near { end + next.packed.stored } else { end };
                near
            });
            let (run, later) = rest.split_at(run.count());
            rest = later;
            let mut bytes = self.blobs.pack_range(&first.pack, start..end).await?;
            for location in run {
                let packed = &location.packed;
                let stored = bytes.split_to(packed.stored as usize);
                let base = match &packed.base {
                    Some(base) => Some(self.blobs.fetch(base, &()).await?),
                    None => None,
                };
                blobs::decode(location, &stored, base.as_deref())?;
                request.watch.step(packed.stored)?;
                builder.add(packed.id, packed.encoding, packed.base, &stored);
                report.blobs += 1;
                report.bytes += packed.stored;
                if builder.is_full() {
                    let pack = std::mem::take(&mut builder).finish_avoiding(&avoid);
                    target.blobs.add_pack(&pack).await?;
                    contents.add_pack(&pack);
                }
            }
        }
        if !builder.is_empty() {
            let pack = builder.finish_avoiding(&avoid);
            target.blobs.add_pack(&pack).await?;
            contents.add_pack(&pack);
        }
        for (sha1, resource) in resources {
            if resource.pieces.iter().any(|id| contents.blobs.contains_key(id)) {
                contents.resources.insert(sha1, resource);
            }
        }
        target.blobs.add_index(&contents).await?;
        Ok(())
    }
}
