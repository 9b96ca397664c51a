//! The inside of a running guest: one logged-in connection, its credentials, and the files it is
//! served.

use super::{Job, StageError};
use crate::checkpoint::{self, Checkpoint};
use crate::event::Stream;
use crate::plan::ResolvedLayer;
use crate::template::RuntimeValues;
use crate::template::model::Guest as GuestKind;
use gilt_vm::guest::{
    Communicator, Connector, ExecOutcome, ExitStatus, GuestCommand, GuestShell, HttpServer, Output,
    SERVED, SshAuth, SshKey, SshLogin, quiet, restart,
};
use gilt_vm::process::shell_quote;
use gilt_vm::{Error as VmError, ExitReason, HostSide, Vm};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Of a command's output, this much stays for the diagnosis.
const TAIL_BYTES: usize = 16 << 10;
const SHORT: Duration = Duration::from_secs(60);

/// What opens the guest. Made anew for each build.
#[derive(Clone, Debug)]
pub struct Access {
    pub username: String,
    pub public_key: String,
    key: SshKey,
    /// Made by gilt, so that gilt may replace it; a key of the template stays.
    ours: bool,
    /// The account's password, where the guest needs one. Made anew whenever gilt logs in.
    pub(super) password: Option<String>,
}

impl Access {
    /// The template's key, or one made for this build.
    pub fn new_for(job: &Job) -> Result<Self, StageError> {
        let communicator = &job.build.spec.communicator;
        let given = match &communicator.private_key {
            Some(file) => {
                let path = file.path().ok_or_else(|| {
                    StageError::Input("communicator.private_key must be a file of this host".into())
                })?;
                let text = std::fs::read_to_string(path)
                    .map_err(StageError::io(format!("read {}", path.display())))?;
                Some(SshKey::from_openssh(&text)?)
            }
            None => None,
        };
        let ours = given.is_none();
        let key = match given {
            Some(key) => key,
            None => SshKey::generate("gilt build")?,
        };
        let mut access = Self::of(communicator.username.clone(), key, ours)?;
        if job.build.spec.guest == GuestKind::Windows {
            access.password = Some(super::windows::new_password());
        }
        Ok(access)
    }

    /// For the throw-away machine a captured image is tested on.
    pub fn for_test(username: &str) -> Result<Self, StageError> {
        Self::of(username.to_owned(), SshKey::generate("gilt test")?, true)
    }

    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, StageError> {
        let path = checkpoint.access_key();
        let text = std::fs::read_to_string(&path)
            .map_err(StageError::io(format!("read {}", path.display())))?;
        let key = SshKey::from_openssh(&text)?;
        Self::of(checkpoint.record.username.clone(), key, checkpoint.record.key_is_ours)
    }

    fn of(username: String, key: SshKey, ours: bool) -> Result<Self, StageError> {
        Ok(Self { username, public_key: key.public_line()?, key, ours, password: None })
    }

    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Writes the private key where only its owner can read it.
    pub fn save(&self, path: &Path) -> Result<(), StageError> {
        let failed = || StageError::io(format!("write {}", path.display()));
        std::fs::write(path, b"").map_err(failed())?;
        checkpoint::restrict(path).map_err(failed())?;
        std::fs::write(path, self.key.private_openssh()?).map_err(failed())
    }

    /// The values of `${build.…}`.
    pub fn values(&self, job: &Job, http: &str) -> RuntimeValues {
        RuntimeValues {
            ssh_public_key: self.public_key.clone(),
            http: http.to_owned(),
            name: job.build.spec.name.clone(),
            id: job.id.clone(),
            username: self.username.clone(),
            password: self.password.clone().unwrap_or_default(),
        }
    }
}

/// The build's file server. Only processes of this host and its guests reach it, and only by a
/// path that nobody can guess.
#[derive(Clone)]
pub struct Served {
    server: Arc<HttpServer>,
    /// `${build.http}`.
    pub base: String,
    /// The guest has no way here but the one we have to it: its login brings the port.
    by_login: bool,
}

impl Served {
    /// Ports of this host the guest's network leads to.
    pub fn reached_ports(&self) -> Vec<u16> {
        if self.by_login { Vec::new() } else { vec![self.server.address().port()] }
    }

    /// Ports of this host a login leads to.
    fn brought_ports(&self) -> Vec<u16> {
        if self.by_login { vec![self.server.address().port()] } else { Vec::new() }
    }
}

impl Served {
    pub async fn start(job: &Job) -> Result<Self, StageError> {
        let (host, by_login) = match job.driver.host_side().await {
            Ok(host) => (host, false),
            Err(VmError::Unsupported { .. }) => {
                let here = Ipv4Addr::LOCALHOST.into();
                (HostSide { listen_on: here, seen_by_guest: here }, true)
            }
            Err(error) => return Err(error.into()),
        };
        let server = HttpServer::start_on(host.listen_on).await?;
        let base = server.url(host.seen_by_guest);
        let served = Self { server: Arc::new(server), base, by_login };
        if let Some(http) = &job.build.spec.source.http {
            if let Some(folder) = &http.dir {
                let path = super::input::local_path(job, &folder.0).await?;
                let entries = std::fs::read_dir(&path)
                    .map_err(StageError::io(format!("read {}", path.display())))?;
                for entry in entries.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    served.server.serve_path(&name, entry.path());
                }
            }
            let values = Access::new_for(job)?.values(job, &served.base);
            for (name, text) in &http.files {
                served.server.serve_bytes(name, text.expand(&values).into_bytes());
            }
        }
        Ok(served)
    }

    /// What the address of any build's file server has in it: `http://10.0.2.2:`. A guest's own
    /// 127.0.0.1 says nothing; there it is the word behind the port.
    pub fn trace(&self) -> String {
        if self.by_login {
            return format!("/{SERVED}");
        }
        let end = self.base.rfind(':').map_or(self.base.len(), |colon| colon + 1);
        self.base[..end].to_owned()
    }
}

/// A script for the guest.
pub struct Command {
    /// For messages: `shell install.sh (layers/x/layer.yaml:12)`.
    pub what: String,
    pub script: Vec<u8>,
    /// What runs the script; `None` for one with `#!`.
    pub interpreter: Option<String>,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// The account it runs as.
    pub user: String,
    pub timeout: Duration,
}

/// How a script ended.
pub struct Finished {
    pub code: i32,
    /// The last lines of stdout and stderr together, as they came.
    pub tail: String,
    /// The end of stdout alone.
    pub output: String,
}

pub struct Guest {
    pub(super) way_in: Option<Box<dyn Communicator>>,
    pub(super) login: SshLogin,
    /// Where the host reaches its SSH port.
    address: SocketAddr,
    pub access: Access,
    pub served: Served,
    kind: GuestKind,
    /// Numbers what is run in a Windows guest.
    pub(super) actions: std::sync::atomic::AtomicU32,
}

impl Guest {
    /// Waits until the guest lets us in.
    pub async fn connect(
        job: &Job,
        vm: &dyn Vm,
        access: &Access,
        served: Served,
        patience: Duration,
    ) -> Result<Self, StageError> {
        let mut login = SshLogin::with_key(access.username.clone(), access.key.clone());
        login.guest_port = job.build.spec.communicator.port;
        login.brings = served.brought_ports();
        let address = login.target(vm)?.address;
        let way_in = login.connect(vm, patience).await?;
        Ok(Self {
            way_in: Some(way_in),
            login,
            address,
            access: access.clone(),
            served,
            kind: job.build.spec.guest,
            actions: Default::default(),
        })
    }

    pub(super) fn way_in(&self) -> Result<&dyn Communicator, StageError> {
        let missing = || StageError::Guest("not logged in to the guest".into());
        self.way_in.as_deref().ok_or_else(missing)
    }

    pub fn values(&self, job: &Job) -> RuntimeValues {
        self.access.values(job, &self.served.base)
    }

    /// A resumed guest still has the key and the clock of the build that saved it: a key of this
    /// build takes the old one's place, and the clock is set.
    pub async fn renew_access(&mut self, job: &Job) -> Result<(), StageError> {
        if self.kind == GuestKind::Windows {
            let fresh = self.access.ours.then(|| SshKey::generate("gilt build")).transpose()?;
            let line = fresh.as_ref().map(SshKey::public_line).transpose()?;
            self.renew_windows(job, line).await?;
            if let Some(key) = fresh {
                let password = self.access.password.take();
                self.login.auth = SshAuth::Key(key.clone());
                self.access = Access::of(self.access.username.clone(), key, true)?;
                self.access.password = password;
            }
            return Ok(());
        }
        let seconds = jiff::Timestamp::now().as_second();
        let mut line = format!("date -u -s @{seconds} >/dev/null 2>&1 || true");
        let fresh = self.access.ours.then(|| SshKey::generate("gilt build")).transpose()?;
        if let Some(key) = &fresh {
            let public = shell_quote(&key.public_line()?);
            let old = self.access.public_key.split_whitespace().nth(1).unwrap_or_default();
            // Other keys of the account stay; the file changes by rename, so a cut leaves one.
            line = format!(
                "set -eu; umask 077; f=\"$HOME/.ssh/authorized_keys\"; \
                 {{ grep -vF {} \"$f\" || true; printf '%s\\n' {public}; }} > \"$f.new\"; \
                 mv \"$f.new\" \"$f\"; {line}",
                shell_quote(old)
            );
        }
        self.short(&line).await?;
        if let Some(key) = fresh {
            self.login.auth = SshAuth::Key(key.clone());
            self.access = Access::of(self.access.username.clone(), key, true)?;
        }
        Ok(())
    }

    /// The guest writes out its caches.
    pub async fn sync(&self, job: &Job) -> Result<(), StageError> {
        if self.kind == GuestKind::Windows {
            return self.sync_windows(job).await;
        }
        self.short("sync").await
    }

    /// Lets the guest switch itself off: by a command, and by its power button where that fails.
    pub async fn shut_down(&mut self, vm: &dyn Vm) -> Result<(), StageError> {
        let (line, shell) = match self.kind {
            GuestKind::Linux => (
                "if [ \"$(id -u)\" = 0 ]; then systemctl poweroff || poweroff; \
                 else sudo -n systemctl poweroff || sudo -n poweroff; fi",
                GuestShell::Posix,
            ),
            GuestKind::Windows => (super::windows::SHUT_DOWN, GuestShell::Raw),
        };
        let mut command = GuestCommand::new(line).limit(SHORT);
        command.shell = shell;
        match self.way_in()?.exec(&command, &mut quiet()).await {
            Ok(done) if !done.succeeded() && self.way_in()?.is_open() => {
                Ok(vm.request_shutdown().await?)
            }
            // It may be gone before the command's end is told.
            Ok(_)
            | Err(VmError::ConnectionLost { .. })
            | Err(VmError::Ended { reason: ExitReason::PoweredOff, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A short command that must succeed.
    async fn short(&self, line: &str) -> Result<(), StageError> {
        let command = GuestCommand::new(line).limit(SHORT);
        let done = self.way_in()?.exec(&command, &mut quiet()).await?;
        if done.succeeded() {
            return Ok(());
        }
        Err(StageError::Command {
            what: format!("`{line}`"),
            code: code(&done),
            tail: done.stderr_text(),
        })
    }

    /// Runs a script; its lines become events as they come. Any exit code is `Ok`.
    pub async fn run_script(&self, job: &Job, command: &Command) -> Result<Finished, StageError> {
        let run = GuestCommand {
            stdin: command.script.clone(),
            environment: command.environment.clone().into_iter().collect(),
            ..GuestCommand::new(script_line(command)).limit(command.timeout)
        };
        let events = job.events.clone();
        let mut lines = Lines::default();
        let mut sink = |from: Output, bytes: &[u8]| {
            let stream = match from {
                Output::Stdout => Stream::Stdout,
                Output::Stderr => Stream::Stderr,
            };
            lines.push(stream, bytes, &mut |stream, line| events.output(stream, line));
        };
        let done = self.way_in()?.exec(&run, &mut sink).await;
        lines.finish(&mut |stream, line| events.output(stream, line));
        match done {
            Ok(done) => {
                Ok(Finished { code: code(&done), output: done.stdout_text(), tail: lines.tail })
            }
            Err(VmError::TimedOut { .. }) => Err(StageError::CommandTimedOut {
                what: command.what.clone(),
                limit: command.timeout,
                tail: lines.tail,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reboots a Linux guest and proves it.
    pub async fn restart(&mut self, vm: &dyn Vm, limit: Duration) -> Result<(), StageError> {
        let way_in = self
            .way_in
            .take()
            .ok_or_else(|| StageError::Guest("not logged in to the guest".into()))?;
        let line = "if [ \"$(id -u)\" = 0 ]; then systemctl reboot || reboot; \
                    else sudo -n systemctl reboot || sudo -n reboot; fi";
        self.way_in = Some(restart(way_in, &self.login, vm, line, limit).await?);
        Ok(())
    }

    pub async fn upload(
        &self,
        from: &Path,
        to: &str,
        mode: Option<u32>,
        limit: Duration,
    ) -> Result<(), StageError> {
        let to = &self.remote_path(to);
        let work = async { Ok(self.way_in()?.upload(from, to, mode).await.map(drop)?) };
        in_time(&format!("upload to {to}"), limit, work).await
    }

    pub async fn upload_bytes(
        &self,
        bytes: &[u8],
        to: &str,
        mode: Option<u32>,
        limit: Duration,
    ) -> Result<(), StageError> {
        let to = &self.remote_path(to);
        let work =
            async { Ok(self.way_in()?.upload_bytes(bytes, to, mode.unwrap_or(0o644)).await?) };
        in_time(&format!("upload to {to}"), limit, work).await
    }

    /// The path as the guest's SFTP server takes it.
    fn remote_path(&self, path: &str) -> String {
        match self.kind {
            GuestKind::Linux => path.to_owned(),
            GuestKind::Windows => gilt_windows::script::sftp_path(path),
        }
    }

    pub async fn download(&self, from: &str, to: &Path, limit: Duration) -> Result<(), StageError> {
        let from = &self.remote_path(from);
        let work = async { Ok(self.way_in()?.download(from, to).await.map(drop)?) };
        in_time(&format!("download of {from}"), limit, work).await
    }

    /// Serves the inputs of a layer; name and address of each.
    pub async fn serve_inputs(
        &self,
        job: &Job,
        layer: &ResolvedLayer,
    ) -> Result<Vec<(String, String)>, StageError> {
        let mut inputs = Vec::new();
        for (name, file) in layer.inputs() {
            let path = super::input::local_path(job, &file.file).await?;
            let route = format!("inputs/{}/{name}", layer.name());
            self.served.server.serve_path(&route, path);
            inputs.push((name.to_owned(), format!("{}/{route}", self.served.base)));
        }
        Ok(inputs)
    }

    /// How a person logs in while the build stands still.
    pub fn login_hint(&self, job: &Job) -> Result<String, StageError> {
        let key = job.run.file("login.key");
        self.access.save(&key)?;
        Ok(format!("ssh {}", self.ssh_arguments(&key).join(" ")))
    }

    fn ssh_arguments(&self, key: &Path) -> Vec<String> {
        let address = self.address;
        vec![
            "-i".into(),
            key.display().to_string(),
            "-p".into(),
            address.port().to_string(),
            "-o".into(),
            "StrictHostKeyChecking=no".into(),
            "-o".into(),
            "UserKnownHostsFile=/dev/null".into(),
            "-o".into(),
            "LogLevel=ERROR".into(),
            format!("{}@{}", self.login.user, address.ip()),
        ]
    }

    /// A shell for a person, or one command with its output passed through. The exit code.
    pub async fn shell(&self, job: &Job, command: Option<&str>) -> Result<i32, StageError> {
        use std::io::Write;
        if let Some(line) = command {
            let mut run = GuestCommand::new(line).limit(Duration::from_secs(24 * 3600));
            if self.kind == GuestKind::Windows {
                run.shell = GuestShell::Raw;
            }
            let mut sink = |from: Output, bytes: &[u8]| {
                // A closed pipe ends what we print, not the guest's command.
                let _ = match from {
                    Output::Stdout => std::io::stdout().write_all(bytes),
                    Output::Stderr => std::io::stderr().write_all(bytes),
                };
            };
            return Ok(code(&self.way_in()?.exec(&run, &mut sink).await?));
        }
        let key = job.run.file("login.key");
        self.access.save(&key)?;
        let status = tokio::process::Command::new("ssh")
            .args(self.ssh_arguments(&key))
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|error| StageError::Host {
                what: format!("cannot start ssh: {error}"),
                hint: "install an OpenSSH client, or give --command".into(),
            })?;
        Ok(status.code().unwrap_or(255))
    }
}

pub(super) async fn in_time<T>(
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, StageError>>,
) -> Result<T, StageError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => {
            Err(StageError::CommandTimedOut { what: what.into(), limit, tail: String::new() })
        }
    }
}

pub(super) fn code(done: &ExecOutcome) -> i32 {
    match &done.status {
        ExitStatus::Code(code) => i32::try_from(*code).unwrap_or(255),
        // As shells say it of a command that a signal ended.
        ExitStatus::Signal(_) => 128,
    }
}

/// One line that takes the script from stdin into a file of its own, runs it as the user asked
/// for, and removes it. The file lets the script read its own stdin, and begin with `#!`.
fn script_line(command: &Command) -> String {
    let user = shell_quote(&command.user);
    let mut call = command.interpreter.clone().unwrap_or_default();
    call.push_str(" \"$t\"");
    for argument in &command.arguments {
        call.push(' ');
        call.push_str(&shell_quote(argument));
    }
    format!(
        "t=$(mktemp /tmp/gilt.XXXXXX) || exit 125; cat > \"$t\"; chmod 700 \"$t\"; \
         u={user}; me=$(id -un); up=; \
         if [ \"$u\" = root ] && [ \"$(id -u)\" = 0 ]; then :; \
         elif [ \"$u\" = \"$me\" ]; then :; \
         elif [ \"$(id -u)\" = 0 ]; then chown \"$u\" \"$t\"; up=\"runuser -u $u --\"; \
         else up=\"sudo -n -E -u $u --\"; chmod 755 \"$t\"; fi; \
         $up {} </dev/null; s=$?; rm -f \"$t\"; exit $s",
        call.trim_start()
    )
}

/// Splits streams into lines and keeps the end of all.
#[derive(Default)]
pub(super) struct Lines {
    open: BTreeMap<u8, Vec<u8>>,
    pub(super) tail: String,
}

impl Lines {
    /// A line that never ends is cut here.
    const LONGEST: usize = 64 << 10;

    pub(super) fn push(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        emit: &mut dyn FnMut(Stream, String),
    ) {
        let mut open = self.open.remove(&(stream as u8)).unwrap_or_default();
        open.extend_from_slice(bytes);
        while let Some(end) = open.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            self.line(stream, &line, emit);
        }
        if open.len() > Self::LONGEST {
            self.line(stream, &open, emit);
            open.clear();
        }
        self.open.insert(stream as u8, open);
    }

    pub(super) fn finish(&mut self, emit: &mut dyn FnMut(Stream, String)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(rest) = self.open.remove(&(stream as u8))
                && !rest.is_empty()
            {
                self.line(stream, &rest, emit);
            }
        }
    }

    fn line(&mut self, stream: Stream, bytes: &[u8], emit: &mut dyn FnMut(Stream, String)) {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        self.tail.push_str(&text);
        self.tail.push('\n');
        if self.tail.len() > 2 * TAIL_BYTES {
            let mut cut = self.tail.len() - TAIL_BYTES;
            while !self.tail.is_char_boundary(cut) {
                cut += 1;
            }
            self.tail.drain(..cut);
        }
        emit(stream, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_in_any_pieces_becomes_whole_lines_of_each_stream() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut emit = |stream: Stream, line: String| seen.push((stream, line));
        lines.push(Stream::Stdout, b"one\ntw", &mut emit);
        lines.push(Stream::Stderr, b"oops\n", &mut emit);
        lines.push(Stream::Stdout, b"o\nlast", &mut emit);
        lines.finish(&mut emit);
        let texts: Vec<_> = seen.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(texts, ["one", "oops", "two", "last"]);
        assert_eq!(lines.tail, "one\noops\ntwo\nlast\n");
    }

    #[cfg(unix)]
    fn command(interpreter: Option<&str>, script: &str, arguments: &[&str]) -> Command {
        Command {
            what: "test".into(),
            script: script.into(),
            interpreter: interpreter.map(Into::into),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            environment: BTreeMap::new(),
            user: String::from_utf8(
                std::process::Command::new("id").arg("-un").output().unwrap().stdout,
            )
            .unwrap()
            .trim()
            .to_owned(),
            timeout: SHORT,
        }
    }

    #[cfg(unix)]
    fn run(command: &Command) -> std::process::Output {
        use std::io::Write;
        let mut child = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(script_line(command))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&command.script).unwrap();
        child.wait_with_output().unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn a_script_gets_its_arguments_and_its_exit_code_comes_back() {
        let done = run(&command(Some("/bin/sh -eu"), "echo \"[$1]\"; exit 7\n", &["it's a b"]));
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "[it's a b]\n");
        assert_eq!(done.status.code(), Some(7));
    }

    #[cfg(unix)]
    #[test]
    fn a_script_with_its_own_first_line_chooses_its_interpreter() {
        let done =
            run(&command(None, "#!/usr/bin/env bash\n[[ -n $BASH_VERSION ]] && echo bash\n", &[]));
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "bash\n");
    }
}
