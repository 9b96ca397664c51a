//! Making hives by other tools, and reading them by other tools.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Values by name, each its type and bytes, of every key by path.
pub type Contents = BTreeMap<String, BTreeMap<String, (u32, Vec<u8>)>>;

/// An empty hive, by the regf crate.
pub fn empty_hive() -> Vec<u8> {
    regf::HiveBuilder::new_with_name("ROOT").unwrap().to_bytes().unwrap()
}

fn hivexregedit() -> Command {
    Command::new("hivexregedit")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("needs hivexregedit (libwin-hivex-perl): run ci/setup");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Adds the keys of a `.reg` text, whose paths begin with `HIVE\`.
pub fn merge(hive: &Path, reg: &str) {
    let file = hive.with_extension("reg");
    let reg = with_parents(reg);
    std::fs::write(&file, format!("Windows Registry Editor Version 5.00\r\n\r\n{reg}")).unwrap();
    run(hivexregedit()
        .args(["--merge", "--prefix", "HIVE", "--encoding", "UTF-8"])
        .arg(hive)
        .arg(&file));
}

/// hivexregedit makes no key whose parent is not there, and wants blank lines between keys.
fn with_parents(reg: &str) -> String {
    let mut out = String::new();
    let mut known = std::collections::BTreeSet::from(["HIVE".to_owned()]);
    for line in reg.lines() {
        if let Some(path) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            for (at, _) in path.match_indices('\\') {
                if known.insert(path[..at].to_owned()) {
                    out += &format!("\r\n[{}]\r\n", &path[..at]);
                }
            }
            known.insert(path.to_owned());
            out += "\r\n";
        }
        out += &format!("{line}\r\n");
    }
    out
}

/// What hivex reads out of a hive.
pub fn exported(hive: &Path) -> Contents {
    let text = run(hivexregedit().arg("--export").arg(hive).arg("\\"));
    let mut all = Contents::new();
    let mut path = String::new();
    for line in text.lines().skip(1) {
        if let Some(key) = line.strip_prefix('[').and_then(|key| key.strip_suffix(']')) {
            path = key.trim_start_matches('\\').to_owned();
            all.insert(path.clone(), BTreeMap::new());
        } else if !line.is_empty() {
            let (name, value) = value_line(line);
            all.get_mut(&path).expect("a key first").insert(name, value);
        }
    }
    all
}

fn value_line(line: &str) -> (String, (u32, Vec<u8>)) {
    let (name, rest) = match line.strip_prefix('@') {
        Some(rest) => (String::new(), rest),
        None => {
            // The name ends at the first quote that no backslash escapes.
            let mut name = String::new();
            let mut chars = line[1..].char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (_, '\\') => name.push(chars.next().expect("an escaped character").1),
                    (at, '"') => break at + 2,
                    (_, c) => name.push(c),
                }
            };
            (name, &line[end..])
        }
    };
    let value = rest.strip_prefix('=').expect("an equals sign");
    if let Some(number) = value.strip_prefix("dword:") {
        let number = u32::from_str_radix(number, 16).expect("a number");
        return (name, (4, number.to_le_bytes().to_vec()));
    }
    let (kind, bytes) = value.strip_prefix("hex").and_then(|v| v.split_once(':')).expect("hex");
    let kind = kind.trim_matches(['(', ')']);
    let kind = if kind.is_empty() { 3 } else { u32::from_str_radix(kind, 16).expect("a type") };
    let bytes = bytes
        .split(',')
        .filter(|byte| !byte.is_empty())
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    (name, (kind, bytes))
}

/// What we read out of a hive.
pub fn ours(hive: &gilt_hive::Hive) -> Contents {
    let mut all = Contents::new();
    hive.walk(|path, key| {
        let values = key
            .values()?
            .into_iter()
            .map(|value| (value.name().to_owned(), (value.kind().number(), value.bytes().to_vec())))
            .collect();
        all.insert(path.join("\\"), values);
        Ok(())
    })
    .expect("walking the hive");
    all
}
