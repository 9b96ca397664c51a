//! What Setup would reject a file for.

use super::passes::{self, Pass, legal};
use super::xml::Element;
use super::{AnswerFile, Component};
use std::fmt;

/// Limits of the documentation, in characters; of a name in bytes.
pub mod limits {
    /// `RunSynchronousCommand/Path`.
    pub const SYNCHRONOUS_PATH: usize = 259;
    /// `FirstLogonCommands` `CommandLine`.
    pub const FIRST_LOGON: usize = 1024;
    /// `ComputerName`, bytes.
    pub const COMPUTER_NAME: usize = 15;
    /// A line that `cmd.exe` takes.
    pub const CMD: usize = 8191;
    /// A line that `CreateProcess` takes, with its end.
    pub const CREATE_PROCESS: usize = 32_767;
    /// What gilt itself keeps to in windowsPE, as generators in use do.
    pub const PE_LINE: usize = 255;
}

/// One thing that is wrong, with its place in the source where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, from 1; zero for what gilt made.
    pub at: (u32, u32),
    /// `specialize Microsoft-Windows-Shell-Setup/ComputerName`.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at != (0, 0) {
            write!(f, "{}:{}: ", self.at.0, self.at.1)?;
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

struct Checker {
    problems: Vec<Problem>,
}

pub(super) fn check(file: &AnswerFile) -> Vec<Problem> {
    let mut checker = Checker { problems: Vec::new() };
    for (pass, components) in &file.passes {
        for component in components {
            for setting in &component.settings {
                checker.setting(*pass, component, &[], setting);
            }
        }
    }
    checker.problems
}

impl Checker {
    fn setting(&mut self, pass: Pass, component: &Component, above: &[&str], element: &Element) {
        let mut path = above.to_vec();
        path.push(&element.name);
        let place = format!("{} {}/{}", pass.name(), component.name, path.join("/"));
        let at = if element.at == (0, 0) { component.at } else { element.at };
        let mut wrong = |what: String| {
            self.problems.push(Problem { at, place: place.clone(), what });
        };
        if above.is_empty() {
            match legal(&component.name, &path) {
                Some(passes) if !passes.contains(&pass) => {
                    let names: Vec<_> = passes.iter().map(|pass| pass.name()).collect();
                    wrong(format!("not allowed in this pass, but in {}", names.join(", ")));
                }
                _ => {}
            }
        }
        let length = element.text.encode_utf16().count();
        match path.as_slice() {
            [.., "RunSynchronousCommand", "Path"] if length > limits::SYNCHRONOUS_PATH => {
                wrong(format!("{length} characters, at most {}", limits::SYNCHRONOUS_PATH));
            }
            ["FirstLogonCommands", .., "CommandLine"] if length > limits::FIRST_LOGON => {
                wrong(format!("{length} characters, at most {}", limits::FIRST_LOGON));
            }
            ["FirstLogonCommands"] if element.children.len() > 1 => wrong(
                "Windows starts these commands all at once; there may be one, that runs one script"
                    .into(),
            ),
            ["ComputerName"] => {
                if let Some(what) = bad_computer_name(&element.text) {
                    wrong(what);
                }
            }
            _ if component.name == passes::SETUP => layout(&path, element, &mut wrong),
            _ => {}
        }
        orders(element, &mut wrong);
        for child in &element.children {
            self.setting(pass, component, &path, child);
        }
    }
}

fn bad_computer_name(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name == "*" {
        return None;
    }
    if name.is_empty() || name.len() > limits::COMPUTER_NAME {
        return Some(format!("`{name}` is not 1 to {} bytes long", limits::COMPUTER_NAME));
    }
    let good = name.chars().all(allowed) && !name.chars().all(|c| c.is_ascii_digit());
    (!good).then(|| format!("`{name}` cannot be a computer's name"))
}

/// Rules of disks and images (facts 1.3).
fn layout(path: &[&str], element: &Element, wrong: &mut impl FnMut(String)) {
    match path {
        [.., "CreatePartition"] => {
            let extends = element.child("Extend").is_some_and(|extend| extend.text == "true");
            match (element.child("Size").is_some(), extends) {
                (true, true) => wrong("`Size` and `Extend` exclude each other".into()),
                (false, false) => wrong("needs `Size`, or `Extend` for all that is left".into()),
                _ => {}
            }
        }
        [.., "OSImage"] => {
            let to = element.child("InstallTo").is_some();
            let free = element.child("InstallToAvailablePartition");
            if to && free.is_some_and(|free| free.text == "true") {
                wrong("`InstallTo` and `InstallToAvailablePartition` exclude each other".into());
            }
        }
        [.., "Disk"] => {
            let created =
                element.child("CreatePartitions").map_or(&[][..], |list| list.children.as_slice());
            for modify in
                element.child("ModifyPartitions").map_or(&[][..], |list| list.children.as_slice())
            {
                let Some(id) = modify.child("PartitionID").and_then(|id| id.text.parse().ok())
                else {
                    wrong("a `ModifyPartition` needs its `PartitionID`, from 1".into());
                    continue;
                };
                let wipes = element.child("WillWipeDisk").is_some_and(|wipe| wipe.text == "true");
                if wipes && !(1..=created.len()).contains(&id) {
                    wrong(format!("there is no partition {id} of {}", created.len()));
                    continue;
                }
                let kind = |of: &Element| of.child("Type").map(|kind| kind.text.clone());
                let formats = modify.child("Format").is_some();
                let target = created.get(id.wrapping_sub(1)).and_then(kind);
                if wipes && formats && matches!(target.as_deref(), Some("MSR" | "Extended")) {
                    wrong(format!("partition {id} is an MSR, which cannot be formatted"));
                }
            }
        }
        _ => {}
    }
}

/// `Order` within a list is a number, once.
fn orders(list: &Element, wrong: &mut impl FnMut(String)) {
    let mut seen = Vec::new();
    for order in list.children.iter().filter_map(|item| item.child("Order")) {
        match order.text.trim().parse::<u32>() {
            Ok(number) if seen.contains(&number) => wrong(format!("`Order` {number} is twice")),
            Ok(number) => seen.push(number),
            Err(_) => wrong(format!("`Order` is no number: `{}`", order.text)),
        }
    }
}
