//! What is published, and who watches it being done.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub enum Source {
    Path(PathBuf),
    Bytes(Bytes),
}

impl Source {
    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Self::Path(path) => std::fs::metadata(path)
                .map(|meta| meta.len())
                .map_err(|error| Error::io("reading", path, error)),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Path(path) => {
                let file = File::open(path).map_err(|error| Error::io("opening", path, error))?;
                Ok(Box::new(file))
            }
            Self::Bytes(bytes) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Bytes(_) => Path::new("bytes in memory"),
        }
    }
}

/// Asked for by the caller while work goes on.
#[derive(Clone, Default)]
pub struct Watch {
    /// Told how many bytes more are done.
    pub progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
    /// Set from outside to stop; what is stored by then is used by the next try.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Watch {
    pub(crate) fn step(&self, bytes: u64) -> Result<()> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        if let Some(progress) = &self.progress {
            progress(bytes);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
