//! Registry hives of a powered-off Windows, read only.
//!
//! ```text
//! base block 4096 bytes  "regf"  sequence 1, sequence 2 ... root cell, length, checksum
//! bins                   cells: i32 size (negative = in use), then nk, vk, lf, lh, li, ri, db or data
//! .LOG1 .LOG2            what was not yet written into the bins when the machine stopped
//! ```
//! A hive whose two sequences differ is dirty, which is normal. Its logs are applied in memory;
//! without logs that fit it is refused, or read as it is where told.
//!
//! The format follows the public specification of the Windows registry file format by M. Suhanov.
//!
//! **Invariant:** no file is written; no offset is trusted; no read costs more than the hive is
//! long; key graphs may have loops and a walk still ends.
#![forbid(unsafe_code)]

mod base;
mod cell;
mod error;
mod hive;
mod key;
mod log;
mod value;

pub use error::{Error, Result};
pub use hive::{Dirty, Hive, Recovery};
pub use key::Key;
pub use value::{Kind, Value};
