//! What the scripts are asked and what they answer (docs/windows-guest-contract.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first word of the line with the answer.
pub const MARKER: &str = "gilt-answer ";
/// An answer is lists of updates at most; more is none of ours.
pub const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the guest's script gave no answer")]
    Missing,
    #[error("the guest's answer cannot be read: {0}")]
    Malformed(String),
    /// The script told why it failed.
    #[error("{step}: {message}{}", hresult_text(*.hresult))]
    Failed { message: String, hresult: i64, step: String },
}

fn hresult_text(hresult: i64) -> String {
    // What .NET gives every plain exception says nothing.
    const PLAIN: [u32; 3] = [0x8013_1501, 0x8013_1500, 0x8000_4005];
    let code = u32::try_from(hresult & 0xFFFF_FFFF).unwrap_or(0);
    if code == 0 || PLAIN.contains(&code) { String::new() } else { format!(" (0x{code:08x})") }
}

#[derive(Deserialize)]
struct Raw {
    ok: bool,
    #[serde(default)]
    result: serde_json::Value,
    #[serde(default)]
    message: String,
    #[serde(default)]
    hresult: i64,
    #[serde(default)]
    step: String,
}

/// The answers in a script's output, in order, each one's base64.
pub fn answer_lines(stdout: &str) -> impl DoubleEndedIterator<Item = &str> {
    stdout.lines().filter_map(|line| line.trim_end().strip_prefix(MARKER))
}

/// Reads one answer.
pub fn read_answer<T: DeserializeOwned>(base64: &str) -> Result<T, AnswerError> {
    let bad = |what: String| AnswerError::Malformed(what);
    if base64.len() > MAX_ANSWER_BYTES {
        return Err(bad(format!("{} bytes", base64.len())));
    }
    let bytes = STANDARD.decode(base64.trim()).map_err(|error| bad(error.to_string()))?;
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if !raw.ok {
        let Raw { message, hresult, step, .. } = raw;
        return Err(AnswerError::Failed { message, hresult, step });
    }
    serde_json::from_value(raw.result).map_err(|error| bad(error.to_string()))
}

/// The last answer in a script's output.
pub fn last_answer<T: DeserializeOwned>(stdout: &str) -> Result<T, AnswerError> {
    read_answer(answer_lines(stdout).next_back().ok_or(AnswerError::Missing)?)
}

/// A line with an answer, as a guest writes it. For guests that stand in for Windows.
pub fn answer_line(result: &serde_json::Value) -> String {
    let text = serde_json::json!({"ok": true, "result": result}).to_string();
    format!("{MARKER}{}", STANDARD.encode(text))
}

/// PowerShell writes a list of one as its only item and an empty one as null.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    let items = match value {
        serde_json::Value::Null => Vec::new(),
        serde_json::Value::Array(items) => items,
        one => vec![one],
    };
    items
        .into_iter()
        .filter(|item| !item.is_null())
        .map(|item| serde_json::from_value(item).map_err(serde::de::Error::custom))
        .collect()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootRequest {
    /// Further keys that mean a pending restart.
    pub registry_keys: Vec<String>,
}

/// Something that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub source: String,
    /// Often left behind without need.
    #[serde(default)]
    pub soft: bool,
}

/// Which boot this is, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    pub boot_id: Option<i64>,
    /// RFC 3339, in UTC.
    pub last_boot: Option<String>,
    pub clock: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub pending: Vec<Pending>,
    #[serde(default)]
    pub servicing: bool,
    #[serde(default)]
    pub build: Option<u32>,
    #[serde(default)]
    pub ubr: Option<u32>,
    #[serde(default)]
    pub edition: Option<String>,
    /// Installed updates: `KB5044284`.
    #[serde(default, deserialize_with = "list")]
    pub kbs: Vec<String>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewRequest {
    pub user: String,
    pub public_key: Option<String>,
    /// The base64 part of the key that goes.
    pub old_key: Option<String>,
    pub password: Option<String>,
    pub clock: String,
}

/// The account a script runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunAs {
    User,
    Elevated,
    System,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Powershell,
    Batch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edition {
    Windows,
    Core,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    /// `user`, or the name of a program of gilt.
    pub program: String,
    #[serde(rename = "as")]
    pub run_as: RunAs,
    pub account: String,
    pub password: Option<String>,
    pub kind: Kind,
    pub edition: Edition,
    pub execution_policy: String,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub timeout_seconds: u64,
    pub parameters: Option<serde_json::Value>,
}

/// How a script ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    pub exit_code: i64,
    #[serde(default)]
    pub timed_out: bool,
    /// It was gone without a word of its end.
    #[serde(default)]
    pub died: bool,
}

#[derive(Clone, Serialize)]
pub struct HandoverRequest {
    pub password: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The built-in administrator's name here.
    pub name: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StripRequest {
    pub build_user: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stripped {
    #[serde(default, deserialize_with = "list")]
    pub removed: Vec<String>,
}

#[derive(Clone, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum SysprepRequest {
    #[serde(rename_all = "camelCase")]
    Start {
        account: String,
        password: String,
        mode: String,
        vm: bool,
        unattend: Option<String>,
    },
    Watch,
}

/// An answer nobody needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Nothing {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SysprepWatch {
    pub tag: bool,
    pub running: bool,
    pub image_state: Option<String>,
    pub exit_code: Option<i64>,
    pub errors: String,
    pub actions: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightRequest {
    pub build_user: String,
}

/// An app and who has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Appx {
    pub name: String,
    pub full_name: String,
    #[serde(deserialize_with = "list")]
    pub users: Vec<String>,
    pub provisioned: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub drive: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub name: String,
    pub state: String,
}

/// What the guest says before Sysprep. What it cannot tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preflight {
    pub build: Option<u32>,
    pub client: Option<bool>,
    pub domain_joined: Option<bool>,
    #[serde(deserialize_with = "list")]
    pub pending: Vec<Pending>,
    pub servicing: bool,
    #[serde(deserialize_with = "list")]
    pub appx: Vec<Appx>,
    #[serde(deserialize_with = "list")]
    pub bitlocker: Vec<Volume>,
    pub rearm: Option<i64>,
    pub free_bytes: Option<u64>,
    pub system_account: bool,
    pub reserved_storage: Option<bool>,
    #[serde(deserialize_with = "list")]
    pub services: Vec<Service>,
    #[serde(deserialize_with = "list")]
    pub roles: Vec<String>,
    pub image_state: Option<String>,
    pub sysprep_runs: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateParameters {
    pub action: UpdateAction,
    pub criteria: String,
    pub filters: Vec<String>,
    pub limit: u32,
    pub server: String,
    /// Offline: files in the guest, in order.
    pub files: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateAction {
    Search,
    Install,
    Offline,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundUpdate {
    pub id: String,
    pub revision: i64,
    pub title: String,
    #[serde(deserialize_with = "list")]
    pub kbs: Vec<String>,
    pub bytes: u64,
    /// Installs only when alone.
    pub exclusive: bool,
    /// May ask a person; never installed.
    pub interactive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateResult {
    pub id: String,
    pub revision: i64,
    pub title: String,
    #[serde(deserialize_with = "list")]
    pub kbs: Vec<String>,
    /// `OperationResultCode`.
    pub code: i64,
    pub hresult: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateRound {
    #[serde(deserialize_with = "list")]
    pub found: Vec<FoundUpdate>,
    #[serde(deserialize_with = "list")]
    pub results: Vec<UpdateResult>,
    pub reboot_required: bool,
    pub hresult: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Installed {
    pub file: String,
    pub exit_code: i64,
}

/// What an installer, a feature or a clean-up left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgramResult {
    #[serde(deserialize_with = "list")]
    pub results: Vec<Installed>,
    pub reboot_required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_answer_counts_whatever_stands_around_it() {
        let text = format!(
            "hello\r\n{}\r\nmore\r\n{}\r\n\r\n",
            answer_line(&json!({"bootId": 1})),
            answer_line(&json!({"bootId": null, "lastBoot": "x", "pending": {"source": "CBS"}}))
        );
        let boot: Boot = last_answer(&text).unwrap();
        assert_eq!(boot.boot_id, None);
        assert_eq!(boot.pending, [Pending { source: "CBS".into(), soft: false }]);
        assert_eq!(answer_lines(&text).count(), 2);
    }

    #[test]
    fn a_failure_says_where_and_why() {
        let text = json!({"ok": false, "message": "access denied", "hresult": -2147024891i64, "step": "search"});
        let line = format!("{MARKER}{}", STANDARD.encode(text.to_string()));
        let error = last_answer::<Nothing>(&line).unwrap_err();
        assert_eq!(error.to_string(), "search: access denied (0x80070005)");
    }

    #[test]
    fn no_answer_and_a_broken_one_are_errors() {
        assert_eq!(last_answer::<Nothing>("nothing\n"), Err(AnswerError::Missing));
        for bad in ["gilt-answer !!", "gilt-answer e30=", "gilt-answer bnVsbA=="] {
            assert!(matches!(last_answer::<Nothing>(bad), Err(AnswerError::Malformed(_))), "{bad}");
        }
    }
}
