//! What a version must show before a channel moves to it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::life::State;
use crate::manifest::Manifest;
use crate::policy::{ChannelRule, Gate, age_text};
use crate::store::Store;

/// What a gate said of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateResult {
    pub gate: String,
    pub passed: bool,
    pub detail: String,
}

impl Store {
    /// Asks every gate of a channel about a version.
    pub async fn gates(
        &self,
        image: &str,
        version: u64,
        rule: &ChannelRule,
        from: Option<&str>,
    ) -> Result<Vec<GateResult>> {
        let (manifest, _) = self.manifest(image, version).await?;
        let mut results = Vec::new();
        let mut since = manifest.at;
        if let Some(from) = from {
            let history = self.history(image, from).await?;
            let entered = history
                .iter()
                .find(|checked| checked.entry.body.version == version)
                .map(|checked| checked.entry.at);
            since = entered.unwrap_or(since);
            results.push(GateResult {
                gate: format!("was in {from}"),
                passed: entered.is_some(),
                detail: match entered {
                    Some(at) => format!("since {at:.0}"),
                    None => format!("{image}@{version} was never in {from}"),
                },
            });
        }
        for gate in &rule.gates {
            let (passed, detail) = self.ask(&manifest, gate, since).await?;
            results.push(GateResult { gate: gate.name(), passed, detail });
        }
        Ok(results)
    }

    async fn ask(
        &self,
        manifest: &Manifest,
        gate: &Gate,
        since: jiff::Timestamp,
    ) -> Result<(bool, String)> {
        let (image, version) = (&manifest.image, manifest.version);
        Ok(match gate {
            Gate::TestsPassed => {
                let life = self.life(image, version).await?;
                if let Some(bad) = life.attested.iter().find(|attested| !attested.passed) {
                    return Ok((false, format!("{} failed: {}", bad.name, bad.detail)));
                }
                match &manifest.fields.tests {
                    Some(tests) if tests.failed > 0 => (false, format!("{} failed", tests.failed)),
                    Some(tests) if tests.passed > 0 => (true, format!("{} passed", tests.passed)),
                    _ if !life.attested.is_empty() => {
                        (true, format!("{} attested", life.attested.len()))
                    }
                    _ => (false, "no test ran".into()),
                }
            }
            Gate::SignedBy { role } => {
                let id = self.manifest_key(image, version).await?;
                let policy = self.policy();
                let key = policy.key(&crate::manifest::key(image, version), &id)?;
                let passed = key.has(*role) && key.retired.is_none();
                (passed, format!("signed by key {}", key.name))
            }
            Gate::MinAge { seconds } => {
                let age = self.now().duration_since(since).as_secs().max(0).unsigned_abs();
                (age >= *seconds, format!("{} of {}", age_text(age), age_text(*seconds)))
            }
            Gate::NoRevokedParent => match self.revoked_ancestor(manifest).await? {
                Some(ancestor) => (false, format!("built on {ancestor}, which is revoked")),
                None => (true, "no ancestor is revoked".into()),
            },
            Gate::HasArtifact { role } => {
                let found = manifest.artifacts.iter().find(|artifact| artifact.role == *role);
                match found {
                    Some(artifact) => (true, artifact.name.clone()),
                    None => (false, format!("it has no {role}")),
                }
            }
        })
    }

    /// The nearest version up the line of parents that is revoked.
    pub async fn revoked_ancestor(&self, manifest: &Manifest) -> Result<Option<String>> {
        let mut queue = manifest.fields.parents.clone();
        let mut seen = std::collections::HashSet::new();
        let mut next = 0;
        while next < queue.len() {
            let parent = queue[next].clone();
            next += 1;
            if !seen.insert((parent.image.clone(), parent.version)) {
                continue;
            }
            let above = match self.manifest(&parent.image, parent.version).await {
                // Parents may live in other stores.
                Err(Error::NotFound { .. }) => continue,
                other => other?.0,
            };
            if self.life(&parent.image, parent.version).await?.state == State::Revoked {
                return Ok(Some(format!("{}@{}", parent.image, parent.version)));
            }
            queue.extend(above.fields.parents);
        }
        Ok(None)
    }
}
