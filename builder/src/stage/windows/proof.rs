//! Proof, from the powered-off disk, that Windows was generalized and holds nothing of the build.

use super::super::generalize::proof::Leftover;
use gilt_capture::windows::{self, Check, Hives};
use gilt_capture::{FoundVolume, TreeView};
use std::io;

/// What the build put in and must find gone.
pub struct Traces<'a> {
    pub build_user: &'a str,
    pub public_keys: &'a [String],
    pub secrets: &'a [Vec<u8>],
}

/// Files in which a secret would be: small, text, and gilt's or Setup's.
const SEARCHED: &[&str] = &[
    r"\ProgramData\ssh",
    r"\Windows\Panther",
    r"\Windows\Panther\Unattend",
    r"\Windows\Panther\UnattendGC",
    r"\Windows\System32\Sysprep",
    r"\Windows\System32\Sysprep\Panther",
    r"\Windows\Setup\Scripts",
    r"\Windows\Temp",
    r"\",
];
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Shorter ones are found everywhere by chance.
const SHORTEST_SECRET_BYTES: usize = 8;

/// What the disk says.
pub struct Proof {
    pub left: Vec<Leftover>,
    /// Refuted claims: what, found, wanted.
    pub refuted: Vec<String>,
    pub warnings: Vec<String>,
}

pub fn prove(found: &FoundVolume, traces: &Traces<'_>) -> io::Result<Proof> {
    let view = found.view();
    let hives = Hives::open(view).map_err(io::Error::other)?;
    let Some(hives) = hives else {
        let refuted = vec!["the disk holds no Windows".to_owned()];
        return Ok(Proof { left: Vec::new(), refuted, warnings: Vec::new() });
    };
    let state = windows::generalization(view, &hives).map_err(io::Error::other)?;
    let refuted = state
        .refuted()
        .map(|row| format!("{}: found {}, wanted {}", words(row.check), row.found, row.wanted))
        .collect();
    let warnings = state
        .evidence
        .iter()
        .filter(|row| row.verdict == windows::Verdict::Warning)
        .map(|row| format!("{}: found {}, wanted {}", words(row.check), row.found, row.wanted))
        .collect();
    let mut left = Vec::new();
    let mut add = |path: &str, what: &str| {
        left.push(Leftover { path: path.to_owned(), what: what.to_owned() });
    };
    for secret in windows::secrets(view, &hives).map_err(io::Error::other)? {
        add(&secret.place, secret.what);
    }
    for (path, what) in [
        (format!(r"\Users\{}", traces.build_user), "the profile of the build account"),
        (r"\ProgramData\gilt".to_owned(), "gilt's own folder"),
        (
            r"\ProgramData\ssh\administrators_authorized_keys".to_owned(),
            "keys that open every administrator's account",
        ),
    ] {
        if view.find(&path).is_some() {
            add(&path, what);
        }
    }
    if let Some(place) = profile_of(&hives, traces.build_user)? {
        add(&place, "the build account is known to the profile list");
    }
    let needles: Vec<(&[u8], &str)> = traces
        .public_keys
        .iter()
        .filter_map(|key| key.split_whitespace().nth(1))
        .map(|key| (key.as_bytes(), "the build's public key"))
        .chain(traces.secrets.iter().map(|secret| (secret.as_slice(), "a secret of the template")))
        .filter(|(needle, _)| needle.len() >= SHORTEST_SECRET_BYTES)
        .collect();
    for folder in SEARCHED {
        search(view, folder, &needles, &mut add)?;
    }
    Ok(Proof { left, refuted, warnings })
}

fn search(
    view: TreeView<'_>,
    folder: &str,
    needles: &[(&[u8], &str)],
    add: &mut impl FnMut(&str, &str),
) -> io::Result<()> {
    for (name, file) in view.list(folder) {
        let streams = &file.node.streams;
        let len = streams.iter().find(|stream| stream.name.is_none()).map_or(0, |s| s.len_bytes);
        if file.node.is_directory() || len > MAX_FILE_BYTES {
            continue;
        }
        let path = format!(r"{}\{name}", folder.trim_end_matches('\\'));
        let Some(bytes) = view.read(&path, MAX_FILE_BYTES)? else { continue };
        for (needle, what) in needles {
            if holds(&bytes, needle) {
                add(&path, what);
            }
        }
    }
    Ok(())
}

/// As bytes, or as Windows writes text: two bytes a character.
fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    let wide: Vec<u8> = match std::str::from_utf8(needle) {
        Ok(text) => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Err(_) => Vec::new(),
    };
    let find = |needle: &[u8]| {
        !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
    };
    find(needle) || find(&wide)
}

/// The key of the profile list that is the account's.
fn profile_of(hives: &Hives, user: &str) -> io::Result<Option<String>> {
    const LIST: &str = r"Microsoft\Windows NT\CurrentVersion\ProfileList";
    let Some(list) = hives.software.key(LIST).map_err(io::Error::other)? else { return Ok(None) };
    for key in list.subkeys().map_err(io::Error::other)? {
        let path = key.text("ProfileImagePath").map_err(io::Error::other)?.unwrap_or_default();
        let last = path.rsplit('\\').next().unwrap_or_default();
        if last.eq_ignore_ascii_case(user) {
            return Ok(Some(format!(r"HKLM\SOFTWARE\{LIST}\{}", key.name())));
        }
    }
    Ok(None)
}

fn words(check: Check) -> &'static str {
    match check {
        Check::SucceededTag => "sysprep's tag file",
        Check::StateFile => "ImageState in State.ini",
        Check::StateKey => "ImageState in the registry",
        Check::GeneralizationState => "GeneralizationState",
        Check::CleanupState => "CleanupState",
        Check::SetupType => "SetupType",
        Check::CommandLine => "Setup's command line",
        Check::NothingPending => "servicing",
        Check::RecoveryEnvironment => "the recovery environment",
    }
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn secrets_are_found_in_both_widths() {
        let wide: Vec<u8> = "xx hunter22 xx".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(holds(b"xx hunter22 xx", b"hunter22"));
        assert!(holds(&wide, b"hunter22"));
        assert!(!holds(b"hunter2", b"hunter22"));
        assert!(!holds(b"", b"hunter22"));
    }
}
