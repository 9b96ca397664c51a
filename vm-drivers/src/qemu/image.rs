//! Disk images by way of `qemu-img`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    process::Invocation,
    spec::DiskFormat,
};

const QUICK: Duration = Duration::from_secs(30);
/// Flattening copies a whole disk; on a slow host that takes long.
const COPY: Duration = Duration::from_secs(4 * 3600);

fn refuse_existing(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::io("create", path)(std::io::ErrorKind::AlreadyExists.into()));
    }
    Ok(())
}

/// `qemu-img` reads `proto:rest` as a protocol; a leading `./` or `/` keeps a name a name.
fn as_file_name(path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_path_buf() } else { Path::new(".").join(path) }
}

pub async fn create(path: &Path, format: DiskFormat, size_bytes: u64) -> Result<()> {
    refuse_existing(path)?;
    Invocation::new("qemu-img")
        .args(["create", "-q", "-f", format.qemu_name()])
        .arg(as_file_name(path))
        .arg(size_bytes.to_string())
        .run(QUICK)
        .await?;
    Ok(())
}

/// An overlay names its base by the absolute path, so that it works from any folder.
pub async fn create_overlay(base: &Path, base_format: DiskFormat, path: &Path) -> Result<()> {
    refuse_existing(path)?;
    let base = std::path::absolute(base).map_err(Error::io("find", base))?;
    Invocation::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", base_format.qemu_name(), "-b"])
        .arg(&base)
        .arg(as_file_name(path))
        .run(QUICK)
        .await?;
    Ok(())
}

/// Copies to a unique name first, so that a file of the final name is always whole.
pub async fn flatten(disk: &Path, to: &Path, to_format: DiskFormat) -> Result<()> {
    refuse_existing(to)?;
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".flatten-")
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))?
        .into_temp_path();
    Invocation::new("qemu-img")
        .args(["convert", "-q", "-O", to_format.qemu_name()])
        .arg(as_file_name(disk))
        .arg(&*temporary)
        .run(COPY)
        .await?;
    temporary.persist_noclobber(to).map_err(|e| Error::io("create", to)(e.error))
}

/// What `qemu-img info` tells of one image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    pub format: String,
    pub virtual_size: u64,
    pub actual_size: Option<u64>,
    pub full_backing_filename: Option<PathBuf>,
    pub backing_filename_format: Option<String>,
}

/// Changes what a disk says it lies over; the contents are known to be the same.
pub async fn rename_base(disk: &Path, base: &Path, base_format: &str) -> Result<()> {
    Invocation::new("qemu-img")
        .args(["rebase", "-q", "-u", "-F", base_format, "-b"])
        .arg(base)
        .arg(as_file_name(disk))
        .run(QUICK)
        .await?;
    Ok(())
}

pub async fn info(path: &Path) -> Result<ImageInfo> {
    let finished = Invocation::new("qemu-img")
        .args(["info", "-U", "--output=json"])
        .arg(as_file_name(path))
        .run(QUICK)
        .await?;
    serde_json::from_slice(&finished.stdout).map_err(|e| Error::Malformed {
        what: format!("qemu-img info {}", path.display()),
        reason: e.to_string(),
    })
}

/// An overlay over a disk a machine writes to at this moment: nothing of the disk is read but
/// its size.
pub async fn create_overlay_of_running(
    base: &Path,
    base_format: DiskFormat,
    name: &Path,
    path: &Path,
) -> Result<()> {
    refuse_existing(path)?;
    let size = info(base).await?.virtual_size;
    let base = std::path::absolute(name).map_err(Error::io("find", name))?;
    Invocation::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", base_format.qemu_name(), "-b"])
        .arg(&base)
        .arg(as_file_name(path))
        .arg(size.to_string())
        .run(QUICK)
        .await?;
    Ok(())
}
