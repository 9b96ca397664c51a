//! What an image begins from, and how its installer is driven.

use super::{FileRef, Folder, Medium, WindowsSetup};
use crate::template::cx::Cx;
use crate::template::fields::{fields, one_key};
use crate::template::node::{Node, Value};
use crate::template::text::{RuntimeValues, Text};
use std::collections::BTreeMap;
use std::time::Duration;

one_key! {
    /// What a build begins from.
    pub enum Start {
        /// An installer's medium; the guest installs itself on an empty disk.
        Iso("iso", Medium),
        /// A disk with an installed system: qcow2 or raw, on Hyper-V also VHDX, told apart by content.
        Disk("disk", Medium),
    }
}

fields! {
    /// What an image begins from. All of it, and every byte of the media, is the key of the first
    /// layer, `install`.
    pub struct Source = "source", check check_source {
        flat start: Start,
        /// A second medium with answer files for the installer.
        key answer: Option<Answer> = None,
        /// Files served to the guest while it is built, at `${build.http}`.
        key http: Option<HttpFiles> = None,
        /// Keys to type once the machine has started, in Packer's syntax: `<enter>`, `<wait5>`,
        /// `<leftCtrlOn>c<leftCtrlOff>`.
        key boot_command: Vec<Text> = Vec::new(),
        /// How long to wait before `boot_command` is typed. Prefer `boot_steps`, which wait for
        /// what the guest shows.
        run boot_wait: Duration = Duration::from_secs(10),
        /// Time between two keys; without one, the driver's choice.
        run boot_key_interval: Option<Duration> = None,
        /// What to wait for and what to type then, step by step.
        key boot_steps: Vec<BootStep> = Vec::new(),
        /// How long the installation may take, from power-on to the first login.
        run install_timeout: Duration = Duration::from_secs(3600),
        /// How Windows Setup is answered; gilt writes `Autounattend.xml` from it.
        key windows: Option<WindowsSetup> = None,
    }
}

fn check_source(source: &Source, node: &Node, cx: &mut Cx) {
    let Some(map) = node.as_map() else { return };
    if let Some(Value::List(items)) = map.get("boot_command").map(|entry| &entry.node.value) {
        for item in items {
            check_keys(item, cx);
        }
    }
    if !source.boot_command.is_empty()
        && !source.boot_steps.is_empty()
        && let Some(entry) = map.get("boot_command")
    {
        cx.error(entry.key_span, "`boot_command` and `boot_steps` exclude each other in source");
    }
    if let (Start::Disk(_), Some(entry)) = (&source.start, map.get("windows")) {
        cx.error(
            entry.key_span,
            "`windows` answers an installer, but this source is an installed disk",
        );
    }
}

fields! {
    /// A second medium (ISO 9660 with Joliet) with the answer files an installer looks for.
    pub struct Answer = "answer" {
        /// Volume label.
        key label: String = "GILTCFG".to_owned(),
        /// Name on the medium, and the text of the file.
        key files: BTreeMap<String, Text> = BTreeMap::new(),
        /// Name on the medium, and the file to put there.
        key file_paths: BTreeMap<String, FileRef> = BTreeMap::new(),
    }
}

fields! {
    /// Files served over HTTP to the guest while it is built, at `${build.http}/`.
    pub struct HttpFiles = "http" {
        /// A folder with all that is in it.
        key dir: Option<Folder> = None,
        /// Name below `${build.http}/`, and the text of the file. `${…}` is filled.
        key files: BTreeMap<String, Text> = BTreeMap::new(),
    }
}

fields! {
    /// One step of driving a boot menu or an installer: wait, then type.
    pub struct BootStep = "boot step", check check_boot_step {
        /// What the step is for; shown while it runs.
        run description: Option<String> = None,
        /// Wait until the serial line has shown this text, or `/…/`, a regular expression.
        run wait_serial: Option<Text> = None,
        /// Wait until the screen shows this: `hash:…` of a screenshot, or `still` for no change.
        run wait_screen: Option<Text> = None,
        /// Wait this long. Prefer to wait for something.
        run wait: Option<Duration> = None,
        /// How long the wait may take.
        run timeout: Duration = Duration::from_secs(60),
        /// Keys to type then, in the syntax of `boot_command`.
        key keys: Text = Text::literal(""),
    }
}

/// Values of the right form, to check texts that hold places for them.
fn sample() -> RuntimeValues {
    RuntimeValues {
        ssh_public_key: "ssh-ed25519 AAAA gilt".into(),
        http: "http://10.0.2.2:8000".into(),
        name: "image".into(),
        id: "id".into(),
        username: "user".into(),
        password: "password".into(),
    }
}

/// The keys can be typed: each token is known, each character is on the keyboard.
fn check_keys(node: &Node, cx: &mut Cx) {
    let Value::Scalar(scalar) = &node.value else { return };
    let text = scalar.text.expand(&sample());
    let Err(error) = gilt_vm::boot_command::parse(&text) else { return };
    if scalar.text.is_sensitive() {
        cx.error(node.span, "these keys hold a sensitive value and cannot be typed");
        return;
    }
    let at = match &error {
        gilt_vm::Error::BootCommand { at, .. } => {
            let rest = text.get(*at..).unwrap_or_default();
            let end = rest.find('>').map_or(1, |end| end + 1);
            cx.sources.find_within(node.span, rest.get(..end).unwrap_or(rest))
        }
        _ => node.span,
    };
    cx.error_hint(
        at,
        format!("these keys cannot be typed: {error}"),
        "see `boot_command` in docs/template-reference.md",
    );
}

fn check_boot_step(step: &BootStep, node: &Node, cx: &mut Cx) {
    let at = |key: &str| node.as_map().and_then(|map| map.get(key)).map(|entry| &entry.node);
    if let Some(keys) = at("keys") {
        check_keys(keys, cx);
    }
    if let (Some(node), Some(text)) = (at("wait_serial"), &step.wait_serial)
        && let Err(error) = gilt_vm::serial::SerialPattern::parse(&text.expand(&sample()))
    {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        let why = why.strip_prefix("error: ").unwrap_or(why);
        cx.error(node.span, format!("`{}` is not a regular expression: {why}", text.shown()));
    }
    if let (Some(node), Some(text)) = (at("wait_screen"), &step.wait_screen) {
        let text = text.expand(&sample());
        let hash = text.strip_prefix("hash:");
        let good = hash.is_some_and(|hash| hash.parse::<gilt_vm::screen::ScreenHash>().is_ok());
        if text != "still" && !good {
            cx.error_hint(
                node.span,
                format!("`{text}` is nothing a screen can be waited for"),
                "`still`, or `hash:` with the 16 digits of a screenshot",
            );
        }
    }
    let waits = [step.wait_serial.is_some(), step.wait_screen.is_some(), step.wait.is_some()];
    match waits.iter().filter(|given| **given).count() {
        0 if step.keys.is_empty() => {
            cx.error_hint(
                cx.start_of(node.span),
                "this boot step neither waits nor types",
                "give `wait_serial`, `wait_screen` or `wait`, and `keys`",
            );
        }
        0 | 1 => {}
        _ => cx.error(
            cx.start_of(node.span),
            "`wait_serial`, `wait_screen` and `wait` exclude each other in a boot step",
        ),
    }
}
