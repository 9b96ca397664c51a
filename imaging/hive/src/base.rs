//! The base block of hives and logs.
//!
//! ```text
//! 0x00 "regf"  0x04 u32 sequence 1  0x08 u32 sequence 2  0x0C u64 last written
//! 0x14 u32 major  0x18 u32 minor  0x1C u32 type (0 hive, 1 2 6 log)  0x24 u32 root cell
//! 0x28 u32 length of bins  0x2C u32 sectors  0x1FC u32 checksum
//! ```

use crate::cell::{u32_at, u64_at};

/// Where bins begin in a hive file; cell offsets count from there.
pub(crate) const BASE_BYTES: usize = 4096;
const CHECKED_BYTES: usize = 508;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub primary: u32,
    pub secondary: u32,
    pub last_written: u64,
    pub major: u32,
    pub minor: u32,
    pub file_type: u32,
    pub root: u32,
    pub bins_bytes: u32,
    pub checksum_fits: bool,
}

impl Base {
    /// `None` if it has no magic or is cut.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != b"regf" {
            return None;
        }
        let field = |at| u32_at(bytes, at);
        let checked = bytes.get(..CHECKED_BYTES)?;
        Some(Self {
            primary: field(4)?,
            secondary: field(8)?,
            last_written: u64_at(bytes, 12)?,
            major: field(20)?,
            minor: field(24)?,
            file_type: field(28)?,
            root: field(36)?,
            bins_bytes: field(40)?,
            checksum_fits: checksum(checked) == field(CHECKED_BYTES)?,
        })
    }

    /// Length of the base block's copy at the start of a log.
    pub const LOG_BASE_BYTES: usize = 512;

    pub fn is_clean(&self) -> bool {
        self.checksum_fits && self.primary == self.secondary
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let xor = bytes
        .chunks_exact(4)
        .fold(0, |xor, word| xor ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    match xor {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        other => other,
    }
}
