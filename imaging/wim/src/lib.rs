//! WIM engine: read, write, verify and transform Windows Imaging files, in safe Rust.
#![forbid(unsafe_code)]

mod blob;
mod codec;
mod diff;
mod directory;
mod error;
mod hash;
mod header;
mod info;
mod integrity;
pub mod loose;
mod metadata;
mod progress;
mod read_at;
mod resource;
mod split;
mod transform;
pub mod tree;
pub mod unix_names;
mod verify;
mod wim;
pub mod windows_names;
mod write;
pub mod xml;

pub use codec::{Compression, DEFAULT_CHUNK_BYTES, Level};
pub use diff::{Change, ChangeKind, Reason, Side, diff};
pub use directory::{
    CaptureOptions, DirectoryContents, ExtractOptions, Extracted, capture_directory, extract_tree,
};
pub use error::{Error, Result};
pub use header::{Header, ResourceHeader, header_flag, resource_flag};
pub use info::{ImageCounts, ImageInfo, WindowsInfo};
pub use metadata::Hashes;
pub use progress::Progress;
pub use read_at::ReadAt;
pub use split::{SplitOptions, part_path, split};
pub use transform::{LoadedImage, append, delete, optimize};
pub use verify::Verified;
pub use wim::{ResourceInfo, Wim, WimContents};
pub use write::{ImageSource, WriteOptions, Written, create, default_threads};
