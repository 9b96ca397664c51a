//! A small local file that stands for a disk of the host, so that layers need not travel.
//!
//! ```text
//! gilt-hyperv-disk 1
//! {"host":"hv1:22","path":"C:\\ProgramData\\gilt\\…\\disks\\….vhdx"}
//! ```
//! `flatten` is where bytes come back.

use std::{io::Read, path::Path};

use hyperv_rs::HostPath;
use serde::{Deserialize, Serialize};

use super::address::Remote;
use crate::error::{Error, Result};

const HEAD: &str = "gilt-hyperv-disk 1\n";
/// No such file is larger.
const MAX: u64 = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Empty for this host.
    host: String,
    path: String,
}

/// The host a disk is on. Empty for this one.
pub(super) fn home(remote: Option<&Remote>) -> String {
    remote.map(|remote| format!("{}:{}", remote.host, remote.port)).unwrap_or_default()
}

impl Held {
    pub(super) fn new(remote: Option<&Remote>, path: &HostPath) -> Self {
        Self { host: home(remote), path: path.to_string() }
    }

    /// The disk's path, if it is on this host.
    pub(super) fn on(&self, remote: Option<&Remote>, local: &Path) -> Result<HostPath> {
        let malformed = |reason: String| Error::Malformed {
            what: format!("{}, which stands for a disk of a Hyper-V host", local.display()),
            reason,
        };
        if self.host != home(remote) {
            return Err(malformed(format!(
                "the disk is on {}",
                if self.host.is_empty() { "the host itself" } else { &self.host }
            )));
        }
        HostPath::new(&self.path).map_err(|e| malformed(e.to_string()))
    }

    /// Refuses to overwrite.
    pub(super) fn write(&self, local: &Path) -> Result<()> {
        let json = serde_json::to_string(self).map_err(|e| Error::Malformed {
            what: local.display().to_string(),
            reason: e.to_string(),
        })?;
        let mut file = std::fs::File::create_new(local).map_err(Error::io("create", local))?;
        std::io::Write::write_all(&mut file, format!("{HEAD}{json}\n").as_bytes())
            .map_err(Error::io("write", local))
    }
}

/// What a local file stands for; `None` for a file that is itself the disk.
pub(super) fn read(local: &Path) -> Result<Option<Held>> {
    let file = std::fs::File::open(local).map_err(Error::io("open", local))?;
    let mut text = Vec::new();
    file.take(MAX).read_to_end(&mut text).map_err(Error::io("read", local))?;
    let Some(json) = text.strip_prefix(HEAD.as_bytes()) else { return Ok(None) };
    serde_json::from_slice(json).map(Some).map_err(|e| Error::Malformed {
        what: format!("{}, which stands for a disk of a Hyper-V host", local.display()),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_a_disk_of_one_host() {
        let dir = tempfile::tempdir().unwrap();
        let local = dir.path().join("disk.vhdx");
        let remote = |host: &str| Remote {
            user: "u".into(),
            host: host.into(),
            port: 22,
            key: None,
            host_key: None,
        };
        let path = HostPath::new(r"C:\gilt\disks\a.vhdx").unwrap();
        Held::new(Some(&remote("one")), &path).write(&local).unwrap();
        let held = read(&local).unwrap().unwrap();
        assert_eq!(held.on(Some(&remote("one")), &local).unwrap(), path);
        let error = held.on(Some(&remote("two")), &local).unwrap_err().to_string();
        assert!(error.contains("one:22"), "{error}");
        assert!(held.write(&local).is_err(), "it is not overwritten");
        std::fs::write(&local, b"vhdxfile").unwrap();
        assert_eq!(read(&local).unwrap(), None);
        std::fs::write(&local, format!("{HEAD}no json")).unwrap();
        assert!(read(&local).is_err());
    }
}
