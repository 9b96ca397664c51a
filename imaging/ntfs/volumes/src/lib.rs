//! Makes NTFS volumes of known contents, with every feature a capture must survive, by mkntfs and
//! ntfs-3g. For tests and benchmarks only. Needs root and `/dev/fuse`.
//!
//! ```text
//! Recipe (how much, seed) -> volume image + Manifest (SHA-1 of every stream a reader must see)
//! ```
#![cfg(unix)]

mod change;
mod contents;
mod manifest;
mod mount;
mod recipe;
mod windows;

pub use change::change;
pub use contents::{Rng, bytes};
pub use manifest::{Known, Manifest};
pub use mount::{Format, Mount, Ownership, format};
pub use recipe::{Recipe, make};
pub use windows::{Wof, ea, junction, other_reparse, security_descriptor, symlink};
