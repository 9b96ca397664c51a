//! Provisioners of Windows guests.

use super::super::machine::Machine;
use super::super::provision::Surroundings;
use super::super::{Job, StageError};
use super::remote::{Said, failed};
use super::restart::{RESTART, Restart};
use crate::template::model::{
    Code, FileRef, PowerShell, PowerShellEdition, Provisioner, WindowsAccount, WindowsCleanup,
    WindowsFeature, WindowsInstall, WindowsRestart, WindowsShell,
};
use crate::template::text::Text;
use gilt_windows::request::{Edition, Kind, ProgramResult, RunAs, RunRequest, RunResult};
use gilt_windows::script::{self, Script};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// A success that asks for a restart, in the words of Windows' installers.
const RESTART_CODES: [i64; 2] = [3010, 1641];

pub async fn powershell(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    step: &Provisioner,
    shell: &PowerShell,
) -> Result<(), StageError> {
    let script = match &shell.code {
        Code::Inline(lines) => expanded(lines, around).join("\n").into_bytes(),
        Code::Script(file) => read(job, file).await?,
    };
    // A script with a mark of its own says its encoding itself.
    let file = match std::str::from_utf8(&script) {
        Ok(text) => script::powershell_file(text),
        Err(_) => script,
    };
    let mut request = request(machine, account(shell.account), shell.timeout);
    request.edition = match shell.edition {
        PowerShellEdition::Windows => Edition::Windows,
        PowerShellEdition::Core => Edition::Core,
    };
    request.execution_policy.clone_from(&shell.execution_policy);
    request.arguments = expanded(&shell.args, around);
    request.environment = environment(&shell.env, around);
    let what = format!("{} ({})", step.title, step.location);
    let run = Tries {
        what: &what,
        valid: &shell.valid_exit_codes,
        retries: shell.retries,
        delay: shell.retry_delay,
    };
    run_script(job, machine, &request, ("script.ps1", file), &run).await
}

pub async fn batch(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    step: &Provisioner,
    shell: &WindowsShell,
) -> Result<(), StageError> {
    let file = match &shell.code {
        Code::Inline(lines) => script::batch_file(&expanded(lines, around)),
        Code::Script(file) => read(job, file).await?,
    };
    let mut request = request(machine, RunAs::User, shell.timeout);
    request.kind = Kind::Batch;
    request.environment = environment(&shell.env, around);
    let what = format!("{} ({})", step.title, step.location);
    let run = Tries {
        what: &what,
        valid: &shell.valid_exit_codes,
        retries: shell.retries,
        delay: shell.retry_delay,
    };
    run_script(job, machine, &request, ("script.cmd", file), &run).await
}

/// What a template's script may do, and how often.
struct Tries<'a> {
    what: &'a str,
    valid: &'a [i64],
    retries: u32,
    delay: Duration,
}

async fn run_script(
    job: &Job,
    machine: &Machine,
    request: &RunRequest,
    file: (&str, Vec<u8>),
    run: &Tries<'_>,
) -> Result<(), StageError> {
    let mut attempt = 0;
    loop {
        let (result, said) = machine.guest.run_windows(job, request, file.clone()).await?;
        let Some(failure) = verdict(run.what, run.valid, request, &result, said) else {
            return Ok(());
        };
        if attempt == run.retries {
            return Err(failure);
        }
        attempt += 1;
        job.events.warn(format!("{failure}; try {} of {}", attempt + 1, run.retries + 1));
        tokio::time::sleep(run.delay).await;
    }
}

/// Why a script failed, if it did.
fn verdict(
    what: &str,
    valid: &[i64],
    request: &RunRequest,
    result: &RunResult,
    said: Said,
) -> Option<StageError> {
    if result.timed_out {
        let limit = Duration::from_secs(request.timeout_seconds);
        return Some(StageError::CommandTimedOut { what: what.to_owned(), limit, tail: said.tail });
    }
    if !result.died && valid.contains(&result.exit_code) {
        return None;
    }
    let what = if result.died {
        format!("{what} vanished without a word of its end and")
    } else {
        what.to_owned()
    };
    // Windows' codes are 32 bits, with or without a sign.
    let code = i32::try_from(result.exit_code).unwrap_or(result.exit_code as u32 as i32);
    Some(StageError::Command { what, code, tail: said.tail })
}

pub async fn restart(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    restart: &WindowsRestart,
) -> Result<(), StageError> {
    let line = restart.restart_command.as_ref().map(|line| line.expand(&around.values));
    let how = Restart {
        line: line.as_deref().unwrap_or(RESTART),
        limit: restart.restart_timeout,
        until_clean: restart.check_registry,
        registry_keys: &restart.registry_keys,
    };
    machine.guest.restart_windows(job, machine.vm.as_ref(), &how).await?;
    if let Some(check) = &restart.restart_check_command {
        let mut request = request(machine, RunAs::User, restart.restart_timeout);
        request.kind = Kind::Batch;
        let file = script::batch_file(&[check.expand(&around.values)]);
        let run = Tries {
            what: "restart_check_command",
            valid: &[0],
            retries: 5,
            delay: Duration::from_secs(10),
        };
        run_script(job, machine, &request, ("script.cmd", file), &run).await?;
    }
    Ok(())
}

/// `restart`: once, with proof.
pub async fn restart_plain(
    job: &Job,
    machine: &mut Machine,
    limit: Duration,
) -> Result<(), StageError> {
    let how = Restart { line: RESTART, limit, until_clean: false, registry_keys: &[] };
    machine.guest.restart_windows(job, machine.vm.as_ref(), &how).await.map(drop)
}

/// Restarts until nothing waits for it.
pub(super) async fn restart_clean(
    job: &Job,
    machine: &mut Machine,
    limit: Duration,
) -> Result<gilt_windows::request::Boot, StageError> {
    let how = Restart { line: RESTART, limit, until_clean: true, registry_keys: &[] };
    machine.guest.restart_windows(job, machine.vm.as_ref(), &how).await
}

pub async fn install(
    job: &Job,
    machine: &mut Machine,
    around: &Surroundings,
    step: &Provisioner,
    install: &WindowsInstall,
) -> Result<(), StageError> {
    let mut files = upload(job, machine, std::slice::from_ref(&install.source)).await?;
    let dependencies = upload(job, machine, &install.dependencies).await?;
    let parameters = json!({
        "files": files,
        "dependencies": dependencies,
        "arguments": expanded(&install.arguments, around),
        "validExitCodes": install.valid_exit_codes,
    });
    let request = request(machine, account(install.account), install.timeout);
    let what = format!("{} ({})", step.title, step.location);
    let (done, tail): (ProgramResult, _) =
        program(job, machine, script::WINDOWS_INSTALL, request, parameters, &what).await?;
    let bad =
        done.results.iter().find(|result| !install.valid_exit_codes.contains(&result.exit_code));
    if let Some(bad) = bad {
        let code = i32::try_from(bad.exit_code).unwrap_or(bad.exit_code as u32 as i32);
        let meaning = match bad.exit_code {
            1603 => ": a fatal error of the installer, see its log above",
            1618 => ": another installation is under way",
            1619 => ": the package cannot be opened",
            1638 => ": another version is installed already",
            _ => "",
        };
        return Err(StageError::Command { what: format!("{what}{meaning}, which"), code, tail });
    }
    files.extend(dependencies);
    remove(job, machine, &files).await?;
    restart_where_asked(job, machine, &done, install.restart_timeout).await
}

pub async fn feature(
    job: &Job,
    machine: &mut Machine,
    step: &Provisioner,
    feature: &WindowsFeature,
) -> Result<(), StageError> {
    let mut files = upload(job, machine, &feature.packages).await?;
    let packages = files.clone();
    let source = match &feature.source {
        Some(folder) => upload(job, machine, std::slice::from_ref(&folder.0)).await?.pop(),
        None => None,
    };
    let parameters = json!({
        "packages": packages,
        "capabilities": feature.capabilities,
        "enable": feature.enable,
        "disable": feature.disable,
        "source": source,
    });
    // Servicing through a remote session is refused.
    let request = request(machine, RunAs::System, feature.timeout);
    let what = format!("{} ({})", step.title, step.location);
    let (done, _): (ProgramResult, _) =
        program(job, machine, script::WINDOWS_FEATURE, request, parameters, &what).await?;
    files.extend(source);
    remove(job, machine, &files).await?;
    restart_where_asked(job, machine, &done, feature.restart_timeout).await
}

pub async fn cleanup(
    job: &Job,
    machine: &mut Machine,
    step: &Provisioner,
    cleanup: &WindowsCleanup,
) -> Result<(), StageError> {
    // Never with something pending: that ruins the component store.
    restart_clean(job, machine, cleanup.restart_timeout).await?;
    let request = request(machine, RunAs::System, cleanup.timeout);
    let what = format!("{} ({})", step.title, step.location);
    let parameters = json!({"resetBase": cleanup.reset_base});
    let (_, _): (ProgramResult, _) =
        program(job, machine, script::COMPONENT_CLEANUP, request, parameters, &what).await?;
    restart_clean(job, machine, cleanup.restart_timeout).await.map(drop)
}

async fn restart_where_asked(
    job: &Job,
    machine: &mut Machine,
    done: &ProgramResult,
    limit: Duration,
) -> Result<(), StageError> {
    let asked = done.results.iter().any(|result| RESTART_CODES.contains(&result.exit_code));
    if done.reboot_required || asked {
        job.events.note("restarting: the installation asks for it");
        restart_clean(job, machine, limit).await?;
    }
    Ok(())
}

/// Runs a program of gilt and reads its own answer.
pub(super) async fn program<T: DeserializeOwned>(
    job: &Job,
    machine: &Machine,
    program: Script,
    mut request: RunRequest,
    parameters: serde_json::Value,
    what: &str,
) -> Result<(T, String), StageError> {
    request.program = program.name.to_owned();
    request.parameters = Some(parameters);
    let file = ("script.ps1", script::text(program));
    let (result, mut said) = machine.guest.run_windows(job, &request, file).await?;
    let answer = said.inner.pop();
    let tail = said.tail.clone();
    match answer {
        // Its own words say more than its exit code.
        Some(answer) => match gilt_windows::request::read_answer(&answer) {
            Ok(answer) => Ok((answer, tail)),
            Err(error) => Err(failed(what, error, tail)),
        },
        None => Err(verdict(what, &[], &request, &result, said)
            .unwrap_or_else(|| StageError::Guest(format!("{what} ended without an answer")))),
    }
}

/// A request with what all have.
pub(super) fn request(machine: &Machine, run_as: RunAs, timeout: Duration) -> RunRequest {
    let access = &machine.guest.access;
    RunRequest {
        program: "user".into(),
        run_as,
        account: access.username.clone(),
        // Only a task of the account needs it.
        password: (run_as == RunAs::Elevated).then(|| access.password.clone()).flatten(),
        kind: Kind::Powershell,
        edition: Edition::Windows,
        execution_policy: "Bypass".into(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        timeout_seconds: timeout.as_secs(),
        parameters: None,
    }
}

fn account(account: WindowsAccount) -> RunAs {
    match account {
        WindowsAccount::User => RunAs::User,
        WindowsAccount::Elevated => RunAs::Elevated,
        WindowsAccount::System => RunAs::System,
    }
}

fn expanded(texts: &[Text], around: &Surroundings) -> Vec<String> {
    texts.iter().map(|text| text.expand(&around.values)).collect()
}

fn environment(env: &BTreeMap<String, Text>, around: &Surroundings) -> BTreeMap<String, String> {
    let mut all = around.environment.clone();
    all.extend(env.iter().map(|(name, text)| (name.clone(), text.expand(&around.values))));
    all
}

async fn read(job: &Job, file: &FileRef) -> Result<Vec<u8>, StageError> {
    let path = super::super::input::local_path(job, file).await?;
    std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))
}

/// Where files of the host lie in the guest while they are used.
const FILES: &str = r"C:\ProgramData\gilt\files";
const UPLOAD_LIMIT: Duration = Duration::from_secs(3600);

/// Uploads files and folders; their paths in the guest.
pub(super) async fn upload(
    job: &Job,
    machine: &Machine,
    files: &[FileRef],
) -> Result<Vec<String>, StageError> {
    let mut paths = Vec::new();
    if files.is_empty() {
        return Ok(paths);
    }
    let empty = tempfile::tempdir_in(job.run.path())
        .map_err(StageError::io("make a folder for an upload"))?;
    machine.guest.upload(empty.path(), FILES, None, UPLOAD_LIMIT).await?;
    for file in files {
        let from = super::super::input::local_path(job, file).await?;
        let to = format!("{FILES}\\{}", file.file_name());
        machine.guest.upload(&from, &to, Some(0o644), UPLOAD_LIMIT).await?;
        paths.push(to);
    }
    Ok(paths)
}

pub(super) async fn remove(
    job: &Job,
    machine: &Machine,
    paths: &[String],
) -> Result<(), StageError> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut request = request(machine, RunAs::User, Duration::from_secs(600));
    request.arguments = paths.to_vec();
    let text = "foreach ($path in $args) { Remove-Item -LiteralPath $path -Recurse -Force }";
    let file = ("script.ps1", script::powershell_file(text));
    let run = Tries { what: "removing installers", valid: &[0], retries: 0, delay: Duration::ZERO };
    run_script(job, machine, &request, file, &run).await
}
