//! Frees what nothing refers to, in two steps with a grace time between them.
//!
//! ```text
//! deleted version ── grace ──> purged ─┐
//! pack no live version needs ──────────┴─> trash/<id>.json ── grace, no older pin ──> deleted
//! pack most of which is dead ─ what lives is copied ─> trash/
//! ```
//! How publishers and gc keep out of each other's way is told in `guard`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::backend::Created;
use crate::blobs::Blobs;
use crate::digest::{BlobId, Digest};
use crate::error::{Error, Result};
use crate::file;
use crate::guard::{self, CLOCK_STEP, PIN_LIFE, Pinned, TRASH, Trash};
use crate::index::{self, Contents, IndexSet, Location};
use crate::life::{Change, State};
use crate::pack::{self, Builder};
use crate::policy::Role;
use crate::store::Store;

/// Where `init` tries the backend; what is there after a day a crash left.
const PROBES: &str = "probe";
/// A pack of which less than one part in this many is alive is packed anew.
const WORTH_KEEPING: u64 = 2;

/// What gc would do, or did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GcReport {
    /// Deleted versions whose grace time is over: `image@version`.
    pub purged: Vec<String>,
    /// Packs put on the list of what will be deleted after the grace time.
    pub marked: Vec<Digest>,
    /// Bytes of those.
    pub marked_bytes: u64,
    /// Packs that are mostly dead: what lives in them is copied.
    pub repacked: Vec<Digest>,
    /// Packs deleted.
    pub deleted: Vec<Digest>,
    pub deleted_bytes: u64,
    /// Why packs that were marked are not deleted yet.
    pub waiting: Vec<String>,
}

/// Which blobs are needed, and where each is taken from.
struct Live {
    blobs: HashSet<BlobId>,
    index: std::sync::Arc<IndexSet>,
}

impl Store {
    /// What [`Store::gc`] would do now.
    pub async fn plan_gc(&self) -> Result<GcReport> {
        self.collect(false).await
    }

    pub async fn gc(&self) -> Result<GcReport> {
        self.signer(&[Role::Admin, Role::Release])?;
        let stamp = self.stamp();
        let pin = Pinned::new(&self.backend, "gc", &stamp.by, stamp.at).await?;
        let report = self.collect(true).await;
        pin.release().await?;
        report
    }

    async fn collect(&self, apply: bool) -> Result<GcReport> {
        let mut report = GcReport::default();
        if apply {
            self.drop_dead_pins().await?;
            report.deleted_bytes += self.backend.sweep(PIN_LIFE)?;
            for object in self.backend.list(PROBES).await? {
                if self.older_than(object.modified, PIN_LIFE) {
                    self.backend.delete(&object.key).await?;
                }
            }
        }
        let purging = self.purge(apply, &mut report).await?;
        self.empty_trash(apply, &purging, &mut report).await?;
        self.mark(apply, &purging, &mut report).await?;
        Ok(report)
    }

    async fn drop_dead_pins(&self) -> Result<()> {
        for (key, modified, pin) in guard::pins(&self.backend).await? {
            if pin.is_dead() || self.older_than(modified, PIN_LIFE) {
                self.backend.delete(&key).await?;
            }
        }
        Ok(())
    }

    fn older_than(&self, time: jiff::Timestamp, age: std::time::Duration) -> bool {
        let old = self.now().duration_since(time);
        jiff::SignedDuration::try_from(age).is_ok_and(|age| old >= age)
    }

    /// Deleted versions pass the point of no return.
    async fn purge(&self, apply: bool, report: &mut GcReport) -> Result<BTreeSet<(String, u64)>> {
        let grace = self.policy().grace();
        let mut purging = BTreeSet::new();
        for image in self.images().await? {
            for version in self.versions(&image).await? {
                let life = self.life(&image, version).await?;
                let over = life.at.is_some_and(|at| self.older_than(at, grace));
                if life.state != State::Deleted || !over {
                    continue;
                }
                if apply {
                    match self.change_life(&image, version, &Change::Purge, &self.stamp()).await {
                        // Somebody restored it just now.
                        Err(Error::Refused { .. }) => continue,
                        other => other?,
                    };
                }
                report.purged.push(format!("{image}@{version}"));
                purging.insert((image.clone(), version));
            }
        }
        Ok(purging)
    }

    /// Every blob a version needs that is not purged, with the bases of deltas.
    async fn live(&self, purging: &BTreeSet<(String, u64)>) -> Result<Live> {
        let index = self.blobs.index().await?;
        let mut blobs: HashSet<BlobId> = HashSet::new();
        let mut recipes = HashSet::new();
        for image in self.images().await? {
            for version in self.versions(&image).await? {
                let gone = self.life(&image, version).await?.state == State::Purged;
                if gone || purging.contains(&(image.clone(), version)) {
                    continue;
                }
                let (manifest, _) = self.manifest(&image, version).await?;
                for stored in manifest.contents() {
                    let content = &stored.content;
                    if !recipes.insert(content.recipe.unwrap_or(content.id())) {
                        continue;
                    }
                    let recipe = file::recipe(&self.blobs, content).await?;
                    blobs.extend(content.recipe);
                    blobs.extend(recipe.parts.iter().flat_map(|part| &part.pieces));
                }
            }
        }
        let mut queue: Vec<BlobId> = blobs.iter().copied().collect();
        while let Some(id) = queue.pop() {
            for base in index.find_all(&id)?.into_iter().filter_map(|found| found.packed.base) {
                if blobs.insert(base) {
                    queue.push(base);
                }
            }
        }
        Ok(Live { blobs, index })
    }

    /// Deletes packs that were marked long enough ago, if still nothing needs them.
    async fn empty_trash(
        &self,
        apply: bool,
        purging: &BTreeSet<(String, u64)>,
        report: &mut GcReport,
    ) -> Result<()> {
        let grace = self.policy().grace();
        let lists = guard::trash(&self.backend).await?;
        let mut due = Vec::new();
        let pins = guard::pins(&self.backend).await?;
        let marked: HashSet<Digest> = lists.iter().flat_map(|(_, _, t)| t.packs.clone()).collect();
        for (key, modified, trash) in lists {
            let older = |pin: &&(String, jiff::Timestamp, guard::Pin)| {
                let before = pin.1.duration_since(modified) <= duration(CLOCK_STEP);
                before && pin.2.image != "gc"
            };
            if !self.older_than(trash.at, grace) {
                let n = trash.packs.len();
                report
                    .waiting
                    .push(format!("{n} packs marked at {:.0} are in their grace time", trash.at));
            } else if let Some((_, _, pin)) = pins.iter().find(older) {
                let (n, by, at) = (trash.packs.len(), &pin.by, pin.at);
                report.waiting.push(format!(
                    "{n} packs: a publish of {} begun by {by} at {at:.0} is under way",
                    pin.image
                ));
            } else {
                due.push((key, trash));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        // After the pins were listed: see `guard`.
        let live = self.live(purging).await?;
        let mut needed: HashSet<Digest> = HashSet::new();
        for id in &live.blobs {
            if live.index.find(id, &marked)?.is_none()
                && let Some(location) = live.index.find(id, &HashSet::new())?
            {
                needed.insert(location.pack);
            }
        }
        let doomed: HashSet<Digest> = due
            .iter()
            .flat_map(|(_, t)| t.packs.iter().copied())
            .filter(|p| !needed.contains(p))
            .collect();
        let mut bytes = 0;
        for id in &doomed {
            bytes += self.backend.size(&pack::key(id)).await?.unwrap_or(0);
        }
        if apply {
            self.blobs.forget_packs(&doomed).await?;
            for id in &doomed {
                self.backend.delete(&pack::key(id)).await?;
            }
            for (key, _) in &due {
                self.backend.delete(key).await?;
            }
        }
        report.deleted.extend(doomed.iter().copied());
        report.deleted.sort();
        report.deleted_bytes += bytes;
        Ok(())
    }

    /// Lists packs that nothing needs, copying first what lives in those that are mostly dead.
    async fn mark(
        &self,
        apply: bool,
        purging: &BTreeSet<(String, u64)>,
        report: &mut GcReport,
    ) -> Result<()> {
        let live = self.live(purging).await?;
        let marked = guard::trashed(&self.backend).await?;
        // Each live blob counts for one pack only: copies elsewhere are dead.
        let mut used: BTreeMap<Digest, Vec<Location>> = BTreeMap::new();
        for id in &live.blobs {
            if let Some(location) = live.index.find(id, &marked)? {
                used.entry(location.pack).or_default().push(location);
            }
        }
        let mut indexed: HashMap<Digest, u64> = HashMap::new();
        for (_, index) in &live.index.parts {
            for (id, stored) in index.stored()? {
                let sum = indexed.entry(id).or_default();
                *sum = stored.max(*sum);
            }
        }
        let mut dead = Vec::new();
        let mut sparse: Vec<Location> = Vec::new();
        for object in self.backend.list(pack::FOLDER).await? {
            let Ok(id) = pack::id_of(&object.key) else { continue };
            if marked.contains(&id) || report.deleted.contains(&id) {
                continue;
            }
            // A pack in no index belongs to a publish under way, or to one that was cut off.
            if !indexed.contains_key(&id)
                && !self.older_than(object.modified, self.policy().grace())
            {
                continue;
            }
            let alive: u64 =
                used.get(&id).into_iter().flatten().map(|location| location.packed.stored).sum();
            let stored = indexed.get(&id).copied().unwrap_or(0);
            if alive * WORTH_KEEPING >= stored && alive > 0 {
                continue;
            }
            if alive > 0 {
                sparse.extend(used.get(&id).into_iter().flatten());
                report.repacked.push(id);
            }
            report.marked_bytes += object.size;
            dead.push(id);
        }
        dead.sort();
        report.marked.clone_from(&dead);
        if !apply || dead.is_empty() {
            return Ok(());
        }
        self.blobs.repack(sparse, &marked).await?;
        let trash = Trash { at: self.now(), packs: dead };
        let text =
            serde_json::to_vec(&trash).map_err(|e| Error::invalid("trash", e.to_string()))?;
        let key = format!("{TRASH}/{}.json", uuid::Uuid::new_v4().simple());
        if self.backend.create(&key, text.into()).await? == Created::Exists {
            return Err(Error::Raced { what: key, attempts: 1 });
        }
        Ok(())
    }
}

fn duration(duration: std::time::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

impl Blobs {
    /// Takes packs out of the index. First the new index objects, then the old ones go.
    pub(crate) async fn forget_packs(&self, gone: &HashSet<Digest>) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        for (id, index) in &self.index().await?.parts {
            if !index.packs.iter().any(|(pack, _)| gone.contains(pack)) {
                continue;
            }
            let mut contents = Contents::of(index)?;
            contents.drop_packs(gone);
            self.add_index(&contents).await?;
            self.backend().delete(&index::key(id)).await?;
        }
        Ok(())
    }

    /// Copies blobs, as they are stored, into new packs, and names those in the index.
    pub(crate) async fn repack(
        &self,
        mut from: Vec<Location>,
        avoid: &HashSet<Digest>,
    ) -> Result<()> {
        from.sort_by_key(|location| (location.pack, location.packed.offset));
        let mut contents = Contents::default();
        let mut builder = Builder::default();
        let count = from.len();
        for (n, location) in from.into_iter().enumerate() {
            let packed = &location.packed;
            let stored = self.stored(&location).await?;
            // A damaged blob must not be carried into a pack that looks whole.
            self.fetch(&packed.id, &()).await?;
            builder.add(packed.id, packed.encoding, packed.base, &stored);
            if builder.is_full() || n + 1 == count {
                let pack = std::mem::take(&mut builder).finish_avoiding(avoid);
                self.add_pack(&pack).await?;
                contents.add_pack(&pack);
            }
        }
        for resource in self.index().await?.resources()?.into_values() {
            if resource.pieces.iter().all(|id| contents.blobs.contains_key(id)) {
                contents.resources.insert(resource.sha1, resource);
            }
        }
        self.add_index(&contents).await?;
        Ok(())
    }
}
