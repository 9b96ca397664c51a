//! Changes a volume as an update does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::contents::{Rng, bytes};
use crate::mount::{Mount, Ownership};

/// Folders of ordinary files, as `make` fills them.
const FOLDERS: [&str; 2] = ["Program Files", "Windows/System32/DriverStore"];

/// Overwrites files of the volume of about `wanted` bytes in all with new contents; tells how many
/// files and bytes those are.
pub fn change(image: &Path, wanted: u64, seed: u64) -> Result<(u64, u64)> {
    let mount = Mount::new(image, Ownership::Ignored)?;
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&mount.path(folder), &mut files)?;
    }
    files.sort();
    let mut rng = Rng::new(seed);
    let (mut changed, mut len_bytes) = (0, 0);
    while len_bytes < wanted && !files.is_empty() {
        let path = files.swap_remove(rng.below(files.len() as u64) as usize);
        let len = fs::metadata(&path)?.len();
        let contents = bytes(&mut rng, len as usize);
        // In place, as a database does: the clusters stay.
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&contents, 0))
            .with_context(|| format!("writing {}", path.display()))?;
        changed += 1;
        len_bytes += len;
    }
    mount.finish()?;
    Ok((changed, len_bytes))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => collect(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}
