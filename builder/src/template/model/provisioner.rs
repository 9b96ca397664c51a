//! What is done inside the guest.

use super::{
    FileRef, PowerShell, WindowsCleanup, WindowsFeature, WindowsInstall, WindowsRestart,
    WindowsShell, WindowsUpdate,
};
use crate::content_hash::{ContentHash, ContentHasher};
use crate::template::cx::Cx;
use crate::template::fields::{Field, Shape, choices, fields, one_key};
use crate::template::node::{Node, Value};
use crate::template::scalar::FileMode;
use crate::template::text::Text;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;

one_key! {
    /// What a provisioner runs.
    pub enum Code {
        /// A script's file, copied to the guest and run there.
        Script("script", FileRef),
        /// Lines run one after the other in one shell; the first that fails ends it.
        Inline("inline", Vec<Text>),
    }
}

/// `shell: "one line"` for `shell: {inline: ["one line"]}`. None: not the short form.
pub(super) fn short_inline(node: &Node, cx: &mut Cx) -> Option<Option<Code>> {
    match &node.value {
        Value::Scalar(_) if !node.is_null() => {
            Some(Text::decode(node, cx).map(|line| Code::Inline(vec![line])))
        }
        _ => None,
    }
}

fields! {
    /// Runs a shell script in a Linux guest. The environment has `GILT_LAYER`, `GILT_HTTP`,
    /// `GILT_INPUT_<NAME>` for each input of the layer, `GILT_PARAM_<NAME>` for each parameter
    /// (a list's items are separated by spaces), and `env`.
    pub struct Shell = "shell", short shell_short {
        flat code: Code,
        /// Environment variables.
        key env: BTreeMap<String, Text> = BTreeMap::new(),
        /// Arguments of a `script`.
        key args: Vec<Text> = Vec::new(),
        /// The account it runs as.
        key user as "as": String = "root".to_owned(),
        /// What runs `inline` lines, and a `script` without `#!`.
        key shell: String = "/bin/sh -eu".to_owned(),
        /// Exit codes that mean success.
        key exit_codes: Vec<i64> = vec![0],
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(1800),
        /// How often it is tried again after a failure.
        run retries: u32 = 0,
        /// How long to wait before it is tried again.
        run retry_delay: Duration = Duration::from_secs(10),
    }
}

fn shell_short(node: &Node, cx: &mut Cx) -> Option<Option<Shell>> {
    let inline = short_inline(node, cx)?;
    Some(inline.map(Shell::inline))
}

impl Shell {
    fn inline(code: Code) -> Self {
        Self {
            code,
            env: BTreeMap::new(),
            args: Vec::new(),
            user: "root".to_owned(),
            shell: "/bin/sh -eu".to_owned(),
            exit_codes: vec![0],
            timeout: Duration::from_secs(1800),
            retries: 0,
            retry_delay: Duration::from_secs(10),
        }
    }
}

choices! {
    /// Which way a file goes.
    pub enum Direction {
        /// From the host to the guest.
        Upload = "upload",
        /// From the guest to the build's output folder.
        Download = "download",
    }
}

/// A file that goes to or from the guest.
#[derive(Clone, Debug, PartialEq)]
pub enum FileTransfer {
    /// A file or folder of the host goes to the guest.
    Upload { source: UploadSource, destination: Text, mode: Option<FileMode>, timeout: Duration },
    /// A file of the guest goes to the build's output folder.
    Download {
        source: Text,
        /// Relative to the build's output folder; without one, the name of `source`.
        destination: Text,
        timeout: Duration,
    },
}

/// What an upload holds.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadSource {
    File(FileRef),
    /// Text written in the template or layer itself.
    Content(Text),
}

fields! {
    /// Copies a file or folder to the guest, or out of it.
    pub struct FileFields = "file" {
        /// Which way it goes.
        key direction: Direction = Direction::Upload,
        /// What is copied: a path on the host (upload) or in the guest (download).
        key source: Option<Text> = None,
        /// Text to upload, instead of a `source`. `${…}` is filled.
        key content: Option<Text> = None,
        /// `dir` uploads a folder with all that is in it.
        key kind: super::FileKind = super::FileKind::File,
        /// Where it goes: a path in the guest (upload), or a name in the build's output folder (download).
        key destination: Text,
        /// Permissions in the guest.
        key mode: Option<FileMode> = None,
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(600),
    }
}

impl ContentHash for FileTransfer {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        match self {
            Self::Upload { source, destination, mode, .. } => {
                hasher.leaf("one", b"upload");
                match source {
                    UploadSource::File(file) => file.content_hash(hasher),
                    UploadSource::Content(text) => text.content_hash(hasher),
                }
                destination.content_hash(hasher);
                mode.content_hash(hasher);
            }
            // Nothing in the guest changes.
            Self::Download { .. } => hasher.leaf("one", b"download"),
        }
    }
}

impl Field for FileTransfer {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let fields = FileFields::decode(node, cx)?;
        let at = |key: &str| node.as_map().and_then(|map| map.get(key));
        let start = cx.start_of(node.span);
        let FileFields { direction, source, content, kind, destination, mode, timeout } = fields;
        match (direction, source, content) {
            (_, Some(_), Some(_)) => {
                let span = at("content").map_or(start, |entry| entry.key_span);
                cx.error(span, "`source` and `content` exclude each other in file");
                None
            }
            (Direction::Upload, Some(_), None) => {
                let node = &at("source")?.node;
                let file = FileRef { kind, ..FileRef::decode(node, cx)? };
                Some(Self::Upload { source: UploadSource::File(file), destination, mode, timeout })
            }
            (Direction::Upload, None, Some(text)) => Some(Self::Upload {
                source: UploadSource::Content(text),
                destination,
                mode,
                timeout,
            }),
            (Direction::Download, Some(source), None) => {
                if let Some(entry) = at("mode") {
                    cx.error(entry.key_span, "`mode` is for uploads");
                }
                Some(Self::Download { source, destination, timeout })
            }
            _ => {
                cx.error(start, "file needs a `source`");
                None
            }
        }
    }

    fn shape() -> Shape {
        FileFields::shape()
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Upload { source, destination, mode, .. } => {
                let mut map = serde_json::Map::new();
                match source {
                    UploadSource::File(file) => map.insert("source".into(), file.to_json()),
                    UploadSource::Content(text) => map.insert("content".into(), text.to_json()),
                };
                map.insert("destination".into(), destination.to_json());
                if mode.is_some() {
                    map.insert("mode".into(), mode.to_json());
                }
                Json::Object(map)
            }
            Self::Download { source, destination, .. } => serde_json::json!({
                "direction": "download",
                "source": source.to_json(),
                "destination": destination.to_json(),
            }),
        }
    }
}

fields! {
    /// Restarts the guest and goes on only after proof of a new boot and a login.
    pub struct Restart = "restart" {
        /// How long the restart may take.
        run timeout: Duration = Duration::from_secs(300),
    }
}

fields! {
    /// Stops the build here, for a look around, until a key is pressed. Ignored without a terminal.
    pub struct Breakpoint = "breakpoint" {
        /// What to look at; shown at the stop.
        run note: Option<String> = None,
    }
}

one_key! {
    /// What a provisioner does.
    pub enum Action {
        /// Runs a shell script. Linux guests.
        Shell("shell", Shell),
        /// Copies a file to the guest or out of it.
        File("file", FileTransfer),
        /// Restarts the guest.
        Restart("restart", Restart),
        /// Stops for a look around.
        Breakpoint("breakpoint", Breakpoint),
        /// Runs PowerShell. Windows guests.
        PowerShell("powershell", PowerShell),
        /// Runs a batch script. Windows guests.
        WindowsShell("windows-shell", WindowsShell),
        /// Restarts Windows until nothing is pending. Windows guests.
        WindowsRestart("windows-restart", WindowsRestart),
        /// Installs Windows updates. Windows guests.
        WindowsUpdate("windows-update", WindowsUpdate),
        /// Installs programs. Windows guests.
        WindowsInstall("windows-install", WindowsInstall),
        /// Adds languages, capabilities and features. Windows guests.
        WindowsFeature("windows-feature", WindowsFeature),
        /// Removes superseded components. Windows guests.
        WindowsCleanup("windows-cleanup", WindowsCleanup),
    }
}

impl Action {
    /// The guest it can run in; None for any.
    pub fn guest(&self) -> Option<super::Guest> {
        match self {
            Self::Shell(_) => Some(super::Guest::Linux),
            Self::PowerShell(_)
            | Self::WindowsShell(_)
            | Self::WindowsRestart(_)
            | Self::WindowsUpdate(_)
            | Self::WindowsInstall(_)
            | Self::WindowsFeature(_)
            | Self::WindowsCleanup(_) => Some(super::Guest::Windows),
            Self::File(_) | Self::Restart(_) | Self::Breakpoint(_) => None,
        }
    }

    /// `shell install.sh`, `file /etc/app.conf`: what a log line shows.
    pub fn title(&self) -> String {
        let code = |key: &str, code: &Code| match code {
            Code::Script(file) => format!("{key} {}", file.file_name()),
            Code::Inline(lines) => {
                let first = lines.first().map(Text::shown).unwrap_or_default();
                let first = first.lines().next().unwrap_or_default();
                let short: String = first.chars().take(40).collect();
                let more = if short.len() < first.len() || lines.len() > 1 { " …" } else { "" };
                format!("{key} `{short}{more}`")
            }
        };
        match self {
            Self::Shell(shell) => code("shell", &shell.code),
            Self::PowerShell(shell) => code("powershell", &shell.code),
            Self::WindowsShell(shell) => code("windows-shell", &shell.code),
            Self::File(FileTransfer::Upload { destination, .. }) => {
                format!("file {}", destination.shown())
            }
            Self::File(FileTransfer::Download { source, .. }) => {
                format!("download {}", source.shown())
            }
            Self::WindowsInstall(install) => format!("install {}", install.source.file_name()),
            other => other.key().to_owned(),
        }
    }
}

fields! {
    /// One step inside the guest. A `when` beside it decides whether it is there at all.
    pub struct ProvisionerFields = "provisioner" {
        flat action: Action,
        /// What it is called in logs.
        run name: Option<String> = None,
    }
}

/// One step inside the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Provisioner {
    pub action: Action,
    /// What it is called in logs: its own name, or what it does.
    pub title: String,
    /// `layers/runtime-python/layer.yaml:12`.
    pub location: String,
}

impl ContentHash for Provisioner {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.action.content_hash(hasher);
    }
}

/// Environment variables have names that every shell takes, and none of gilt's own.
fn check_env(action: &Action, node: &Node, cx: &mut Cx) {
    let inner =
        node.as_map().and_then(|map| map.get(action.key())).and_then(|entry| entry.node.as_map());
    let Some(env) = inner.and_then(|map| map.get("env")).and_then(|entry| entry.node.as_map())
    else {
        return;
    };
    for entry in &env.entries {
        let name = &entry.key;
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            cx.error_hint(
                entry.key_span,
                format!("`{name}` cannot be the name of an environment variable"),
                "letters, digits and `_`, not beginning with a digit",
            );
        } else if name.starts_with("GILT_") {
            cx.error(
                entry.key_span,
                format!("`{name}`: names that begin with GILT_ are gilt's own"),
            );
        }
    }
}

impl Field for Provisioner {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let ProvisionerFields { action, name } = ProvisionerFields::decode(node, cx)?;
        check_env(&action, node, cx);
        let title = name.unwrap_or_else(|| action.title());
        Some(Self { action, title, location: cx.sources.location(node.span) })
    }

    fn shape() -> Shape {
        ProvisionerFields::shape()
    }

    fn to_json(&self) -> Json {
        let (key, value) = crate::template::fields::Group::to_entry(&self.action);
        Json::Object([(key.to_owned(), value)].into_iter().collect())
    }
}
