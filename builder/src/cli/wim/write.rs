//! Flags of all verbs that write a WIM.

use super::{failed, interrupt::Watched};
use crate::cli::{Context, Failure};
use clap::{Args, ValueEnum};
use gilt_capture::TreeView;
use gilt_capture::windows::describe_windows;
use gilt_wim::tree::{FileTime, Tree};
use gilt_wim::{
    CaptureOptions, DirectoryContents, ImageInfo, Level, WriteOptions, Written, capture_directory,
};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, ValueEnum)]
pub enum Compression {
    None,
    Xpress,
    Lzx,
    Lzms,
}

impl From<Compression> for gilt_wim::Compression {
    fn from(value: Compression) -> Self {
        match value {
            Compression::None => Self::None,
            Compression::Xpress => Self::Xpress,
            Compression::Lzx => Self::Lzx,
            Compression::Lzms => Self::Lzms,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum LevelName {
    Fast,
    Default,
    Max,
}

impl From<LevelName> for Level {
    fn from(value: LevelName) -> Self {
        match value {
            LevelName::Fast => Self::Fast,
            LevelName::Default => Self::Default,
            LevelName::Max => Self::Max,
        }
    }
}

#[derive(Args)]
pub struct WriteArgs {
    /// How hard to compress
    #[arg(long, value_enum, default_value = "default")]
    pub level: LevelName,
    /// Append an integrity table (a WIM that has one keeps it)
    #[arg(long)]
    pub integrity: bool,
    /// Threads that read and compress [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Do not wait for the disk before the file appears
    #[arg(long)]
    pub no_sync: bool,
    /// Seconds since 1970 for the creation time of new images, to get the same bytes again
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    pub timestamp: Option<i64>,
}

impl WriteArgs {
    pub fn apply(&self, options: WriteOptions) -> WriteOptions {
        let threads = self.threads.unwrap_or_else(gilt_wim::default_threads);
        WriteOptions {
            level: self.level.into(),
            integrity: self.integrity || options.integrity,
            threads: threads.max(1),
            sync: !self.no_sync,
            creation_time: self.timestamp.map(|seconds| FileTime::from_unix(seconds, 0)),
            ..options
        }
    }
}

/// Flags of verbs that read a directory.
#[derive(Args)]
pub struct CaptureArgs {
    /// Leave out owner, mode, extended attributes and special files of Unix
    #[arg(long)]
    pub no_unix_data: bool,
    /// Leave out this path, relative to the directory; may be given several times
    #[arg(long, value_name = "PATH")]
    pub exclude: Vec<PathBuf>,
    /// Stay on the file system of the directory
    #[arg(long)]
    pub one_file_system: bool,
}

impl CaptureArgs {
    pub fn capture(&self, dir: &Path) -> Result<(Tree, DirectoryContents), Failure> {
        let options = CaptureOptions {
            unix_data: !self.no_unix_data,
            exclude: self.exclude.clone(),
            one_file_system: self.one_file_system,
            ..CaptureOptions::default()
        };
        capture_directory(dir, &options).map_err(|error| failed("capture", error))
    }
}

/// Adds what deployment tools read of an image, where the directory holds a Windows.
pub fn describe(tree: &Tree, contents: &DirectoryContents, info: &mut ImageInfo) {
    let view = TreeView { tree, contents, ignores_case: true };
    if let Err(error) = describe_windows(view, info) {
        eprintln!("warning: the image will lack the properties Setup and MDT read: {error}");
    }
}

/// The name of a directory, for an image that was given none.
pub fn default_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    full.file_name().map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned())
}

/// Writes with a progress bar, and says what came of it.
pub fn report(
    context: &Context,
    path: &Path,
    label: &'static str,
    work: impl FnOnce(&Watched<'_>) -> gilt_wim::Result<Written>,
) -> Result<(), Failure> {
    let watched = Watched::new(context, label);
    let written = work(&watched).map_err(|error| failed(path.display(), error))?;
    drop(watched);
    if context.json {
        let line = json!({
            "path": path, "file_bytes": written.file_bytes, "total_bytes": written.total_bytes,
            "unique_bytes": written.unique_bytes, "copied_bytes": written.lent_bytes,
            "resources": written.resources.len(),
        });
        println!("{line}");
    } else {
        println!(
            "{}: {} bytes for {} bytes of files ({} without duplicates)",
            path.display(),
            written.file_bytes,
            written.total_bytes,
            written.unique_bytes
        );
    }
    Ok(())
}
