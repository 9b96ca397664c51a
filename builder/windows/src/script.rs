//! The scripts for the guest. Each is constant: no value is ever written into PowerShell text, so
//! there is nothing to quote. Values travel beside it as JSON (`request`).

const PRELUDE: &str = include_str!("../scripts/prelude.ps1");
const EPILOGUE: &str = include_str!("../scripts/epilogue.ps1");
const PROGRAM: &str = include_str!("../scripts/program.ps1");

/// A script: its name and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub name: &'static str,
    body: &'static str,
    frame: Frame,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// Runs by itself.
    Plain,
    /// With the functions all share.
    Prelude,
    /// Answers a request over SSH.
    Verb,
    /// Run by the verb `run`; answers from its own parameters.
    Program,
}

macro_rules! scripts {
    ($($name:ident = $file:literal, $frame:ident;)*) => {
        $(pub const $name: Script = Script {
            name: $file,
            body: include_str!(concat!("../scripts/", $file, ".ps1")),
            frame: Frame::$frame,
        };)*
        /// Every script there is.
        pub const ALL: &[Script] = &[$($name),*];
    };
}

scripts! {
    FIRST_BOOT = "first-boot", Plain;
    FIRST_LOGON = "first-logon", Prelude;
    BOOT = "boot", Verb;
    RENEW = "renew", Verb;
    SYNC = "sync", Verb;
    RUN = "run", Verb;
    TASK = "task", Plain;
    PREFLIGHT = "preflight", Verb;
    HANDOVER = "handover", Verb;
    STRIP = "strip", Verb;
    SYSPREP = "sysprep", Verb;
    FINISH = "finish", Verb;
    WINDOWS_UPDATE = "windows-update", Program;
    WINDOWS_INSTALL = "windows-install", Program;
    WINDOWS_FEATURE = "windows-feature", Program;
    COMPONENT_CLEANUP = "component-cleanup", Program;
}

impl Script {
    /// The text that runs, without a byte order mark.
    pub fn source(&self) -> String {
        match self.frame {
            Frame::Plain => self.body.to_owned(),
            Frame::Prelude => [PRELUDE, self.body].join("\n"),
            Frame::Verb => [PRELUDE, self.body, EPILOGUE].join("\n"),
            Frame::Program => [PRELUDE, self.body, PROGRAM].join("\n"),
        }
    }
}

/// The file's bytes: with a byte order mark, or Windows PowerShell reads it in the code page of
/// the day; lines ended as Windows ends them.
pub fn text(script: Script) -> Vec<u8> {
    powershell_file(&script.source())
}

/// Any PowerShell text as a file for the guest.
pub fn powershell_file(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xEF, 0xBB, 0xBF];
    bytes.extend_from_slice(crlf(text.trim_start_matches('\u{feff}')).as_bytes());
    bytes
}

/// A batch file for the guest: no mark (cmd would run it as a command), UTF-8 by its first line.
pub fn batch_file(lines: &[String]) -> Vec<u8> {
    let mut text = String::from("@echo off\nchcp 65001 >nul\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
        // The first line that fails ends it, as in every other shell of gilt.
        text.push_str("if errorlevel 1 exit /b %errorlevel%\n");
    }
    crlf(&text).into_bytes()
}

fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

/// The folder of one action in the guest, as Windows writes it.
pub fn folder(id: &str) -> String {
    format!("{RUNS}\\{id}")
}

/// A path of Windows as SFTP writes it: `C:\x` becomes `/C:/x`.
pub fn sftp_path(path: &str) -> String {
    let path = path.replace('\\', "/");
    let drive = path.as_bytes().get(1) == Some(&b':');
    if drive { format!("/{path}") } else { path }
}

/// What gilt keeps in the guest while it builds.
pub const ROOT: &str = r"C:\ProgramData\gilt";
/// One folder for each action.
pub const RUNS: &str = r"C:\ProgramData\gilt\run";

/// The one form of command line gilt sends. Nothing in it comes from a template.
pub fn command_line(id: &str, script: Script) -> String {
    format!(
        "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass \
         -OutputFormat Text -File {}\\{}.ps1",
        folder(id),
        script.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::limits;

    #[test]
    fn paths_and_lines() {
        assert_eq!(sftp_path(r"C:\app\a b.txt"), "/C:/app/a b.txt");
        assert_eq!(sftp_path("relative"), "relative");
        let line = command_line("0001-boot", BOOT);
        assert!(line.ends_with(r"-File C:\ProgramData\gilt\run\0001-boot\boot.ps1"), "{line}");
        assert!(line.len() < limits::CMD);
    }

    #[test]
    fn files_have_a_mark_and_windows_line_ends() {
        let bytes = powershell_file("a\nb\r\nc");
        assert_eq!(bytes, b"\xEF\xBB\xBFa\r\nb\r\nc");
        let batch = String::from_utf8(batch_file(&["dir x".into()])).unwrap();
        assert!(batch.starts_with("@echo off\r\nchcp 65001 >nul\r\ndir x\r\nif errorlevel 1 "));
    }
}
