//! ext4 and FAT volumes as a `gilt_wim::tree::Tree`.
//!
//! ```text
//! BlockRead ─ Ext4Volume::open ─ superblock, group descriptors, journal replayed in memory
//!             Ext4Volume::tree ─ all inode tables front to back, then the directories
//!             ContentSource    ─ ContentId = inode number; reads by extents from many threads
//! ```
//! The reader is our own: it reads inode tables sequentially instead of by path, tells where a file
//! lies (for reading in disk order and for incremental capture), needs no lock between threads, and
//! bounds everything a hostile image can ask for.
#![forbid(unsafe_code)]

mod build;
mod bytes;
mod dir;
mod error;
mod extents;
mod fat;
mod inode;
mod journal;
mod layout;
mod scan;
mod volume;
mod xattr;

pub use build::{Advance, BuildOptions, Built, WriteAt, build};
pub use error::{Ext4Error, Result};
pub use extents::Mapping;
pub use fat::FatVolume;
pub use volume::{Ext4Volume, VolumeInfo};
