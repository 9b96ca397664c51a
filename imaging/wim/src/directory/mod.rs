//! Directories of this machine as a source and as a target of trees.

#[cfg(unix)]
mod capture;
#[cfg(unix)]
mod extract;
#[cfg(unix)]
mod wanted;

#[cfg(unix)]
pub use capture::{CaptureOptions, DirectoryContents, capture_directory};
#[cfg(unix)]
pub use extract::{ExtractOptions, Extracted, extract_tree};
