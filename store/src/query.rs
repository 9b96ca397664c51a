//! What is in a store: listings, one version whole, the difference of two.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::channel::Assignment;
use crate::digest::Digest;
use crate::error::Result;
use crate::guard::{self, Pin};
use crate::life::{Change, Life, State};
use crate::manifest::{Manifest, Package};
use crate::name::{LATEST, Reference};
use crate::store::Store;

/// One line of `ls`.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRow {
    pub image: String,
    /// Versions ever published.
    pub versions: u64,
    /// The version `latest` is at.
    pub latest: Option<u64>,
    pub at: Option<jiff::Timestamp>,
    /// Bytes of that version's file.
    pub size: Option<u64>,
    /// Where each channel is.
    pub channels: BTreeMap<String, u64>,
}

/// One line of `ls IMAGE`.
#[derive(Clone, Debug, Serialize)]
pub struct VersionRow {
    pub version: u64,
    pub at: jiff::Timestamp,
    pub by: String,
    /// Bytes of the file.
    pub size: u64,
    pub digest: Digest,
    pub state: State,
    pub channels: Vec<String>,
    pub description: String,
}

/// Everything about one version.
#[derive(Clone, Debug, Serialize)]
pub struct VersionDetail {
    pub manifest: Manifest,
    pub manifest_digest: Digest,
    /// Name of the key that signed it.
    pub signed_by: String,
    pub life: Life,
    pub channels: Vec<String>,
}

/// Something that happened to an image.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub at: jiff::Timestamp,
    pub by: String,
    pub version: u64,
    /// The channel it is about; none for the version itself.
    pub channel: Option<String>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Published { digest: Digest, size: u64 },
    Moved(Assignment),
    Changed(Change),
}

/// A name whose value differs; `None` where one side does not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub name: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// How two versions differ, by their manifests and their blobs.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub old: String,
    pub new: String,
    /// Bytes of the files.
    pub old_size: u64,
    pub new_size: u64,
    /// Bytes of the new file that the old one has too.
    pub shared: u64,
    pub facts: Vec<Difference>,
    pub packages: Vec<Difference>,
    pub updates: Vec<Difference>,
    pub layers: Vec<Difference>,
    pub inputs: Vec<Difference>,
    pub artifacts: Vec<Difference>,
}

impl Store {
    /// All images. Reads for each its channels and one manifest.
    pub async fn ls(&self) -> Result<Vec<ImageRow>> {
        let mut rows = Vec::new();
        for image in self.images().await? {
            let versions = self.versions(&image).await?;
            let mut channels = BTreeMap::new();
            for channel in self.channels(&image).await? {
                if let Some(head) = self.head(&image, &channel).await? {
                    channels.insert(channel, head.entry.body.version);
                }
            }
            let latest = channels.get(LATEST).copied();
            let manifest = match latest {
                Some(version) => Some(self.manifest(&image, version).await?.0),
                None => None,
            };
            rows.push(ImageRow {
                image,
                versions: versions.len() as u64,
                latest,
                at: manifest.as_ref().map(|manifest| manifest.at),
                size: manifest.as_ref().map(|manifest| manifest.file.content.size),
                channels,
            });
        }
        Ok(rows)
    }

    /// Versions of an image, newest first, at most `limit`.
    pub async fn list(&self, image: &str, limit: usize) -> Result<Vec<VersionRow>> {
        let mut heads: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for channel in self.channels(image).await? {
            if let Some(head) = self.head(image, &channel).await? {
                heads.entry(head.entry.body.version).or_default().push(channel);
            }
        }
        let mut rows = Vec::new();
        for &version in self.versions(image).await?.iter().rev().take(limit) {
            let (manifest, _) = self.manifest(image, version).await?;
            rows.push(VersionRow {
                version,
                at: manifest.at,
                by: manifest.by,
                size: manifest.file.content.size,
                digest: manifest.file.content.digest,
                state: self.life(image, version).await?.state,
                channels: heads.get(&version).cloned().unwrap_or_default(),
                description: manifest.fields.description,
            });
        }
        Ok(rows)
    }

    pub async fn show(&self, reference: &Reference) -> Result<VersionDetail> {
        let found = self.resolve(reference).await?;
        let key = self.manifest_key(&found.image, found.version).await?;
        let policy = self.policy();
        let signed_by = policy.keys.iter().find(|k| k.id == key).map(|k| k.name.clone());
        Ok(VersionDetail {
            life: self.life(&found.image, found.version).await?,
            channels: self.channels_at(&found.image, found.version).await?,
            manifest: found.manifest,
            manifest_digest: found.manifest_digest,
            signed_by: signed_by.unwrap_or(key),
        })
    }

    /// All that happened to an image, oldest first.
    pub async fn events(&self, image: &str) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for version in self.versions(image).await? {
            let (manifest, _) = self.manifest(image, version).await?;
            let content = manifest.file.content;
            events.push(Event {
                at: manifest.at,
                by: manifest.by,
                version,
                channel: None,
                what: What::Published { digest: content.digest, size: content.size },
            });
            for checked in self.life_entries(image, version).await? {
                let entry = checked.entry;
                let what = What::Changed(entry.body);
                events.push(Event { at: entry.at, by: entry.by, version, channel: None, what });
            }
        }
        for channel in self.channels(image).await? {
            for checked in self.history(image, &channel).await? {
                let entry = checked.entry;
                events.push(Event {
                    at: entry.at,
                    by: entry.by,
                    version: entry.body.version,
                    channel: Some(channel.clone()),
                    what: What::Moved(entry.body),
                });
            }
        }
        events.sort_by_key(|event| event.at);
        Ok(events)
    }

    /// Publishes under way or cut off: versions that are being built.
    pub async fn building(&self) -> Result<Vec<Pin>> {
        let pins = guard::pins(&self.backend).await?;
        Ok(pins.into_iter().map(|(_, _, pin)| pin).filter(|pin| !pin.is_dead()).collect())
    }

    pub async fn diff(&self, old: &Reference, new: &Reference) -> Result<Diff> {
        let (old, new) = (self.resolve(old).await?, self.resolve(new).await?);
        let (a, b) = (&old.manifest, &new.manifest);
        let held: HashSet<_> =
            self.file(&a.file.content).await?.pieces().iter().map(|piece| piece.id).collect();
        let shared = self
            .file(&b.file.content)
            .await?
            .pieces()
            .iter()
            .filter(|piece| held.contains(&piece.id))
            .map(|piece| piece.len)
            .sum();
        let facts = |m: &Manifest| {
            let os = &m.fields.os;
            let mut facts = vec![
                ("os".to_owned(), os.name.clone()),
                ("edition".to_owned(), os.edition.clone()),
                ("build".to_owned(), os.build.clone()),
                ("architecture".to_owned(), os.architecture.clone()),
                ("languages".to_owned(), os.languages.join(", ")),
            ];
            let template = m.fields.template_digest.map(|digest| digest.to_string());
            facts.push(("template".to_owned(), template.unwrap_or_default()));
            let more = os.more.iter().map(|(name, value)| (name.clone(), value.to_string()));
            facts.extend(more);
            facts.retain(|(_, value)| !value.is_empty());
            facts
        };
        let packages = |m: &Manifest| packages(&m.fields.os.packages);
        let updates =
            |m: &Manifest| m.fields.os.updates.iter().map(|u| (u.clone(), String::new())).collect();
        let layers = |m: &Manifest| {
            m.fields.layers.iter().map(|l| (l.name.clone(), l.key.clone())).collect()
        };
        let inputs = |m: &Manifest| {
            m.fields.inputs.iter().map(|i| (i.name.clone(), i.digest.to_string())).collect()
        };
        let artifacts = |m: &Manifest| {
            let each = |a: &crate::Stored| {
                (format!("{}/{}", a.role, a.name), a.content.digest.to_string())
            };
            m.artifacts.iter().map(each).collect()
        };
        Ok(Diff {
            old: format!("{}@{}", old.image, old.version),
            new: format!("{}@{}", new.image, new.version),
            old_size: a.file.content.size,
            new_size: b.file.content.size,
            shared,
            facts: compare(facts(a), facts(b)),
            packages: compare(packages(a), packages(b)),
            updates: compare(updates(a), updates(b)),
            layers: compare(layers(a), layers(b)),
            inputs: compare(inputs(a), inputs(b)),
            artifacts: compare(artifacts(a), artifacts(b)),
        })
    }
}

/// One line per name: a package may be installed in several versions or architectures.
fn packages(packages: &[Package]) -> Vec<(String, String)> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        by_name.entry(package.name.clone()).or_default().push(package.version.clone());
    }
    by_name
        .into_iter()
        .map(|(name, mut versions)| {
            versions.sort();
            (name, versions.join(", "))
        })
        .collect()
}

/// What one side has and the other has not, or has with another value; by name.
pub fn compare(old: Vec<(String, String)>, new: Vec<(String, String)>) -> Vec<Difference> {
    let old: BTreeMap<_, _> = old.into_iter().collect();
    let mut new: BTreeMap<_, _> = new.into_iter().collect();
    let mut differences = Vec::new();
    for (name, was) in old {
        match new.remove(&name) {
            Some(is) if is == was => {}
            is => differences.push(Difference { name, old: Some(was), new: is }),
        }
    }
    let added = new.into_iter().map(|(name, is)| Difference { name, old: None, new: Some(is) });
    differences.extend(added);
    differences.sort_by(|a, b| a.name.cmp(&b.name));
    differences
}
