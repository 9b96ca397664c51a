//! What differs between two registry hives: keys and values, by path.

use std::collections::BTreeMap;
use std::io::Read;

use gilt_hive::{Dirty, Hive, Kind, Value};
use gilt_wim::tree::{ContentSource, Node, Tree};
use gilt_wim::{Change, ChangeKind, Reason, Side};
use serde::Serialize;

/// A hive larger than this is not taken into memory.
const MAX_HIVE_BYTES: u64 = 1 << 30;
/// Characters of a value that are shown.
const SHOWN: usize = 80;

/// A hive that is in both versions and not the same.
#[derive(Serialize)]
pub struct HiveDiff {
    /// Of the file.
    pub path: String,
    /// Why it could not be read; then there are no entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub entries: Vec<RegistryChange>,
}

/// A key or a value that was added, removed or changed. A key that is in one version only stands
/// for all that is below it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RegistryChange {
    pub change: &'static str,
    pub key: String,
    /// None: the key itself. Empty: its default value.
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// Hives lie here, under the names Windows gives them.
fn is_hive(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let system = ["sam", "security", "software", "system", "default", "components", "drivers"];
    folder.ends_with("/system32/config") && (system.contains(&name) || name == "bcd-template")
        || matches!(name, "ntuser.dat" | "usrclass.dat" | "amcache.hve")
        || folder.ends_with("/boot") && name == "bcd"
}

/// The hives among the files that changed.
pub fn hives(changes: &[Change], old: Side<'_>, new: Side<'_>) -> Vec<HiveDiff> {
    let changed = changes.iter().filter(|change| {
        change.kind == ChangeKind::Changed
            && change.reasons.contains(&Reason::Contents)
            && is_hive(&change.path)
    });
    changed
        .map(|change| {
            let sides = open(old, &change.path).and_then(|old| Ok((old, open(new, &change.path)?)));
            let compared = sides.and_then(|(old, new)| compare(&old, &new));
            let (problem, entries) = match compared {
                Ok(entries) => (None, entries),
                Err(problem) => (Some(problem), Vec::new()),
            };
            HiveDiff { path: change.path.clone(), problem, entries }
        })
        .collect()
}

fn find<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    let mut node = tree.node(Tree::ROOT);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let entry = node.entries.iter().find(|entry| entry.name.to_display() == name)?;
        node = tree.node(entry.node);
    }
    Some(node)
}

fn read(side: Side<'_>, path: &str) -> Result<Vec<u8>, String> {
    let node = find(side.tree, path).ok_or("it is not there")?;
    let stream = node.streams.iter().find(|stream| stream.name.is_none()).ok_or("it is empty")?;
    if stream.len_bytes > MAX_HIVE_BYTES {
        return Err(format!("{} bytes are more than is compared", stream.len_bytes));
    }
    let mut bytes = Vec::new();
    let contents: &dyn ContentSource = side.contents;
    let opened = contents.open(stream.content).map_err(|error| error.to_string())?;
    opened.take(stream.len_bytes).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn open(side: Side<'_>, path: &str) -> Result<Hive, String> {
    let logs: Vec<Vec<u8>> = [".LOG", ".LOG1", ".LOG2"]
        .iter()
        .filter_map(|ending| read(side, &format!("{path}{ending}")).ok())
        .collect();
    Hive::open(read(side, path)?, &logs, Dirty::Read).map_err(|error| error.to_string())
}

/// Key path -> value name -> value. Names compare without regard to case, and are shown as spelt.
type Keys = BTreeMap<String, (String, BTreeMap<String, Shown>)>;

#[derive(PartialEq, Eq)]
struct Shown {
    name: String,
    kind: u32,
    bytes: Vec<u8>,
    text: String,
}

fn keys(hive: &Hive) -> Result<Keys, String> {
    let mut keys = Keys::new();
    let walked = hive.walk(|path, key| {
        let mut values = BTreeMap::new();
        for value in key.values()? {
            let (name, kind) = (value.name().to_owned(), value.kind().number());
            let (bytes, text) = (value.bytes().to_vec(), text(&value));
            values.insert(name.to_lowercase(), Shown { name, kind, bytes, text });
        }
        let path = path.join("\\");
        keys.insert(path.to_lowercase(), (path, values));
        Ok(())
    });
    walked.map_err(|error| error.to_string())?;
    Ok(keys)
}

fn text(value: &Value<'_>) -> String {
    let text = match value.kind() {
        Kind::Dword | Kind::DwordBigEndian => value.dword().map(|n| format!("{n:#x}")),
        Kind::Qword => value.qword().map(|n| format!("{n:#x}")),
        Kind::String | Kind::ExpandString | Kind::Link => value.text(),
        Kind::MultiString => value.texts().map(|texts| texts.join(", ")),
        _ => Ok(hex::encode(&value.bytes()[..value.bytes().len().min(SHOWN / 2)])),
    };
    let text = text.unwrap_or_else(|_| format!("{} bytes", value.bytes().len()));
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn compare(old: &Hive, new: &Hive) -> Result<Vec<RegistryChange>, String> {
    let (old, new) = (keys(old)?, keys(new)?);
    let mut changes = Vec::new();
    let mut all: Vec<&String> = old.keys().chain(new.keys()).collect();
    all.sort();
    all.dedup();
    for path in all {
        // A key that is in one of them only stands for all below it.
        if let Some((above, _)) = path.rsplit_once('\\')
            && !(old.contains_key(above) && new.contains_key(above))
        {
            continue;
        }
        let mut change =
            |change, key: &str, value: Option<&Shown>, old: Option<&Shown>, new: Option<&Shown>| {
                changes.push(RegistryChange {
                    change,
                    key: key.to_owned(),
                    value: value.map(|value| value.name.clone()),
                    old: old.map(|shown| shown.text.clone()),
                    new: new.map(|shown| shown.text.clone()),
                });
            };
        match (old.get(path), new.get(path)) {
            (Some((key, _)), None) | (None, Some((key, _))) => {
                let word = if new.contains_key(path) { "added" } else { "removed" };
                change(word, key, None, None, None);
            }
            (Some((_, old)), Some((key, new))) => {
                for (name, before) in old {
                    match new.get(name) {
                        None => change("removed", key, Some(before), Some(before), None),
                        Some(now) if now.kind != before.kind || now.bytes != before.bytes => {
                            change("changed", key, Some(now), Some(before), Some(now));
                        }
                        Some(_) => {}
                    }
                }
                for (_, now) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                    change("added", key, Some(now), None, Some(now));
                }
            }
            (None, None) => {}
        }
    }
    Ok(changes)
}
