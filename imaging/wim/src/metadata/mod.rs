//! The metadata resource of an image: security descriptors and the tree of dentries.
//!
//! ```text
//! security  total u32, count u32, size u64 × count, descriptors, zero to a multiple of 8
//! root dentry, 8 zero bytes, then per directory: its dentries, then 8 zero bytes
//!
//! dentry    0 length u64       8 attributes u32   12 security id i32   16 children at u64
//!          24 unused u64 × 2  40 created  48 accessed  56 written (FILETIME)
//!          64 SHA-1[20]       84 unused u32
//!          88 reparse tag u32, reserved u16, flags u16  or  hard-link group u64
//!          96 extra streams u16  98 short name bytes u16  100 name bytes u16
//!         102 name, 0 u16, short name, 0 u16 (each if not empty), zero to 8, tagged items
//! streams   0 length u64  8 unused u64  16 SHA-1[20]  36 name bytes u16  38 name, 0 u16
//! ```
//! Dentries, stream entries and tagged items start at multiples of 8.

mod read;
mod tagged;
mod write;

pub(crate) use read::{Resolve, read_tree};
pub use write::Hashes;
pub(crate) use write::{collation_key, write_tree};

pub(crate) const DENTRY_BYTES: usize = 102;
pub(crate) const STREAM_BYTES: usize = 38;

pub(crate) fn align8(value: usize) -> usize {
    value.div_ceil(8) * 8
}
