//! Builds a fresh ext4 volume from a tree, front to back, without mounting anything.
//!
//! A volume nobody wrote to before needs no allocator policy and no journal transactions: everything is
//! counted first, then laid out in one go, and file data is written by all threads at once.
//!
//! ```text
//! geometry ─ plan (inode numbers, blocks of directories, attributes, files) ─ metadata ─ data ─ superblocks
//!
//! flex group: superblock, descriptors │ 16 block bitmaps │ 16 inode bitmaps │ 16 inode tables │ blocks ..
//! ```
//! The features are those of Debian's `mke2fs -t ext4` but for the inode that reserves room for
//! resizing (Linux grows such volumes by meta block groups). The bytes depend on the arguments alone.

mod attributes;
mod data;
mod directory;
mod geometry;
mod inodes;
mod superblock;

use crate::error::{Ext4Error, Result};
use geometry::{Allocator, BLOCK_BYTES, Geometry};
use gilt_wim::tree::{ContentSource, Tree};
use std::io;

/// Where a volume is written. Bytes never written read as zeros.
pub trait WriteAt: Sync {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Size of the volume in bytes; what does not fill a block is left over.
    pub size_bytes: u64,
    /// At most 16 bytes.
    pub label: String,
    pub uuid: [u8; 16],
    /// Seconds since 1970, noted as the time of making.
    pub created: u32,
    /// Threads that copy file data.
    pub threads: usize,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u32,
}

/// Told how many bytes of file data were written; returning `false` stops the work.
pub type Advance<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// Writes a volume that holds `tree` to `out`.
pub fn build(
    tree: &Tree,
    contents: &dyn ContentSource,
    out: &dyn WriteAt,
    options: &BuildOptions,
    advance: Advance<'_>,
) -> Result<Built> {
    if options.label.len() > 16 {
        return Err(Ext4Error::Unsupported {
            what: format!("label {:?} is longer than 16 bytes", options.label),
        });
    }
    let numbers = inodes::Numbers::assign(tree)?;
    let geometry = Geometry::new(options.size_bytes, numbers.last())?;
    let mut space = Allocator::new(&geometry);
    let ids = superblock::Ids::new(options);
    let plan = inodes::Plan::new(tree, contents, &numbers, &geometry, &mut space, &ids)?;
    data::write(&plan.files, tree, contents, out, options.threads, advance)?;
    for (block, bytes) in &plan.blocks {
        out.write_at(block * BLOCK_BYTES, bytes)?;
    }
    plan.write_inode_tables(&geometry, out)?;
    let built = superblock::write(&geometry, &space, &plan, &ids, out)?;
    Ok(built)
}
