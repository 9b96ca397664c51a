//! Every line of PowerShell gilt runs in a guest: it parses, and its cmdlets and parameters are
//! those of Microsoft's documentation where that covers them.

use gilt_windows::answer::limits;
use gilt_windows::{medium, script};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tree_sitter::{Node, Parser, Tree};

fn parse(text: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
    parser.parse(text, None).unwrap()
}

fn first_error(node: Node<'_>, text: &str) -> Option<String> {
    if node.is_error() || node.is_missing() {
        let at = node.start_position();
        let piece: String = text[node.byte_range()].chars().take(80).collect();
        return Some(format!("line {}, column {}: {piece:?}", at.row + 1, at.column + 1));
    }
    let mut cursor = node.walk();
    node.children(&mut cursor).find_map(|child| first_error(child, text))
}

/// Name -> text of everything that runs.
fn texts() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        script::ALL.iter().map(|script| (script.name.to_owned(), script.source())).collect();
    for name in [medium::FIRST_BOOT, medium::FIRST_LOGON] {
        let line = medium::run_line(name);
        let (_, inner) = line.split_once("-Command \"").unwrap();
        all.push((format!("line of {name}"), inner.trim_end_matches('"').to_owned()));
    }
    all.push(("checklist".into(), include_str!("../../../docs/windows-checklist.ps1").to_owned()));
    all
}

#[test]
fn every_script_parses() {
    for (name, text) in texts() {
        let tree = parse(&text);
        if let Some(error) = first_error(tree.root_node(), &text) {
            panic!("{name}: {error}");
        }
    }
    let broken = "if ($x) { Get-Item";
    assert!(first_error(parse(broken).root_node(), broken).is_some(), "the parser tells errors");
}

#[test]
fn command_lines_keep_their_limits() {
    for name in [medium::FIRST_BOOT, medium::FIRST_LOGON] {
        assert!(medium::run_line(name).len() <= limits::PE_LINE, "{name}");
    }
}

/// Cmdlet (lower case) -> parameter set -> parameter -> mandatory.
fn reference() -> BTreeMap<String, BTreeMap<String, BTreeMap<String, bool>>> {
    let Some(folder) = option_env!("GILT_ORACLES_FOLDER") else {
        panic!("tests without the tables are ignored")
    };
    let path = Path::new(folder).join("ps-cmdlet-params.tsv");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut table: BTreeMap<String, BTreeMap<String, BTreeMap<String, bool>>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, cmdlet, set, parameter, mandatory, _] = fields[..] else { panic!("{line}") };
        table
            .entry(cmdlet.to_lowercase())
            .or_default()
            .entry(set.to_owned())
            .or_default()
            .insert(parameter.to_lowercase(), mandatory == "yes");
    }
    table
}

/// Commands with the names of their parameters.
fn commands(node: Node<'_>, text: &str, found: &mut Vec<(String, BTreeSet<String>, bool)>) {
    if node.kind() == "command" {
        let mut cursor = node.walk();
        let mut name = String::new();
        let mut parameters = BTreeSet::new();
        let mut splats = false;
        let mut stack: Vec<Node<'_>> = node.children(&mut cursor).collect();
        while let Some(part) = stack.pop() {
            match part.kind() {
                "command_name" if name.is_empty() => name = text[part.byte_range()].to_lowercase(),
                "command_parameter" => {
                    let written = text[part.byte_range()].trim_start_matches('-').to_lowercase();
                    parameters.insert(written.split(':').next().unwrap_or_default().to_owned());
                }
                "command_elements" | "command_name_expr" => {
                    let mut inner = part.walk();
                    stack.extend(part.children(&mut inner).collect::<Vec<_>>());
                }
                _ => {
                    splats |= text[part.byte_range()].starts_with('@')
                        && !text[part.byte_range()].starts_with("@(")
                }
            }
        }
        found.push((name, parameters, splats));
    }
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        commands(child, text, found);
    }
}

/// Parameters every cmdlet has.
const COMMON: [&str; 6] = ["erroraction", "warningaction", "verbose", "debug", "confirm", "whatif"];

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn cmdlets_and_parameters_are_the_documented_ones() {
    let reference = reference();
    let mut checked = BTreeSet::new();
    for (name, text) in texts() {
        let tree = parse(&text);
        let mut found = Vec::new();
        commands(tree.root_node(), &text, &mut found);
        for (cmdlet, mut parameters, splats) in found {
            let Some(sets) = reference.get(&cmdlet) else { continue };
            parameters.retain(|parameter| !COMMON.contains(&parameter.as_str()));
            let fits = sets.values().any(|set| {
                parameters.iter().all(|parameter| set.contains_key(parameter))
                    && (splats
                        || set.iter().all(|(of, mandatory)| !mandatory || parameters.contains(of)))
            });
            // A pipeline may give what is mandatory.
            let known = parameters.iter().all(|of| sets.values().any(|set| set.contains_key(of)));
            assert!(known, "{name}: {cmdlet} {parameters:?}");
            assert!(fits, "{name}: no parameter set of {cmdlet} takes {parameters:?}");
            checked.insert(cmdlet);
        }
    }
    // What must be among them, or the walk has missed the commands.
    for must in [
        "register-scheduledtask",
        "new-scheduledtaskprincipal",
        "get-scheduledtaskinfo",
        "add-windowscapability",
        "enable-windowsoptionalfeature",
        "add-appxprovisionedpackage",
        "write-volumecache",
    ] {
        assert!(checked.contains(must), "{must} is not among {checked:?}");
    }
}

/// The texts themselves: what a change of a script changes is seen in review.
#[test]
fn scripts_are_what_they_were() {
    for (name, text) in texts() {
        let body = text.replace(include_str!("../scripts/prelude.ps1"), "<prelude>\n");
        insta::with_settings!({ snapshot_suffix => name.replace([' ', '.'], "-") }, {
            insta::assert_snapshot!("script", body);
        });
    }
}
