//! How the bytes of one blob are kept in a pack.

use std::io::{Read, Write};

use crate::digest::BlobId;
use crate::error::{Error, Result};

/// Blobs are read into memory; larger ones are cut before they come here.
pub(crate) const MAX_BLOB: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Encoding {
    /// As it is: what is compressed already.
    Raw,
    Zstd,
    /// zstd against another blob, as `zstd --patch-from` does it.
    Delta,
}

impl Encoding {
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::Delta => 2,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd, Self::Delta].into_iter().find(|e| e.code() == code)
    }
}

/// Memory taken for a blob before any of its bytes are there.
const FIRST: usize = 64 << 20;
/// Kept compressed only if that saves at least one part in this many.
const WORTH: usize = 20;

/// Raw or zstd, whichever is smaller.
pub(crate) fn pack(bytes: &[u8]) -> Result<(Encoding, Option<Vec<u8>>)> {
    let level = if bytes.len() > 1 << 20 { 3 } else { 9 };
    let packed = zstd::bulk::compress(bytes, level).map_err(|e| Error::io("compressing", "", e))?;
    if packed.len() + bytes.len() / WORTH < bytes.len() {
        Ok((Encoding::Zstd, Some(packed)))
    } else {
        Ok((Encoding::Raw, None))
    }
}

/// A window that spans the base and the new bytes, so that any part of the base can be copied.
fn window_log(base: usize, new: usize) -> u32 {
    let span = (base + new).max(1 << 10) as u64;
    (u64::BITS - (span - 1).leading_zeros()).clamp(10, 31)
}

/// `bytes` as a patch on `base`.
pub(crate) fn patch(base: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
    let fail = |error| Error::io("compressing", "", error);
    let level = if bytes.len() > 8 << 20 { 6 } else { 9 };
    let mut encoder =
        zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), level, base).map_err(fail)?;
    encoder.long_distance_matching(true).map_err(fail)?;
    encoder.window_log(window_log(base.len(), bytes.len())).map_err(fail)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64)).map_err(fail)?;
    encoder.write_all(bytes).map_err(fail)?;
    encoder.finish().map_err(fail)
}

/// Undoes [`pack`] and [`patch`]. `object` and `at` say where the stored bytes are, for the error.
pub(crate) fn decode(
    id: &BlobId,
    encoding: Encoding,
    stored: &[u8],
    base: Option<&[u8]>,
    object: &str,
    at: u64,
) -> Result<Vec<u8>> {
    let corrupt =
        |what: String| Error::corrupt_at(object, at, format!("blob {}: {what}", id.digest));
    if id.size > MAX_BLOB {
        return Err(corrupt(format!("{} bytes are more than a blob may have", id.size)));
    }
    let size = usize::try_from(id.size).map_err(|_| corrupt("too large for this host".into()))?;
    // One byte more than expected is enough to know that it is too long.
    let limit = id.size + 1;
    // The size is only claimed; more is taken as the bytes come.
    let mut bytes = Vec::with_capacity((size + 1).min(FIRST));
    let read = match (encoding, base) {
        (Encoding::Raw, _) => {
            bytes.extend_from_slice(stored);
            Ok(0)
        }
        (Encoding::Zstd, _) => zstd::stream::read::Decoder::new(stored)
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut bytes)),
        (Encoding::Delta, Some(base)) => zstd::stream::read::Decoder::with_ref_prefix(stored, base)
            .and_then(|mut decoder| {
                // No more than the patch was made with.
                decoder.window_log_max(window_log(base.len(), size))?;
                decoder.take(limit).read_to_end(&mut bytes)
            }),
        (Encoding::Delta, None) => return Err(corrupt("a delta whose base is not known".into())),
    };
    read.map_err(|error| corrupt(error.to_string()))?;
    if BlobId::of(&bytes) != *id {
        return Err(corrupt(format!("its bytes have the digest {}", BlobId::of(&bytes))));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_a_small_change_is_small_and_gives_the_bytes_back() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        let base: Vec<u8> = (0..3_000_000).map(|_| noise()).collect();
        let mut bytes = base.clone();
        bytes.splice(1_000_000..1_000_100, (0..300).map(|_| noise()));
        let patch = patch(&base, &bytes).unwrap();
        assert!(patch.len() < 2_000, "patch of 300 bytes takes {}", patch.len());
        let id = BlobId::of(&bytes);
        let read = decode(&id, Encoding::Delta, &patch, Some(&base), "pack", 0).unwrap();
        assert_eq!(read, bytes);
        let wrong = decode(&id, Encoding::Delta, &patch, Some(&bytes), "pack", 7);
        assert!(wrong.unwrap_err().to_string().contains("pack is damaged at 0x7"));
    }

    #[test]
    fn compression_is_kept_only_where_it_saves() {
        assert_eq!(pack(&[7; 5000]).unwrap().0, Encoding::Zstd);
        let noise: Vec<u8> =
            (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (encoding, packed) = pack(&noise[..16]).unwrap();
        assert_eq!((encoding, packed), (Encoding::Raw, None));
    }
}
