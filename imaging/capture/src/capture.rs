//! One disk, one partition, one WIM.

use crate::error::{CaptureError, Result};
use crate::exclude::{ExcludeRules, Excluded};
use crate::inventory::{Inventory, inventory};
use crate::lookup::TreeView;
use crate::partition::{PartitionChoice, find_volume};
use crate::volume::FileSystem;
use gilt_disk::{OpenOptions, open_with};
use gilt_wim::{ImageInfo, ImageSource, Progress, WriteOptions, Written, create};
use std::path::{Path, PathBuf};

pub struct CaptureRequest<'a> {
    /// An image of any format we read, of a machine that is off.
    pub disk: &'a Path,
    pub open: OpenOptions,
    pub partition: PartitionChoice,
    /// `None`: what is usual for the system found.
    pub exclude: Option<ExcludeRules>,
    pub out: &'a Path,
    /// NAME and what else is known of the image.
    pub info: ImageInfo,
    /// Compression, threads, lenders.
    pub write: WriteOptions,
    pub progress: &'a dyn Progress,
}

/// What was captured.
#[derive(Clone, Debug)]
pub struct Captured {
    pub wim: PathBuf,
    pub written: Written,
    pub info: ImageInfo,
    pub partition: u32,
    pub file_system: FileSystem,
    pub label: String,
    pub inventory: Option<Inventory>,
    pub excluded: Excluded,
}

/// Captures the file system of a powered-off machine into a new WIM of one image.
pub fn capture(request: &CaptureRequest<'_>) -> Result<Captured> {
    let disk = open_with(request.disk, &request.open)?;
    let found = find_volume(&disk, request.partition)?;
    let file_system = found.reader.file_system();
    let default_rules;
    let rules = match &request.exclude {
        Some(rules) => rules,
        None => {
            default_rules = match file_system {
                FileSystem::Ext4 => ExcludeRules::linux_default(),
            };
            &default_rules
        }
    };
    let ignores_case = file_system.ignores_case();
    let (tree, excluded) = rules.apply(found.tree, ignores_case);
    let contents = found.reader.contents();
    let inventory = inventory(TreeView { tree: &tree, contents, ignores_case })?;
    let info = request.info.clone();
    let image = ImageSource { tree: &tree, contents, info: info.clone() };
    // The WIM gets its name only when the source is proved to have been one state of the disk.
    let partial = Partial::beside(request.out);
    let written = create(&partial.0, &[image], &request.write, request.progress)?;
    if let Some(path) = disk.changed_file()? {
        return Err(CaptureError::Changed { path });
    }
    partial.publish(request.out)?;
    Ok(Captured {
        wim: request.out.to_owned(),
        written,
        info,
        partition: found.number,
        file_system,
        label: found.reader.label(),
        inventory,
        excluded,
    })
}

/// A file that goes away unless it is published.
struct Partial(PathBuf);

impl Partial {
    fn beside(out: &Path) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or("image.wim".as_ref()));
        name.push(format!(".capture-{}", std::process::id()));
        Self(out.with_file_name(name))
    }

    fn publish(self, out: &Path) -> Result<()> {
        std::fs::rename(&self.0, out).map_err(CaptureError::io(out))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Published, it is no longer there.
        let _ = std::fs::remove_file(&self.0);
    }
}
