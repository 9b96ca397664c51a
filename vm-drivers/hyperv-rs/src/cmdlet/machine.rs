//! Machines: make, set, start, stop, remove.

use super::Call;
use crate::{
    name::{HostPath, SwitchName, VmId, VmName},
    script::Value,
};

/// Gen1 is a BIOS with IDE, Gen2 is UEFI with SCSI. It cannot be changed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Generation {
    One,
    Two,
}

impl Generation {
    pub fn number(self) -> u64 {
        match self {
            Generation::One => 1,
            Generation::Two => 2,
        }
    }
}

/// What a new machine has for its first disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstDisk {
    None,
    Existing(HostPath),
    New { path: HostPath, size_bytes: u64 },
}

/// `New-VM`. `Path` is the folder in which Hyper-V makes a folder for the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVm {
    pub name: VmName,
    pub generation: Generation,
    pub memory_bytes: u64,
    pub switch: Option<SwitchName>,
    pub disk: FirstDisk,
    pub folder: HostPath,
    /// Configuration version, such as `9.0`; the host's newest if `None`.
    pub version: Option<String>,
}

impl NewVm {
    pub fn call(&self) -> Call {
        let set = match self.disk {
            FirstDisk::None => "No VHD",
            FirstDisk::Existing(_) => "Existing VHD",
            FirstDisk::New { .. } => "New VHD",
        };
        let call = Call::new("New-VM", set)
            .with("Name", self.name.as_str())
            .with("Generation", self.generation.number())
            .with("MemoryStartupBytes", self.memory_bytes)
            .with_some("SwitchName", self.switch.as_ref().map(SwitchName::as_str));
        let call = match &self.disk {
            FirstDisk::None => call.switch("NoVHD"),
            FirstDisk::Existing(path) => call.with("VHDPath", path.as_str()),
            FirstDisk::New { path, size_bytes } => {
                call.with("NewVHDPath", path.as_str()).with("NewVHDSizeBytes", *size_bytes)
            }
        };
        call.with("Path", self.folder.as_str())
            .with_some("Version", self.version.as_deref())
            .switch("Force")
    }
}

/// What a checkpoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointType {
    Disabled,
    Standard,
    Production,
    ProductionOnly,
}

/// What becomes of a running machine when the host shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAction {
    TurnOff,
    Save,
    ShutDown,
}

/// `Set-VM`. Memory is static where `static_memory` is set; nothing here makes it dynamic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetVm {
    pub processor_count: Option<u64>,
    pub static_memory: bool,
    pub automatic_checkpoints: Option<bool>,
    pub checkpoint_type: Option<CheckpointType>,
    pub stop_action: Option<StopAction>,
    /// Whether the host starts the machine by itself; `Some(false)` never does.
    pub start_with_host: Option<bool>,
    pub notes: Option<String>,
}

impl SetVm {
    pub fn call(&self) -> Call {
        Call::on_machine("Set-VM")
            .with_some("ProcessorCount", self.processor_count)
            .switch_if("StaticMemory", self.static_memory)
            .with_some("AutomaticCheckpointsEnabled", self.automatic_checkpoints)
            .with_some(
                "CheckpointType",
                self.checkpoint_type.map(|kind| {
                    Value::Word(match kind {
                        CheckpointType::Disabled => "Disabled",
                        CheckpointType::Standard => "Standard",
                        CheckpointType::Production => "Production",
                        CheckpointType::ProductionOnly => "ProductionOnly",
                    })
                }),
            )
            .with_some(
                "AutomaticStopAction",
                self.stop_action.map(|action| {
                    Value::Word(match action {
                        StopAction::TurnOff => "TurnOff",
                        StopAction::Save => "Save",
                        StopAction::ShutDown => "ShutDown",
                    })
                }),
            )
            .with_some(
                "AutomaticStartAction",
                self.start_with_host.map(|on| Value::Word(if on { "Start" } else { "Nothing" })),
            )
            .with_some("Notes", self.notes.as_deref())
    }
}

/// `Set-VMProcessor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetProcessor {
    pub count: Option<u64>,
    /// Nested virtualization.
    pub expose_virtualization: Option<bool>,
}

impl SetProcessor {
    pub fn call(&self) -> Call {
        Call::on_machine("Set-VMProcessor")
            .with_some("Count", self.count)
            .with_some("ExposeVirtualizationExtensions", self.expose_virtualization)
    }
}

/// `Set-VMMemory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMemory {
    pub startup_bytes: u64,
    pub dynamic: bool,
}

impl SetMemory {
    pub fn call(&self) -> Call {
        Call::on_machine("Set-VMMemory")
            .with("DynamicMemoryEnabled", self.dynamic)
            .with("StartupBytes", self.startup_bytes)
    }
}

/// `Get-VM`: all, or the one with this id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetVm {
    pub id: Option<VmId>,
}

impl GetVm {
    pub fn call(&self) -> Call {
        match &self.id {
            None => Call::new("Get-VM", "Name"),
            Some(id) => Call::new("Get-VM", "Id").with("Id", id.as_str()),
        }
    }
}

/// `Remove-VM`: the machine must be off or saved; its disks stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveVm;

impl RemoveVm {
    pub fn call(&self) -> Call {
        Call::on_machine("Remove-VM").switch("Force")
    }
}

/// `Start-VM`: from off or saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartVm;

impl StartVm {
    pub fn call(&self) -> Call {
        Call::on_machine("Start-VM")
    }
}

/// `Restart-VM`: the reset button, without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartVm;

impl RestartVm {
    pub fn call(&self) -> Call {
        Call::on_machine("Restart-VM").switch("Force")
    }
}

/// `Get-VMHost`: the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetHost;

impl GetHost {
    pub fn call(&self) -> Call {
        Call::new("Get-VMHost", "ComputerName")
    }
}

/// How a machine is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The guest shuts down. Programs with unsaved data get five minutes, a locked guest none.
    ShutDown,
    /// The power is cut.
    TurnOff,
    /// The memory goes to the host's disk.
    Save,
}

/// `Stop-VM`, never asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopVm {
    pub how: Stop,
}

impl StopVm {
    pub fn call(&self) -> Call {
        let call = Call::on_machine("Stop-VM");
        match self.how {
            Stop::ShutDown => call.switch("Force"),
            Stop::TurnOff => call.switch("TurnOff").switch("Force"),
            Stop::Save => call.switch("Save"),
        }
    }
}

/// `Set-VMComPort`: the serial line as a named pipe `\\.\pipe\…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetComPort {
    /// 1 or 2.
    pub number: u32,
    /// The pipe's name, without `\\.\pipe\`.
    pub pipe: String,
}

impl SetComPort {
    pub fn call(&self) -> Call {
        Call::on_machine("Set-VMComPort")
            .with("Number", self.number)
            .with("Path", format!(r"\\.\pipe\{}", self.pipe))
    }
}
