//! A volume mounted by ntfs-3g for writing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::XattrFlags;

/// How long ntfs-3g may take to mount, and to write everything out at the end.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Format {
    pub volume_bytes: u64,
    pub sector_bytes: u32,
    pub cluster_bytes: u32,
}

/// Makes a file of that size and an empty NTFS in it.
pub fn format(image: &Path, format: &Format) -> Result<()> {
    fs::File::create(image)
        .and_then(|file| file.set_len(format.volume_bytes))
        .with_context(|| format!("creating {}", image.display()))?;
    let output = Command::new("mkntfs")
        .args(["--fast", "--force", "--quiet", "--label", "Gilt test"])
        .args(["--partition-start", "0", "--heads", "255", "--sectors-per-track", "63"])
        .args(["--sector-size", &format.sector_bytes.to_string()])
        .args(["--cluster-size", &format.cluster_bytes.to_string()])
        .arg(image)
        .output()
        .context("needs mkntfs (package ntfs-3g): run ci/setup")?;
    if !output.status.success() {
        bail!("mkntfs: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// How ntfs-3g treats owners. Security descriptors can only be set under `Kept`; files made under
/// `Ignored` get a descriptor of their own, as on volumes of Windows NT 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ignored,
    Kept,
}

pub struct Mount {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Mount {
    pub fn new(image: &Path, ownership: Ownership) -> Result<Self> {
        let mut options =
            "no_detach,streams_interface=windows,compression,big_writes,efs_raw".to_owned();
        if ownership == Ownership::Kept {
            options += ",permissions";
        }
        let dir = tempfile::tempdir()?;
        let device = fs::metadata(dir.path())?.dev();
        let mut child = Command::new("ntfs-3g")
            .args(["-o", &options])
            .arg(image)
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("needs ntfs-3g: run ci/setup")?;
        let start = Instant::now();
        loop {
            if fs::metadata(dir.path()).is_ok_and(|now| now.dev() != device) {
                return Ok(Self { dir, child: Some(child) });
            }
            if let Some(status) = child.try_wait()? {
                bail!("ntfs-3g could not mount ({status}): needs root and /dev/fuse");
            }
            if start.elapsed() > DEADLINE {
                child.kill()?;
                bail!("ntfs-3g did not mount within {DEADLINE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// `system.ntfs_NAME` of a file.
    pub fn set(&self, path: &Path, name: &str, value: &[u8]) -> Result<()> {
        let name = format!("system.ntfs_{name}");
        rustix::fs::setxattr(path, &*name, value, XattrFlags::empty())
            .with_context(|| format!("setting {name} of {}", path.display()))
    }

    /// Unmounts and waits until all is written.
    pub fn finish(mut self) -> Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = Command::new("umount").arg(OsStr::new(self.dir.path())).status()?;
        if !status.success() {
            child.kill()?;
        }
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("ntfs-3g ended with {status}");
            }
            if start.elapsed() > DEADLINE {
                child.kill()?;
                bail!("ntfs-3g did not end within {DEADLINE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // After an error in between; the error is what counts.
        let _ = self.unmount();
    }
}
