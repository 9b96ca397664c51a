//! Drives of a machine: hard disks, DVD, floppy.

use super::Call;
use crate::{name::HostPath, script::Value};

/// What a drive hangs on. Gen2 machines have SCSI only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Controller {
    #[serde(rename = "IDE")]
    Ide,
    #[serde(rename = "SCSI")]
    Scsi,
}

impl Controller {
    pub fn word(self) -> &'static str {
        match self {
            Controller::Ide => "IDE",
            Controller::Scsi => "SCSI",
        }
    }
}

/// A place on a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Slot {
    pub controller: Controller,
    /// IDE 0..=1, SCSI 0..=3.
    pub number: u32,
    /// IDE 0..=1, SCSI 0..=63.
    pub location: u32,
}

impl Slot {
    pub fn scsi(location: u32) -> Self {
        Self { controller: Controller::Scsi, number: 0, location }
    }

    pub fn ide(number: u32, location: u32) -> Self {
        Self { controller: Controller::Ide, number, location }
    }

    /// Whether such a place exists at all.
    pub fn exists(self) -> bool {
        match self.controller {
            Controller::Ide => self.number < 2 && self.location < 2,
            Controller::Scsi => self.number < 4 && self.location < 64,
        }
    }

    fn numbers(self, call: Call) -> Call {
        call.with("ControllerNumber", self.number).with("ControllerLocation", self.location)
    }

    fn whole(self, call: Call) -> Call {
        self.numbers(call.with("ControllerType", Value::Word(self.controller.word())))
    }
}

/// `Add-VMHardDiskDrive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddHardDisk {
    pub slot: Slot,
    pub path: HostPath,
}

impl AddHardDisk {
    pub fn call(&self) -> Call {
        self.slot.whole(Call::on_machine("Add-VMHardDiskDrive")).with("Path", self.path.as_str())
    }
}

/// `Remove-VMHardDiskDrive`: the drive in this slot; its file stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveHardDisk {
    pub slot: Slot,
}

impl RemoveHardDisk {
    pub fn call(&self) -> Call {
        let drive = GetHardDisks { slot: Some(self.slot) }.call();
        Call::new("Remove-VMHardDiskDrive", "VMHardDiskDrive")
            .with("VMHardDiskDrive", Value::from(drive))
    }
}

/// `Get-VMHardDiskDrive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetHardDisks {
    pub slot: Option<Slot>,
}

impl GetHardDisks {
    pub fn call(&self) -> Call {
        let call = Call::on_machine("Get-VMHardDiskDrive");
        match self.slot {
            Some(slot) => slot.whole(call),
            None => call,
        }
    }
}

/// `Add-VMDvdDrive`: the slot's controller type is the generation's, IDE or SCSI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddDvd {
    pub slot: Slot,
    /// `None`: an empty drive.
    pub path: Option<HostPath>,
}

impl AddDvd {
    pub fn call(&self) -> Call {
        self.slot
            .numbers(Call::on_machine("Add-VMDvdDrive"))
            .with_some("Path", self.path.as_ref().map(HostPath::as_str))
    }
}

/// `Set-VMDvdDrive`: another medium, or `None` to take it out. Also while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetDvd {
    pub slot: Slot,
    pub path: Option<HostPath>,
}

impl SetDvd {
    pub fn call(&self) -> Call {
        let drive = GetDvds { slot: Some(self.slot) }.call();
        let path = self.path.as_ref().map_or(Value::Null, |path| path.as_str().into());
        Call::new("Set-VMDvdDrive", "Object")
            .with("VMDvdDrive", Value::from(drive))
            .with("Path", path)
    }
}

/// `Get-VMDvdDrive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetDvds {
    pub slot: Option<Slot>,
}

impl GetDvds {
    pub fn call(&self) -> Call {
        let call = Call::on_machine("Get-VMDvdDrive");
        match self.slot {
            Some(slot) => slot.numbers(call),
            None => call,
        }
    }
}

/// `Set-VMFloppyDiskDrive` (Gen1): a `.vfd`, or `None` to take it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFloppy {
    pub path: Option<HostPath>,
}

impl SetFloppy {
    pub fn call(&self) -> Call {
        let path = self.path.as_ref().map_or(Value::Null, |path| path.as_str().into());
        Call::on_machine("Set-VMFloppyDiskDrive").with("Path", path)
    }
}
