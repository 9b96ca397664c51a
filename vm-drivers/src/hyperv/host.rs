//! A host as the driver sees it: operations with typed answers, and our files on it.
//!
//! ```text
//!   <folder>\<client>\            marked as this client's (`.gilt-owner`)
//!     disks\<id>.vhdx             disks made there; a file here stands for each (see `held`)
//!     media\<sha256>.<ext>        what was copied there, once each
//!     machines\<id>\              one machine's own folder; marked as its process's
//! ```

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use hyperv_rs::{
    HostPath, Owner, Refusal,
    host::{self, Operation},
    script::transport::Output,
};
use sha2::{Digest, Sha256};

use super::{
    address::Address,
    held::{self, Held},
    shell::Shell,
};
use crate::{
    error::{Error, Result},
    registry,
};

/// Copies and merges of whole disks take long.
pub(super) const LONG: Duration = Duration::from_secs(4 * 3600);
/// Anything else; a busy host takes seconds to start a PowerShell.
pub(super) const SHORT: Duration = Duration::from_secs(300);

/// What tells whether a file is still the one that was hashed: path, length, time of change.
type FileStamp = (PathBuf, u64, Option<SystemTime>);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) shell: Box<dyn Shell>,
    pub(super) address: Address,
    /// This system's things on the host, whichever process made them.
    pub(super) client: Owner,
    /// This process's machines.
    pub(super) owner: Owner,
    folders: tokio::sync::OnceCell<()>,
    /// Digests of files that were looked at: path, length, time of change.
    digests: Mutex<HashMap<FileStamp, String>>,
}

/// A name for this system that stays the same, and says nothing about it.
fn client_id() -> String {
    let named = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_else(|| "unnamed".into());
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let digest = Sha256::digest(format!("gilt {} {user}", named.trim()));
    hex::encode(&digest[..8])
}

/// What a process is called on a host: client, number, and when it started.
fn process_owner(client: &str) -> Result<Owner> {
    let pid = std::process::id();
    let started = registry::mark(pid).map_or(0, |mark| mark.started);
    Owner::new(&format!("{client}.{pid}.{started}")).map_err(|e| refused("name this process", e))
}

/// Whether the process an owner is named after is provably gone.
pub(super) fn is_dead(owner: &Owner, client: &Owner) -> bool {
    let Some(rest) = owner.as_str().strip_prefix(client.as_str()).and_then(|r| r.strip_prefix('.'))
    else {
        return false;
    };
    let Some((pid, started)) = rest.split_once('.') else { return false };
    let (Ok(pid), Ok(started)) = (pid.parse::<u32>(), started.parse::<u64>()) else { return false };
    // Where a system tells no starting times, nothing is proved.
    started != 0
        && registry::mark(std::process::id()).is_some()
        && registry::mark(pid).is_none_or(|mark| mark.started != started)
}

pub(super) fn refused(what: &str, error: hyperv_rs::Error) -> Error {
    match error {
        hyperv_rs::Error::Refused { operation, failure } => {
            let refusal = failure.refusal();
            match refusal {
                Refusal::RightsMissing | Refusal::ModuleAbsent | Refusal::HypervisorAbsent => {
                    Error::HostLacks {
                        what: format!("what it takes to {operation}: {failure}"),
                        hint: refusal.cure().into(),
                    }
                }
                _ => Error::Monitor {
                    command: operation,
                    reason: format!("{failure} ({})", refusal.cure()),
                },
            }
        }
        other => Error::Monitor { command: what.into(), reason: other.to_string() },
    }
}

/// Whether looking at a machine failed because there is none: `Get-VM -Id` tells that as a wrong parameter.
pub(super) fn is_gone(error: &hyperv_rs::Error) -> bool {
    matches!(refusal(error), Some(Refusal::NotFound | Refusal::BadArgument))
}

/// How an operation of the host failed, where its caller asks.
pub(super) fn refusal(error: &hyperv_rs::Error) -> Option<Refusal> {
    match error {
        hyperv_rs::Error::Refused { failure, .. } => Some(failure.refusal()),
        _ => None,
    }
}

fn sha256(local: &Path) -> Result<String> {
    let mut file = std::fs::File::open(local).map_err(Error::io("open", local))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(Error::io("read", local))? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

impl Host {
    pub(super) fn new(shell: Box<dyn Shell>, address: Address) -> Result<Self> {
        let id = format!("gilt-{}", client_id());
        Ok(Self {
            shell,
            address,
            owner: process_owner(&id)?,
            client: Owner::new(&id).map_err(|e| refused("name this client", e))?,
            folders: tokio::sync::OnceCell::new(),
            digests: Mutex::default(),
        })
    }

    /// Runs an operation; its refusal comes as it is.
    pub(super) async fn ask<T>(
        &self,
        operation: Operation<T>,
        limit: Duration,
    ) -> Result<Result<T, hyperv_rs::Error>> {
        let name = operation.name();
        tracing::debug!(operation = name, "asking the Hyper-V host");
        let ran = self.shell.run(&operation.script().render(), limit).await?;
        let output = Output {
            stdout: &ran.stdout,
            stderr: &ran.stderr,
            exit_code: ran.exit_code.and_then(|code| i32::try_from(code).ok()),
        };
        Ok(output.answer().and_then(|answer| operation.read(answer)))
    }

    /// Runs an operation that must succeed.
    pub(super) async fn must<T>(&self, operation: Operation<T>) -> Result<T> {
        self.must_within(operation, SHORT).await
    }

    pub(super) async fn must_within<T>(
        &self,
        operation: Operation<T>,
        limit: Duration,
    ) -> Result<T> {
        let name = operation.name();
        self.ask(operation, limit).await?.map_err(|e| refused(name, e))
    }

    fn inside(&self, parts: &[&str]) -> Result<HostPath> {
        let mut path = self.address.folder.clone();
        for part in [self.client.as_str()].iter().chain(parts) {
            path = path.join(part).map_err(|e| refused("name a file", e))?;
        }
        Ok(path)
    }

    /// The folders for disks and media are there and ours.
    async fn folders(&self) -> Result<()> {
        let make = || async {
            for folder in ["disks", "media", "machines"] {
                let path = self.inside(&[folder])?;
                self.must(host::own_folder(&self.client, &path)).await?;
            }
            Ok(())
        };
        self.folders.get_or_try_init(make).await.copied()
    }

    /// A name for a disk that does not exist yet.
    pub(super) async fn new_disk(&self, extension: &str) -> Result<HostPath> {
        self.folders().await?;
        let name = format!("{}.{extension}", uuid::Uuid::new_v4().simple());
        self.inside(&["disks", &name])
    }

    /// A machine's own folder, made.
    pub(super) async fn machine_folder(&self) -> Result<HostPath> {
        self.folders().await?;
        let folder = self.inside(&["machines", &uuid::Uuid::new_v4().simple().to_string()])?;
        self.must(host::make_folder(&self.owner, &folder)).await?;
        Ok(folder)
    }

    pub(super) async fn remove_disk(&self, path: &HostPath) -> Result<()> {
        self.must(host::remove_file(&self.client, path)).await
    }

    /// SHA-256 of a file, read once for as long as it does not change.
    async fn digest(&self, local: &Path) -> Result<String> {
        let metadata = std::fs::metadata(local).map_err(Error::io("look at", local))?;
        let key = (local.to_path_buf(), metadata.len(), metadata.modified().ok());
        if let Some(known) = self.digests.lock().ok().and_then(|all| all.get(&key).cloned()) {
            return Ok(known);
        }
        let path = local.to_path_buf();
        let digest = tokio::task::spawn_blocking(move || sha256(&path))
            .await
            .map_err(|e| Error::io("read", local)(std::io::Error::other(e)))??;
        if let Ok(mut all) = self.digests.lock() {
            all.insert(key, digest.clone());
        }
        Ok(digest)
    }

    /// Whether writes to what a local file stands for are seen by whoever uses the file later.
    pub(super) fn is_held(&self, local: &Path) -> Result<bool> {
        Ok(self.shell.is_local() || held::read(local)?.is_some())
    }

    /// Where the host has what a local file stands for; it is copied there where it has not.
    pub(super) async fn on_host(&self, local: &Path) -> Result<HostPath> {
        let broken = |e: hyperv_rs::Error| refused("name a file", e);
        if let Some(held) = held::read(local)? {
            return held.on(self.address.remote.as_ref(), local);
        }
        if self.shell.is_local() {
            let full = std::path::absolute(local).map_err(Error::io("find", local))?;
            return HostPath::new(&full.to_string_lossy()).map_err(broken);
        }
        self.folders().await?;
        let digest = self.digest(local).await?;
        let extension = local.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let name = format!("{digest}.{}", extension.as_deref().unwrap_or("bin"));
        let path = self.inside(&["media", &name])?;
        let there = self.must(host::files_exist(std::slice::from_ref(&path))).await?;
        if there != [true] {
            tracing::info!(file = %local.display(), "copying to the Hyper-V host");
            self.shell.put(local, &path).await?;
        }
        Ok(path)
    }

    /// Lets a local file stand for a disk of the host. The disk is removed where that fails.
    pub(super) async fn hold(&self, local: &Path, path: &HostPath) -> Result<()> {
        let held = Held::new(self.address.remote.as_ref(), path);
        let written = held.write(local);
        if written.is_err()
            && let Err(error) = self.remove_disk(path).await
        {
            tracing::warn!(%path, %error, "a disk stays on the Hyper-V host");
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_client_that_is_gone_is_dead() {
        let client = Owner::new("gilt-0011223344556677").unwrap();
        let own = process_owner(client.as_str()).unwrap();
        let named = |text: &str| Owner::new(text).unwrap();
        assert!(!is_dead(&own, &client), "this process lives");
        assert!(!is_dead(&named("gilt-ffffffffffffffff.1.1"), &client), "another client's");
        assert!(!is_dead(&named("gilt-0011223344556677"), &client), "no process");
        assert!(!is_dead(&named("gilt-0011223344556677.1.0"), &client), "nothing is proved");
        if cfg!(target_os = "linux") {
            let gone = format!("gilt-0011223344556677.{}.1", std::process::id());
            assert!(is_dead(&named(&gone), &client));
        }
    }
}
