//! Little-endian numbers out of raw bytes; bytes that are not there read as `None`.

pub fn take<const N: usize>(raw: &[u8], at: usize) -> Option<[u8; N]> {
    raw.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub fn le16(raw: &[u8], at: usize) -> Option<u16> {
    take(raw, at).map(u16::from_le_bytes)
}

pub fn le32(raw: &[u8], at: usize) -> Option<u32> {
    take(raw, at).map(u32::from_le_bytes)
}

pub fn be32(raw: &[u8], at: usize) -> Option<u32> {
    take(raw, at).map(u32::from_be_bytes)
}

pub fn be16(raw: &[u8], at: usize) -> Option<u16> {
    take(raw, at).map(u16::from_be_bytes)
}

/// Two halves of a 64-bit number.
pub fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// CRC-32C as ext4 uses it: no inversion before or after.
pub fn crc32c_raw(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}
