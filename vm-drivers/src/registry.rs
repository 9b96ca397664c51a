//! What runs now, written down, so that the next gilt can end what a killed one left behind.
//!
//! Each child that matters has a file `<id>.json` with its pid, the moment it started and who
//! started it. A record is acted upon only when the machine has not been rebooted since, the one
//! who made it is gone, and the pid still belongs to the process that was recorded: then it is
//! provably ours.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A folder of records, shared by all gilts of a user.
#[derive(Clone, Debug)]
pub struct RunRegistry {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    what: String,
    host_boot: String,
    owner: ProcessMark,
    children: Vec<ProcessMark>,
    /// Removed with the children.
    scratch: Vec<PathBuf>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    pub pid: u32,
    /// Clock ticks since the host booted.
    pub started: u64,
}

/// A record that lives as long as this value.
#[derive(Debug)]
pub struct Recorded {
    path: PathBuf,
}

/// One leftover that was cleaned up.
#[derive(Clone, Debug)]
pub struct Reaped {
    pub what: String,
    pub killed: Vec<u32>,
    pub removed: Vec<PathBuf>,
}

impl RunRegistry {
    /// The user's registry: under `GILT_RUN_DIR`, `XDG_RUNTIME_DIR` or the temporary folder.
    pub fn for_user() -> Self {
        if let Some(dir) = std::env::var_os("GILT_RUN_DIR") {
            return Self::at(dir);
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_dir() => Self::at(Path::new(&dir).join("gilt")),
            _ => {
                #[cfg(unix)]
                let user = rustix::process::getuid().as_raw().to_string();
                #[cfg(not(unix))]
                let user = std::env::var("USERNAME").unwrap_or_default();
                Self::at(std::env::temp_dir().join(format!("gilt-run-{user}")))
            }
        }
    }

    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Writes down children and the files to remove with them. Forgotten when dropped.
    pub fn record(&self, what: &str, children: &[u32], scratch: &[PathBuf]) -> Result<Recorded> {
        make_private_dir(&self.dir)?;
        let record = Record {
            format: 1,
            what: what.into(),
            host_boot: host_boot_id(),
            owner: mark(std::process::id())
                .unwrap_or(ProcessMark { pid: std::process::id(), started: 0 }),
            children: children.iter().filter_map(|pid| mark(*pid)).collect(),
            scratch: scratch.to_vec(),
        };
        let path = self.dir.join(format!("{}.json", uuid::Uuid::new_v4().simple()));
        let temporary = path.with_extension("tmp");
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|e| Error::Malformed { what: "run record".into(), reason: e.to_string() })?;
        std::fs::write(&temporary, json).map_err(Error::io("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        Ok(Recorded { path })
    }

    /// Ends what earlier processes left behind, and says what that was.
    pub fn reap(&self) -> Result<Vec<Reaped>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read", &self.dir)(e)),
        };
        let mut reaped = Vec::new();
        for path in entries.flatten().map(|e| e.path()) {
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            // Another gilt may be reaping too, or its record has just ended.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&bytes) else {
                tracing::warn!(path = %path.display(), "unreadable run record left alone");
                continue;
            };
            let same_boot = record.host_boot == host_boot_id();
            if same_boot && is_alive(record.owner) {
                continue;
            }
            let mut killed = Vec::new();
            if same_boot {
                killed.extend(record.children.iter().filter(|c| kill(**c)).map(|c| c.pid));
            }
            let removed = record
                .scratch
                .iter()
                .filter(|p| {
                    if p.is_dir() {
                        std::fs::remove_dir_all(p).is_ok()
                    } else {
                        std::fs::remove_file(p).is_ok()
                    }
                })
                .cloned()
                .collect();
            let _ = std::fs::remove_file(&path);
            reaped.push(Reaped { what: record.what, killed, removed });
        }
        Ok(reaped)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn make_private_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let owner = std::fs::metadata(dir).map_err(Error::io("look at", dir))?.uid();
        if owner != rustix::process::getuid().as_raw() {
            return Err(Error::Malformed {
                what: dir.display().to_string(),
                reason: "the run folder belongs to another user".into(),
            });
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::io("protect", dir))?;
    }
    Ok(())
}

/// Which boot of this host it is.
pub(crate) fn host_boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// When a process started, from field 22 of its `stat` (proc(5)).
pub fn mark(pid: u32) -> Option<ProcessMark> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    let started = fields.nth(18)?.parse().ok()?;
    Some(ProcessMark { pid, started })
}

/// Whether this very process still runs.
pub fn is_alive(process: ProcessMark) -> bool {
    mark(process.pid) == Some(process)
}

/// Kills the process if it is still the recorded one, and waits until it is gone.
fn kill(process: ProcessMark) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
            return false;
        };
        // The handle is taken first and the process looked at afterwards: from then on the
        // number cannot pass to another process unnoticed.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        if !is_alive(process) || pidfd_send_signal(&handle, Signal::KILL).is_err() {
            return false;
        }
        for _ in 0..100 {
            if !is_alive(process) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (process, Duration::ZERO);
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn orphan(registry: &RunRegistry, child: u32, owner: ProcessMark, scratch: &Path) -> Recorded {
        let recorded = registry.record("test", &[child], &[scratch.to_path_buf()]).unwrap();
        let mut record: Record =
            serde_json::from_slice(&std::fs::read(&recorded.path).unwrap()).unwrap();
        record.owner = owner;
        std::fs::write(&recorded.path, serde_json::to_vec(&record).unwrap()).unwrap();
        recorded
    }

    #[test]
    fn only_what_a_dead_owner_left_is_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let registry = RunRegistry::at(dir.path().join("run"));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();

        let ours = registry.record("test", &[child.id()], std::slice::from_ref(&scratch)).unwrap();
        assert!(registry.reap().unwrap().is_empty(), "the owner lives");
        assert!(scratch.exists());
        drop(ours);

        // The owner's number lives on in another process: still an orphan.
        let gone = ProcessMark { pid: std::process::id(), started: 1 };
        let _record = orphan(&registry, child.id(), gone, &scratch);
        let reaped = registry.reap().unwrap();
        assert_eq!(reaped.len(), 1);
        assert_eq!(reaped[0].killed, [child.id()]);
        assert!(!scratch.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_reused_process_number_is_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let registry = RunRegistry::at(dir.path().join("run"));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let gone = ProcessMark { pid: 1, started: u64::MAX };
        let recorded = orphan(&registry, child.id(), gone, Path::new("/nonexistent/x"));
        let mut record: Record =
            serde_json::from_slice(&std::fs::read(&recorded.path).unwrap()).unwrap();
        record.children[0].started += 1;
        std::fs::write(&recorded.path, serde_json::to_vec(&record).unwrap()).unwrap();
        assert!(registry.reap().unwrap()[0].killed.is_empty());
        assert!(child.try_wait().unwrap().is_none(), "still running");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
