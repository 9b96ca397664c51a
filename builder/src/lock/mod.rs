//! The lock file: every input of a template by digest, in `gilt.lock` beside it.
//!
//! With `--locked`, a build takes only inputs whose bytes are those of the lock file.

pub mod digest;
mod stamp;

pub use digest::{Digests, InputError};

use crate::content_hash::Digest;
use crate::plan::{Build, Change, How};
use crate::template::load::normal;
use crate::template::span::Span;
use crate::template::{Diagnostic, FileKind, FileRef, Location};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name.
pub const LOCK_FILE: &str = "gilt.lock";
/// Raised when the meaning of the file changes.
const FORMAT: u32 = 1;

/// The inputs of the templates of one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    format: u32,
    /// Template's file name -> input as it is named from the lock file's folder -> digest.
    pub templates: BTreeMap<String, BTreeMap<String, Digest>>,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("cannot read the lock file {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the lock file {path} is not valid: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("the lock file {path} is of format {found}, this gilt knows {FORMAT}")]
    Format { path: PathBuf, found: u32 },
}

impl Default for Lock {
    fn default() -> Self {
        Self { format: FORMAT, templates: BTreeMap::new() }
    }
}

impl Lock {
    /// Where the lock file of a template is.
    pub fn path_for(template: &Path) -> PathBuf {
        template.with_file_name(LOCK_FILE)
    }

    /// The lock file, or None if there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, LockError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LockError::Io { path: path.to_owned(), source }),
        };
        let damaged = |error: serde_json::Error| LockError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        };
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_str(&text).map_err(damaged)?;
        if format != FORMAT {
            return Err(LockError::Format { path: path.to_owned(), found: format });
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Writes the file; the same inputs give the same bytes.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        crate::home::write_atomically(path, text.as_bytes())?;
        // It is committed and shared, so it gets the permissions of an ordinary file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// The digests of addresses, of all templates.
    pub fn urls(&self) -> BTreeMap<String, Digest> {
        let inputs = self.templates.values().flatten();
        inputs
            .filter(|(name, _)| name.contains("://"))
            .map(|(name, digest)| (name.clone(), *digest))
            .collect()
    }

    /// Takes in every input of `builds`, in place of what was recorded of the template.
    pub fn record(
        &mut self,
        template: &Path,
        builds: &[Build],
        digests: &mut Digests,
    ) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        let inputs = inputs(template, builds, digests, &mut problems);
        self.templates.insert(entry_name(template), inputs);
        problems
    }

    /// What differs between `builds` and what was recorded.
    pub fn check(
        &self,
        template: &Path,
        builds: &[Build],
        digests: &mut Digests,
    ) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        let now = inputs(template, builds, digests, &mut problems);
        let none = BTreeMap::new();
        let locked = self.templates.get(&entry_name(template)).unwrap_or(&none);
        for (name, found) in now {
            let problem = match locked.get(&name) {
                Some(expected) if *expected == found => continue,
                Some(expected) => Diagnostic::error(format!(
                    "{name} is not what {LOCK_FILE} says: {found}, not {expected}"
                )),
                None => Diagnostic::error(InputError::NotLocked { name }.to_string()),
            };
            let hint = "if the change is meant, run `gilt lock` again and commit the lock file";
            problems.push(problem.hint(hint));
        }
        problems
    }

    /// What differs from an older state of the file, template by template.
    pub fn changes_since(&self, before: &Self) -> Vec<LockChange> {
        let none = BTreeMap::new();
        let mut changes = Vec::new();
        for (template, now) in &self.templates {
            let old = before.templates.get(template).unwrap_or(&none);
            let mut change = |name: &String, how| {
                let change = Change { name: name.clone(), how };
                changes.push(LockChange { template: template.clone(), change });
            };
            for (name, digest) in now {
                match old.get(name) {
                    Some(before) if before == digest => {}
                    Some(_) => change(name, How::Changed),
                    None => change(name, How::Added),
                }
            }
            for name in old.keys().filter(|name| !now.contains_key(*name)) {
                change(name, How::Removed);
            }
        }
        changes
    }
}

/// One difference between two states of a lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockChange {
    pub template: String,
    #[serde(flatten)]
    pub change: Change,
}

impl std::fmt::Display for LockChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.template, self.change)
    }
}

fn entry_name(template: &Path) -> String {
    template.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Every input of `builds` by its name from the lock file's folder.
fn inputs(
    template: &Path,
    builds: &[Build],
    digests: &mut Digests,
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Digest> {
    let folder = template.parent().unwrap_or(Path::new(""));
    let mut found = BTreeMap::new();
    for build in builds {
        for input in build.files() {
            let name = match &input.file.location {
                Location::Path(path) => relative(folder, path),
                Location::Url(url) => url.clone(),
            };
            found.insert(name, input.digest);
        }
        for path in build.spec.definition_files() {
            let name = relative(folder, &path);
            let span = Span::default();
            let file = FileRef {
                location: Location::Path(path),
                sha256: None,
                kind: FileKind::File,
                span,
            };
            match digests.of(&file) {
                Ok(digest) => {
                    found.insert(name, digest);
                }
                Err(error) => problems.push(Diagnostic::error(error.to_string())),
            }
        }
    }
    found
}

/// `path` as seen from `folder`, with `/` between its parts.
fn relative(folder: &Path, path: &Path) -> String {
    let absolute = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        normal(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    };
    let (folder, path) = (absolute(folder), absolute(path));
    let shared = folder.iter().zip(path.iter()).take_while(|(a, b)| a == b).count();
    let up = folder.iter().skip(shared).map(|_| "..".into());
    let down = path.iter().skip(shared).map(|part| part.to_string_lossy());
    let parts: Vec<std::borrow::Cow<'_, str>> = up.chain(down).collect();
    parts.join("/")
}
