//! Saved memory and what it fits. A state is only resumed by the same QEMU with the same
//! devices; everything else is refused beforehand with the difference named.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub format: u32,
    /// Memory never crosses drivers: each lays out a machine's buses in its own way.
    #[serde(default = "of_qemu")]
    pub driver: String,
    pub qemu_version: String,
    pub accelerator: String,
    /// The host's processor where the guest sees it (KVM).
    pub host_cpu: Option<String>,
    pub guest_visible: Vec<String>,
}

/// States of before the driver was written down.
fn of_qemu() -> String {
    "qemu".into()
}

#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    size_bytes: u64,
    fingerprint: Fingerprint,
}

pub fn sidecar_path(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl Fingerprint {
    pub fn new(qemu_version: &str, accelerator: &str, guest_visible: Vec<String>) -> Self {
        let host_cpu = (accelerator == "kvm").then(|| {
            std::fs::read_to_string("/proc/cpuinfo")
                .unwrap_or_default()
                .lines()
                .filter(|l| l.starts_with("model name") || l.starts_with("microcode"))
                .take(2)
                .collect::<Vec<_>>()
                .join("; ")
        });
        Self {
            format: 1,
            driver: of_qemu(),
            qemu_version: qemu_version.into(),
            accelerator: accelerator.into(),
            host_cpu,
            guest_visible,
        }
    }

    /// The first thing in which a saved machine differs from this one.
    fn difference_to(&self, saved: &Fingerprint) -> Option<String> {
        if saved.format != self.format {
            return Some(format!("it is of format {}, not {}", saved.format, self.format));
        }
        if saved.driver != self.driver {
            return Some(format!("it was saved by the {} driver", saved.driver));
        }
        if saved.qemu_version != self.qemu_version {
            return Some(format!(
                "it was saved by QEMU {}, this is {}",
                saved.qemu_version, self.qemu_version
            ));
        }
        if saved.accelerator != self.accelerator {
            return Some(format!(
                "it was saved under {}, this machine runs under {}",
                saved.accelerator, self.accelerator
            ));
        }
        if saved.host_cpu != self.host_cpu {
            return Some("it was saved on another processor".into());
        }
        let missing = saved.guest_visible.iter().find(|d| !self.guest_visible.contains(d));
        let added = self.guest_visible.iter().find(|d| !saved.guest_visible.contains(d));
        match (missing, added) {
            (Some(was), Some(is)) => Some(format!("the machine had {was}, now it has {is}")),
            (Some(was), None) => Some(format!("the machine had {was}")),
            (None, Some(is)) => Some(format!("the machine did not have {is}")),
            (None, None) if saved.guest_visible != self.guest_visible => {
                Some("the machine's devices are in another order".into())
            }
            (None, None) => None,
        }
    }

    /// Writes the sidecar of a state whose bytes lie in `partial`, then gives it its name.
    pub fn publish(&self, partial: &Path, state: &Path) -> Result<()> {
        let file = std::fs::File::open(partial).map_err(Error::io("open", partial))?;
        file.sync_all().map_err(Error::io("sync", partial))?;
        let size_bytes = file.metadata().map_err(Error::io("look at", partial))?.len();
        let sidecar = sidecar_path(state);
        let json = serde_json::to_vec_pretty(&Sidecar { size_bytes, fingerprint: self.clone() })
            .map_err(|e| Error::Malformed { what: "fingerprint".into(), reason: e.to_string() })?;
        std::fs::write(&sidecar, json).map_err(Error::io("write", &sidecar))?;
        std::fs::rename(partial, state).map_err(Error::io("rename", partial))
    }

    /// Whether a saved state fits this machine.
    pub fn check(&self, state: &Path) -> Result<()> {
        let mismatch = |reason: String| Error::StateMismatch { path: state.to_path_buf(), reason };
        let sidecar = sidecar_path(state);
        let bytes =
            std::fs::read(&sidecar).map_err(|e| mismatch(format!("{}: {e}", sidecar.display())))?;
        let saved: Sidecar = serde_json::from_slice(&bytes)
            .map_err(|e| mismatch(format!("{}: {e}", sidecar.display())))?;
        let size = std::fs::metadata(state).map_err(|e| mismatch(e.to_string()))?.len();
        if size != saved.size_bytes {
            return Err(mismatch(format!("it has {size} bytes, not {}", saved.size_bytes)));
        }
        match self.difference_to(&saved.fingerprint) {
            Some(reason) => Err(mismatch(reason)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_fits_only_what_saved_it() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, state) = (dir.path().join("p"), dir.path().join("m"));
        std::fs::write(&partial, b"memory").unwrap();
        let saved = Fingerprint::new("7.2.22", "tcg", vec!["-m 512M".into(), "-smp 1".into()]);
        saved.publish(&partial, &state).unwrap();
        saved.check(&state).unwrap();

        let refused = |f: &Fingerprint, words: &str| {
            let error = f.check(&state).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let mut other = saved.clone();
        other.qemu_version = "8.0".into();
        refused(&other, "saved by QEMU 7.2.22, this is 8.0");
        let mut other = saved.clone();
        other.guest_visible[0] = "-m 768M".into();
        refused(&other, "had -m 512M, now it has -m 768M");
        std::fs::write(&state, b"mem").unwrap();
        refused(&saved, "has 3 bytes, not 6");
    }
}
