//! Cells, and little-endian fields in them.

use crate::base::BASE_BYTES;
use crate::error::{Error, Result};

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// An offset that leads nowhere.
pub(crate) const NONE: u32 = u32::MAX;

/// `Corrupt`, for a place in the cell at `offset`.
pub(crate) fn corrupt(offset: u32, what: &'static str) -> Error {
    Error::Corrupt { at: u64::from(offset) + BASE_BYTES as u64, what }
}

/// The contents of the cell in use at `offset`.
pub(crate) fn cell(bins: &[u8], offset: u32) -> Result<&[u8]> {
    let bad = |what| corrupt(offset, what);
    let at = offset as usize;
    if offset == NONE || !at.is_multiple_of(8) {
        return Err(bad("cell offset is not one"));
    }
    let size = u32_at(bins, at).ok_or_else(|| bad("cell lies beyond the end"))?.cast_signed();
    if size >= 0 {
        return Err(bad("cell is not in use"));
    }
    let size = size.unsigned_abs() as usize;
    at.checked_add(size)
        .filter(|_| size >= 8)
        .and_then(|end| bins.get(at + 4..end))
        .ok_or_else(|| bad("cell leaves the hive"))
}

/// A name: UTF-16LE, or one byte a character (Latin-1) where `latin` says so.
pub(crate) fn name(bytes: &[u8], latin: bool) -> String {
    if latin {
        bytes.iter().map(|&byte| char::from(byte)).collect()
    } else {
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    }
}

/// Whether two names are the same to Windows, whose table maps one character to one.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let upper = |c: char| {
        let mut many = c.to_uppercase();
        match (many.next(), many.next()) {
            (Some(one), None) => one,
            _ => c,
        }
    };
    a.chars().map(upper).eq(b.chars().map(upper))
}
