//! One action in a Windows guest: a folder with a script and its request, one command line, one
//! answer.

use super::super::guest::{Guest, Lines, in_time};
use super::super::{Job, StageError};
use crate::event::Stream;
use gilt_vm::Error as VmError;
use gilt_vm::guest::{Communicator, GuestCommand, GuestShell, Output};
use gilt_windows::request::{
    AnswerError, Boot, BootRequest, MARKER, MAX_ANSWER_BYTES, Nothing, RenewRequest, RunRequest,
    RunResult,
};
use gilt_windows::script::{self, Script};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(180);
/// A script in the guest ends what ran out of time; its answer is waited for this much longer.
const GRACE: Duration = Duration::from_secs(60);
/// Of stderr; PowerShell's CLIXML is decoded as a whole.
const MAX_STDERR_BYTES: usize = 1 << 20;

/// What an action printed beside its answers.
pub struct Said {
    /// The last lines of all output.
    pub tail: String,
    /// Answers of programs that ran inside, in order; base64.
    pub inner: Vec<String>,
}

/// Tells output from answers while it comes.
#[derive(Default)]
struct Collector {
    open: Vec<u8>,
    answers: Vec<String>,
    lines: Lines,
    stderr: Vec<u8>,
}

impl Collector {
    fn push(&mut self, from: Output, bytes: &[u8], emit: &mut dyn FnMut(Stream, String)) {
        if from == Output::Stderr {
            let room = MAX_STDERR_BYTES.saturating_sub(self.stderr.len());
            self.stderr.extend_from_slice(&bytes[..room.min(bytes.len())]);
            return;
        }
        self.open.extend_from_slice(bytes);
        while let Some(end) = self.open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.open.drain(..=end).collect();
            self.line(&line, emit);
        }
        // Text without an end is passed on; an answer may be long.
        let is_answer = self.open.starts_with(MARKER.as_bytes());
        if self.open.len() > MAX_ANSWER_BYTES || (!is_answer && self.open.len() > (64 << 10)) {
            let text = std::mem::take(&mut self.open);
            self.lines.push(Stream::Stdout, &text, emit);
        }
    }

    fn line(&mut self, line: &[u8], emit: &mut dyn FnMut(Stream, String)) {
        match line.strip_prefix(MARKER.as_bytes()) {
            Some(answer) => {
                self.answers.push(String::from_utf8_lossy(answer).trim().to_owned());
            }
            None if line.trim_ascii().is_empty() => {}
            None => self.lines.push(Stream::Stdout, line, emit),
        }
    }

    fn finish(&mut self, emit: &mut dyn FnMut(Stream, String)) {
        let rest = std::mem::take(&mut self.open);
        if !rest.is_empty() {
            self.line(&rest, emit);
        }
        let errors = std::mem::take(&mut self.stderr);
        let errors = gilt_windows::clixml::readable(&String::from_utf8_lossy(&errors));
        self.lines.push(Stream::Stderr, errors.as_bytes(), emit);
        self.lines.finish(emit);
    }
}

impl Guest {
    /// Runs a script of gilt in the guest and reads its answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        job: &Job,
        script: Script,
        request: &impl Serialize,
        more: &[(&str, Vec<u8>)],
        limit: Duration,
    ) -> Result<(T, Said), StageError> {
        let what = format!("`{}` in the guest", script.name);
        let number = self.actions.fetch_add(1, Ordering::Relaxed) + 1;
        let id =
            format!("{}-{number:04}-{}", &job.id[job.id.len().saturating_sub(6)..], script.name);
        let request = serde_json::to_vec(request)
            .map_err(|error| StageError::Guest(format!("{what}: {error}")))?;
        let mut files: Vec<(&str, Vec<u8>)> = vec![("request.json", request)];
        let own = format!("{}.ps1", script.name);
        files.push((&own, script::text(script)));
        files.extend(more.iter().map(|(name, bytes)| (*name, bytes.clone())));
        self.place(job, &id, &files).await?;

        let mut command = GuestCommand::new(script::command_line(&id, script)).limit(limit);
        command.shell = GuestShell::Raw;
        let events = job.events.clone();
        let mut emit = move |stream, line: String| events.output(stream, line);
        let mut collector = Collector::default();
        let mut sink = |from: Output, bytes: &[u8]| collector.push(from, bytes, &mut emit);
        let done = self.way_in()?.exec(&command, &mut sink).await;
        let events = job.events.clone();
        collector.finish(&mut |stream, line| events.output(stream, line));
        let tail = std::mem::take(&mut collector.lines.tail);
        match done {
            Ok(_) => {}
            // The last thing some scripts do is to cut the connection.
            Err(VmError::ConnectionLost { .. }) if !collector.answers.is_empty() => {}
            Err(VmError::TimedOut { .. }) => {
                return Err(StageError::CommandTimedOut { what, limit, tail });
            }
            Err(error) => return Err(error.into()),
        }
        let Some(last) = collector.answers.pop() else {
            let shown = tail.lines().last().unwrap_or("it printed nothing").to_owned();
            return Err(StageError::Command {
                what: format!("{what} gave no answer ({shown}), which"),
                code: done.map_or(-1, |done| super::super::guest::code(&done)),
                tail,
            });
        };
        match gilt_windows::request::read_answer(&last) {
            Ok(answer) => Ok((answer, Said { tail, inner: collector.answers })),
            Err(error) => Err(failed(&what, error, tail)),
        }
    }

    /// Puts the files of an action into a folder of its own.
    async fn place(
        &self,
        job: &Job,
        id: &str,
        files: &[(&str, Vec<u8>)],
    ) -> Result<(), StageError> {
        let folder = script::sftp_path(&script::folder(id));
        let empty = tempfile::tempdir_in(job.run.path())
            .map_err(StageError::io("make a folder for a request"))?;
        let work = async {
            let way_in: &dyn Communicator = self.way_in()?;
            way_in.upload(empty.path(), &folder, None).await?;
            for (name, bytes) in files {
                way_in.upload_bytes(bytes, &format!("{folder}/{name}"), 0o600).await?;
            }
            Ok(())
        };
        in_time("upload of a script", SHORT, work).await
    }

    /// Runs a template's script, or a program of gilt, as one of the accounts.
    pub(super) async fn run_windows(
        &self,
        job: &Job,
        request: &RunRequest,
        script_file: (&str, Vec<u8>),
    ) -> Result<(RunResult, Said), StageError> {
        let more = [script_file, ("task.ps1", script::text(script::TASK))];
        let limit = Duration::from_secs(request.timeout_seconds) + GRACE;
        self.ask(job, script::RUN, request, &more, limit).await
    }

    /// Which boot this is, and what waits.
    pub(super) async fn boot_state(&self, job: &Job, keys: &[String]) -> Result<Boot, StageError> {
        let request = BootRequest { registry_keys: keys.to_vec() };
        Ok(self.ask(job, script::BOOT, &request, &[], SHORT).await?.0)
    }

    pub(in super::super) async fn sync_windows(&self, job: &Job) -> Result<(), StageError> {
        let (Nothing {}, _) =
            self.ask(job, script::SYNC, &serde_json::json!({}), &[], SHORT).await?;
        Ok(())
    }

    /// A resumed guest has the clock of then; its account gets a password nobody knew before.
    pub(in super::super) async fn renew_windows(
        &mut self,
        job: &Job,
        public_key: Option<String>,
    ) -> Result<(), StageError> {
        let password = super::new_password();
        let request = RenewRequest {
            user: self.access.username.clone(),
            old_key: public_key
                .as_ref()
                .and_then(|_| self.access.public_key.split_whitespace().nth(1))
                .map(str::to_owned),
            public_key,
            password: Some(password.clone()),
            clock: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        let (Nothing {}, _) = self.ask(job, script::RENEW, &request, &[], SHORT).await?;
        self.access.password = Some(password);
        Ok(())
    }
}

/// A script's own failure, with the cause its words name.
pub(super) fn failed(what: &str, error: AnswerError, tail: String) -> StageError {
    let code = match &error {
        AnswerError::Failed { .. } => 1,
        _ => -1,
    };
    StageError::Command { what: format!("{what}: {error}; it"), code, tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_out_of_the_output_however_they_come() {
        let mut seen = Vec::new();
        let mut emit = |stream: Stream, line: String| seen.push((stream, line));
        let mut collector = Collector::default();
        let long = "A".repeat(200_000);
        for piece in format!("one\r\ngilt-answer {long}\r\n\r\ntwo\r\n").as_bytes().chunks(777) {
            collector.push(Output::Stdout, piece, &mut emit);
        }
        collector.push(
            Output::Stderr,
            b"#< CLIXML\r\n<Objs><S S=\"Error\">bad_x000D__x000A_</S></Objs>",
            &mut emit,
        );
        collector.push(Output::Stdout, b"gilt-answer last", &mut emit);
        collector.finish(&mut emit);
        assert_eq!(collector.answers.len(), 2);
        assert_eq!((collector.answers[0].len(), collector.answers[1].as_str()), (200_000, "last"));
        let texts: Vec<_> = seen.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(texts, ["one", "two", "bad"]);
    }
}
