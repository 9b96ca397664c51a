//! Template files -> one merged tree: reading, includes, profiles.

use super::cx::Cx;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::fields::nearest_hint;
use super::node::{Entry, Map, Node, Value};
use super::span::{Sources, Span};
use super::yaml;
use crate::content_hash::Digest;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// A template's text is never larger; what is, was named by mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// No template has more files; what has, includes in circles by different names.
const MAX_FILES: usize = 200;

/// A template that was read: valid YAML, all includes found. [`Template::resolve`] goes on.
#[derive(Clone, Debug)]
pub struct Template {
    pub path: PathBuf,
    pub(crate) sources: Sources,
    /// All files merged, nothing expanded.
    pub(crate) root: Map,
    pub(crate) span: Span,
}

impl Template {
    /// Reads the file and all it includes.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let mut loader = Loader::default();
        let root = loader.file(path, None);
        loader.finish(path, root)
    }

    /// As [`Template::load`], with the text of the file given.
    pub fn from_text(path: &Path, text: String) -> Result<Self, Diagnostics> {
        let mut loader = Loader::default();
        let root = loader.text(path, text);
        loader.finish(path, root)
    }

    /// What a lock file says of addresses: it stands in for a missing `sha256`.
    pub fn set_url_digests(&mut self, digests: BTreeMap<String, Digest>) {
        self.sources.set_url_digests(digests);
    }

    /// Every file that was read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.paths()
    }

    pub fn profile_names(&self) -> Vec<&str> {
        match self.root.get("profiles").map(|entry| &entry.node.value) {
            Some(Value::Map(map)) => map.entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The tree with the named profiles laid over it, in order.
    pub(crate) fn with_profiles(&self, names: &[String], cx: &mut Cx) -> Map {
        let mut root = self.root.clone();
        for name in names {
            let found = match self.root.get("profiles").map(|entry| &entry.node.value) {
                Some(Value::Map(map)) => map.get(name),
                _ => None,
            };
            match found.map(|entry| &entry.node.value) {
                Some(Value::Map(profile)) => root.merge(profile.clone()),
                Some(_) => {}
                None => {
                    let message = format!("the template has no profile `{name}`");
                    cx.push(
                        Diagnostic::error(message).hint(nearest_hint(name, &self.profile_names())),
                    );
                }
            }
        }
        root
    }
}

#[derive(Default)]
struct Loader {
    sources: Sources,
    problems: Vec<Diagnostic>,
    /// The files that are being read, outermost first.
    open: Vec<PathBuf>,
    files: usize,
}

impl Loader {
    fn finish(self, path: &Path, root: Option<Node>) -> Result<Template, Diagnostics> {
        match root {
            Some(Node { value: Value::Map(root), span, .. }) if self.problems.is_empty() => {
                Ok(Template { path: path.to_owned(), sources: self.sources, root, span })
            }
            _ => Err(Diagnostics(self.problems)),
        }
    }

    fn complain(&mut self, at: Option<Span>, diagnostic: Diagnostic) {
        let diagnostic = match at {
            Some(span) => diagnostic.at(span, &self.sources),
            None => diagnostic,
        };
        self.problems.push(diagnostic);
    }

    fn file(&mut self, path: &Path, at: Option<Span>) -> Option<Node> {
        match read_text(path) {
            Ok(text) => self.text(path, text),
            Err(message) => {
                self.complain(at, Diagnostic::error(message));
                None
            }
        }
    }

    fn text(&mut self, path: &Path, text: String) -> Option<Node> {
        self.files += 1;
        let file = self.sources.add(path, text);
        let node = yaml::parse(file, &self.sources, &mut self.problems)?;
        let span = node.span;
        let Value::Map(mut map) = node.value else {
            let kind = node.kind();
            self.complain(
                Some(span),
                Diagnostic::error(format!("a template is a map, this is {kind}")),
            );
            return None;
        };
        self.check_profiles(&map);
        let Some(include) = map.remove("include") else {
            return Some(Node::new(span, Value::Map(map)));
        };
        self.open.push(normal(path));
        let mut merged = Map::default();
        for (written, at) in self.include_list(&include) {
            let target = self.sources.folder(file).join(&written);
            let name = normal(&target);
            if self.open.contains(&name) {
                let circle: Vec<_> =
                    self.open.iter().map(|path| path.display().to_string()).collect();
                self.complain(
                    Some(at),
                    Diagnostic::error(format!("`{written}` includes itself"))
                        .hint(format!("by way of {} -> {written}", circle.join(" -> "))),
                );
            } else if self.files >= MAX_FILES {
                self.complain(Some(at), Diagnostic::error("too many files are included"));
            } else if let Some(Node { value: Value::Map(below), .. }) = self.file(&name, Some(at)) {
                merged.merge(below);
            }
        }
        self.open.pop();
        merged.merge(map);
        Some(Node::new(span, Value::Map(merged)))
    }

    fn include_list(&mut self, entry: &Entry) -> Vec<(String, Span)> {
        let mut cx = Cx::new(&self.sources);
        let mut list = Vec::new();
        match &entry.node.value {
            Value::List(items) => {
                for item in items {
                    if let Some(path) = cx.known(item, "a path") {
                        list.push((path, item.span));
                    }
                }
            }
            _ => cx.expected(&entry.node, "a list of paths"),
        }
        let problems = std::mem::take(&mut cx.problems);
        self.problems.extend(problems);
        list.retain(|(path, at)| {
            let variable = path.contains("${");
            if variable {
                let diagnostic = Diagnostic::error(
                    "variables cannot stand in `include`, which is read before them",
                )
                .at(*at, &self.sources);
                self.problems.push(diagnostic);
            }
            !variable
        });
        list
    }

    /// What a profile may not change, as it was read before.
    fn check_profiles(&mut self, map: &Map) {
        let Some(entry) = map.get("profiles") else { return };
        let Value::Map(profiles) = &entry.node.value else { return };
        for profile in &profiles.entries {
            let Value::Map(body) = &profile.node.value else {
                let message = format!("profile `{}` must be a map of what it changes", profile.key);
                self.complain(Some(profile.key_span), Diagnostic::error(message));
                continue;
            };
            for key in ["include", "profiles"] {
                if let Some(entry) = body.get(key) {
                    let message = format!("`{key}` cannot stand in a profile");
                    self.complain(Some(entry.key_span), Diagnostic::error(message));
                }
            }
        }
    }
}

/// The text of a file of the language. The error is for people.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file {shown}"),
        _ => format!("cannot read {shown}: {error}"),
    })?;
    if metadata.is_dir() {
        return Err(format!("{shown} is a folder, not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!(
            "{shown} has {} bytes, which is too large for a template",
            metadata.len()
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{shown} is not text in UTF-8"))
}

/// `a/./b/../c` as `a/c`, without asking the disk.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}
