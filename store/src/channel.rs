//! Channels: which version is `dev`, `test`, `prod`, and was.
//!
//! A channel is a log; its head says where it is. `promote` moves it forward through the gates
//! its rule declares, `rollback` takes back the last move that is still in force, `assign` sets it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gates::GateResult;
use crate::life::State;
use crate::log::{Appended, Checked, Next, Stamp};
use crate::manifest::Manifest;
use crate::name::{self, LATEST, Pick, Reference};
use crate::policy::{ChannelRule, Role};
use crate::store::Store;

pub(crate) const PAYLOAD: &str = "application/vnd.gilt.assignment+json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `latest` follows a new version.
    Publish,
    Promote,
    Assign,
    Rollback,
    /// The version it was at is no longer good.
    Withdraw,
    /// Same version, new time: the head does not expire.
    Renew,
}

/// An entry of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub action: Action,
    pub version: u64,
    /// Of the version's manifest, so that the version cannot be another one later.
    pub manifest: Digest,
    /// Where the channel was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<u64>,
    /// The channel it was promoted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_channel: Option<String>,
    pub why: String,
    /// Gates that failed were overruled.
    pub forced: bool,
    pub gates: Vec<GateResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub struct PromoteRequest {
    pub image: String,
    /// The version the source channel is at, if not given.
    pub version: Option<u64>,
    /// The source channel; the one the rule of `to` names, if not given.
    pub from: Option<String>,
    pub to: String,
    pub by: Option<String>,
    pub why: String,
    /// Overrule gates that fail; recorded. Does not bring back what is revoked.
    pub force: bool,
}

/// A move that no gate decides.
#[derive(Clone, Debug, Default)]
pub struct MoveRequest {
    pub image: String,
    pub channel: String,
    /// For `assign`: the version to set. For `rollback`: the version to go back to; the former
    /// one, if not given.
    pub version: Option<u64>,
    pub by: Option<String>,
    pub why: String,
}

/// A version that a name led to.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub image: String,
    pub version: u64,
    pub manifest: Manifest,
    pub manifest_digest: Digest,
}

fn folder(image: &str, channel: &str) -> String {
    format!("images/{image}/channels/{channel}")
}

/// The versions a channel went through that were not taken back, oldest first.
fn stack(history: &[Checked<Assignment>]) -> Vec<u64> {
    let mut stack: Vec<u64> = Vec::new();
    for checked in history {
        let assignment = &checked.entry.body;
        match assignment.action {
            Action::Renew => {}
            Action::Rollback | Action::Withdraw => {
                match stack.iter().rposition(|&version| version == assignment.version) {
                    Some(at) => stack.truncate(at + 1),
                    None => stack = vec![assignment.version],
                }
            }
            Action::Publish | Action::Promote | Action::Assign => stack.push(assignment.version),
        }
    }
    stack
}

impl Store {
    /// Names of the channels an image has entries in.
    pub async fn channels(&self, image: &str) -> Result<Vec<String>> {
        name::check("image", image)?;
        self.backend.names(&format!("images/{image}/channels")).await
    }

    /// Where a channel is: its newest entry, checked. `None`: nothing was ever assigned.
    pub async fn head(&self, image: &str, channel: &str) -> Result<Option<Checked<Assignment>>> {
        name::check("image", image)?;
        name::check("channel", channel)?;
        let policy = self.policy();
        let log = self.log(folder(image, channel), PAYLOAD);
        let head = log.head::<Assignment>(&policy).await?;
        if let Some(head) = &head {
            self.check_signer(channel, &log.folder, head)?;
        }
        Ok(head)
    }

    fn check_signer(&self, channel: &str, log: &str, entry: &Checked<Assignment>) -> Result<()> {
        let policy = self.policy();
        // A channel whose rule was dropped can still be read.
        let signers = policy
            .channel(channel)
            .map_or_else(|_| vec![Role::Release, Role::Admin], |r| r.signers);
        let object = crate::log::entry_key(log, entry.entry.seq);
        policy.check_role(&object, &entry.key_id, &signers)
    }

    /// Every move of a channel, oldest first.
    pub async fn history(&self, image: &str, channel: &str) -> Result<Vec<Checked<Assignment>>> {
        name::check("image", image)?;
        name::check("channel", channel)?;
        let policy = self.policy();
        let log = self.log(folder(image, channel), PAYLOAD);
        let entries = log.all::<Assignment>(&policy).await?;
        for entry in &entries {
            self.check_signer(channel, &log.folder, entry)?;
        }
        Ok(entries)
    }

    /// The version a name stands for. A channel whose head expired is refused.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let image = &reference.image;
        let channel = match &reference.pick {
            Pick::Version(version) => {
                let (manifest, manifest_digest) = self.manifest(image, *version).await?;
                let image = image.clone();
                return Ok(Resolved { image, version: *version, manifest, manifest_digest });
            }
            Pick::Latest => LATEST,
            Pick::Channel(channel) => channel,
        };
        let head = self.head(image, channel).await?;
        let head = head.ok_or_else(|| Error::not_found(format!("{image}:{channel}")))?;
        let assignment = &head.entry.body;
        if let Some(at) = assignment.expires
            && self.now() > at
        {
            return Err(Error::Expired { log: format!("{image}:{channel}"), at });
        }
        let version = assignment.version;
        let (manifest, manifest_digest) = self.manifest(image, version).await?;
        if manifest_digest != assignment.manifest {
            let what = format!(
                "{image}:{channel} was assigned the manifest {}, {image}@{version} has {manifest_digest}",
                assignment.manifest
            );
            return Err(Error::corrupt(crate::manifest::key(image, version), what));
        }
        Ok(Resolved { image: image.clone(), version, manifest, manifest_digest })
    }

    /// Refuses a version that is revoked or gone.
    pub async fn check_good(&self, image: &str, version: u64) -> Result<()> {
        let life = self.life(image, version).await?;
        match life.state {
            State::Complete | State::Deprecated => Ok(()),
            State::Revoked => {
                let why = format!("{} ({}, {})", life.why, life.by, date(life.at));
                Err(Error::Revoked { image: image.to_owned(), version, why })
            }
            State::Deleted | State::Purged => Err(Error::refused(
                format!("{image}@{version}"),
                format!("it is {}", life.state.name()),
            )),
        }
    }

    /// Moves a channel to a version through the gates of its rule.
    pub async fn promote(&self, request: PromoteRequest) -> Result<Checked<Assignment>> {
        let image = &request.image;
        let rule = self.policy().channel(&request.to)?;
        if request.to == LATEST {
            return Err(Error::refused("promoting to latest", "it follows the newest version"));
        }
        let from = request.from.clone().or_else(|| rule.from.clone());
        let version = match (request.version, &from) {
            (Some(version), _) => version,
            (None, Some(from)) => {
                let head = self.head(image, from).await?;
                head.ok_or_else(|| Error::not_found(format!("{image}:{from}")))?.entry.body.version
            }
            (None, None) => {
                let head = self.head(image, LATEST).await?;
                head.ok_or_else(|| Error::not_found(format!("image {image}")))?.entry.body.version
            }
        };
        let stamp = self.stamp_by(request.by.as_deref());
        let (request, rule, from) = (&request, &rule, &from);
        let moved = self
            .move_channel(image, rule, &stamp, |head| async move {
                if head.is_some_and(|head| head.entry.body.version == version) {
                    return Ok(None);
                }
                self.check_good(image, version).await?;
                let gates = self.gates(image, version, rule, from.as_deref()).await?;
                let failed = gates.iter().any(|gate| !gate.passed);
                if failed && !request.force {
                    let (image, to) = (image.clone(), request.to.clone());
                    return Err(Error::Gates { image, version, to, gates });
                }
                let why = request.why.clone();
                let from_channel = from.clone();
                Ok(Some(Plan {
                    action: Action::Promote,
                    version,
                    from_channel,
                    why,
                    forced: failed,
                    gates,
                }))
            })
            .await?;
        Ok(moved)
    }

    /// Sets a channel, gates or not: for the first version of a channel, and for repair.
    pub async fn assign(&self, request: MoveRequest) -> Result<Checked<Assignment>> {
        let rule = self.policy().channel(&request.channel)?;
        let version = request.version.ok_or_else(|| Error::invalid("assign", "want a version"))?;
        let stamp = self.stamp_by(request.by.as_deref());
        let image = &request.image;
        let request = &request;
        self.move_channel(image, &rule, &stamp, |head| async move {
            if head.is_some_and(|head| head.entry.body.version == version) {
                return Ok(None);
            }
            self.check_good(image, version).await?;
            Ok(Some(Plan::new(Action::Assign, version, &request.why)))
        })
        .await
    }

    /// Moves a channel back to the version it was at before, passing over those that are revoked
    /// or gone. A second rollback goes back one further.
    pub async fn rollback(&self, request: MoveRequest) -> Result<Checked<Assignment>> {
        let rule = self.policy().channel(&request.channel)?;
        let stamp = self.stamp_by(request.by.as_deref());
        let image = &request.image;
        let request = &request;
        self.move_channel(image, &rule, &stamp, |head| async move {
            let name = format!("{image}:{}", request.channel);
            if head.is_none() {
                return Err(Error::not_found(name));
            }
            let version = match request.version {
                Some(version) => {
                    self.check_good(image, version).await?;
                    let mut stack = stack(&self.history(image, &request.channel).await?);
                    stack.pop();
                    if !stack.contains(&version) {
                        let why = format!("it was not at {image}@{version} before");
                        return Err(Error::refused(format!("rolling back {name}"), why));
                    }
                    version
                }
                None => self.former(image, &request.channel).await?.ok_or_else(|| {
                    Error::refused(
                        format!("rolling back {name}"),
                        "there is no good former version",
                    )
                })?,
            };
            Ok(Some(Plan::new(Action::Rollback, version, &request.why)))
        })
        .await
    }

    /// The newest good version below the top of a channel's stack.
    pub(crate) async fn former(&self, image: &str, channel: &str) -> Result<Option<u64>> {
        let mut stack = stack(&self.history(image, channel).await?);
        let top = stack.pop();
        for &version in stack.iter().rev() {
            if Some(version) != top && self.life(image, version).await?.state.is_good() {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Signs the head again with a new time, so that it does not expire.
    pub async fn renew(&self, request: MoveRequest) -> Result<Checked<Assignment>> {
        let rule = self.policy().channel(&request.channel)?;
        let stamp = self.stamp_by(request.by.as_deref());
        let request = &request;
        self.move_channel(&request.image, &rule, &stamp, |head| async move {
            let Some(head) = head else {
                return Err(Error::not_found(format!("{}:{}", request.image, request.channel)));
            };
            Ok(Some(Plan::new(Action::Renew, head.entry.body.version, &request.why)))
        })
        .await
    }

    /// Moves `latest`, or a channel whose version went bad, to the newest version that is good.
    pub(crate) async fn follow(
        &self,
        image: &str,
        channel: &str,
        action: Action,
        why: &str,
        stamp: &Stamp,
    ) -> Result<()> {
        let rule = self.policy().channel(channel)?;
        let moved = self
            .move_channel(image, &rule, stamp, |head| async move {
                let at = head.map(|head| head.entry.body.version);
                for &version in self.versions(image).await?.iter().rev() {
                    if Some(version) == at && action == Action::Publish {
                        return Ok(None);
                    }
                    if self.life(image, version).await?.state.is_good() {
                        let plan = Plan::new(action, version, why);
                        return Ok((Some(version) != at).then_some(plan));
                    }
                }
                Ok(None)
            })
            .await;
        match moved {
            // No good version at all: the channel stays where it is, and pulls of it are refused.
            Err(Error::NotFound { .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Appends what `decide` makes of the head. `None`: the channel is there already.
    pub(crate) async fn move_channel<F, D>(
        &self,
        image: &str,
        rule: &ChannelRule,
        stamp: &Stamp,
        mut decide: F,
    ) -> Result<Checked<Assignment>>
    where
        F: FnMut(Option<Checked<Assignment>>) -> D,
        D: Future<Output = Result<Option<Plan>>> + Send,
    {
        name::check("image", image)?;
        let policy = self.policy();
        let signer = self.signer(&rule.signers)?;
        let log = self.log(folder(image, &rule.name), PAYLOAD);
        let ttl = policy.head_ttl_seconds.and_then(|seconds| i64::try_from(seconds).ok());
        let expires =
            ttl.and_then(|ttl| stamp.at.checked_add(jiff::SignedDuration::from_secs(ttl)).ok());
        let append = |head: Option<Checked<Assignment>>| {
            let decided = decide(head.clone());
            async move {
                let Some(plan) = decided.await? else {
                    let name = format!("{image}:{}", rule.name);
                    return Ok(Next::Done(head.ok_or_else(|| Error::not_found(name))?));
                };
                let (_, manifest) = self.manifest(image, plan.version).await?;
                Ok(Next::Append(Assignment {
                    action: plan.action,
                    version: plan.version,
                    manifest,
                    from_version: head.map(|head| head.entry.body.version),
                    from_channel: plan.from_channel,
                    why: plan.why,
                    forced: plan.forced,
                    gates: plan.gates,
                    expires,
                }))
            }
        };
        let appended = log.append(&policy, &signer, stamp, append).await?;
        Ok(match appended {
            Appended::New(entry) | Appended::Already(entry) => entry,
        })
    }
}

/// A move that is decided.
pub(crate) struct Plan {
    action: Action,
    version: u64,
    from_channel: Option<String>,
    why: String,
    forced: bool,
    gates: Vec<GateResult>,
}

impl Plan {
    pub fn new(action: Action, version: u64, why: &str) -> Self {
        let why = why.to_owned();
        Self { action, version, from_channel: None, why, forced: false, gates: Vec::new() }
    }
}

fn date(at: Option<jiff::Timestamp>) -> String {
    at.map(|at| format!("{at:.0}")).unwrap_or_default()
}
