//! The catalogue: finding a layer's folder by name.
//!
//! A catalogue is a folder with one folder for each layer, in it `layer.yaml` and the scripts:
//!
//! ```text
//! layers/
//!   runtime-python/
//!     layer.yaml
//!     install.sh
//! ```
//! Catalogues are searched in order: those named by `--layers-dir`, `layers/` beside the template,
//! `layers/` beside the template's folder, `share/gilt/layers` beside gilt's own folder.

mod info;

pub use info::LayerInfo;

use crate::template::diagnostic::Diagnostic;
use crate::template::fields::nearest_hint;
use crate::template::load::{normal, read_text};
use crate::template::node::{Map, Value};
use crate::template::span::{Sources, Span};
use crate::template::yaml;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file in a layer's folder.
pub const LAYER_FILE: &str = "layer.yaml";

/// A layer's file as it is written.
#[derive(Clone, Debug)]
pub(crate) struct LayerSource {
    pub folder: PathBuf,
    pub root: Map,
    pub span: Span,
}

/// The layers that a template can name.
pub struct Catalogue {
    folders: Vec<PathBuf>,
    sources: Sources,
    read: BTreeMap<PathBuf, Option<LayerSource>>,
}

impl Catalogue {
    pub(crate) fn new(sources: Sources, template: &Path, first: &[PathBuf]) -> Self {
        Self { folders: search_path(Some(template), first), sources, read: BTreeMap::new() }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn into_sources(self) -> Sources {
        self.sources
    }

    /// The layer called `name`, or None after a complaint at `at`.
    pub(crate) fn find(
        &mut self,
        name: &str,
        at: Span,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<LayerSource> {
        let relative = name.starts_with("./") || name.starts_with("../");
        let folder = if relative {
            let folder = normal(&self.sources.folder(at.file).join(name));
            folder.join(LAYER_FILE).is_file().then_some(folder)
        } else if is_name(name) {
            let mut folders = self.folders.iter().map(|folder| folder.join(name));
            folders.find(|folder| folder.join(LAYER_FILE).is_file())
        } else {
            let message = format!("`{name}` cannot be a layer's name");
            problems.push(
                Diagnostic::error(message)
                    .at(at, &self.sources)
                    .hint("letters, digits, `-`, `_` and `.`; or `./folder`"),
            );
            return None;
        };
        let Some(folder) = folder else {
            problems.push(self.not_found(name, relative).at(at, &self.sources));
            return None;
        };
        if let Some(read) = self.read.get(&folder) {
            return read.clone();
        }
        let layer = self.read(&folder, problems);
        self.read.insert(folder, layer.clone());
        layer
    }

    fn read(&mut self, folder: &Path, problems: &mut Vec<Diagnostic>) -> Option<LayerSource> {
        let path = folder.join(LAYER_FILE);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(message) => {
                problems.push(Diagnostic::error(message));
                return None;
            }
        };
        let file = self.sources.add(&path, text);
        let before = problems.len();
        let node = yaml::parse(file, &self.sources, problems)?;
        let span = node.span;
        let Value::Map(root) = node.value else {
            let message = format!("a layer is a map, this is {}", node.kind());
            problems.push(Diagnostic::error(message).at(span, &self.sources));
            return None;
        };
        (problems.len() == before).then(|| LayerSource { folder: folder.to_owned(), root, span })
    }

    fn not_found(&self, name: &str, relative: bool) -> Diagnostic {
        let message = format!("there is no layer `{name}`");
        let diagnostic = Diagnostic::error(message);
        if relative {
            return diagnostic.hint(format!("a layer is a folder with a {LAYER_FILE} in it"));
        }
        let names = list(&self.folders);
        if names.is_empty() {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            return diagnostic
                .hint(format!("there are no layers in {}; see --layers-dir", folders.join(", ")));
        }
        let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        diagnostic.hint(nearest_hint(name, &names))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// The folders that are searched for layers, in order.
pub fn search_path(template: Option<&Path>, first: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = first.to_vec();
    if let Some(template) = template {
        let beside = template.parent().unwrap_or(Path::new("."));
        folders.push(normal(&beside.join("layers")));
        folders.push(normal(&beside.join("..").join("layers")));
    } else {
        folders.push(PathBuf::from("layers"));
    }
    if let Ok(program) = std::env::current_exe()
        && let Some(folder) = program.parent()
    {
        folders.push(normal(&folder.join("..").join("share").join("gilt").join("layers")));
    }
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let new = !seen.contains(folder);
        seen.push(folder.clone());
        new
    });
    folders
}

/// Name and folder of every layer in `folders`; the first folder that has a name wins.
pub fn list(folders: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_name(&name) && path.join(LAYER_FILE).is_file() {
                found.entry(name).or_insert(path);
            }
        }
    }
    found.into_iter().collect()
}
