//! How a script reaches a PowerShell and how its answer is read.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Answer, MARKER, Script};
use crate::{
    error::{Error, Result},
    name::HostPath,
};

/// What `cmd.exe`, the default shell of OpenSSH on Windows, takes for one line.
pub const CMD_LIMIT: usize = 8191;
/// What `CreateProcess` takes, without the terminator.
pub const PROCESS_LIMIT: usize = 32766;
/// The longest answer we read: a screenshot of 1920 x 1080 is 5.5 MiB in base64.
pub const MAX_OUTPUT: usize = 64 << 20;

/// Windows PowerShell 5.1: the one every host has, with the Hyper-V module in its path.
const PROGRAM: &str = "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass";

/// Runs what stands on stdin in base64. The line is short and always the same: no limit of a command line
/// cuts a script, and nothing of it shows in a process list.
pub const FROM_STDIN: &str = "\
$ProgressPreference='SilentlyContinue'
$text=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String([Console]::In.ReadToEnd()))
& ([ScriptBlock]::Create($text))
";

fn encoded(text: &str) -> String {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    format!("{PROGRAM} -EncodedCommand {}", STANDARD.encode(units))
}

/// The command line that runs a script given by [`to_stdin`].
pub fn stdin_line() -> String {
    encoded(FROM_STDIN)
}

/// A script's text as stdin of [`stdin_line`].
pub fn to_stdin(text: &str) -> Vec<u8> {
    STANDARD.encode(text).into_bytes()
}

/// The script's text from what was made by [`to_stdin`]. For servers that play a host.
pub fn from_stdin(stdin: &[u8]) -> Option<String> {
    String::from_utf8(STANDARD.decode(stdin.trim_ascii()).ok()?).ok()
}

/// Who starts the process, and so how long its line may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// `cmd.exe`, also over SSH.
    Cmd,
    /// `CreateProcess` directly.
    Process,
}

impl Through {
    fn limit(self) -> (usize, &'static str) {
        match self {
            Through::Cmd => (CMD_LIMIT, "a line of cmd.exe"),
            Through::Process => (PROCESS_LIMIT, "a command line"),
        }
    }
}

impl Script {
    /// The command line that carries the whole script. Contains no character a shell acts upon.
    pub fn command_line(&self, through: Through) -> Result<String> {
        let line = encoded(&self.render());
        let (limit, form) = through.limit();
        if line.len() > limit {
            return Err(Error::TooLong { form, length: line.len(), limit });
        }
        Ok(line)
    }

    /// The bytes of a `.ps1`: with the mark without which Windows PowerShell reads the host's code page.
    pub fn file(&self) -> Vec<u8> {
        let mut bytes = vec![0xef, 0xbb, 0xbf];
        bytes.extend(self.render().replace('\n', "\r\n").into_bytes());
        bytes
    }
}

/// The command line that runs a script's file.
pub fn run_file(path: &HostPath) -> Result<String> {
    if path.extension().as_deref() != Some("ps1") || path.as_str().contains(['%', '!', '^', '&']) {
        return Err(Error::Invalid {
            what: "script file",
            reason: format!("{path} does not end in .ps1 or has a character cmd.exe acts upon"),
        });
    }
    Ok(format!("{PROGRAM} -File \"{path}\""))
}

/// What came back from a run.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    pub stdout: &'a [u8],
    /// Only evidence: a PowerShell may write progress as CLIXML there in a good run.
    pub stderr: &'a [u8],
    pub exit_code: Option<i32>,
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(600)..]).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Output<'_> {
    /// The script's answer: exactly one line of ours, whatever else was written.
    pub fn answer(&self) -> Result<Answer> {
        let broken = |reason: String| Error::Answer { operation: "script".into(), reason };
        if self.stdout.len() > MAX_OUTPUT {
            return Err(broken(format!("{} bytes of output", self.stdout.len())));
        }
        let mut lines = self.stdout.split(|b| *b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.strip_prefix(MARKER.as_bytes())?.strip_prefix(b" ")
        });
        let Some(line) = lines.next() else {
            let code = self.exit_code.map_or("none".into(), |code| code.to_string());
            return Err(broken(format!(
                "no answer, exit code {code}; stderr: {}; stdout: {}",
                tail(self.stderr),
                tail(self.stdout)
            )));
        };
        if lines.next().is_some() {
            return Err(broken("two answers".into()));
        }
        let json = STANDARD
            .decode(line)
            .map_err(|e| broken(format!("the answer is cut or changed: {e}")))?;
        let mut answer: Answer =
            serde_json::from_slice(&json).map_err(|e| broken(e.to_string()))?;
        if answer.ok == answer.failure.is_some() {
            return Err(broken("an answer that is neither good nor bad".into()));
        }
        answer.results = answer.results.into_iter().map(unwrap_list).collect();
        Ok(answer)
    }
}

/// Windows PowerShell writes a list that went through a pipe as `{"value": […], "Count": n}`.
fn unwrap_list(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Object(mut map)
            if map.len() == 2 && map.contains_key("Count") && map.contains_key("value") =>
        {
            unwrap_list(map.remove("value").unwrap_or_default())
        }
        Json::Object(map) => {
            Json::Object(map.into_iter().map(|(k, v)| (k, unwrap_list(v))).collect())
        }
        Json::Array(list) => Json::Array(list.into_iter().map(unwrap_list).collect()),
        other => other,
    }
}

impl Answer {
    /// As a host writes it. For tests and for servers that play a host.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{MARKER} {}\r\n", STANDARD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cmdlet::GetVm, reply::Shape, script::Step};

    fn listing() -> Script {
        Script::new(vec![Step::Ask { cmdlet: GetVm { id: None }.into(), shape: Shape::Machine }])
    }

    fn read(stdout: &[u8]) -> Result<Answer> {
        Output { stdout, stderr: b"#< CLIXML", exit_code: Some(1) }.answer()
    }

    #[test]
    fn the_encoded_command_is_the_script_in_utf16() {
        let line = listing().command_line(Through::Cmd).unwrap();
        let encoded = line.rsplit(' ').next().unwrap();
        let bytes = STANDARD.decode(encoded).unwrap();
        let units: Vec<u16> = bytes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        assert_eq!(String::from_utf16(&units).unwrap(), listing().render());
        assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || " +/=.-".contains(c)));
    }

    #[test]
    fn a_script_that_does_not_fit_is_refused_with_both_numbers() {
        let mut long = listing();
        for _ in 0..20 {
            long.push(GetVm { id: None });
        }
        let fits_process = long.command_line(Through::Process);
        assert!(fits_process.is_ok());
        while long.command_line(Through::Cmd).is_ok() {
            long.push(GetVm { id: None });
        }
        let Err(Error::TooLong { length, limit: 8191, .. }) = long.command_line(Through::Cmd)
        else {
            panic!("a long line went through cmd.exe");
        };
        assert!(length > 8191);
        while long.command_line(Through::Process).is_ok() {
            long.push(GetVm { id: None });
        }
    }

    #[test]
    fn a_file_has_the_utf8_mark_and_windows_line_ends() {
        let file = listing().file();
        assert!(file.starts_with(b"\xef\xbb\xbf$Error"));
        assert_eq!(
            file.iter().filter(|b| **b == b'\n').count(),
            listing().render().lines().count()
        );
        assert!(
            run_file(&HostPath::new(r"C:\a b\x.ps1").unwrap())
                .unwrap()
                .ends_with(r#"-File "C:\a b\x.ps1""#)
        );
        assert!(run_file(&HostPath::new(r"C:\%TEMP%\x.ps1").unwrap()).is_err());
    }

    #[test]
    fn noise_around_the_answer_is_ignored_and_a_missing_or_second_one_is_an_error() {
        let good = Answer { ok: true, results: vec![serde_json::json!([])], failure: None };
        let noisy = format!("Willkommen\r\n{}bye", good.to_line());
        assert_eq!(read(noisy.as_bytes()).unwrap(), good);
        assert!(read(b"Access denied").unwrap_err().to_string().contains("exit code 1"));
        assert!(read(format!("{0}{0}", good.to_line()).as_bytes()).is_err());
        let cut = &good.to_line()[..MARKER.len() + 10];
        assert!(read(cut.as_bytes()).is_err());
        let neither = format!("{MARKER} {}\n", STANDARD.encode(r#"{"ok":false}"#));
        assert!(read(neither.as_bytes()).is_err());
    }

    #[test]
    fn lists_wrapped_by_windows_powershell_are_unwrapped() {
        let wrapped =
            r#"{"ok":true,"results":[{"value":[{"ips":{"value":["a"],"Count":1}}],"Count":1}]}"#;
        let line = format!("{MARKER} {}\n", STANDARD.encode(wrapped));
        assert_eq!(read(line.as_bytes()).unwrap().results, [serde_json::json!([{"ips": ["a"]}])]);
    }
}
