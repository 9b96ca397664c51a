//! Where gilt keeps what it makes on this host, and the locks that guard it.
//!
//! ```text
//! <home>/                     $GILT_HOME, else the user's cache folder + /gilt
//!   checkpoints/<key>/        a saved disk after a layer (see `checkpoint`)
//!   captures/<key>/           image.wim and its index, kept until pruned
//!   results/<key>.json        what a finished build published, so that the next one does nothing
//!   history/<image>.json      how long each layer took, and of which inputs it was made
//!   runs/<id>/                of one running build; locked by it, swept by the next when it died
//!   evidence/<id>/            what is kept of a failed build
//!   inputs/<sha256>           fetched media and files
//!   locks/<key>               held while a checkpoint is being made
//!   tmp/                      folders under construction; a rename publishes them
//! ```
//! Locks are advisory file locks of the operating system: they end with the process that holds
//! them, also by `kill -9`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

/// A folder for one build, removed when dropped. `keep` disarms it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock_path: PathBuf,
    /// Held for as long as the run lives; tells the sweeper that it does.
    _lock: File,
    keep: bool,
}

impl Home {
    /// `$GILT_HOME`, else `$XDG_CACHE_HOME/gilt`, `~/.cache/gilt` or `%LOCALAPPDATA%\gilt`.
    pub fn default_root() -> Option<PathBuf> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        var("GILT_HOME")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("gilt")))
            .or_else(|| var("LOCALAPPDATA").map(|dir| dir.join("gilt")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache").join("gilt")))
    }

    /// Opens (and creates) the home, and sweeps what dead runs left.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let home = Self { root: root.into() };
        for part in
            ["checkpoints", "captures", "results", "history", "runs", "evidence", "inputs", "locks"]
        {
            fs::create_dir_all(home.root.join(part))?;
        }
        fs::create_dir_all(home.tmp())?;
        home.sweep()?;
        Ok(home)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub fn captures(&self) -> PathBuf {
        self.root.join("captures")
    }

    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    pub fn history(&self) -> PathBuf {
        self.root.join("history")
    }

    pub fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// Fetched inputs, each named by its SHA-256.
    pub fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// An exclusive lock on making the thing `key` names; waits for whoever makes it now.
    pub fn lock(&self, key: &str) -> io::Result<File> {
        let file = File::create(self.root.join("locks").join(key))?;
        file.lock()?;
        Ok(file)
    }

    /// A new folder of this build alone.
    pub fn new_run(&self, id: &str) -> io::Result<RunDir> {
        // The lock comes before the folder: a sweep never sees a folder whose owner has none yet.
        let lock_path = self.run_lock(id);
        let lock = File::create(&lock_path)?;
        lock.lock()?;
        let path = self.runs().join(id);
        fs::create_dir(&path)?;
        Ok(RunDir { path, lock_path, _lock: lock, keep: false })
    }

    fn run_lock(&self, id: &str) -> PathBuf {
        self.root.join("locks").join(format!("run-{id}"))
    }

    /// A folder to fill and then [`publish_dir`](Self::publish_dir).
    pub fn staging_dir(&self, id: &str, key: &str) -> io::Result<PathBuf> {
        let path = self.tmp().join(format!("{id}-{key}"));
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Removes all staging folders of a build.
    pub fn remove_staging(&self, id: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.tmp())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(id) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes a filled staging folder appear at `target`, whole or not at all. Where another build
    /// was first, its folder stays and ours goes.
    pub fn publish_dir(&self, staging: &Path, target: &Path) -> io::Result<()> {
        for entry in fs::read_dir(staging)? {
            // Windows flushes only what may be written.
            File::options().read(true).write(cfg!(windows)).open(entry?.path())?.sync_all()?;
        }
        sync_dir(staging)?;
        match fs::rename(staging, target) {
            Ok(()) => {}
            Err(_) if target.is_dir() => fs::remove_dir_all(staging)?,
            Err(error) => return Err(error),
        }
        if let Some(parent) = target.parent() {
            sync_dir(parent)?;
        }
        Ok(())
    }

    /// Removes runs and half-made folders whose owner is gone.
    fn sweep(&self) -> io::Result<()> {
        let mut alive = Vec::new();
        for entry in fs::read_dir(self.runs())? {
            let path = entry?.path();
            let id = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let lock_path = self.run_lock(&id);
            let locked = match File::open(&lock_path) {
                Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
                Err(_) => false,
            };
            if locked {
                alive.push(id);
            } else {
                let _ = fs::remove_file(&lock_path);
                fs::remove_dir_all(&path)?;
            }
        }
        for entry in fs::read_dir(self.tmp())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !alive.iter().any(|id| name.starts_with(id.as_str())) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    // Windows has no handle on a folder to flush; NTFS journals the rename.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

impl RunDir {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Leave the folder where it is (`--on-error=abort`).
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(
        // What any new file gets; the umask of the user takes from it.
        0o666,
    ));
    let mut file = builder.rand_bytes(6).tempfile_in(dir)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_run_is_swept_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let living = home.new_run("living").unwrap();
        let dead = home.runs().join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(home.run_lock("dead"), b"").unwrap();
        fs::create_dir(home.tmp().join("dead-abc")).unwrap();
        fs::create_dir(home.tmp().join("living-abc")).unwrap();
        Home::open(dir.path()).unwrap();
        assert!(living.path().is_dir());
        assert!(!dead.exists());
        assert!(!home.tmp().join("dead-abc").exists());
        assert!(home.tmp().join("living-abc").exists());
    }

    #[test]
    fn the_second_to_publish_a_folder_leaves_the_first_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let target = home.checkpoints().join("k");
        for text in ["first", "second"] {
            let staging = home.staging_dir(text, "k").unwrap();
            fs::write(staging.join("disk"), text).unwrap();
            home.publish_dir(&staging, &target).unwrap();
        }
        assert_eq!(fs::read_to_string(target.join("disk")).unwrap(), "first");
        assert_eq!(fs::read_dir(home.tmp()).unwrap().count(), 0);
    }
}
