//! Directories of this machine as a source and as a target of trees.

mod capture;
mod extract;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod platform;
mod wanted;

pub use capture::{CaptureOptions, DirectoryContents, capture_directory};
pub use extract::{ExtractOptions, Extracted, extract_tree};
