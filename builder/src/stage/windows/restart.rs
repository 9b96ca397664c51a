//! Restarting Windows, with proof of a new boot, until nothing waits for another.

use super::super::guest::Guest;
use super::super::{Job, StageError};
use gilt_vm::guest::{Connector, GuestCommand, GuestShell, quiet};
use gilt_vm::{Error as VmError, Vm, VmEvent};
use gilt_windows::reboot;
use gilt_windows::request::Boot;
use std::time::Duration;
use tokio::time::Instant;

/// `/d p:4:1`: planned, an application's installation.
pub const RESTART: &str = "shutdown.exe /r /t 0 /f /d p:4:1";
/// Not the hybrid kind, which would keep the kernel's memory on the disk.
pub const SHUT_DOWN: &str = "shutdown.exe /s /t 0 /f /d p:4:1";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a guest that still works.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A guest that waits for a restart after this many of them waits for ever.
const MAX_RESTARTS: u32 = 6;

/// How to restart.
pub struct Restart<'a> {
    pub line: &'a str,
    pub limit: Duration,
    /// Again while something waits for a restart.
    pub until_clean: bool,
    pub registry_keys: &'a [String],
}

impl Guest {
    /// Restarts at least once.
    pub(super) async fn restart_windows(
        &mut self,
        job: &Job,
        vm: &dyn Vm,
        how: &Restart<'_>,
    ) -> Result<Boot, StageError> {
        let deadline = Instant::now() + how.limit;
        let mut before = self.boot_state(job, how.registry_keys).await?;
        for _ in 0..MAX_RESTARTS {
            let after = self.restart_once(job, vm, how, &before, deadline).await?;
            if !how.until_clean {
                return Ok(after);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let after = self.settled(job, how.registry_keys, left).await?;
            match reboot::waits_for(&after) {
                None => return Ok(after),
                Some(what) => job.events.note(format!("restarting again: {what}")),
            }
            before = after;
        }
        let what = reboot::waits_for(&before).unwrap_or_default();
        Err(StageError::Guest(format!(
            "the guest still waits for a restart after {MAX_RESTARTS} of them: {what}"
        )))
    }

    /// Waits until servicing has come to rest.
    pub(super) async fn settled(
        &self,
        job: &Job,
        keys: &[String],
        limit: Duration,
    ) -> Result<Boot, StageError> {
        let deadline = Instant::now() + limit;
        loop {
            let boot = self.boot_state(job, keys).await?;
            // What waits for a restart does not come to rest before it.
            if !boot.servicing || reboot::hard(&boot.pending).next().is_some() {
                return Ok(boot);
            }
            if Instant::now() >= deadline {
                return Err(StageError::CommandTimedOut {
                    what: "servicing in the guest (TiWorker, or packages pending)".into(),
                    limit,
                    tail: String::new(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn restart_once(
        &mut self,
        job: &Job,
        vm: &dyn Vm,
        how: &Restart<'_>,
        before: &Boot,
        deadline: Instant,
    ) -> Result<Boot, StageError> {
        let mut events = vm.events();
        let mut command = GuestCommand::new(how.line).limit(COMMAND_LIMIT);
        command.shell = GuestShell::Raw;
        let way_in = self
            .way_in
            .take()
            .ok_or_else(|| StageError::Guest("not logged in to the guest".into()))?;
        // The guest may cut the connection before the command's end is told.
        match way_in.exec(&command, &mut quiet()).await {
            Ok(done) if !done.succeeded() && way_in.is_open() => {
                return Err(StageError::Command {
                    what: format!("`{}`", how.line),
                    code: super::super::guest::code(&done),
                    tail: done.stderr_text(),
                });
            }
            Err(error @ VmError::Ended { .. }) => return Err(error.into()),
            _ => {}
        }
        drop(way_in);
        let reset = async {
            while !matches!(
                events.recv().await,
                Ok(VmEvent::Reset { .. } | VmEvent::Ended(_)) | Err(_)
            ) {}
        };
        // Windows may first work on updates for long; a guest that never resets is found below.
        if vm.tells_resets() {
            let _ = tokio::time::timeout_at(deadline, reset).await;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.way_in = Some(self.login.connect(vm, left).await?);
            match self.boot_state(job, how.registry_keys).await {
                Ok(after) if reboot::is_new_boot(before, &after) => return Ok(after),
                Ok(_) | Err(_) if Instant::now() >= deadline => {
                    return Err(StageError::Vm(VmError::TimedOut {
                        subject: "the guest to boot anew".into(),
                        after: how.limit,
                        last_seen: "neither BootId nor LastBootUpTime has changed".into(),
                        serial_tail: vm.serial().tail(),
                    }));
                }
                Err(StageError::Vm(error @ VmError::Ended { .. })) => return Err(error.into()),
                // On its way down, or up.
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}
