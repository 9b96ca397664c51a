//! Checkpoints and export.

use super::Call;
use crate::{
    name::HostPath,
    script::{Expression, Value},
};

/// `Checkpoint-VM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub name: String,
}

impl Checkpoint {
    pub fn call(&self) -> Call {
        Call::on_machine("Checkpoint-VM").with("SnapshotName", self.name.as_str())
    }
}

/// `Get-VMSnapshot`: all of the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetSnapshots;

impl GetSnapshots {
    pub fn call(&self) -> Call {
        Call::on_machine("Get-VMSnapshot")
    }
}

/// `Restore-VMSnapshot`, without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreSnapshot {
    pub name: String,
}

impl RestoreSnapshot {
    pub fn call(&self) -> Call {
        Call::new("Restore-VMSnapshot", "VM")
            .with("VM", Value::Expression(Expression::Machine))
            .with("Name", self.name.as_str())
            .with("Confirm", Value::Expression(Expression::SwitchOff))
    }
}

/// `Remove-VMSnapshot`. The merge that follows runs on after the call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSnapshot {
    pub name: String,
}

impl RemoveSnapshot {
    pub fn call(&self) -> Call {
        Call::on_machine("Remove-VMSnapshot").with("Name", self.name.as_str())
    }
}

/// What an export of a running machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveState {
    CaptureCrashConsistentState,
    CaptureSavedState,
    CaptureDataConsistentState,
}

/// `Export-VM` into a folder named after the machine inside `folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub folder: HostPath,
    /// For a machine that runs; `None` for one that is off.
    pub live: Option<LiveState>,
}

impl Export {
    pub fn call(&self) -> Call {
        Call::on_machine("Export-VM").with("Path", self.folder.as_str()).with_some(
            "CaptureLiveState",
            self.live.map(|state| {
                Value::Word(match state {
                    LiveState::CaptureCrashConsistentState => "CaptureCrashConsistentState",
                    LiveState::CaptureSavedState => "CaptureSavedState",
                    LiveState::CaptureDataConsistentState => "CaptureDataConsistentState",
                })
            }),
        )
    }
}
