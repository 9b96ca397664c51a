//! libvirt by way of `virsh`, one process for each request. Its words are English and its exit code
//! is believed; what it says is kept for the error.

use std::{ffi::OsStr, time::Duration};

use crate::{
    error::{Error, Result},
    process::{Invocation, ProcessError},
};

/// A request on a busy host, or one over SSH.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Virsh {
    uri: String,
}

impl Virsh {
    pub fn new(uri: &str) -> Self {
        Self { uri: uri.into() }
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// `virsh` with the connection, before any command.
    pub fn invocation(&self) -> Invocation {
        Invocation::new("virsh").env("LC_ALL", "C").arg("-c").arg(&self.uri)
    }

    /// One command, with what it prints.
    pub async fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        self.run_within(arguments, LIMIT).await
    }

    pub async fn run_within<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        limit: Duration,
    ) -> Result<String> {
        let command = arguments.first().map(|a| a.as_ref().to_string_lossy().into_owned());
        let finished = self.invocation().arg("-q").args(arguments).run(limit).await;
        match finished {
            Ok(finished) => String::from_utf8(finished.stdout).map_err(|_| Error::Malformed {
                what: format!("virsh {}", command.unwrap_or_default()),
                reason: "its answer is no UTF-8".into(),
            }),
            Err(ProcessError::Failed { stderr_tail, .. }) => Err(Error::Monitor {
                command: format!("virsh {}", command.unwrap_or_default()),
                reason: plain_reason(&stderr_tail),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

/// Without virsh's `error: ` before each line and the lines that say nothing.
pub fn plain_reason(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty() && !line.starts_with("Failed to create domain from"));
    lines.collect::<Vec<_>>().join("; ")
}

/// Whether a request failed because there is no such domain (any more).
pub fn is_gone(error: &Error) -> bool {
    let Error::Monitor { reason, .. } = error else { return false };
    ["failed to get domain", "Domain not found", "no domain with matching", "domain is not running"]
        .iter()
        .any(|words| reason.contains(words))
}

/// A word for virsh's own command line, where several commands stand in one argument.
pub fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_without_the_tools_manners() {
        let said =
            "error: Failed to create domain from /x.xml\nerror: internal error: it is so\n\n";
        assert_eq!(plain_reason(said), "internal error: it is so");
        let gone = Error::Monitor {
            command: "virsh destroy".into(),
            reason: plain_reason("error: failed to get domain 'x'\n"),
        };
        assert!(is_gone(&gone));
    }

    #[test]
    fn words_are_quoted_for_virsh() {
        assert_eq!(quote(r#"a "b" \c;d"#), r#""a \"b\" \\c;d""#);
    }
}
