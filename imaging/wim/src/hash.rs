//! SHA-1 of bytes and streams.

use crate::tree::Sha1;
use sha1::Digest;

pub(crate) fn sha1(bytes: &[u8]) -> Sha1 {
    Sha1(sha1::Sha1::digest(bytes).into())
}

/// SHA-1 of bytes that come in pieces.
#[derive(Default)]
pub(crate) struct Hasher(sha1::Sha1);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Sha1 {
        Sha1(self.0.finalize().into())
    }
}
