//! A command for a guest, and how it becomes one line for the shell there.

use std::time::Duration;

use crate::process::shell_quote;

/// Which shell will read the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestShell {
    Posix,
    /// The line goes as it is; no environment, and no kill when it runs out of time.
    Raw,
}

/// Something to run in a guest.
#[derive(Clone, Debug)]
pub struct GuestCommand {
    pub line: String,
    pub shell: GuestShell,
    /// Handed over by stdin, so that values show in no process list.
    pub environment: Vec<(String, String)>,
    pub stdin: Vec<u8>,
    pub limit: Duration,
}

impl GuestCommand {
    /// A line for `/bin/sh` with five minutes to end.
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            shell: GuestShell::Posix,
            environment: Vec::new(),
            stdin: Vec::new(),
            limit: Duration::from_secs(300),
        }
    }

    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The line as sent and the bytes that precede stdin. A POSIX shell first says its process
    /// id on a line of its own, so that it can be killed by group.
    pub(super) fn wire(&self) -> (String, Vec<u8>) {
        if self.shell == GuestShell::Raw {
            return (self.line.clone(), self.stdin.clone());
        }
        let mut input = Vec::new();
        let mut line = String::from("echo $$; ");
        if !self.environment.is_empty() {
            for (name, value) in &self.environment {
                // A value may hold anything but NUL; the name was checked by the caller.
                input.extend_from_slice(
                    format!("export {name}={}\n", always_quote(value)).as_bytes(),
                );
            }
            // Read byte by byte, so that what follows stays for the command.
            line.push_str(&format!("eval \"$(dd bs=1 count={} 2>/dev/null)\"; ", input.len()));
        }
        line.push_str(&self.line);
        input.extend_from_slice(&self.stdin);
        // The login shell may be any; the line is read by sh.
        (format!("exec /bin/sh -c {}", shell_quote(&line)), input)
    }
}

fn always_quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// Takes output as it comes; pieces may end anywhere.
pub type OutputSink<'a> = &'a mut (dyn FnMut(Output, &[u8]) + Send);

/// For commands nobody listens to.
pub fn quiet() -> impl FnMut(Output, &[u8]) + Send {
    |_, _| {}
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(u32),
    Signal(String),
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(f, "killed by SIG{signal}"),
        }
    }
}

/// How a command ended, with the end of what it said.
#[derive(Clone, Debug)]
pub struct ExecOutcome {
    pub status: ExitStatus,
    /// The last 64 KiB.
    pub stdout: Vec<u8>,
    /// The last 64 KiB.
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl ExecOutcome {
    pub fn succeeded(&self) -> bool {
        self.status == ExitStatus::Code(0)
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// The end of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    const KEPT: usize = 64 << 10;

    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > 2 * Self::KEPT {
            self.bytes.drain(..self.bytes.len() - Self::KEPT);
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.drain(..self.bytes.len().saturating_sub(Self::KEPT));
        self.bytes
    }

    pub fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    #[cfg_attr(windows, ignore = "needs a Unix shell")]
    fn a_real_shell_gets_line_environment_and_stdin_apart() {
        let command = GuestCommand::new("printf '%s|' \"$SECRET\" \"$B\"; cat")
            .env("SECRET", "it's $(x) \"q\"\nline")
            .env("B", "")
            .stdin("rest of\nstdin");
        let (line, input) = command.wire();
        assert!(!line.contains("it's"), "values stay off the command line");
        let mut child = std::process::Command::new("sh")
            .args(["-c", &line])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(out, format!("{pid}\nit's $(x) \"q\"\nline||rest of\nstdin"));
    }
}
