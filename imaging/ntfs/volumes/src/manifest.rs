//! What was put into a volume.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha1::{Digest, Sha1};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub len_bytes: u64,
    pub sha1: [u8; 20],
}

/// Streams by path and stream name: `Windows/a.dll` or `Windows/a.dll:Zone.Identifier`.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub streams: BTreeMap<String, Known>,
}

impl Manifest {
    pub fn add(&mut self, path: &str, contents: &[u8]) {
        let known = Known { len_bytes: contents.len() as u64, sha1: Sha1::digest(contents).into() };
        self.streams.insert(path.to_owned(), known);
    }

    /// Another name of the same file.
    pub fn link(&mut self, of: &str, path: &str) {
        if let Some(&known) = self.streams.get(of) {
            self.streams.insert(path.to_owned(), known);
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.streams.values().map(|known| known.len_bytes).sum()
    }

    /// One line a stream: SHA-1, length, path.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, known) in &self.streams {
            for byte in known.sha1 {
                let _ = write!(text, "{byte:02x}");
            }
            let _ = writeln!(text, "\t{}\t{path}", known.len_bytes);
        }
        text
    }
}
