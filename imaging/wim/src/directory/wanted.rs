//! The paths of an image that were asked for.

use crate::error::{Error, Result};
use crate::tree::Tree;

/// The paths asked for.
pub(super) struct Wanted {
    /// With a slash in front, none behind, `\` as `/`.
    paths: Vec<String>,
}

impl Wanted {
    pub(super) fn new(paths: &[String]) -> Self {
        let normal = |path: &String| {
            let path = path.replace('\\', "/");
            format!("/{}", path.trim_matches('/'))
        };
        let paths: Vec<String> = paths.iter().map(normal).collect();
        Self { paths: if paths.iter().any(|path| path == "/") { Vec::new() } else { paths } }
    }

    /// The path is asked for, or is in a directory that is.
    pub(super) fn has(&self, inner: &str) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|path| {
                inner
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    /// The path is asked for or on the way to one that is.
    pub(super) fn leads_to(&self, inner: &str) -> bool {
        self.has(inner)
            || self
                .paths
                .iter()
                .any(|path| path.strip_prefix(inner).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Fails if a path is not in the tree.
    pub(super) fn check(&self, tree: &Tree) -> Result<()> {
        for path in &self.paths {
            let mut node = Tree::ROOT;
            for name in path.split('/').filter(|name| !name.is_empty()) {
                let entry = tree.node(node).entries.iter().find(|e| e.name.to_display() == name);
                node = entry
                    .ok_or_else(|| Error::Tree {
                        path: path.clone(),
                        why: "not in the image".into(),
                    })?
                    .node;
            }
        }
        Ok(())
    }
}
