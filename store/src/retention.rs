//! Which versions may go: first a plan that can be read, then the deed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::life::{Change, State};
use crate::manifest::Manifest;
use crate::policy::RetentionRule;
use crate::store::Store;

/// A version a plan is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    pub image: String,
    pub version: u64,
    pub at: jiff::Timestamp,
    /// Bytes of its file. Deleting it may free less: other versions share them.
    pub size: u64,
    /// Why it stays; empty when it goes.
    pub kept_because: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPlan {
    pub delete: Vec<Considered>,
    pub keep: Vec<Considered>,
}

fn matches(pattern: &str, image: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => image.starts_with(start),
        None => pattern == image,
    }
}

impl Store {
    /// What the retention rules of the policy come to now. Images no rule names are left alone.
    pub async fn plan_retention(&self) -> Result<RetentionPlan> {
        let rules = self.policy().retention;
        let mut plan = RetentionPlan::default();
        if rules.is_empty() {
            return Ok(plan);
        }
        let mut manifests: BTreeMap<String, Vec<Manifest>> = BTreeMap::new();
        let mut parents = HashMap::new();
        for manifest in self.all_manifests().await? {
            let state = self.life(&manifest.image, manifest.version).await?.state;
            if matches!(state, State::Deleted | State::Purged) {
                continue;
            }
            let name = (manifest.image.clone(), manifest.version);
            parents.insert(name, manifest.fields.parents.clone());
            manifests.entry(manifest.image.clone()).or_default().push(manifest);
        }
        let mut reasons: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
        let mut at_stake = BTreeSet::new();
        for (image, versions) in &manifests {
            let rules: Vec<_> = rules.iter().filter(|rule| matches(&rule.images, image)).collect();
            if rules.is_empty() {
                continue;
            }
            let mut formers = Vec::new();
            for channel in self.channels(image).await? {
                formers
                    .extend(self.former(image, &channel).await?.map(|version| (version, channel)));
            }
            for (newer, manifest) in versions.iter().rev().enumerate() {
                let name = (image.clone(), manifest.version);
                let mut why = self.kept_because(image, manifest.version).await?;
                let former = formers.iter().filter(|(version, _)| *version == manifest.version);
                why.extend(former.map(|(_, channel)| format!("{channel} would roll back to it")));
                let age = self.now().duration_since(manifest.at).as_hours() / 24;
                why.extend(rules.iter().filter_map(|rule| rule.keeps(newer as u64, age)));
                at_stake.insert(name.clone());
                reasons.insert(name, why);
            }
        }
        // What is built on stays as long as what stands on it.
        let stays = |name: &(String, u64), reasons: &BTreeMap<(String, u64), Vec<String>>| {
            !at_stake.contains(name) || reasons.get(name).is_some_and(|why| !why.is_empty())
        };
        let mut queue: Vec<_> =
            parents.keys().filter(|name| stays(name, &reasons)).cloned().collect();
        while let Some(child) = queue.pop() {
            for parent in parents.get(&child).into_iter().flatten() {
                let name = (parent.image.clone(), parent.version);
                if let Some(why) = reasons.get_mut(&name) {
                    let first = why.is_empty();
                    let reason = format!("{}@{} is built on it", child.0, child.1);
                    if !why.contains(&reason) {
                        why.push(reason);
                    }
                    if first {
                        queue.push(name);
                    }
                }
            }
        }
        for manifest in manifests.into_values().flatten() {
            let name = (manifest.image, manifest.version);
            let Some(kept_because) = reasons.remove(&name) else { continue };
            let (at, size) = (manifest.at, manifest.file.content.size);
            let list = if kept_because.is_empty() { &mut plan.delete } else { &mut plan.keep };
            list.push(Considered { image: name.0, version: name.1, at, size, kept_because });
        }
        Ok(plan)
    }

    /// Deletes what the plan says and a fresh look still allows; returns what was deleted. Each
    /// can be restored for the grace time.
    pub async fn apply_retention(
        &self,
        plan: &RetentionPlan,
        by: Option<&str>,
    ) -> Result<Vec<Considered>> {
        let fresh = self.plan_retention().await?;
        let mut deleted = Vec::new();
        for doomed in &plan.delete {
            let name = (&doomed.image, doomed.version);
            if !fresh.delete.iter().any(|other| (&other.image, other.version) == name) {
                continue;
            }
            let change = Change::Delete { why: "retention".into() };
            self.change_life(&doomed.image, doomed.version, &change, &self.stamp_by(by)).await?;
            deleted.push(doomed.clone());
        }
        Ok(deleted)
    }
}

impl RetentionRule {
    /// Why this rule keeps a version that has so many newer ones and is so many days old.
    fn keeps(&self, newer: u64, days: i64) -> Option<String> {
        if let Some(last) = self.keep_last.filter(|&last| newer < last) {
            return Some(format!("one of the newest {last}"));
        }
        let young = self.keep_days.filter(|&keep| u64::try_from(days).unwrap_or(0) < keep);
        young.map(|keep| format!("younger than {keep} days"))
    }
}
