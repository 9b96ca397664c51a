//! The one way gilt turns *what was asked* into a key.
//!
//! Every value is framed, so that no two different values feed the same bytes to the hash:
//!
//! ```text
//! tag ':' length(u64 LE) bytes      for leaves
//! tag ':' count(u64 LE) items…      for lists and maps
//! ```
//!
//! While hashing, three things are set aside instead of being buried in the hash, so that a miss
//! can be explained by name: values that came from a variable, a parameter or the matrix
//! ([`ContentHasher::reference`]), and files ([`ContentHasher::file`]), whose bytes are digested
//! later. Their *names* are part of the hash; their digests are added as named inputs beside it.

use crate::template::FileRef;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a SHA-256 digest is 64 hexadecimal digits, this has {found} characters")]
pub struct NotADigest {
    pub found: usize,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 digits: enough to tell keys apart on a screen.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl std::str::FromStr for Digest {
    type Err = NotADigest;

    /// 64 hexadecimal digits, with or without `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| NotADigest { found: digits.chars().count() })?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A value that is part of a key.
pub trait ContentHash {
    fn content_hash(&self, hasher: &mut ContentHasher);
}

/// A file met while hashing: its bytes are part of the key under `name`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileUse {
    pub name: String,
    pub file: FileRef,
}

/// Collects framed values. See the module's page for the frame.
#[derive(Default)]
pub struct ContentHasher {
    sha: Sha256,
    references: BTreeMap<String, Digest>,
    files: Vec<FileUse>,
}

impl ContentHasher {
    pub fn new() -> Self {
        Self::default()
    }

    /// A leaf: `tag`, length, bytes.
    pub fn leaf(&mut self, tag: &str, bytes: &[u8]) {
        self.frame(tag, bytes.len());
        self.sha.update(bytes);
    }

    /// The head of a group of `count` values, which must follow.
    pub fn frame(&mut self, tag: &str, count: usize) {
        self.sha.update((tag.len() as u64).to_le_bytes());
        self.sha.update(tag.as_bytes());
        self.sha.update(b":");
        self.sha.update((count as u64).to_le_bytes());
    }

    /// A value that came from elsewhere by name (`variable hostname`): the name is hashed here,
    /// the value becomes a named input.
    pub fn reference(&mut self, name: &str, value: Digest) {
        self.leaf("reference", name.as_bytes());
        self.references.insert(name.to_owned(), value);
    }

    /// A file: its name is hashed here, its bytes become a named input. A name that was used
    /// before for another file gets a number, so that the link between use and bytes is kept.
    pub fn file(&mut self, name: &str, file: &FileRef) {
        let mut unique = name.to_owned();
        let mut number = 1;
        while self.files.iter().any(|seen| seen.name == unique && seen.file != *file) {
            number += 1;
            unique = format!("{name} ({number})");
        }
        self.leaf("file", unique.as_bytes());
        if !self.files.iter().any(|seen| seen.name == unique) {
            self.files.push(FileUse { name: unique, file: file.clone() });
        }
    }

    /// The digest of what was hashed since the last one. References and files stay.
    pub fn digest(&mut self) -> Digest {
        Digest(self.sha.finalize_reset().into())
    }

    /// The digest of one value.
    pub fn digest_of(&mut self, value: &(impl ContentHash + ?Sized)) -> Digest {
        value.content_hash(self);
        self.digest()
    }

    /// Digest of the value of each variable, parameter and matrix axis that was met.
    pub fn references(&self) -> &BTreeMap<String, Digest> {
        &self.references
    }

    /// The files that were met, in order, each under a name that occurs once.
    pub fn files(&self) -> &[FileUse] {
        &self.files
    }
}

/// The digest of one value, where its references and files are of no interest.
pub fn digest_of(value: &(impl ContentHash + ?Sized)) -> Digest {
    ContentHasher::new().digest_of(value)
}

impl ContentHash for str {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.leaf("text", self.as_bytes());
    }
}

impl ContentHash for String {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.as_str().content_hash(hasher);
    }
}

impl ContentHash for bool {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.leaf("bool", &[u8::from(*self)]);
    }
}

macro_rules! hash_integers {
    ($($type:ty),*) => { $(
        impl ContentHash for $type {
            fn content_hash(&self, hasher: &mut ContentHasher) {
                hasher.leaf("int", &i128::from(*self).to_le_bytes());
            }
        }
    )* };
}
hash_integers!(u8, u16, u32, u64, i32, i64);

impl<T: ContentHash> ContentHash for Option<T> {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        match self {
            None => hasher.frame("none", 0),
            Some(value) => {
                hasher.frame("some", 1);
                value.content_hash(hasher);
            }
        }
    }
}

impl<T: ContentHash> ContentHash for Vec<T> {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.frame("list", self.len());
        for item in self {
            item.content_hash(hasher);
        }
    }
}

impl<T: ContentHash> ContentHash for BTreeMap<String, T> {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.frame("map", self.len());
        for (name, value) in self {
            hasher.leaf("key", name.as_bytes());
            value.content_hash(hasher);
        }
    }
}
