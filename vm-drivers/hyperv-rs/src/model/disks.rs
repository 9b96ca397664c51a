//! Disk files of the model.

use serde_json::{Value as Json, json};

use super::{Host, Outcome, fail, list, operation_failed};
use crate::{
    cmdlet::*,
    name::HostPath,
    reply::{Mounted, Vhd},
};

/// A disk file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub path: String,
    pub kind: VhdType,
    pub size_bytes: u64,
    /// Key of the parent.
    pub parent: Option<String>,
    pub mounted: bool,
    /// To be merged into its parent.
    pub merging: bool,
}

impl Host {
    pub(super) fn disk(&self, cmdlet: &str, path: &HostPath) -> Outcome<Disk> {
        self.disks.get(&path.key()).cloned().ok_or_else(|| {
            operation_failed(cmdlet, format!("'{path}': file not found (0x80070002)."))
        })
    }

    /// Held by a running machine or a mount: directly or as an ancestor.
    pub(super) fn in_use(&self, key: &str) -> bool {
        let mut roots: Vec<&String> =
            self.disks.iter().filter(|(_, disk)| disk.mounted).map(|(key, _)| key).collect();
        for machine in self.machines.iter().filter(|machine| machine.is_running()) {
            roots.extend(machine.disks.iter().map(|(_, path)| path));
        }
        roots.into_iter().any(|root| {
            let mut at = Some(root);
            while let Some(path) = at {
                if path == key {
                    return true;
                }
                at = self.disks.get(path).and_then(|disk| disk.parent.as_ref());
            }
            false
        })
    }

    fn free(&self, cmdlet: &str, path: &HostPath) -> Outcome<()> {
        match self.in_use(&path.key()) {
            true => Err(operation_failed(cmdlet, format!("'{path}' is in use (0x80070020)."))),
            false => Ok(()),
        }
    }

    pub(super) fn add_disk(&mut self, cmdlet: &str, path: &HostPath, disk: Disk) -> Outcome<()> {
        if self.disks.contains_key(&path.key()) || self.files.contains(&path.key()) {
            return Err(operation_failed(
                cmdlet,
                format!("'{path}': the file exists (0x80070050)."),
            ));
        }
        self.disks.insert(path.key(), disk);
        Ok(())
    }

    /// Calls about disk files; `None` for any other call.
    pub(super) fn disk_cmdlet(&mut self, cmdlet: &Cmdlet) -> Option<Outcome<Json>> {
        let name = cmdlet.call().cmdlet;
        let outcome = match cmdlet {
            Cmdlet::NewVhd(new) => self.new_vhd(name, new),
            Cmdlet::GetVhd(get) => self.disk(name, &get.path).map(|disk| {
                list([Vhd {
                    path: disk.path.clone(),
                    kind: disk.kind,
                    format: "VHDX".into(),
                    size_bytes: disk.size_bytes,
                    file_bytes: 4 << 20,
                    parent: disk.parent.clone().unwrap_or_default(),
                    attached: self.in_use(&get.path.key()),
                }])
            }),
            Cmdlet::MergeVhd(merge) => self.merge(name, merge),
            Cmdlet::MountVhd(mount) => {
                self.disk(name, &mount.path).and_then(|_| self.free(name, &mount.path)).map(|()| {
                    if let Some(disk) = self.disks.get_mut(&mount.path.key()) {
                        disk.mounted = true;
                    }
                    list([Mounted { disk_number: 3 }])
                })
            }
            Cmdlet::DismountVhd(dismount) => match self.disks.get_mut(&dismount.path.key()) {
                Some(disk) if disk.mounted => {
                    disk.mounted = false;
                    Ok(json!([]))
                }
                _ => Err(fail(name, "ObjectNotFound", "InvalidArgument", "it is not mounted")),
            },
            Cmdlet::OptimizeVhd(optimize) => self.disk(name, &optimize.path).and_then(|disk| {
                if optimize.mode.needs_mount() && !disk.mounted {
                    return Err(fail(
                        name,
                        "InvalidState",
                        "InvalidOperation",
                        "needs a read-only mount",
                    ));
                }
                Ok(json!([]))
            }),
            Cmdlet::ConvertVhd(convert) => self.disk(name, &convert.path).and_then(|disk| {
                let path = convert.destination.to_string();
                let copy = Disk { path, kind: convert.kind, parent: None, mounted: false, ..disk };
                self.free(name, &convert.path)?;
                let from = self.disk(name, &convert.path)?;
                self.add_disk(name, &convert.destination, copy)?;
                let done = self.really(name, |machinery| {
                    machinery.convert_disk(&from, &convert.destination, convert.kind)
                });
                if done.is_err() {
                    self.disks.remove(&convert.destination.key());
                }
                done.map(|()| json!([]))
            }),
            _ => return None,
        };
        Some(self.allowed(name).and(outcome))
    }

    fn new_vhd(&mut self, name: &str, new: &NewVhd) -> Outcome<Json> {
        let path = new.path();
        let (kind, size_bytes, parent) = match new {
            NewVhd::Dynamic { size_bytes, .. } => (VhdType::Dynamic, *size_bytes, None),
            NewVhd::Fixed { size_bytes, .. } => (VhdType::Fixed, *size_bytes, None),
            NewVhd::Differencing { parent, .. } => {
                let size = self.disk(name, parent)?.size_bytes;
                (VhdType::Differencing, size, Some(parent.key()))
            }
        };
        let disk = Disk {
            path: path.to_string(),
            kind,
            size_bytes,
            parent,
            mounted: false,
            merging: false,
        };
        self.add_disk(name, path, disk.clone())?;
        let done = self.really(name, |machinery| machinery.make_disk(&disk));
        if done.is_err() {
            self.disks.remove(&path.key());
        }
        done.map(|()| json!([]))
    }

    fn merge(&mut self, name: &str, merge: &MergeVhd) -> Outcome<Json> {
        let disk = self.disk(name, &merge.path)?;
        self.free(name, &merge.path)?;
        let Some(parent) = disk.parent else {
            return Err(fail(name, "InvalidParameter", "InvalidArgument", "it has no parent"));
        };
        if !self.disks.contains_key(&parent) {
            return Err(operation_failed(name, "the parent is gone (0xC03A000D).".into()));
        }
        let other = merge.destination.as_ref().is_some_and(|path| path.key() != parent);
        let siblings =
            self.disks.values().filter(|disk| disk.parent.as_ref() == Some(&parent)).count();
        if other || siblings > 1 {
            return Err(fail(
                name,
                "GiltNotModelled",
                "NotImplemented",
                "more than one step or child",
            ));
        }
        self.disks.remove(&merge.path.key());
        Ok(json!([]))
    }
}
