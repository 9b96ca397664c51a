//! The answer medium: what lies on it, and how the guest finds it.

use serde::Serialize;

/// Label of the disc; guests look for what is on it, not for this.
pub const LABEL: &str = "GILTCFG";
/// Setup's name, in the root.
pub const ANSWER_FILE: &str = "Autounattend.xml";
/// Says that this is the disc.
pub const MARK: &str = "gilt/medium.json";
pub const FIRST_BOOT: &str = "first-boot.ps1";
pub const FIRST_LOGON: &str = "first-logon.ps1";
pub const SETTINGS: &str = "gilt/settings.json";
/// Setup loads all drivers below this folder in the root of any drive, and carries them over.
pub const DRIVERS: &str = "$WinPEDriver$";

/// The command line that finds the disc by what is on it and runs one of its scripts.
pub fn run_line(script: &str) -> String {
    format!(
        "powershell.exe -NoProfile -ExecutionPolicy Bypass -Command \
         \"foreach($n in 67..90){{$p='{{0}}:\\gilt\\{script}' -f [char]$n;if(Test-Path $p){{& $p;break}}}}\""
    )
}

/// `gilt/settings.json`: what the scripts of the disc are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub format: u32,
    /// The build's account.
    pub user: String,
    /// OpenSSH's form, one line.
    pub public_key: String,
    /// Where sshd listens.
    pub port: u16,
    /// The file of the OpenSSH server beside this one; without it, Windows' own.
    pub openssh: Option<String>,
    /// Commands for cmd.exe, run as SYSTEM in specialize.
    pub first_boot: Vec<String>,
}

#[derive(Serialize)]
struct Mark<'a> {
    format: u32,
    build: &'a str,
    image: &'a str,
}

/// Files of the disc: name with `/`, bytes.
pub type Files = Vec<(String, Vec<u8>)>;

/// Everything but drivers and the OpenSSH server, which the caller adds.
pub fn files(answer_file: String, settings: &Settings, build: &str, image: &str) -> Files {
    let json = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
    vec![
        (ANSWER_FILE.into(), answer_file.into_bytes()),
        (MARK.into(), json(serde_json::to_vec(&Mark { format: 1, build, image }))),
        (format!("gilt/{FIRST_BOOT}"), crate::script::text(crate::script::FIRST_BOOT)),
        (format!("gilt/{FIRST_LOGON}"), crate::script::text(crate::script::FIRST_LOGON)),
        (SETTINGS.into(), json(serde_json::to_vec(settings))),
    ]
}
