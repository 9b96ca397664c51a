//! Files of a machine on another host: volumes of a storage pool there.
//!
//! A volume's name says who made it (`gilt-<host>-<boot>-<pid>-<started>-<random>`), so that the next
//! gilt of that host can remove what a killed one left, and nothing else.

use std::{path::Path, time::Duration};

use super::{owner::Owner, virsh::Virsh};
use crate::error::{Error, Result};

/// A disk of some GiB over a slow line.
const COPY: Duration = Duration::from_secs(4 * 3600);
pub const DEFAULT: &str = "default";

/// A pool of the host a connection leads to.
#[derive(Clone, Debug)]
pub struct Pool {
    virsh: Virsh,
    name: String,
}

/// A file over there that is ours.
#[derive(Clone, Debug)]
pub struct Volume {
    name: String,
    /// As the hypervisor there is told of it.
    pub path: String,
}

impl Pool {
    /// Refuses a pool that does not exist: whose folder would it be?
    pub async fn open(virsh: &Virsh, name: &str) -> Result<Self> {
        virsh.run(&["pool-refresh", name]).await.map_err(|error| match error {
            Error::Monitor { reason, .. } => Error::HostLacks {
                what: format!("an active storage pool {name:?} at {}: {reason}", virsh.uri()),
                hint: format!(
                    "virsh -c {} pool-create-as {name} dir --target FOLDER, or name another: #pool=NAME",
                    virsh.uri()
                ),
            },
            other => other,
        })?;
        Ok(Self { virsh: virsh.clone(), name: name.into() })
    }

    fn new_name(&self, owner: &Owner) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        format!("{}{}", prefix(owner), &random[..12])
    }

    async fn path_of(&self, name: String) -> Result<Volume> {
        let path = self.virsh.run(&["vol-path", &name, "--pool", &self.name]).await?;
        Ok(Volume { path: path.trim().to_owned(), name })
    }

    /// Copies a file there, byte for byte.
    pub async fn upload(&self, owner: &Owner, file: &Path) -> Result<Volume> {
        let size = std::fs::metadata(file).map_err(Error::io("look at", file))?.len();
        let name = self.new_name(owner);
        let size = format!("{size}B");
        let create = ["vol-create-as", &self.name, &name, &size, "--allocation", "0", "--format"];
        self.virsh.run(&[&create[..], &["raw"]].concat()).await?;
        let volume = self.path_of(name).await?;
        let text = file.to_string_lossy();
        let upload = ["vol-upload", &volume.name, &text, "--pool", &self.name];
        if let Err(error) = self.virsh.run_within(&upload, COPY).await {
            self.remove(&volume).await?;
            return Err(error);
        }
        Ok(volume)
    }

    /// Copies a volume here; `to` appears whole or not at all.
    pub async fn download(&self, volume: &Volume, to: &Path) -> Result<()> {
        // What the hypervisor wrote has changed the file's length.
        self.virsh.run(&["pool-refresh", &self.name]).await?;
        let folder = to.parent().unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".download-")
            .tempfile_in(folder)
            .map_err(Error::io("create a file in", folder))?
            .into_temp_path();
        let text = temporary.to_string_lossy().into_owned();
        let download = ["vol-download", &volume.name, &text, "--pool", &self.name];
        self.virsh.run_within(&download, COPY).await?;
        temporary.persist(to).map_err(|e| Error::io("create", to)(e.error))
    }

    pub async fn remove(&self, volume: &Volume) -> Result<()> {
        self.virsh.run(&["vol-delete", &volume.name, "--pool", &self.name]).await.map(drop)
    }

    /// Removes the volumes of gilts of this host that are gone, and says which those were.
    pub async fn clean_up(&self) -> Result<Vec<String>> {
        let this = Owner::this_process();
        let mut removed = Vec::new();
        let listed = self.virsh.run(&["vol-list", &self.name]).await?;
        for name in listed.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
            if !owner_in(name).is_some_and(|owner| owner.is_gone_for(&this)) {
                continue;
            }
            match self.virsh.run(&["vol-delete", name, "--pool", &self.name]).await {
                Ok(_) => removed.push(format!("volume {name}")),
                // Another gilt was first.
                Err(Error::Monitor { reason, .. })
                    if reason.contains("Storage volume not found") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

fn prefix(owner: &Owner) -> String {
    format!("gilt-{}-{}-{}-{}-", owner.host, owner.boot, owner.pid, owner.started)
}

fn owner_in(volume: &str) -> Option<Owner> {
    let parts: Vec<&str> = volume.strip_prefix("gilt-")?.split('-').collect();
    let [host, boot, pid, started, _random] = parts[..] else { return None };
    Some(Owner {
        host: host.into(),
        boot: boot.into(),
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_name_says_whose_it_is() {
        let owner = Owner::this_process();
        let name = format!("{}0123456789ab", prefix(&owner));
        assert_eq!(owner_in(&name), Some(owner));
        for name in ["disk.qcow2", "gilt-", "gilt-a-b-c-d-e", "gilt-a-b-1-2", "gilt-a-b-1-2-3-4"] {
            assert_eq!(owner_in(name), None, "{name}");
        }
    }
}
