//! Taking a version back, and what hangs on it: revoke and restore.

use std::collections::{HashMap, HashSet, VecDeque};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::channel::{Action, Plan};
use crate::error::{Error, Result};
use crate::life::{Change, State};
use crate::manifest::Manifest;
use crate::name::LATEST;
use crate::store::Store;

#[derive(Clone, Debug, Default)]
pub struct RevokeRequest {
    pub image: String,
    pub version: u64,
    pub why: String,
    pub by: Option<String>,
    /// Revoke also every version built on it, in every image.
    pub descendants: bool,
    /// Move channels that are at a revoked version back to their former good one. Without it, a
    /// version a channel is at is not revoked.
    pub rollback_channels: bool,
}

/// What a revoke did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Revoked {
    /// `image@version`
    pub revoked: Vec<String>,
    pub moved: Vec<ChannelMove>,
    /// `image:channel` that stay at a revoked version, because there is no good former one.
    pub stuck: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ChannelMove {
    pub image: String,
    pub channel: String,
    pub from: u64,
    pub to: u64,
}

impl Store {
    /// Every manifest of the store, newest versions of an image last.
    pub async fn all_manifests(&self) -> Result<Vec<Manifest>> {
        let mut wanted = Vec::new();
        for image in self.images().await? {
            for version in self.versions(&image).await? {
                wanted.push((image.clone(), version));
            }
        }
        let wide = if self.is_local() { 1 } else { 16 };
        futures::stream::iter(wanted)
            .map(|(image, version)| async move { Ok(self.manifest(&image, version).await?.0) })
            .buffered(wide)
            .try_collect()
            .await
    }

    /// Names of the images, sorted.
    pub async fn images(&self) -> Result<Vec<String>> {
        self.backend.names("images").await
    }

    /// Every version that was built on this one, however far down.
    pub async fn descendants(&self, image: &str, version: u64) -> Result<Vec<(String, u64)>> {
        let mut children: HashMap<(String, u64), Vec<(String, u64)>> = HashMap::new();
        for manifest in self.all_manifests().await? {
            for parent in &manifest.fields.parents {
                let child = (manifest.image.clone(), manifest.version);
                children.entry((parent.image.clone(), parent.version)).or_default().push(child);
            }
        }
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([(image.to_owned(), version)]);
        while let Some(next) = queue.pop_front() {
            for child in children.remove(&next).unwrap_or_default() {
                if seen.insert(child.clone()) {
                    found.push(child.clone());
                    queue.push_back(child);
                }
            }
        }
        Ok(found)
    }

    /// Channels that are at this version now.
    pub async fn channels_at(&self, image: &str, version: u64) -> Result<Vec<String>> {
        let mut at = Vec::new();
        for channel in self.channels(image).await? {
            let head = self.head(image, &channel).await?;
            if head.is_some_and(|head| head.entry.body.version == version) {
                at.push(channel);
            }
        }
        Ok(at)
    }

    pub async fn revoke(&self, request: RevokeRequest) -> Result<Revoked> {
        let (image, version) = (&request.image, request.version);
        self.manifest(image, version).await?;
        let mut targets = vec![(image.clone(), version)];
        if request.descendants {
            targets.extend(self.descendants(image, version).await?);
        }
        let mut held = Vec::new();
        for (image, version) in &targets {
            for channel in self.channels_at(image, *version).await? {
                if channel != LATEST {
                    held.push((image.clone(), channel, *version));
                }
            }
        }
        if !held.is_empty() && !request.rollback_channels {
            let names: Vec<_> = held.iter().map(|(i, c, v)| format!("{i}:{c} is at {v}")).collect();
            let why = format!("{}; ask to roll channels back too", names.join(", "));
            return Err(Error::refused(format!("revoking {image}@{version}"), why));
        }
        let stamp = self.stamp_by(request.by.as_deref());
        let mut done = Revoked::default();
        for (n, (target, number)) in targets.iter().enumerate() {
            let ancestor = (n > 0).then(|| format!("{image}@{version}"));
            let change = Change::Revoke { why: request.why.clone(), ancestor };
            let state = self.life(target, *number).await?.state;
            // Descendants that are gone need no revoking.
            if n > 0 && matches!(state, State::Deleted | State::Purged) {
                continue;
            }
            self.change_life(target, *number, &change, &stamp).await?;
            done.revoked.push(format!("{target}@{number}"));
        }
        for (target, channel, from) in held {
            match self.former(&target, &channel).await? {
                Some(to) => {
                    let rule = self.policy().channel(&channel)?;
                    let why = &request.why;
                    self.move_channel(&target, &rule, &stamp, |head| async move {
                        let still = head.is_some_and(|head| head.entry.body.version == from);
                        Ok(still.then(|| Plan::new(Action::Withdraw, to, why)))
                    })
                    .await?;
                    done.moved.push(ChannelMove { image: target, channel, from, to });
                }
                None => done.stuck.push(format!("{target}:{channel}")),
            }
        }
        let images: HashSet<&String> = targets.iter().map(|(image, _)| image).collect();
        for image in images {
            self.follow(image, LATEST, Action::Withdraw, &request.why, &stamp).await?;
        }
        Ok(done)
    }

    /// Takes back the newest of revoke, delete and deprecate.
    pub async fn restore(
        &self,
        image: &str,
        version: u64,
        why: &str,
        by: Option<&str>,
    ) -> Result<()> {
        self.manifest(image, version).await?;
        let stamp = self.stamp_by(by);
        let change = Change::Restore { why: why.to_owned() };
        self.change_life(image, version, &change, &stamp).await?;
        self.follow(image, LATEST, Action::Publish, why, &stamp).await
    }

    /// Why a version may not be deleted; empty if it may.
    pub async fn kept_because(&self, image: &str, version: u64) -> Result<Vec<String>> {
        let mut reasons = Vec::new();
        for channel in self.channels_at(image, version).await? {
            reasons.push(format!("{channel} is at it"));
        }
        for hold in self.life(image, version).await?.holds {
            reasons.push(format!("held by {}: {}", hold.name, hold.why));
        }
        Ok(reasons)
    }

    /// Deletes a version: it can be restored for the grace time, then gc takes its bytes.
    pub async fn delete(
        &self,
        image: &str,
        version: u64,
        why: &str,
        by: Option<&str>,
    ) -> Result<()> {
        self.manifest(image, version).await?;
        let mut reasons = self.kept_because(image, version).await?;
        for (child, number) in self.descendants(image, version).await? {
            if self.life(&child, number).await?.state.is_good() {
                reasons.push(format!("{child}@{number} is built on it"));
            }
        }
        if !reasons.is_empty() {
            let what = format!("deleting {image}@{version}");
            return Err(Error::refused(what, reasons.join("; ")));
        }
        let change = Change::Delete { why: why.to_owned() };
        self.change_life(image, version, &change, &self.stamp_by(by)).await?;
        Ok(())
    }

    pub fn is_local(&self) -> bool {
        self.backend.is_local()
    }
}
