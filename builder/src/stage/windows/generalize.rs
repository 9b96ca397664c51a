//! Generalizing Windows: pre-flight, hand-over to the built-in administrator, clean-up, Sysprep under
//! watch, and the last words. The proof is `proof`, from the disk.
//!
//! Sysprep runs once: a run that failed cannot be repaired, so nothing is tried again here. The layer
//! before is a checkpoint; the next build begins there.

use super::super::guest::Guest;
use super::super::machine::Machine;
use super::super::{Job, StageError};
use crate::template::model::{Sysprep, SysprepMode};
use gilt_vm::Error as VmError;
use gilt_vm::guest::Connector;
use gilt_windows::answer::Reseal;
use gilt_windows::diagnosis::classify;
use gilt_windows::preflight::blockers;
use gilt_windows::request::{
    Handover, HandoverRequest, Nothing, Preflight, PreflightRequest, StripRequest, Stripped,
    SysprepRequest, SysprepWatch,
};
use gilt_windows::script;
use gilt_windows::sysprep::{Standing, image_state_words, standing};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const SHORT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A task takes a moment to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A guest that failed gets this long to write its logs out.
const WRITE_OUT_LIMIT: Duration = Duration::from_secs(30);

/// All gilt runs there; part of the generalized disk's key.
pub fn scripts() -> String {
    let all = [script::PREFLIGHT, script::HANDOVER, script::STRIP, script::SYSPREP, script::FINISH];
    all.iter().map(|script| script.source()).collect()
}

/// Leaves the guest generalized and on its way to power off.
pub async fn run(job: &Job, machine: &mut Machine) -> Result<(), StageError> {
    let done = attempt(job, machine).await;
    if done.is_err() {
        // The machine is cut off next, and its logs are read from the disk: those of what just failed
        // are still in its memory. One that does not answer keeps the error it failed with.
        let _ = tokio::time::timeout(WRITE_OUT_LIMIT, machine.guest.sync(job)).await;
    }
    done
}

async fn attempt(job: &Job, machine: &mut Machine) -> Result<(), StageError> {
    let options = &job.build.spec.generalize;
    let deadline = Instant::now() + options.timeout;
    let build_user = machine.guest.access.username.clone();
    preflight(job, &machine.guest, &build_user).await?;

    let password = super::new_password();
    let request = HandoverRequest { password: password.clone() };
    let (administrator, _): (Handover, _) =
        machine.guest.ask(job, script::HANDOVER, &request, &[], SHORT).await?;
    // The same key opens every administrator's account.
    machine.guest.login.user.clone_from(&administrator.name);
    reconnect(machine, SHORT).await?;

    job.events.note("generalize: removing what the build brought");
    let request = StripRequest { build_user };
    let (stripped, _): (Stripped, _) =
        machine.guest.ask(job, script::STRIP, &request, &[], options.timeout).await?;
    job.events.note(format!("generalize: removed {}", stripped.removed.join(", ")));

    let default = Sysprep::plain();
    let sysprep = options.sysprep.as_ref().unwrap_or(&default);
    let request = SysprepRequest::Start {
        account: administrator.name,
        password,
        mode: match sysprep.mode {
            SysprepMode::Oobe => "oobe".into(),
            SysprepMode::Audit => "audit".into(),
        },
        vm: sysprep.vm,
        unattend: Some(unattend(job, sysprep).await?),
    };
    let (_, _): (serde_json::Value, _) =
        machine.guest.ask(job, script::SYSPREP, &request, &[], SHORT).await?;
    job.events.note("generalize: sysprep runs");
    watch(job, machine, deadline).await?;

    match machine.guest.ask::<Nothing>(job, script::FINISH, &json!({}), &[], SHORT).await {
        Ok(_) => Ok(()),
        // It may be faster than its own answer.
        Err(StageError::Vm(VmError::ConnectionLost { .. } | VmError::Ended { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn preflight(job: &Job, guest: &Guest, build_user: &str) -> Result<(), StageError> {
    let request = PreflightRequest { build_user: build_user.to_owned() };
    let (mut facts, _): (Preflight, _) =
        guest.ask(job, script::PREFLIGHT, &request, &[], SHORT).await?;
    // gilt's own session is the account's; whether Sysprep's would be is decided by the hand-over.
    facts.system_account = false;
    let found = blockers(&facts);
    let Some(first) = found.first() else { return Ok(()) };
    for blocker in &found {
        job.events.warn(format!("generalize: {}; {}", blocker.what, blocker.cure));
    }
    let more = match found.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Err(StageError::Guest(format!("Sysprep would fail: {}{more}; {}", first.what, first.cure)))
}

/// The template's answer file, or gilt's: without one Windows goes on with the installation's.
async fn unattend(job: &Job, sysprep: &Sysprep) -> Result<String, StageError> {
    let reseal = Reseal { persist_drivers: sysprep.persist_drivers, ..Reseal::default() };
    let mut file = reseal.answer_file();
    if let Some(own) = &sysprep.unattend {
        let path = super::super::input::local_path(job, own).await?;
        let text = std::fs::read_to_string(&path)
            .map_err(StageError::io(format!("read {}", path.display())))?;
        file.merge_reseal(&text)
            .map_err(|error| StageError::Input(format!("{}:{error}", path.display())))?;
    }
    file.render().map_err(|error| StageError::Input(format!("sysprep.unattend: {error}")))
}

async fn reconnect(machine: &mut Machine, limit: Duration) -> Result<(), StageError> {
    machine.guest.way_in = None;
    let way_in = machine.guest.login.connect(machine.vm.as_ref(), limit).await?;
    machine.guest.way_in = Some(way_in);
    Ok(())
}

/// Looks until Sysprep is done, has failed, or has no time left. A lost connection is dialled again.
async fn watch(job: &Job, machine: &mut Machine, deadline: Instant) -> Result<(), StageError> {
    let begun = Instant::now();
    let mut last = SysprepWatch::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = machine
            .guest
            .ask::<SysprepWatch>(
                job,
                script::SYSPREP,
                &SysprepRequest::Watch,
                &[],
                SHORT.min(left.max(START_LIMIT)),
            )
            .await;
        match asked {
            Ok((watch, _)) => {
                match standing(&watch) {
                    Standing::Done => return Ok(()),
                    // Not yet started, perhaps.
                    Standing::Failed
                        if begun.elapsed() < START_LIMIT && watch.errors.trim().is_empty() => {}
                    Standing::Failed => return Err(why(&watch)),
                    Standing::Working => {}
                }
                last = watch;
            }
            Err(StageError::Vm(VmError::ConnectionLost { .. } | VmError::GuestFile { .. })) => {
                reconnect(machine, left.max(Duration::from_secs(1))).await?;
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            return Err(StageError::CommandTimedOut {
                what: "sysprep".into(),
                limit: job.build.spec.generalize.timeout,
                tail: format!("{}\n{}", last.actions, last.errors),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn why(watch: &SysprepWatch) -> StageError {
    let state = watch.image_state.as_deref().unwrap_or("unknown");
    let tail = format!("{}\n{}", watch.actions, watch.errors);
    let cause = match classify(&watch.errors) {
        Some(finding) => format!("{}; {} ({})", finding.cause, finding.cure, finding.line),
        None => match watch.errors.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => line.trim().to_owned(),
            None => "setuperr.log is empty".to_owned(),
        },
    };
    let code = watch.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
    StageError::Command {
        what: format!(
            "sysprep failed: {cause}. The image state is {state} ({}{code}), and it",
            image_state_words(state)
        ),
        code: 1,
        tail,
    }
}

impl Sysprep {
    fn plain() -> Self {
        Self { mode: SysprepMode::Oobe, vm: false, unattend: None, persist_drivers: false }
    }
}
