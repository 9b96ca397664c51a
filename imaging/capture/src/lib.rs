//! Disk image to WIM, and WIM to disk.
//!
//! ```text
//! disk image ─ partition (found by content) ─ file system ─ Tree ─ exclusions ─ WIM
//!                                                            └─ inventory
//! ```
//! Nothing is mounted, no privilege is needed, and the source is only ever opened for reading.
#![forbid(unsafe_code)]

mod capture;
mod error;
mod exclude;
mod index;
mod inventory;
mod layout;
mod lookup;
mod partition;
mod volume;
pub mod windows;

pub use capture::{CaptureOptions, CaptureRequest, Captured, Incremental, capture, capture_with};
pub use error::{CaptureError, Result};
pub use exclude::{ExcludeRules, Excluded, ScriptSection};
pub use gilt_ntfs::{Elsewhere, Encrypted, SpecialPolicy};
pub use index::index_path;
pub use inventory::{Inventory, Kind, OperatingSystem, Package, inventory};
pub use layout::{BootLoader, ExtraFile, LaidOut, LayoutRequest, OutFormat, layout};
pub use lookup::{Found, TreeView};
pub use partition::{
    FoundVolume, PartitionChoice, PartitionReport, VolumeKind, find_volume, find_volume_as_it_lies,
    survey,
};
pub use volume::{FileSystem, VolumeReader, open_volume};
