//! Windows Update: rounds of search, installation and restart until nothing is left, and proof.

use super::super::machine::Machine;
use super::super::{Job, StageError};
use super::provision::{program, remove, request, restart_clean, upload};
use crate::template::model::{Provisioner, UpdateServer, WindowsUpdate};
use gilt_windows::request::{RunAs, UpdateAction, UpdateParameters, UpdateRound};
use gilt_windows::script;
use gilt_windows::update::{Next, Rounds, hresult_words, order_packages};
use std::time::{Duration, Instant};

/// More rounds than any machine needs.
const MAX_ROUNDS: u32 = 30;

pub async fn run(
    job: &Job,
    machine: &mut Machine,
    step: &Provisioner,
    update: &WindowsUpdate,
) -> Result<(), StageError> {
    let deadline = Instant::now() + update.timeout;
    match &update.folder {
        Some(_) => offline(job, machine, step, update).await?,
        None => online(job, machine, step, update, deadline).await?,
    };
    prove(job, machine, update).await
}

fn parameters(update: &WindowsUpdate, action: UpdateAction) -> UpdateParameters {
    UpdateParameters {
        action,
        criteria: update.search_criteria.clone(),
        filters: update.filters.clone(),
        limit: update.update_limit,
        server: match update.server {
            UpdateServer::Default => "default",
            UpdateServer::Managed => "managed",
            UpdateServer::WindowsUpdate => "windows-update",
            UpdateServer::MicrosoftUpdate => "microsoft-update",
        }
        .into(),
        files: Vec::new(),
    }
}

async fn round(
    job: &Job,
    machine: &Machine,
    step: &Provisioner,
    parameters: &UpdateParameters,
    limit: Duration,
) -> Result<UpdateRound, StageError> {
    let what = format!("{} ({})", step.title, step.location);
    let json = serde_json::to_value(parameters)
        .map_err(|error| StageError::Guest(format!("{what}: {error}")))?;
    let request = request(machine, RunAs::System, limit);
    Ok(program(job, machine, script::WINDOWS_UPDATE, request, json, &what).await?.0)
}

async fn online(
    job: &Job,
    machine: &mut Machine,
    step: &Provisioner,
    update: &WindowsUpdate,
    deadline: Instant,
) -> Result<(), StageError> {
    let parameters = parameters(update, UpdateAction::Install);
    let mut rounds = Rounds::new(update.update_max_retries);
    // An installation that something waits for would refuse every other.
    let boot = machine.guest.settled(job, &[], update.restart_timeout).await?;
    if gilt_windows::reboot::waits_for(&boot).is_some() {
        restart_clean(job, machine, update.restart_timeout).await?;
    }
    for number in 1..=MAX_ROUNDS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StageError::CommandTimedOut {
                what: format!("{} ({}), in round {number}", step.title, step.location),
                limit: update.timeout,
                tail: rounds.table().join("\n"),
            });
        }
        job.events.note(format!("updates: round {number}"));
        let result =
            round(job, machine, step, &parameters, left.min(update.restart_timeout)).await?;
        for one in &result.results {
            let kbs = one.kbs.join(" ");
            let how = gilt_windows::update::outcome(one.code);
            let error = match one.hresult {
                0 => String::new(),
                code => format!(" ({})", hresult_words(code)),
            };
            job.events.note(format!("updates: {how}{error}: {kbs} {}", one.title));
        }
        match rounds.take(&result) {
            Next::Done if !result.reboot_required => {
                for row in rounds.table() {
                    job.events.note(format!("updates: {row}"));
                }
                return Ok(());
            }
            Next::Done | Next::Restart => {
                restart_clean(job, machine, update.restart_timeout).await?;
            }
            Next::Stuck(names) => {
                return Err(StageError::Command {
                    what: format!(
                        "{}: these updates get no further: {}; exclude them with a filter, or see the logs in the evidence. The layer",
                        step.location,
                        names.join(", ")
                    ),
                    code: 1,
                    tail: rounds.table().join("\n"),
                });
            }
        }
    }
    Err(StageError::Guest(format!(
        "{}: updates are still found after {MAX_ROUNDS} rounds",
        step.location
    )))
}

async fn offline(
    job: &Job,
    machine: &mut Machine,
    step: &Provisioner,
    update: &WindowsUpdate,
) -> Result<(), StageError> {
    let Some(folder) = &update.folder else {
        return Err(StageError::Input(format!("{}: no folder is given", step.location)));
    };
    let local = super::super::input::local_path(job, &folder.0).await?;
    let names: Vec<String> = std::fs::read_dir(&local)
        .map_err(StageError::io(format!("read {}", local.display())))?
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let order = order_packages(&local.display().to_string(), &names, update.target.as_deref())
        .map_err(|error| StageError::Input(format!("{}: {error}", step.location)))?;
    // The folder goes over as it is: an update finds its checkpoints beside it.
    let there = upload(job, machine, std::slice::from_ref(&folder.0)).await?;
    let Some(place) = there.first() else {
        return Err(StageError::Guest(format!("{}: nothing was uploaded", step.location)));
    };
    let mut parameters = parameters(update, UpdateAction::Offline);
    parameters.files = order.iter().map(|name| format!("{place}\\{name}")).collect();
    let result = round(job, machine, step, &parameters, update.timeout).await?;
    let bad = result.results.iter().find(|result| result.code != 2);
    if let Some(bad) = bad {
        return Err(StageError::Command {
            what: format!("{}: {} ({}); it", step.location, bad.title, hresult_words(bad.hresult)),
            code: 1,
            tail: String::new(),
        });
    }
    restart_clean(job, machine, update.restart_timeout).await?;
    remove(job, machine, &there).await
}

/// What the template requires is there.
async fn prove(job: &Job, machine: &Machine, update: &WindowsUpdate) -> Result<(), StageError> {
    let boot = machine.guest.boot_state(job, &[]).await?;
    let number = |value: Option<u32>| value.map_or("?".to_owned(), |value| value.to_string());
    job.events.note(format!("updates: now at {}.{}", number(boot.build), number(boot.ubr)));
    let required = &update.require;
    if let Some(wanted) = required.ubr
        && boot.ubr.is_none_or(|ubr| ubr < wanted)
    {
        return Err(StageError::Guest(format!(
            "the guest is at revision {} after updating, {wanted} is required",
            number(boot.ubr)
        )));
    }
    let missing: Vec<&str> = required
        .kbs
        .iter()
        .filter(|kb| !boot.kbs.iter().any(|has| has.eq_ignore_ascii_case(kb)))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Err(StageError::Guest(format!(
            "required updates are not installed: {}; installed are {}",
            missing.join(", "),
            boot.kbs.join(", ")
        )));
    }
    if required.complete
        && let Some(what) = gilt_windows::reboot::waits_for(&boot)
    {
        return Err(StageError::Guest(format!("after updating a restart is pending: {what}")));
    }
    Ok(())
}
