//! Layers on the machine: from the newest checkpoint that fits, each one run, verified, saved.

use super::machine::{DoneLayer, Machine};
use super::provision::{self, Surroundings};
use super::{Job, OnError, StageError};
use crate::event::Event;
use crate::home::Home;
use crate::pipeline::Target;
use crate::plan::{Decision, LayerInputsRecord, Plan, PlannedStep, Reason};
use std::collections::BTreeMap;
use std::time::Instant;

/// Where the layers begin: the first one that must run. Layer 0 is the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub first: usize,
    /// One past the last layer to run.
    pub end: usize,
}

pub fn start(plan: &Plan, target: &Target) -> Result<Start, StageError> {
    let end = match &target.until {
        None => plan.steps.len(),
        Some(name) => {
            let at = plan.steps.iter().position(|layer| &layer.name == name);
            at.map(|at| at + 1).ok_or_else(|| {
                let names: Vec<_> = plan.steps.iter().map(|l| l.name.as_str()).collect();
                StageError::Input(format!("there is no layer {name:?}: {}", names.join(", ")))
            })?
        }
    };
    let reusable = plan.steps[..end].iter().take_while(|layer| layer.is_reused()).count();
    Ok(Start { first: if target.force { 0 } else { reusable }, end })
}

/// Says which layers are reused.
pub fn announce_reused(job: &Job, plan: &Plan, first: usize) {
    for layer in &plan.steps[..first] {
        job.events
            .emit(Event::LayerReused { layer: layer.name.clone(), key: layer.key.to_string() });
    }
}

/// Runs the layers from `start` on, over the machine given.
pub async fn run(
    job: &Job,
    plan: &Plan,
    start: &Start,
    mut machine: Machine,
) -> Result<Machine, StageError> {
    // Layer 0, the installation, is done when there is a machine.
    for at in start.first.max(1)..start.end {
        let layer = &plan.steps[at];
        machine = one(job, plan, layer, at, machine).await?;
    }
    Ok(machine)
}

async fn one(
    job: &Job,
    plan: &Plan,
    layer: &PlannedStep,
    at: usize,
    mut machine: Machine,
) -> Result<Machine, StageError> {
    let key = layer.key.to_string();
    // Another build of this host may be making the very same layer.
    let lock = lock(job, &key).await?;
    if may_reuse(layer)
        && let Some(made) = job.checkpoints.find(&key)
    {
        job.events.emit(Event::LayerReused { layer: layer.name.clone(), key });
        machine.saved().await?;
        machine.vm.power_off().await?;
        drop(machine);
        return job.resume(&made).await;
    }
    machine = machine.awake(job).await?;
    loop {
        job.events.emit(Event::LayerStarted {
            layer: layer.name.clone(),
            key: key.clone(),
            why: layer.why(),
            expected_seconds: layer.last_seconds,
        });
        let started = Instant::now();
        match apply(job, &mut machine, layer, at).await {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                machine.save(job, done(job, layer, seconds, lock)).await?;
                return Ok(machine);
            }
            Err(error) => {
                if matches!(error, StageError::Cancelled) || !wants_retry(job, &error).await? {
                    return Err(error);
                }
                // What the failed try left in the guest goes: from the checkpoint before it.
                machine.saved().await?;
                machine.vm.power_off().await?;
                let parent = job.checkpoints.find(&plan.steps[at - 1].key.to_string());
                let parent = parent.ok_or_else(|| {
                    StageError::Input("the checkpoint before the failed layer is gone".into())
                })?;
                machine = job.resume(&parent).await?;
            }
        }
    }
}

/// A layer that took so long, ready to be saved.
pub fn done(job: &Job, layer: &PlannedStep, seconds: f64, lock: std::fs::File) -> DoneLayer {
    let mut steps = job.build.steps();
    let made_of = steps.find(|(name, _)| *name == layer.name);
    DoneLayer {
        key: layer.key.to_string(),
        name: layer.name.clone(),
        seconds,
        made_of: made_of.map(|(_, keyed)| LayerInputsRecord::from(keyed)),
        lock,
    }
}

/// Whether a checkpoint that another build made in the meantime will do. Not for a layer that must
/// run although its checkpoint exists: too old, or forced.
pub fn may_reuse(layer: &PlannedStep) -> bool {
    match &layer.decision {
        Decision::Reuse { .. } => false,
        Decision::Run { why } => {
            !why.iter().any(|why| matches!(why, Reason::Forced | Reason::Expired { .. }))
        }
    }
}

pub async fn lock(job: &Job, key: &str) -> Result<std::fs::File, StageError> {
    let (home, key): (Home, String) = (job.home.clone(), key.to_owned());
    tokio::select! {
        locked = job.blocking(move || home.lock(&key).map_err(StageError::io("lock a layer"))) => locked,
        () = job.cancel.cancelled() => Err(StageError::Cancelled),
    }
}

async fn apply(
    job: &Job,
    machine: &mut Machine,
    layer: &PlannedStep,
    at: usize,
) -> Result<(), StageError> {
    let resolved = &job.build.layers[at - 1];
    let inputs = machine.guest.serve_inputs(job, resolved).await?;
    let mut environment = BTreeMap::new();
    environment.insert("GILT_LAYER".to_owned(), layer.name.clone());
    environment.insert("GILT_HTTP".to_owned(), machine.guest.served.base.clone());
    for (name, url) in inputs {
        environment.insert(format!("GILT_INPUT_{}", upper(&name)), url);
    }
    let values = machine.guest.values(job);
    for (name, value) in &resolved.spec.parameters {
        environment.insert(format!("GILT_PARAM_{}", upper(name)), value.to_text().expand(&values));
    }
    let around = Surroundings {
        layer: layer.name.clone(),
        environment,
        values,
        output: job.output_folder(),
    };
    provision::run(job, machine, &around, &resolved.spec.provisioners).await?;
    provision::run(job, machine, &around, &resolved.spec.verify).await
}

/// `apt-repo` -> `APT_REPO`, as environment variables are written.
fn upper(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

/// With `--on-error=ask` on a terminal: whether the failed layer is tried again.
async fn wants_retry(job: &Job, error: &StageError) -> Result<bool, StageError> {
    use std::io::IsTerminal;
    if job.options.on_error != OnError::Ask || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    job.events.warn(error.to_string());
    loop {
        job.events
            .note("[c] clean up and exit, [a] abort without clean-up, or [r] retry the layer?");
        let read = job.blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map_err(StageError::io("read the terminal"))?;
            Ok(line)
        });
        let line = tokio::select! {
            line = read => line?,
            () = job.cancel.cancelled() => return Err(StageError::Cancelled),
        };
        match line.trim() {
            "c" => return Ok(false),
            "a" => {
                job.keep_everything();
                return Ok(false);
            }
            "r" => return Ok(true),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_environment_variables() {
        assert_eq!(upper("apt-repo.2"), "APT_REPO_2");
    }
}
