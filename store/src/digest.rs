//! Names of bytes: SHA-256, and SHA-256 with a size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// SHA-256. Written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// 64 hex digits, without the prefix.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        // One spelling only: lower case.
        (hex::encode(bytes) == text).then_some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.strip_prefix("sha256:").and_then(Self::from_hex).ok_or_else(|| {
            Error::invalid(format!("digest {text:?}"), "want sha256: and 64 lower-case hex digits")
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The key of a blob: digest and size of its decoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobId {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl BlobId {
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest, self.size)
    }
}

/// A little-endian reader over bytes that may be damaged: every read is checked.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    object: &'a str,
}

impl<'a> Cursor<'a> {
    pub fn new(object: &'a str, bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, object }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            let what = format!("cut short: wants {len} bytes, {} left", self.bytes.len() - self.at);
            return Err(Error::corrupt_at(self.object, self.at as u64, what));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn digest(&mut self) -> Result<Digest, Error> {
        Ok(Digest(self.array()?))
    }

    pub fn blob_id(&mut self) -> Result<BlobId, Error> {
        Ok(BlobId { digest: self.digest()?, size: self.u64()? })
    }

    /// A count of items of at least `item_len` bytes each, which must fit in what is left: so a
    /// damaged count cannot ask for memory the object does not have.
    pub fn count(&mut self, item_len: usize) -> Result<usize, Error> {
        let count = self.u32()? as usize;
        let left = self.bytes.len() - self.at;
        if count.checked_mul(item_len.max(1)).is_none_or(|need| need > left) {
            let what = format!("a count of {count} does not fit in the {left} bytes left");
            return Err(Error::corrupt_at(self.object, self.at as u64, what));
        }
        Ok(count)
    }

    pub fn at(&self) -> u64 {
        self.at as u64
    }

    pub fn finish(self) -> Result<(), Error> {
        if self.at != self.bytes.len() {
            let what = format!("{} bytes follow its end", self.bytes.len() - self.at);
            return Err(Error::corrupt_at(self.object, self.at as u64, what));
        }
        Ok(())
    }
}
