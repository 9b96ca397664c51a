//! What cmdlets answer, as types. Each shape is a projection in PowerShell and a struct here.
//!
//! Enumerations cross as words (`[string]`), because Windows PowerShell writes them as numbers in JSON.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cmdlet::{Controller, Slot, VhdType},
    error::{Error, Result},
    name::VmId,
};

/// Which properties of an object come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Machine,
    HardDisk,
    Dvd,
    Vhd,
    Mounted,
    Snapshot,
    Service,
    Switch,
    Nat,
    Adapter,
}

impl Shape {
    pub(crate) const ALL: [Shape; 10] = [
        Shape::Machine,
        Shape::HardDisk,
        Shape::Dvd,
        Shape::Vhd,
        Shape::Mounted,
        Shape::Snapshot,
        Shape::Service,
        Shape::Switch,
        Shape::Nat,
        Shape::Adapter,
    ];

    pub(crate) fn projection(self) -> &'static str {
        match self {
            Shape::Machine => {
                "[ordered]@{id=[string]$_.Id;name=[string]$_.Name;state=[string]$_.State;\
                 generation=[int]$_.Generation;notes=[string]$_.Notes;processors=[int]$_.ProcessorCount;\
                 memory_bytes=[int64]$_.MemoryStartup;uptime_seconds=[int64]$_.Uptime.TotalSeconds;\
                 heartbeat=[string]$_.Heartbeat}"
            }
            Shape::HardDisk => {
                "[ordered]@{controller=[string]$_.ControllerType;number=[int]$_.ControllerNumber;\
                 location=[int]$_.ControllerLocation;path=[string]$_.Path}"
            }
            Shape::Dvd => {
                "[ordered]@{controller=[string]$_.ControllerType;number=[int]$_.ControllerNumber;\
                 location=[int]$_.ControllerLocation;path=[string]$_.Path}"
            }
            Shape::Vhd => {
                "[ordered]@{path=[string]$_.Path;kind=[string]$_.VhdType;format=[string]$_.VhdFormat;\
                 size_bytes=[int64]$_.Size;file_bytes=[int64]$_.FileSize;parent=[string]$_.ParentPath;\
                 attached=[bool]$_.Attached}"
            }
            Shape::Mounted => "[ordered]@{disk_number=[int64]$_.DiskNumber}",
            Shape::Snapshot => {
                "[ordered]@{id=[string]$_.Id;name=[string]$_.Name;kind=[string]$_.SnapshotType}"
            }
            Shape::Service => "[ordered]@{id=[string]$_.Id;enabled=[bool]$_.Enabled}",
            Shape::Switch => {
                "[ordered]@{name=[string]$_.Name;kind=[string]$_.SwitchType;notes=[string]$_.Notes}"
            }
            Shape::Nat => {
                "[ordered]@{name=[string]$_.Name;prefix=[string]$_.InternalIPInterfaceAddressPrefix}"
            }
            Shape::Adapter => {
                "[ordered]@{mac=[string]$_.MacAddress;switch=[string]$_.SwitchName;\
                 addresses=@($_.IPAddresses | ForEach-Object { [string]$_ })}"
            }
        }
    }
}

/// What a machine does. Words this list has not are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum State {
    Off,
    Running,
    Saved,
    Paused,
    Starting,
    Stopping,
    Saving,
    Other(String),
}

impl From<String> for State {
    fn from(word: String) -> Self {
        match word.as_str() {
            "Off" => State::Off,
            "Running" => State::Running,
            "Saved" => State::Saved,
            "Paused" => State::Paused,
            "Starting" => State::Starting,
            "Stopping" => State::Stopping,
            "Saving" => State::Saving,
            _ => State::Other(word),
        }
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        match state {
            State::Off => "Off".into(),
            State::Running => "Running".into(),
            State::Saved => "Saved".into(),
            State::Paused => "Paused".into(),
            State::Starting => "Starting".into(),
            State::Stopping => "Stopping".into(),
            State::Saving => "Saving".into(),
            State::Other(word) => word,
        }
    }
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub id: VmId,
    pub name: String,
    pub state: State,
    /// 1 or 2.
    pub generation: u32,
    pub notes: String,
    pub processors: u32,
    pub memory_bytes: u64,
    pub uptime_seconds: u64,
    /// `OkApplicationsHealthy` and the like; empty when there is none.
    pub heartbeat: String,
}

/// A hard disk or DVD drive of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    #[serde(flatten)]
    pub slot: DriveSlot,
    /// Empty when no medium is in it.
    pub path: String,
}

/// Where a drive hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveSlot {
    pub controller: Controller,
    pub number: u32,
    pub location: u32,
}

impl From<Slot> for DriveSlot {
    fn from(slot: Slot) -> Self {
        Self { controller: slot.controller, number: slot.number, location: slot.location }
    }
}

/// A virtual disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vhd {
    pub path: String,
    pub kind: VhdType,
    /// `VHD` or `VHDX`.
    pub format: String,
    /// What the guest sees.
    pub size_bytes: u64,
    /// What the file takes.
    pub file_bytes: u64,
    /// Empty when it has none.
    pub parent: String,
    /// Mounted on the host or used by a running machine.
    pub attached: bool,
}

/// A disk mounted on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// `\\.\PhysicalDrive<n>`.
    pub disk_number: u32,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: VmId,
    pub name: String,
    pub kind: String,
}

/// An integration service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    pub id: String,
    pub enabled: bool,
}

/// A virtual switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub name: String,
    /// `Internal`, `Private` or `External`.
    pub kind: String,
    pub notes: String,
}

/// A NAT network of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    pub name: String,
    pub prefix: String,
}

/// A network adapter of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Twelve digits without separators.
    pub mac: String,
    pub switch: String,
    /// What the guest's integration services told; empty before they run.
    pub addresses: Vec<String>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Of Windows, such as `10.0.20348.0`.
    pub version: String,
    pub powershell: String,
    /// Where Hyper-V keeps machines by default.
    pub folder: String,
}

/// Reads results one after the other.
pub struct Results {
    operation: &'static str,
    rest: std::vec::IntoIter<serde_json::Value>,
}

impl Results {
    pub(crate) fn new(operation: &'static str, results: Vec<serde_json::Value>) -> Self {
        Self { operation, rest: results.into_iter() }
    }

    fn broken(&self, reason: impl ToString) -> Error {
        Error::Answer { operation: self.operation.into(), reason: reason.to_string() }
    }

    /// The next result, whatever it is.
    pub(crate) fn value<T: DeserializeOwned>(&mut self) -> Result<T> {
        let value = self.rest.next().ok_or_else(|| self.broken("a result is missing"))?;
        serde_json::from_value(value).map_err(|e| self.broken(e))
    }

    /// The next result, a list with exactly one element.
    pub(crate) fn one<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut list: Vec<T> = self.value()?;
        match (list.pop(), list.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(self.broken("nothing where one thing must be")),
            (Some(_), false) => Err(self.broken("several things where one must be")),
        }
    }
}
