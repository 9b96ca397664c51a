//! Build + what is already there -> [`Plan`]: which layers run, which are reused, and why.

mod key;

pub use key::{
    Build, Change, How, InputFile, KeyError, Keyed, LayerInputs, LayerKey, ResolvedLayer,
};

use crate::template::SkippedLayer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The name of layer 0: the base, as its installer leaves it.
pub const INSTALL: &str = "install";

/// A checkpoint that is whole and can be built on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckpointInfo {
    pub created: SystemTime,
    /// How long the layer took.
    pub seconds: f64,
    /// What it takes on the disk.
    pub bytes: u64,
}

/// What a layer was made of when it was last made; kept to say why it is not reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInputsRecord {
    pub key: LayerKey,
    pub inputs: LayerInputs,
}

impl From<&Keyed> for LayerInputsRecord {
    fn from(keyed: &Keyed) -> Self {
        Self { key: keyed.key, inputs: keyed.inputs.clone() }
    }
}

/// What is known of earlier builds.
pub trait CheckpointIndex {
    /// The checkpoint of `key`, if it and all it lies over are there.
    fn find(&self, key: &LayerKey) -> Option<CheckpointInfo>;
    /// What the layer was made of when it was last made for this image.
    fn last_for(&self, image: &str, layer: &str) -> Option<LayerInputsRecord>;
    /// How long the layer took when it was last made for this image.
    fn last_duration(&self, image: &str, layer: &str) -> Option<Duration>;
}

/// What a build will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub image: String,
    /// `install` and every layer, in order.
    pub steps: Vec<PlannedStep>,
    pub skipped: Vec<SkippedLayer>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep {
    pub name: String,
    pub key: LayerKey,
    #[serde(flatten)]
    pub decision: Decision,
    /// How long it took when it was last made.
    pub last_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Decision {
    /// The checkpoint is built on, or one further on makes it unnecessary.
    Reuse {
        bytes: Option<u64>,
    },
    Run {
        why: Vec<Reason>,
    },
}

/// Why a layer must be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// No layer of this name was made for this image.
    NeverBuilt,
    /// A named input differs from the last time.
    Input(Change),
    /// The layer below is made anew.
    Parent { layer: String },
    /// The checkpoint is older than the layer's `max_age`.
    Expired { age_seconds: u64, max_age_seconds: u64 },
    /// Nothing changed since it was last made, but its checkpoint is no longer there.
    CheckpointGone,
    /// The same was asked for before, but since then something else was made under the name.
    OtherBuiltSince,
    /// It was asked for.
    Forced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |seconds: &u64| seconds / 86_400;
        match self {
            Self::NeverBuilt => f.write_str("never built"),
            Self::Input(change) => change.fmt(f),
            Self::Parent { layer } => write!(f, "{layer} is made anew"),
            Self::Expired { age_seconds, max_age_seconds } if *max_age_seconds >= 86_400 => {
                let (age, max) = (days(age_seconds), days(max_age_seconds));
                write!(f, "checkpoint is {age} days old, max_age is {max} days")
            }
            Self::Expired { age_seconds, max_age_seconds } => {
                write!(f, "checkpoint is {age_seconds} s old, max_age is {max_age_seconds} s")
            }
            Self::CheckpointGone => f.write_str("its checkpoint is no longer there"),
            Self::OtherBuiltSince => f.write_str("not built with these inputs"),
            Self::Forced => f.write_str("forced"),
        }
    }
}

/// How a plan is made.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Make everything anew, from this layer on.
    pub force_from: Option<String>,
    /// The time to judge ages by; without one, now.
    pub now: Option<SystemTime>,
}

impl Plan {
    /// Where the build begins: the last step that is reused, with its key. None: at nothing.
    pub fn resume(&self) -> Option<&PlannedStep> {
        self.steps.iter().take_while(|step| step.is_reused()).last()
    }

    /// The steps to run, in order.
    pub fn to_run(&self) -> impl Iterator<Item = &PlannedStep> {
        self.steps.iter().filter(|step| !step.is_reused())
    }

    /// How long the steps to run took when they were last made, where that is known of each.
    pub fn expected_seconds(&self) -> Option<f64> {
        self.to_run().map(|step| step.last_seconds).sum()
    }
}

impl PlannedStep {
    pub fn is_reused(&self) -> bool {
        matches!(self.decision, Decision::Reuse { .. })
    }

    /// `never built`, `install.sh changed, parameter packages changed`; empty where it is reused.
    pub fn why(&self) -> String {
        match &self.decision {
            Decision::Reuse { .. } => String::new(),
            Decision::Run { why } => {
                let why: Vec<String> = why.iter().map(Reason::to_string).collect();
                why.join(", ")
            }
        }
    }
}

/// Decides for each layer whether it is reused. A build resumes at the newest checkpoint from
/// which on nothing below has expired; everything after it runs.
pub fn plan(build: &Build, index: &dyn CheckpointIndex, options: &PlanOptions) -> Plan {
    let now = options.now.unwrap_or_else(SystemTime::now);
    let image = &build.spec.name;
    let steps: Vec<(&str, &Keyed)> = build.steps().collect();
    let found: Vec<Option<CheckpointInfo>> =
        steps.iter().map(|(_, keyed)| index.find(&keyed.key)).collect();
    let expired = |position: usize| -> Option<Reason> {
        let max_age = build.layers.get(position.checked_sub(1)?)?.spec.max_age?;
        let age = now.duration_since(found[position]?.created).unwrap_or_default();
        (age > max_age).then_some(Reason::Expired {
            age_seconds: age.as_secs(),
            max_age_seconds: max_age.as_secs(),
        })
    };
    let forced = |position: usize| {
        options.force_from.as_deref().is_some_and(|from| from == steps[position].0)
    };
    let barrier = (0..steps.len())
        .find(|position| forced(*position) || expired(*position).is_some())
        .unwrap_or(steps.len());
    let resume = (0..barrier).rev().find(|position| found[*position].is_some());
    let first_to_run = resume.map_or(0, |position| position + 1);
    let planned = steps.iter().enumerate().map(|(position, (name, keyed))| {
        let last_seconds = found[position]
            .map(|info| info.seconds)
            .or_else(|| index.last_duration(image, name).map(|took| took.as_secs_f64()));
        let decision = if position < first_to_run {
            Decision::Reuse { bytes: found[position].map(|info| info.bytes) }
        } else {
            let mut why = if forced(position) {
                vec![Reason::Forced]
            } else if let Some(reason) = expired(position) {
                vec![reason]
            } else {
                reasons(image, name, keyed, index)
            };
            // A parent whose key changed says so by name; one that is only made anew must be named.
            if position > first_to_run {
                let below = steps[position - 1].0.to_owned();
                why.retain(
                    |reason| !matches!(reason, Reason::Input(change) if change.name == "parent"),
                );
                why.retain(|reason| {
                    *reason != Reason::CheckpointGone && *reason != Reason::OtherBuiltSince
                });
                if !why.contains(&Reason::NeverBuilt) {
                    why.push(Reason::Parent { layer: below });
                }
            }
            Decision::Run { why }
        };
        PlannedStep { name: (*name).to_owned(), key: keyed.key, decision, last_seconds }
    });
    Plan { image: image.clone(), steps: planned.collect(), skipped: build.spec.skipped.clone() }
}

fn reasons(image: &str, name: &str, keyed: &Keyed, index: &dyn CheckpointIndex) -> Vec<Reason> {
    let Some(last) = index.last_for(image, name) else { return vec![Reason::NeverBuilt] };
    if last.key == keyed.key {
        return vec![Reason::CheckpointGone];
    }
    let changes = keyed.inputs.changes_since(&last.inputs);
    // Every definition changes with the parameter or file it names; the cause is enough.
    let causes: Vec<Reason> = changes.into_iter().map(Reason::Input).collect();
    if causes.is_empty() { vec![Reason::OtherBuiltSince] } else { causes }
}
