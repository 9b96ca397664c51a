//! Numbers out of raw bytes. Each returns `None` when the bytes are not there.

fn take<const N: usize>(raw: &[u8], at: usize) -> Option<[u8; N]> {
    raw.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub fn be16(raw: &[u8], at: usize) -> Option<u16> {
    take(raw, at).map(u16::from_be_bytes)
}

pub fn be32(raw: &[u8], at: usize) -> Option<u32> {
    take(raw, at).map(u32::from_be_bytes)
}

pub fn be64(raw: &[u8], at: usize) -> Option<u64> {
    take(raw, at).map(u64::from_be_bytes)
}

pub fn le16(raw: &[u8], at: usize) -> Option<u16> {
    take(raw, at).map(u16::from_le_bytes)
}

pub fn le32(raw: &[u8], at: usize) -> Option<u32> {
    take(raw, at).map(u32::from_le_bytes)
}

pub fn le64(raw: &[u8], at: usize) -> Option<u64> {
    take(raw, at).map(u64::from_le_bytes)
}

pub fn guid(raw: &[u8], at: usize) -> Option<[u8; 16]> {
    take(raw, at)
}
