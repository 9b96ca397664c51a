//! Making a machine, in the order in which Hyper-V takes it.

use super::Operation;
use crate::{
    cmdlet::*,
    error::{Error, Result},
    name::{HostPath, Owner, SwitchName, VmName},
    reply::{Machine, Shape},
    script::{Script, Step},
};

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    pub path: HostPath,
    pub slot: Slot,
}

/// A DVD drive of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DvdSpec {
    pub slot: Slot,
    pub medium: Option<HostPath>,
}

/// Gen1 and Gen2 differ in all but the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareSpec {
    Bios { startup_order: Vec<BiosDevice> },
    Uefi { secure_boot: Option<SecureBootTemplate>, tpm: bool, boot_order: Vec<BootDevice> },
}

/// A machine to make. Its disks exist already; its memory is static, automatic checkpoints are off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateMachine {
    pub name: VmName,
    pub owner: Owner,
    /// Lines of the notes behind the owner's.
    pub more_notes: Vec<String>,
    pub folder: HostPath,
    pub processors: u64,
    pub memory_bytes: u64,
    pub nested_virtualization: bool,
    pub switch: Option<SwitchName>,
    pub disks: Vec<DiskSpec>,
    pub dvds: Vec<DvdSpec>,
    pub firmware: FirmwareSpec,
    /// The serial line as a named pipe of the host.
    pub serial_pipe: Option<String>,
    pub services: Vec<Service>,
}

impl CreateMachine {
    fn check(&self) -> Result<()> {
        let invalid = |reason: String| Err(Error::Invalid { what: "machine", reason });
        if self.processors == 0
            || self.memory_bytes < 32 << 20
            || !self.memory_bytes.is_multiple_of(2 << 20)
        {
            return invalid(
                "needs a processor, and memory of at least 32 MiB in steps of 2 MiB".into(),
            );
        }
        let uefi = matches!(self.firmware, FirmwareSpec::Uefi { .. });
        let mut used: Vec<Slot> = Vec::new();
        let slots = self
            .disks
            .iter()
            .map(|d| (d.slot, false))
            .chain(self.dvds.iter().map(|d| (d.slot, true)));
        for (slot, dvd) in slots {
            if !slot.exists() || used.contains(&slot) {
                return invalid(format!("{slot:?} does not exist or is taken twice"));
            }
            match (uefi, slot.controller) {
                (true, Controller::Ide) => return invalid("a Gen2 machine has no IDE".into()),
                (false, Controller::Scsi) if dvd => {
                    return invalid("a Gen1 machine's DVD is on IDE".into());
                }
                _ => used.push(slot),
            }
        }
        if let FirmwareSpec::Uefi { boot_order, .. } = &self.firmware {
            for device in boot_order {
                let there = match device {
                    BootDevice::HardDisk(slot) => self.disks.iter().any(|d| d.slot == *slot),
                    BootDevice::Dvd(slot) => self.dvds.iter().any(|d| d.slot == *slot),
                    BootDevice::Network => true,
                };
                if !there {
                    return invalid(format!(
                        "the boot order names {device:?}, which it does not have"
                    ));
                }
            }
        }
        Ok(())
    }

    /// One script: when a step of it fails, the machine is removed again by the host itself.
    pub fn operation(&self) -> Result<Operation<Machine>> {
        self.check()?;
        let uefi = matches!(self.firmware, FirmwareSpec::Uefi { .. });
        let mut script = Script::new(vec![
            Step::NameIsFree(self.name.clone()),
            Step::Make(NewVm {
                name: self.name.clone(),
                generation: if uefi { Generation::Two } else { Generation::One },
                memory_bytes: self.memory_bytes,
                switch: self.switch.clone(),
                disk: FirstDisk::None,
                folder: self.folder.clone(),
                version: None,
            }),
        ]);
        script.push(SetVm {
            processor_count: Some(self.processors),
            static_memory: true,
            stop_action: Some(StopAction::TurnOff),
            start_with_host: Some(false),
            notes: Some(
                std::iter::once(self.owner.tag())
                    .chain(self.more_notes.iter().cloned())
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            ..SetVm::default()
        });
        // Windows 10 and 11 switch them on by themselves; Server 2016 does not know the parameter.
        script.push(Step::RunIfKnown {
            cmdlet: SetVm { automatic_checkpoints: Some(false), ..SetVm::default() }.into(),
            parameter: "AutomaticCheckpointsEnabled",
        });
        script.push(SetMemory { startup_bytes: self.memory_bytes, dynamic: false });
        if self.nested_virtualization {
            script.push(SetProcessor { count: None, expose_virtualization: Some(true) });
        }
        for disk in &self.disks {
            script.push(AddHardDisk { slot: disk.slot, path: disk.path.clone() });
        }
        // A Gen1 machine is born with an empty DVD drive on IDE 1:0.
        for dvd in &self.dvds {
            if !uefi && dvd.slot == Slot::ide(1, 0) {
                script.push(SetDvd { slot: dvd.slot, path: dvd.medium.clone() });
            } else {
                script.push(AddDvd { slot: dvd.slot, path: dvd.medium.clone() });
            }
        }
        match &self.firmware {
            FirmwareSpec::Bios { startup_order } => {
                if !startup_order.is_empty() {
                    script.push(SetBios { startup_order: startup_order.clone() });
                }
            }
            FirmwareSpec::Uefi { secure_boot, tpm, boot_order } => {
                script.push(SetFirmware {
                    secure_boot: Some(*secure_boot),
                    ..SetFirmware::default()
                });
                if *tpm {
                    script.push(SetKeyProtector);
                    script.push(EnableTpm);
                }
                if !boot_order.is_empty() {
                    script.push(SetFirmware {
                        boot_order: boot_order.clone(),
                        ..SetFirmware::default()
                    });
                }
            }
        }
        if let Some(pipe) = &self.serial_pipe {
            script.push(SetComPort { number: 1, pipe: pipe.clone() });
        }
        for service in &self.services {
            script.push(EnableIntegration { service: *service });
        }
        script.push(Step::Ask { cmdlet: GetVm { id: None }.into(), shape: Shape::Machine });
        let name = self.name.as_str().to_lowercase();
        Ok(Operation::new("create machine", script, move |results| {
            let mut all: Vec<Machine> = results.value()?;
            all.retain(|machine| machine.name.to_lowercase() == name);
            match (all.pop(), all.is_empty()) {
                (Some(machine), true) => Ok(machine),
                _ => Err(Error::Answer {
                    operation: "create machine".into(),
                    reason: "the new machine is missing or there are two of its name".into(),
                }),
            }
        }))
    }
}
