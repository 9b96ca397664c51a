//! `gilt diff`.

mod registry;

use self::registry::HiveDiff;
use super::text::{bytes, columns};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use crate::image_store::StoredReader;
use clap::Args;
use gilt_store::{Difference, Reference, Store};
use gilt_wim::tree::{NodeId, Tree};
use gilt_wim::{ChangeKind, Side, Wim};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Args)]
pub struct Diff {
    /// The older version: IMAGE@N or IMAGE:CHANNEL
    old: Reference,
    /// The newer version
    new: Reference,
    #[command(flatten)]
    at: At,
    /// Image in the WIM, from 1
    #[arg(long, default_value_t = 1, value_name = "N")]
    index: u32,
    /// List every file; without it, only how many and where
    #[arg(long)]
    files: bool,
    /// List every key and value of the registry; without it, the first of each hive
    #[arg(long)]
    registry: bool,
    /// Folders of the size table: how many levels down
    #[arg(long, default_value_t = 2, value_name = "LEVELS")]
    depth: usize,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    manifest: gilt_store::Diff,
    /// None: not two WIMs.
    tree: Option<TreeDiff>,
}

#[derive(Default, Serialize)]
struct TreeDiff {
    files: Vec<FileChange>,
    /// Folders whose bytes differ, largest change first.
    folders: Vec<FolderChange>,
    /// Registry hives that differ, of a Windows.
    registry: Vec<HiveDiff>,
}

#[derive(Serialize)]
struct FileChange {
    path: String,
    change: &'static str,
    reasons: Vec<&'static str>,
}

#[derive(Serialize)]
struct FolderChange {
    path: String,
    old: u64,
    new: u64,
}

impl Diff {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let manifest = store.diff(&self.old, &self.new).await.map_err(failed)?;
        let tree = match (wim(&store, &self.old).await?, wim(&store, &self.new).await?) {
            (Some(old), Some(new)) => {
                let (index, depth) = (self.index, self.depth);
                // The reader waits for the store, so not on a thread of the runtime.
                let done = tokio::task::spawn_blocking(move || compare(&old, &new, index, depth));
                Some(done.await.map_err(anyhow::Error::from)?.map_err(anyhow::Error::from)?)
            }
            _ => None,
        };
        let report = Report { manifest, tree };
        print(context, &report, |report| plain(report, self.files, self.registry))
    }
}

/// The version's file, if it is a WIM.
async fn wim(store: &Store, reference: &Reference) -> Result<Option<Wim>, Failure> {
    let found = store.resolve(reference).await.map_err(failed)?;
    let file = store.file(&found.manifest.file.content).await.map_err(failed)?;
    let reader = StoredReader::over(file, tokio::runtime::Handle::current());
    let opened = tokio::task::spawn_blocking(move || Wim::from_reader(reader)).await;
    Ok(opened.map_err(anyhow::Error::from)?.ok())
}

fn compare(old: &Wim, new: &Wim, index: u32, depth: usize) -> gilt_wim::Result<TreeDiff> {
    let (old, new) = (old.load_tree(index)?, new.load_tree(index)?);
    let (before, after) =
        (Side { tree: &old.0, contents: &old.1 }, Side { tree: &new.0, contents: &new.1 });
    let changes = gilt_wim::diff(before, after)?;
    let registry = registry::hives(&changes, before, after);
    let files = changes
        .into_iter()
        .map(|change| FileChange {
            path: change.path,
            change: match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Removed => "removed",
                ChangeKind::Changed => "changed",
            },
            reasons: change.reasons.iter().map(|reason| reason.name()).collect(),
        })
        .collect();
    let (before, mut after) = (sizes(&old.0, depth), sizes(&new.0, depth));
    let mut folders = Vec::new();
    for (path, old) in before {
        let new = after.remove(&path).unwrap_or(0);
        folders.push(FolderChange { path, old, new });
    }
    folders.extend(after.into_iter().map(|(path, new)| FolderChange { path, old: 0, new }));
    folders.retain(|folder| folder.old != folder.new);
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.old.abs_diff(folder.new)));
    Ok(TreeDiff { files, folders, registry })
}

/// Bytes of files by folder, down to a depth; what is deeper counts for the folder above.
fn sizes(tree: &Tree, depth: usize) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    let mut stack: Vec<(NodeId, String, usize)> = vec![(Tree::ROOT, String::new(), 0)];
    while let Some((id, folder, level)) = stack.pop() {
        for entry in &tree.node(id).entries {
            let node = tree.node(entry.node);
            if node.is_directory() {
                let folder = if level < depth {
                    format!("{folder}/{}", entry.name.to_display())
                } else {
                    folder.clone()
                };
                stack.push((entry.node, folder, level + 1));
            } else if seen.insert(entry.node) {
                // A file of several names is one file.
                let name = if folder.is_empty() { "/".to_owned() } else { folder.clone() };
                let size: &mut u64 = sizes.entry(name).or_default();
                *size = size.saturating_add(node.streams_bytes());
            }
        }
    }
    sizes
}

/// Keys and values shown of a hive, unless all are asked for.
const FIRST: usize = 20;

fn plain(report: &Report, all_files: bool, all_registry: bool) -> String {
    let m = &report.manifest;
    let mut text = format!(
        "{} {} -> {} {}, {} in common\n",
        m.old,
        bytes(m.old_size),
        m.new,
        bytes(m.new_size),
        bytes(m.shared)
    );
    for (title, differences) in [
        ("facts", &m.facts),
        ("packages", &m.packages),
        ("updates", &m.updates),
        ("layers", &m.layers),
        ("inputs", &m.inputs),
        ("artifacts", &m.artifacts),
    ] {
        if !differences.is_empty() {
            let rows: Vec<_> = differences.iter().map(row).collect();
            text.push_str(&format!("{title}: {}\n{}", differences.len(), columns(&rows)));
        }
    }
    let Some(tree) = &report.tree else { return text };
    let count = |word: &str| tree.files.iter().filter(|file| file.change == word).count();
    text.push_str(&format!(
        "files: {} added, {} removed, {} changed\n",
        count("added"),
        count("removed"),
        count("changed")
    ));
    if all_files {
        for file in &tree.files {
            let sign = match file.change {
                "added" => '+',
                "removed" => '-',
                _ => '~',
            };
            let reasons = file.reasons.join(", ");
            let reasons = if reasons.is_empty() { reasons } else { format!(" ({reasons})") };
            text.push_str(&format!("  {sign} {}{reasons}\n", file.path));
        }
    }
    for hive in &tree.registry {
        if let Some(problem) = &hive.problem {
            text.push_str(&format!("registry {}: cannot be read: {problem}\n", hive.path));
            continue;
        }
        text.push_str(&format!("registry {}: {} differ\n", hive.path, hive.entries.len()));
        let shown = if all_registry { hive.entries.len() } else { FIRST };
        for entry in hive.entries.iter().take(shown) {
            let sign = match entry.change {
                "added" => '+',
                "removed" => '-',
                _ => '~',
            };
            let value = match entry.value.as_deref() {
                None => String::new(),
                Some("") => " (default)".to_owned(),
                Some(name) => format!(" {name}"),
            };
            let values: Vec<&str> =
                [&entry.old, &entry.new].into_iter().flatten().map(String::as_str).collect();
            let values = values.join(" -> ");
            let values = if values.is_empty() { values } else { format!(": {values}") };
            text.push_str(&format!("  {sign} {}{value}{values}\n", entry.key));
        }
        if hive.entries.len() > shown {
            let more = hive.entries.len() - shown;
            text.push_str(&format!("  … {more} more: --registry lists all\n"));
        }
    }
    let rows: Vec<Vec<String>> = tree
        .folders
        .iter()
        .take(20)
        .map(|folder| {
            let sign = if folder.new > folder.old { '+' } else { '-' };
            let change = format!("{sign}{}", bytes(folder.new.abs_diff(folder.old)));
            vec![format!("  {}", folder.path), change, format!("now {}", bytes(folder.new))]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str("size by folder:\n");
        text.push_str(&columns(&rows));
    }
    text
}

fn row(difference: &Difference) -> Vec<String> {
    let (sign, value) = match (&difference.old, &difference.new) {
        (None, Some(new)) => ("+", new.clone()),
        (Some(old), None) => ("-", old.clone()),
        (old, new) => {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            ("~", format!("{} -> {}", text(old), text(new)))
        }
    };
    vec![format!("  {sign} {}", difference.name), value]
}
