//! What a build must not leave in an image: answer files with passwords, automatic logon, SSH
//! host keys.

use gilt_wim::xml::{Element, decode_text, parse};
use serde::Serialize;

use super::Result;
use super::hives::{Hives, in_hive, read};
use crate::lookup::TreeView;

const MAX_ANSWER_FILE_BYTES: u64 = 16 << 20;
const WINLOGON: &str = r"Microsoft\Windows NT\CurrentVersion\Winlogon";
/// What Setup puts in place of passwords in its cached copy of an answer file.
const DELETED: &str = "*SENSITIVE*DATA*DELETED*";

/// Something that should not be in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// File, or key and value of the registry.
    pub place: String,
    pub what: &'static str,
}

/// Directories in which Setup and sysprep look for and cache answer files.
const ANSWER_FILE_DIRECTORIES: [&str; 4] =
    [r"\Windows\Panther", r"\Windows\Panther\Unattend", r"\Windows\System32\Sysprep", r"\"];

/// Looks in all the known places.
pub fn secrets(view: TreeView<'_>, hives: &Hives) -> Result<Vec<Secret>> {
    let mut found = Vec::new();
    for directory in ANSWER_FILE_DIRECTORIES {
        for (name, file) in view.list(directory) {
            if file.node.is_directory() || !name.to_lowercase().ends_with(".xml") {
                continue;
            }
            let path = format!(r"{}\{name}", directory.trim_end_matches('\\'));
            let Some(bytes) = read(view, &path, MAX_ANSWER_FILE_BYTES)? else { continue };
            let root = parse(&decode_text(&bytes));
            if let Some(what) = secret_in(&root) {
                found.push(Secret { place: path, what });
            }
        }
    }
    for (name, _) in view.list(r"\ProgramData\ssh") {
        // Two machines must not share a host key.
        if name.starts_with("ssh_host_") && !name.ends_with(".pub") {
            found.push(Secret {
                place: format!(r"\ProgramData\ssh\{name}"),
                what: "private host key of the SSH server",
            });
        }
    }
    winlogon(hives, &mut found)?;
    Ok(found)
}

fn winlogon(hives: &Hives, found: &mut Vec<Secret>) -> Result<()> {
    let Some(key) = hives.software_key(WINLOGON)? else { return Ok(()) };
    let bad = in_hive("SOFTWARE");
    let mut add = |value: &str, what| {
        found.push(Secret { place: format!(r"HKLM\SOFTWARE\{WINLOGON} {value}"), what });
    };
    if key.text("DefaultPassword").map_err(&bad)?.is_some_and(|text| !text.is_empty()) {
        add("DefaultPassword", "password of an automatic logon");
    }
    if key.text("AutoAdminLogon").map_err(&bad)?.as_deref() == Some("1") {
        add("AutoAdminLogon", "automatic logon is on");
    }
    Ok(())
}

/// The first secret in an answer file. The cure differs, so the kind is told, never the text.
fn secret_in(root: &Element) -> Option<&'static str> {
    let mut stack = vec![root];
    while let Some(element) = stack.pop() {
        let what = match element.name.as_str() {
            "Password" | "AdministratorPassword" | "UserPassword" | "MachinePassword" => {
                Some("password in an answer file")
            }
            "ProductKey" => Some("product key in an answer file"),
            _ => None,
        };
        if what.is_some() && holds_text(element) {
            return what;
        }
        stack.extend(&element.children);
    }
    None
}

/// Whether the element or its `Value` or `Key` has a text of its own.
fn holds_text(element: &Element) -> bool {
    let real = |text: &str| !text.trim().is_empty() && text.trim() != DELETED;
    real(&element.text)
        || element
            .children
            .iter()
            .any(|child| matches!(child.name.as_str(), "Value" | "Key") && real(&child.text))
}
