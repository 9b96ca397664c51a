//! The lock file: every input of a template by digest, in `gilt.lock` beside it.
//!
//! With `--locked`, a build takes only inputs whose bytes are those of the lock file.

pub mod digest;

pub use digest::{Digests, InputError};

use crate::content_hash::Digest;
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
    /// Template's name -> input as it is named from the lock file's folder -> digest.
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
        crate::home::write_atomically(path, text.as_bytes())
    }
}
