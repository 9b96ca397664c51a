//! Did sysprep really generalize this installation? Its exit code is no proof; what it leaves on
//! the disk is. Table 4.4 of the facts, one check a row.

use serde::Serialize;

use super::Result;
use super::hives::{Hives, in_hive, read};
use super::inventory::pending_servicing;
use crate::lookup::TreeView;

const TAG: &str = r"\Windows\System32\Sysprep\Sysprep_succeeded.tag";
const STATE_INI: &str = r"\Windows\Setup\State\State.ini";
const STATE_KEY: &str = r"Microsoft\Windows\CurrentVersion\Setup\State";
const MAX_INI_BYTES: u64 = 1 << 20;

/// Image states of a generalized installation.
const GENERALIZED: [&str; 2] =
    ["IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE", "IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT"];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// `Sysprep_succeeded.tag`: deleted when a run starts, written when it ends well.
    SucceededTag,
    /// `State.ini`.
    StateFile,
    /// The same in SOFTWARE.
    StateKey,
    /// SYSTEM `Setup\Status\SysprepStatus` `GeneralizationState`: 7.
    GeneralizationState,
    /// The same, `CleanupState`: 2; stays 3 after a failure that cannot be repaired.
    CleanupState,
    /// SYSTEM `Setup` `SetupType`: 2.
    SetupType,
    /// SYSTEM `Setup` `CmdLine`: runs windeploy.exe at the next start.
    CommandLine,
    /// No servicing half way.
    NothingPending,
    /// `Winre.wim` lies on the volume, so the image has a recovery environment.
    RecoveryEnvironment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Proved,
    /// Contradicts a generalized state.
    Refuted,
    /// Worth telling; the image works without it.
    Warning,
}

/// One row of the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub check: Check,
    pub verdict: Verdict,
    pub found: String,
    pub wanted: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generalization {
    pub evidence: Vec<Evidence>,
}

impl Generalization {
    /// Nothing speaks against it. Sysprep is the only one to write all of this.
    pub fn is_proved(&self) -> bool {
        self.evidence.iter().all(|row| row.verdict != Verdict::Refuted)
    }

    pub fn refuted(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter().filter(|row| row.verdict == Verdict::Refuted)
    }
}

/// Collects the proof from an offline disk.
pub fn generalization(view: TreeView<'_>, hives: &Hives) -> Result<Generalization> {
    let mut evidence = Vec::new();
    let mut row = |check, holds, found: Option<String>, wanted| {
        let verdict = match (holds, check) {
            (true, _) => Verdict::Proved,
            (false, Check::RecoveryEnvironment) => Verdict::Warning,
            (false, _) => Verdict::Refuted,
        };
        let found = found.unwrap_or_else(|| "nothing".to_owned());
        evidence.push(Evidence { check, verdict, found, wanted });
    };
    let is_generalized =
        |state: &Option<String>| state.as_deref().is_some_and(|state| GENERALIZED.contains(&state));

    let tag = view.find(TAG).is_some();
    row(Check::SucceededTag, tag, tag.then(|| TAG.to_owned()), TAG);

    let state = read(view, STATE_INI, MAX_INI_BYTES)?.and_then(|bytes| image_state(&bytes));
    row(Check::StateFile, is_generalized(&state), state, GENERALIZED[0]);

    let software = in_hive("SOFTWARE");
    let state = match hives.software_key(STATE_KEY)? {
        Some(key) => key.text("ImageState").map_err(&software)?,
        None => None,
    };
    row(Check::StateKey, is_generalized(&state), state, GENERALIZED[0]);

    let system = in_hive("SYSTEM");
    let status = hives.system_key(r"Setup\Status\SysprepStatus")?;
    for (check, value, wanted, shown) in [
        (Check::GeneralizationState, "GeneralizationState", 7, "7"),
        (Check::CleanupState, "CleanupState", 2, "2"),
    ] {
        let found = match &status {
            Some(key) => key.dword(value).map_err(&system)?,
            None => None,
        };
        row(check, found == Some(wanted), found.map(|number| number.to_string()), shown);
    }

    let setup = hives.system_key("Setup")?;
    let (kind, command) = match &setup {
        Some(key) => {
            (key.dword("SetupType").map_err(&system)?, key.text("CmdLine").map_err(&system)?)
        }
        None => (None, None),
    };
    row(Check::SetupType, kind == Some(2), kind.map(|number| number.to_string()), "2");
    let deploys = command.as_deref().is_some_and(|c| c.to_lowercase().contains("windeploy.exe"));
    row(Check::CommandLine, deploys, command, "windeploy.exe");

    let pending = pending_servicing(view, hives)?;
    let shown = (!pending.is_empty()).then(|| format!("{pending:?}"));
    row(Check::NothingPending, pending.is_empty(), shown, "nothing");

    let recovery = view.find(r"\Windows\System32\Recovery\Winre.wim").is_some();
    let found = recovery.then(|| "Winre.wim".to_owned());
    row(Check::RecoveryEnvironment, recovery, found, r"\Windows\System32\Recovery\Winre.wim");
    Ok(Generalization { evidence })
}

/// `ImageState` of `[State]`, with or without quotes, in ANSI or UTF-16.
fn image_state(bytes: &[u8]) -> Option<String> {
    let text = gilt_wim::xml::decode_text(bytes);
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.eq_ignore_ascii_case("[State]");
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim().eq_ignore_ascii_case("ImageState")
        {
            return Some(value.trim().trim_matches('"').to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::image_state;

    #[test]
    fn the_state_file_is_read_in_both_encodings() {
        let text = "[Other]\r\nImageState=x\r\n[State]\r\nImageState=\"IMAGE_STATE_COMPLETE\"\r\n";
        assert_eq!(image_state(text.as_bytes()).as_deref(), Some("IMAGE_STATE_COMPLETE"));
        let mut wide = vec![0xFF, 0xFE];
        wide.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(image_state(&wide).as_deref(), Some("IMAGE_STATE_COMPLETE"));
    }
}
