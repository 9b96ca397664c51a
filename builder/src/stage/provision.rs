//! Provisioners: the steps of a layer, run inside the guest.

use super::guest::Command;
use super::machine::Machine;
use super::windows::provision as windows;
use super::{Job, OnError, StageError};
use crate::event::Event;
use crate::template::RuntimeValues;
use crate::template::model::{
    Action, Code, FileTransfer, Guest as GuestKind, Provisioner, Shell, UploadSource,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the steps of one layer share.
pub struct Surroundings {
    pub layer: String,
    /// `GILT_LAYER`, `GILT_HTTP`, `GILT_INPUT_<NAME>`, `GILT_PARAM_<NAME>`.
    pub environment: BTreeMap<String, String>,
    pub values: RuntimeValues,
    /// Where `file: {direction: download}` puts things.
    pub output: PathBuf,
}

/// Runs `steps` in order; the first that fails ends the layer.
pub async fn run(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    steps: &[Provisioner],
) -> Result<(), StageError> {
    for step in steps {
        let layer = around.layer.clone();
        job.events.emit(Event::StepStarted { layer, step: step.title.clone() });
        match &step.action {
            Action::Shell(shell) => run_shell(job, machine, around, step, shell).await?,
            Action::File(transfer) => copy(job, machine, around, transfer).await?,
            Action::Restart(restart) if job.build.spec.guest == GuestKind::Windows => {
                windows::restart_plain(job, machine, restart.timeout).await?
            }
            Action::Restart(restart) => {
                machine.guest.restart(machine.vm.as_ref(), restart.timeout).await?
            }
            Action::Breakpoint(stop) => breakpoint(job, machine, stop.note.as_deref()).await?,
            Action::PowerShell(shell) => {
                windows::powershell(job, machine, around, step, shell).await?
            }
            Action::WindowsShell(shell) => {
                windows::batch(job, machine, around, step, shell).await?
            }
            Action::WindowsRestart(restart) => {
                windows::restart(job, machine, around, restart).await?
            }
            Action::WindowsUpdate(update) => {
                super::windows::update::run(job, machine, step, update).await?
            }
            Action::WindowsInstall(install) => {
                windows::install(job, machine, around, step, install).await?
            }
            Action::WindowsFeature(feature) => {
                windows::feature(job, machine, step, feature).await?
            }
            Action::WindowsCleanup(cleanup) => {
                windows::cleanup(job, machine, step, cleanup).await?
            }
        }
    }
    Ok(())
}

async fn run_shell(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    step: &Provisioner,
    shell: &Shell,
) -> Result<(), StageError> {
    let mut environment = around.environment.clone();
    for (name, value) in &shell.env {
        environment.insert(name.clone(), value.expand(&around.values));
    }
    let (script, interpreter) = match &shell.code {
        Code::Inline(lines) => {
            let lines: Vec<String> = lines.iter().map(|line| line.expand(&around.values)).collect();
            (format!("{}\n", lines.join("\n")).into_bytes(), Some(shell.shell.clone()))
        }
        Code::Script(file) => {
            let path = super::input::local_path(job, file).await?;
            let bytes =
                std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))?;
            let own = bytes.starts_with(b"#!");
            (bytes, (!own).then(|| shell.shell.clone()))
        }
    };
    let command = Command {
        what: format!("{} ({})", step.title, step.location),
        script,
        interpreter,
        arguments: shell.args.iter().map(|arg| arg.expand(&around.values)).collect(),
        environment,
        user: shell.user.clone(),
        timeout: shell.timeout,
    };
    let mut attempt = 0;
    loop {
        let done = machine.guest.run_script(job, &command).await;
        let failure = match done {
            Ok(finished) if shell.exit_codes.contains(&i64::from(finished.code)) => return Ok(()),
            Ok(finished) => StageError::Command {
                what: command.what.clone(),
                code: finished.code,
                tail: finished.tail,
            },
            Err(error @ StageError::CommandTimedOut { .. }) => error,
            Err(error) => return Err(error),
        };
        if attempt == shell.retries {
            return Err(failure);
        }
        attempt += 1;
        job.events.warn(format!("{failure}; try {} of {}", attempt + 1, shell.retries + 1));
        tokio::time::sleep(shell.retry_delay).await;
    }
}

async fn copy(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    transfer: &FileTransfer,
) -> Result<(), StageError> {
    match transfer {
        FileTransfer::Upload { source, destination, mode, timeout } => {
            let to = destination.expand(&around.values);
            let mode = mode.map(|mode| mode.0);
            match source {
                UploadSource::Content(text) => {
                    let bytes = text.expand(&around.values).into_bytes();
                    machine.guest.upload_bytes(&bytes, &to, mode, *timeout).await
                }
                UploadSource::File(file) => {
                    let from = super::input::local_path(job, file).await?;
                    machine.guest.upload(&from, &to, mode, *timeout).await
                }
            }
        }
        FileTransfer::Download { source, destination, timeout } => {
            let from = source.expand(&around.values);
            let name = destination.expand(&around.values);
            let name = if name.is_empty() { file_name(&from) } else { name };
            let to = inside(&around.output, &name).ok_or_else(|| {
                StageError::Input(format!(
                    "the destination {name:?} leads out of the output folder"
                ))
            })?;
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(StageError::io(format!("make {}", parent.display())))?;
            }
            machine.guest.download(&from, &to, *timeout).await
        }
    }
}

/// `folder/name`, where `name` stays below `folder`.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    use std::path::Component;
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.is_empty()).then(|| folder.join(name))
}

fn file_name(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
}

async fn breakpoint(job: &Job, machine: &Machine, note: Option<&str>) -> Result<(), StageError> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() || job.options.on_error != OnError::Ask {
        job.events
            .note("breakpoint passed: no one is asked (--on-error=ask on a terminal stops here)");
        return Ok(());
    }
    let note = note.unwrap_or("breakpoint");
    job.events.note(format!("{note}; log in with: {}", machine.guest.login_hint(job)?));
    job.events.note("press Enter to go on");
    let read = job.blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(StageError::io("read the terminal"))
    });
    tokio::select! {
        line = read => line.map(drop),
        () = job.cancel.cancelled() => Err(StageError::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_stays_in_the_output_folder() {
        let folder = Path::new("out");
        assert_eq!(inside(folder, "logs/x.log"), Some(folder.join("logs/x.log")));
        for bad in ["", "../x", "/etc/x", "a/../../x", "."] {
            assert_eq!(inside(folder, bad), None, "{bad}");
        }
    }
}
