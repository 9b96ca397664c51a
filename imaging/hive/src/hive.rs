//! A hive in memory, made complete from its logs.

use std::collections::HashSet;

use crate::base::{BASE_BYTES, Base};
use crate::cell::corrupt;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::log::replay;

/// Windows allows 512 levels of keys.
const MAX_DEPTH: usize = 512;

/// What to do with a hive that no log completes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dirty {
    #[default]
    Refuse,
    /// Read what there is, for evidence. [`Hive::recovery`] tells.
    Read,
}

/// How complete a hive is, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Was completely written.
    Clean,
    /// So many entries of its logs were applied in memory.
    Replayed { entries: usize },
    /// Dirty, without a log that fits.
    Incomplete,
}

pub struct Hive {
    /// From the first bin on.
    bins: Vec<u8>,
    root: u32,
    minor: u32,
    recovery: Recovery,
}

impl std::fmt::Debug for Hive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hive")
            .field("bytes", &self.bins.len())
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

impl Hive {
    /// From the bytes of the hive file and of the logs that lie beside it (`.LOG`, `.LOG1`,
    /// `.LOG2`, in any order; those that do not belong are ignored).
    pub fn open(file: Vec<u8>, logs: &[Vec<u8>], dirty: Dirty) -> Result<Self> {
        let Some(base) = Base::parse(&file) else {
            return Err(Error::NotAHive("no regf signature"));
        };
        if file.len() < BASE_BYTES {
            return Err(Error::NotAHive("shorter than its header"));
        }
        if base.checksum_fits && (base.major != 1 || base.minor > 6) {
            return Err(Error::NotAHive("version is none that is known"));
        }
        let mut bins = file;
        bins.drain(..BASE_BYTES);
        let (mut root, mut length) = (base.root, base.bins_bytes);
        let mut recovery = Recovery::Clean;
        if !base.is_clean() {
            recovery = match replay(&base, &mut bins, logs) {
                Some(done) => {
                    (root, length) = (done.root, done.bins_bytes);
                    Recovery::Replayed { entries: done.entries }
                }
                None if dirty == Dirty::Read => Recovery::Incomplete,
                None => {
                    return Err(Error::Dirty {
                        primary: base.primary,
                        secondary: base.secondary,
                        logs: logs.len(),
                    });
                }
            };
        }
        // Behind the bins there may be room for growth; a cut file is met when a cell is missing.
        bins.truncate(length as usize);
        let minor = base.minor;
        let hive = Self { bins, root, minor, recovery };
        hive.root()?;
        Ok(hive)
    }

    pub(crate) fn bins(&self) -> &[u8] {
        &self.bins
    }

    pub(crate) fn minor_version(&self) -> u32 {
        self.minor
    }

    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    pub fn root(&self) -> Result<Key<'_>> {
        Key::at(self, self.root)
    }

    /// The key at a path below the root, parts divided by `\`, without regard to case.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.root()?.descend(path)
    }

    /// Shows every key with the names above it, parents first. A key met twice or too deep is an
    /// error, so this ends.
    pub fn walk(&self, mut each: impl FnMut(&[String], Key<'_>) -> Result<()>) -> Result<()> {
        let mut seen = HashSet::new();
        let mut path: Vec<String> = Vec::new();
        let mut stack = vec![(0, self.root()?)];
        while let Some((depth, key)) = stack.pop() {
            if !seen.insert(key.offset()) {
                return Err(corrupt(key.offset(), "key lies in two places or in itself"));
            }
            if depth > MAX_DEPTH {
                return Err(corrupt(key.offset(), "keys are nested too deep"));
            }
            path.truncate(depth.saturating_sub(1));
            if depth > 0 {
                path.push(key.name());
            }
            each(&path, key)?;
            let mut subkeys = key.subkeys()?;
            subkeys.reverse();
            stack.extend(subkeys.into_iter().map(|subkey| (depth + 1, subkey)));
        }
        Ok(())
    }
}
