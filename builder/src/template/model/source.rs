//! What an image begins from, and how its installer is driven.

use super::{FileRef, Folder, Medium, WindowsSetup};
use crate::template::cx::Cx;
use crate::template::fields::{fields, one_key};
use crate::template::node::Node;
use crate::template::text::Text;
use std::collections::BTreeMap;
use std::time::Duration;

one_key! {
    /// What a build begins from.
    pub enum Start {
        /// An installer's medium; the guest installs itself on an empty disk.
        Iso("iso", Medium),
        /// A disk with an installed system: qcow2, VHDX or raw, told apart by content.
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
        /// Wait until the serial line has shown this text.
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

fn check_boot_step(step: &BootStep, node: &Node, cx: &mut Cx) {
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
