//! NTFS, read whole: one sequential pass over `$MFT` gives a [`gilt_wim::tree::Tree`], and the
//! same [`Volume`] opens the contents.
//!
//! ```text
//! boot sector -> $MFT's runs -> clean? -> every record in order -> names linked -> Tree
//!                                             $Secure:$SDS ------------^
//! ```
//! Real contents are what a program in Windows would read: NTFS compression and system compression
//! (`compact /compactos`) are undone, sparse and never written parts are zeros. Files whose
//! contents are elsewhere (EFS, deduplication, cloud) are told apart: [`Volume::specials`].
//!
//! The format is described by nobody in one place; this follows the layouts in [MS-FSCC],
//! [MS-XCA], the documentation of the Linux-NTFS project and volumes written by ntfs-3g.
//!
//! **Invariant:** nothing is written, no directory index is read, no byte of the volume is trusted.
#![forbid(unsafe_code)]

mod boot;
mod content;
mod error;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
mod mft;
mod object_id;
mod raw;
mod record;
mod runs;
mod scan;
mod secure;
mod special;
mod state;
mod volume;
mod wof;

pub use boot::Geometry;
pub use error::{Error, Place, Result, Unclean};
pub use record::FileRef;
pub use special::{Elsewhere, Encrypted, Special, SpecialKind, SpecialPolicy};
pub use volume::{
    Damage, Extent, Limits, Note, NoteKind, Options, Stamp, Storage, UncleanPolicy, Volume,
};
