//! Little-endian fields out of byte slices whose length the caller has not checked.

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// UTF-16LE bytes as code units; an odd last byte is dropped.
pub(crate) fn utf16(bytes: &[u8]) -> Box<[u16]> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Whether UTF-16LE `bytes` spell the ASCII `text`.
pub(crate) fn is_ascii_name(bytes: &[u8], text: &str) -> bool {
    bytes.len() == text.len() * 2
        && bytes.chunks_exact(2).zip(text.bytes()).all(|(pair, c)| pair[0] == c && pair[1] == 0)
}
