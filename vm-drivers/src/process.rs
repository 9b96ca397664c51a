//! The one place where child processes are made: logged, bounded in time, their words kept for
//! the error, and tied to the life of this process.
//!
//! On Linux a child is started through `setpriv --pdeathsig KILL`, so the kernel ends it when we
//! are killed. That signal follows the *thread* that forked, therefore all tied children are
//! forked by one thread that lives as long as the process.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, OnceLock, mpsc},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

/// The most of a stream that is kept for an error message.
const TAIL_BYTES: usize = 16 << 10;

/// A child process that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{program} is not installed{}", hint_for(program))]
    NotFound { program: String },
    #[error("{command} failed ({status}): {}", stderr_tail.trim_end())]
    Failed { command: String, status: String, stderr_tail: String },
    #[error("{command} did not end within {} s", limit.as_secs())]
    TimedOut { command: String, limit: Duration, stderr_tail: String },
    #[error("cannot run {command}: {source}")]
    Io { command: String, source: std::io::Error },
}

fn hint_for(program: &str) -> String {
    let package = match program {
        "qemu-system-x86_64" => "qemu-system-x86",
        "qemu-img" => "qemu-utils",
        "swtpm" => "swtpm",
        "virsh" => "libvirt-clients",
        "xorriso" => "xorriso",
        _ => return String::new(),
    };
    format!("; on Debian: apt-get install {package}")
}

/// A program with its arguments, ready to be run.
#[derive(Clone, Debug)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
}

/// What a finished child said.
#[derive(Debug)]
pub struct Finished {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Invocation {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().into());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().into()));
        self
    }

    /// A variable of the child's environment, beside those of this process.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().into()));
        self
    }

    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The command line as one could paste it into a shell.
    pub fn display(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.arguments)
            .map(|a| shell_quote(&a.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn program_name(&self) -> String {
        Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned()
    }

    fn io_error(&self, source: std::io::Error) -> ProcessError {
        if source.kind() == std::io::ErrorKind::NotFound {
            ProcessError::NotFound { program: self.program.to_string_lossy().into_owned() }
        } else {
            ProcessError::Io { command: self.display(), source }
        }
    }

    /// Runs to the end; anything but success within `limit` is an error with the end of stderr.
    pub async fn run(&self, limit: Duration) -> Result<Finished, ProcessError> {
        let mut child = self.spawn_tied(Stdio::null()).await?;
        let stdout = child.stdout.take().map(|s| tokio::spawn(read_all(s)));
        let stderr = child.stderr.take().map(|s| tokio::spawn(read_all(s)));
        let status = tokio::time::timeout(limit, child.wait()).await;
        let timed_out = status.is_err();
        if timed_out {
            // Reaped here, so that nothing is left when the caller is told.
            let _ = child.kill().await;
        }
        let stdout = collect(stdout).await;
        let stderr = collect(stderr).await;
        let status = match status {
            Ok(status) => status.map_err(|e| self.io_error(e))?,
            Err(_) => {
                return Err(ProcessError::TimedOut {
                    command: self.display(),
                    limit,
                    stderr_tail: tail_text(&stderr),
                });
            }
        };
        tracing::debug!(command = %self.display(), %status, "child ended");
        if status.success() {
            return Ok(Finished { stdout, stderr });
        }
        Err(ProcessError::Failed {
            command: self.program_name(),
            status: status.to_string(),
            stderr_tail: tail_text(if stderr.is_empty() { &stdout } else { &stderr }),
        })
    }

    /// Starts a child that cannot outlive this process, with piped stdout and stderr. It is
    /// killed when the value is dropped, and is not in our process group, so that Ctrl-C in a
    /// terminal reaches only us.
    pub async fn spawn_tied(&self, stdin: Stdio) -> Result<Child, ProcessError> {
        let program = which(&self.program).ok_or_else(|| ProcessError::NotFound {
            program: self.program.to_string_lossy().into_owned(),
        })?;
        let mut command = match death_signal_wrapper() {
            Some(wrapper) => {
                let mut c = Command::new(wrapper);
                c.args(["--pdeathsig", "KILL", "--"]).arg(&program);
                c
            }
            None => Command::new(&program),
        };
        command.args(&self.arguments).envs(self.environment.iter().map(|(n, v)| (*n, v)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        tracing::debug!(command = %self.display(), "child starts");
        spawn_on_lasting_thread(command).await.map_err(|e| self.io_error(e))
    }
}

/// `setpriv` where it exists; elsewhere the run registry cleans up at the next start.
fn death_signal_wrapper() -> Option<&'static Path> {
    static WRAPPER: OnceLock<Option<PathBuf>> = OnceLock::new();
    WRAPPER
        .get_or_init(|| {
            let found = cfg!(target_os = "linux").then(|| which(OsStr::new("setpriv"))).flatten();
            if cfg!(target_os = "linux") && found.is_none() {
                tracing::warn!("setpriv is missing: machines may outlive a killed gilt");
            }
            found
        })
        .as_deref()
}

/// The full path of a program, as a shell would find it.
pub fn which(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.is_file().then(|| path.to_path_buf());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(path))
        .flat_map(|p| [p.with_extension("exe"), p])
        .find(|p| p.is_file())
}

type Job = Box<dyn FnOnce() + Send>;

async fn spawn_on_lasting_thread(mut command: Command) -> std::io::Result<Child> {
    static JOBS: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("gilt-spawner".into())
            .spawn(move || receiver.into_iter().for_each(|job| job()))
            .expect("the host can start one thread");
        Mutex::new(sender)
    });
    let (reply, answer) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let job: Job = Box::new(move || {
        let _in_runtime = runtime.enter();
        // A receiver that is gone drops the child, which kills it.
        let _ = reply.send(command.spawn());
    });
    let gone = || std::io::Error::other("the spawning thread is gone");
    jobs.lock().map_err(|_| gone())?.send(job).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What arrived before a broken pipe is still worth showing.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

async fn collect(task: Option<tokio::task::JoinHandle<Vec<u8>>>) -> Vec<u8> {
    match task {
        Some(task) => task.await.unwrap_or_default(),
        None => Vec::new(),
    }
}

/// The end of a stream as text.
pub(crate) fn tail_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]).into_owned()
}

/// Quotes a word for a POSIX shell; words that need no quotes stay as they are.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    #[cfg_attr(windows, ignore = "needs a Unix shell")]
    async fn a_failing_child_brings_its_last_words() {
        let error =
            Invocation::new("sh").args(["-c", "echo why >&2; exit 3"]).run(SOON).await.unwrap_err();
        let ProcessError::Failed { status, stderr_tail, .. } = error else { panic!("{error}") };
        assert!(status.contains('3'), "{status}");
        assert_eq!(stderr_tail, "why\n");
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let error = Invocation::new("no-such-program-xyz").run(SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "no-such-program-xyz is not installed");
        let error = ProcessError::NotFound { program: "swtpm".into() };
        assert_eq!(error.to_string(), "swtpm is not installed; on Debian: apt-get install swtpm");
    }

    #[tokio::test]
    #[cfg_attr(windows, ignore = "needs a Unix shell")]
    async fn a_child_over_its_time_is_killed() {
        let error = Invocation::new("sh")
            .args(["-c", "echo begun >&2; exec sleep 60"])
            .run(Duration::from_millis(500))
            .await
            .unwrap_err();
        let ProcessError::TimedOut { stderr_tail, .. } = error else { panic!("{error}") };
        assert_eq!(stderr_tail, "begun\n");
    }

    #[test]
    #[cfg_attr(windows, ignore = "needs a Unix shell")]
    fn quoting_survives_a_shell() {
        for word in ["", "a b", "it's", "$(reboot)", "plain-1.2", "a\nb", "`x`", "\"q\""] {
            let out = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", shell_quote(word)))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
    }
}
