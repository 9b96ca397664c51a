//! The life of a version, as a log of its own: deprecated, revoked, restored, held, deleted.
//!
//! ```text
//! complete ─ deprecate ─> deprecated ─┐
//!    │  └──── revoke ───> revoked ────┼─ restore ─> what it was before
//!    └─────── delete ───> deleted ────┘
//!                            └ purge ─> purged: its bytes may be gone; no way back
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::log::{Appended, Checked, Next, Stamp};
use crate::manifest;
use crate::policy::Role;
use crate::store::Store;

pub(crate) const PAYLOAD: &str = "application/vnd.gilt.life+json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Still works; pulls warn.
    Deprecate {
        why: String,
    },
    /// Not to be used: pulls and promotions are refused.
    Revoke {
        why: String,
        /// The revoked version this one was built on, when it was revoked because of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ancestor: Option<String>,
    },
    Restore {
        why: String,
    },
    /// Must not be deleted while the hold is there.
    Hold {
        name: String,
        why: String,
    },
    Release {
        name: String,
    },
    /// A result that came after publishing, such as a test on real hardware.
    Attest {
        name: String,
        passed: bool,
        detail: String,
    },
    Delete {
        why: String,
    },
    /// The grace time is over; gc may take its bytes.
    Purge,
}

impl Change {
    fn signers(&self) -> &'static [Role] {
        match self {
            Self::Attest { .. } => &[Role::Builder, Role::Release, Role::Admin],
            _ => &[Role::Release, Role::Admin],
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[default]
    Complete,
    Deprecated,
    Revoked,
    Deleted,
    Purged,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Deprecated => "deprecated",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::Purged => "purged",
        }
    }

    /// May be pulled and promoted.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Complete | Self::Deprecated)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub name: String,
    pub why: String,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attested {
    pub name: String,
    pub passed: bool,
    pub detail: String,
}

/// What the log of a version comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Life {
    pub state: State,
    /// Of the newest change of the state.
    pub why: String,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<jiff::Timestamp>,
    pub holds: Vec<Hold>,
    pub attested: Vec<Attested>,
    #[serde(skip)]
    before: Vec<State>,
}

impl Life {
    fn enter(&mut self, state: State, why: &str, by: &str, at: jiff::Timestamp) {
        self.before.push(self.state);
        self.set(state, why, by, at);
    }

    fn set(&mut self, state: State, why: &str, by: &str, at: jiff::Timestamp) {
        self.state = state;
        self.why = why.to_owned();
        self.by = by.to_owned();
        self.at = Some(at);
    }

    fn apply(&mut self, change: &Change, by: &str, at: jiff::Timestamp) {
        match change {
            Change::Deprecate { why } => self.enter(State::Deprecated, why, by, at),
            Change::Revoke { why, ancestor } => {
                let why = match ancestor {
                    Some(ancestor) => format!("{why} (built on {ancestor})"),
                    None => why.clone(),
                };
                self.enter(State::Revoked, &why, by, at);
            }
            Change::Delete { why } => self.enter(State::Deleted, why, by, at),
            Change::Restore { why } => {
                let before = self.before.pop().unwrap_or_default();
                self.set(before, why, by, at);
            }
            Change::Purge => self.enter(State::Purged, "", by, at),
            Change::Hold { name, why } => {
                self.holds.retain(|hold| hold.name != *name);
                let (name, why, by) = (name.clone(), why.clone(), by.to_owned());
                self.holds.push(Hold { name, why, by });
            }
            Change::Release { name } => self.holds.retain(|hold| hold.name != *name),
            Change::Attest { name, passed, detail } => {
                self.attested.retain(|attested| attested.name != *name);
                let (name, passed, detail) = (name.clone(), *passed, detail.clone());
                self.attested.push(Attested { name, passed, detail });
            }
        }
    }

    /// Why this change makes no sense now, or `Ok(false)` if it would change nothing.
    fn allows(&self, change: &Change) -> Result<bool, String> {
        use State::{Complete, Deleted, Deprecated, Purged, Revoked};
        if self.state == Purged {
            return Err("it is purged; its bytes may be gone".into());
        }
        match (change, self.state) {
            (Change::Restore { .. }, Complete) => Err("there is nothing to restore it from".into()),
            (Change::Deprecate { .. }, Deprecated) => Ok(false),
            (Change::Revoke { .. }, Revoked) | (Change::Delete { .. }, Deleted) => Ok(false),
            (Change::Deprecate { .. }, Revoked | Deleted) | (Change::Revoke { .. }, Deleted) => {
                Err(format!("it is {}; restore it first", self.state.name()))
            }
            (Change::Delete { .. }, _) if !self.holds.is_empty() => {
                let names: Vec<_> = self.holds.iter().map(|hold| hold.name.as_str()).collect();
                Err(format!("it is held by {}", names.join(", ")))
            }
            (Change::Purge, state) if state != Deleted => Err("it is not deleted".into()),
            (Change::Hold { .. }, Deleted) => Err("it is deleted; restore it first".into()),
            (Change::Release { name }, _) => {
                if self.holds.iter().any(|hold| hold.name == *name) {
                    Ok(true)
                } else {
                    Err(format!("there is no hold {name:?} on it"))
                }
            }
            _ => Ok(true),
        }
    }
}

pub(crate) fn folder(image: &str, version: u64) -> String {
    format!("{}/life", manifest::version_folder(image, version))
}

impl Store {
    /// What became of a version.
    pub async fn life(&self, image: &str, version: u64) -> Result<Life> {
        let mut life = Life::default();
        for checked in self.life_entries(image, version).await? {
            let entry = &checked.entry;
            life.apply(&entry.body, &entry.by, entry.at);
        }
        Ok(life)
    }

    /// Every change, oldest first.
    pub async fn life_entries(&self, image: &str, version: u64) -> Result<Vec<Checked<Change>>> {
        let policy = self.policy();
        let log = self.log(folder(image, version), PAYLOAD);
        let entries = log.all::<Change>(&policy).await?;
        for checked in &entries {
            let object = crate::log::entry_key(&log.folder, checked.entry.seq);
            policy.check_role(&object, &checked.key_id, checked.entry.body.signers())?;
        }
        Ok(entries)
    }

    /// Appends a change; true if it changed anything. Refused when it makes no sense in the
    /// state the version is in.
    pub(crate) async fn change_life(
        &self,
        image: &str,
        version: u64,
        change: &Change,
        stamp: &Stamp,
    ) -> Result<bool> {
        let signer = self.signer(change.signers())?;
        let log = self.log(folder(image, version), PAYLOAD);
        let decide = |_: Option<Checked<Change>>| async move {
            let life = self.life(image, version).await?;
            match life.allows(change) {
                Ok(true) => Ok(Next::Append(change.clone())),
                Ok(false) => Ok(Next::Done(())),
                Err(why) => Err(Error::refused(format!("{image}@{version}"), why)),
            }
        };
        let appended = log.append(&self.policy(), &signer, stamp, decide).await?;
        Ok(matches!(appended, Appended::New(_)))
    }

    /// Deprecates, holds, attests … one version that exists; true if it changed anything. To
    /// revoke, restore or delete there are verbs that look at more than the version itself.
    pub async fn change(
        &self,
        image: &str,
        version: u64,
        change: Change,
        by: Option<&str>,
    ) -> Result<bool> {
        self.manifest(image, version).await?;
        if matches!(change, Change::Delete { .. } | Change::Purge) {
            return Err(Error::refused("deleting", "retention and gc do that"));
        }
        self.change_life(image, version, &change, &self.stamp_by(by)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(changes: &[Change]) -> Life {
        let mut life = Life::default();
        for change in changes {
            assert_eq!(life.allows(change), Ok(true), "{change:?} in {life:?}");
            life.apply(change, "me", jiff::Timestamp::UNIX_EPOCH);
        }
        life
    }

    fn why() -> String {
        "test".into()
    }

    #[test]
    fn restore_gives_back_what_was_before() {
        let revoke = Change::Revoke { why: why(), ancestor: None };
        let deprecate = Change::Deprecate { why: why() };
        let restore = Change::Restore { why: why() };
        let delete = Change::Delete { why: why() };
        let all = [deprecate, revoke, delete, restore.clone(), restore.clone(), restore];
        let states: Vec<_> = (0..=all.len()).map(|n| life(&all[..n]).state).collect();
        use State::*;
        assert_eq!(states, [Complete, Deprecated, Revoked, Deleted, Revoked, Deprecated, Complete]);
    }

    #[test]
    fn a_held_version_is_not_deleted_and_a_purged_one_not_restored() {
        let hold = Change::Hold { name: "audit".into(), why: why() };
        let delete = Change::Delete { why: why() };
        assert!(life(std::slice::from_ref(&hold)).allows(&delete).is_err());
        let release = Change::Release { name: "audit".into() };
        let gone = life(&[hold, release, delete, Change::Purge]);
        assert!(gone.allows(&Change::Restore { why: why() }).is_err());
    }
}
