//! Disk images and partition tables as random-access bytes.
//!
//! ```text
//! open(path) -> Disk ── BlockRead ── partitions(..) -> PartitionTable ── Slice: BlockRead
//!                │
//!                └─ layers: top ── backing ── backing ..   (qcow2 chains, differencing VHDX)
//! ```
//! Images are only ever opened for reading, nothing is mounted and no privilege is needed. A disk a
//! running machine may still write to is refused (see [`ImageFile`]).
//!
//! All readers are positional and may be used from many threads at once.
#![forbid(unsafe_code)]

mod block;
mod bytes;
mod cache;
mod cursor;
mod decompress;
mod error;
mod file;
mod open;
mod partition;
mod qcow2;
mod raw;
mod slice;
mod vhd;
mod vhdx;

pub use block::{BlockRead, Extent, ExtentContent, extent_list};
pub use cursor::BlockCursor;
pub use error::{DiskError, Result};
pub use file::{FileStamp, ImageFile};
pub use open::{Disk, Format, LayerInfo, OpenOptions, detect, open, open_with};
pub use partition::{
    Guid, Partition, PartitionKind, PartitionTable, TableKind, partitions, type_guid,
};
pub use qcow2::{Qcow2, write_qcow2};
pub use raw::Raw;
pub use slice::Slice;
pub use vhd::Vhd;
pub use vhdx::{Vhdx, write_vhdx};
