//! Virtual disks as files.

use super::Call;
use crate::{name::HostPath, script::Value};

/// How the file of a disk is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum VhdType {
    Fixed,
    Dynamic,
    Differencing,
}

impl VhdType {
    pub fn word(self) -> &'static str {
        match self {
            VhdType::Fixed => "Fixed",
            VhdType::Dynamic => "Dynamic",
            VhdType::Differencing => "Differencing",
        }
    }
}

/// `New-VHD`. The extension chooses VHD or VHDX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewVhd {
    Dynamic { path: HostPath, size_bytes: u64, block_size_bytes: Option<u32> },
    Fixed { path: HostPath, size_bytes: u64 },
    Differencing { path: HostPath, parent: HostPath },
}

impl NewVhd {
    pub fn path(&self) -> &HostPath {
        match self {
            NewVhd::Dynamic { path, .. }
            | NewVhd::Fixed { path, .. }
            | NewVhd::Differencing { path, .. } => path,
        }
    }

    pub fn call(&self) -> Call {
        match self {
            NewVhd::Dynamic { path, size_bytes, block_size_bytes } => {
                Call::new("New-VHD", "DynamicWithoutSource")
                    .with("Path", path.as_str())
                    .with("SizeBytes", *size_bytes)
                    .switch("Dynamic")
                    .with_some("BlockSizeBytes", *block_size_bytes)
            }
            NewVhd::Fixed { path, size_bytes } => Call::new("New-VHD", "FixedWithoutSource")
                .with("Path", path.as_str())
                .with("SizeBytes", *size_bytes)
                .switch("Fixed"),
            NewVhd::Differencing { path, parent } => Call::new("New-VHD", "Differencing")
                .with("Path", path.as_str())
                .with("ParentPath", parent.as_str())
                .switch("Differencing"),
        }
    }
}

/// `Resize-VHD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizeVhd {
    pub path: HostPath,
    /// `None`: as small as the partitions allow.
    pub size_bytes: Option<u64>,
}

impl ResizeVhd {
    pub fn call(&self) -> Call {
        match self.size_bytes {
            Some(size) => Call::new("Resize-VHD", "Size")
                .with("Path", self.path.as_str())
                .with("SizeBytes", size),
            None => Call::new("Resize-VHD", "MinimumSize")
                .with("Path", self.path.as_str())
                .switch("ToMinimumSize"),
        }
    }
}

/// `Convert-VHD`: a flat copy of a chain, among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertVhd {
    pub path: HostPath,
    pub destination: HostPath,
    pub kind: VhdType,
}

impl ConvertVhd {
    pub fn call(&self) -> Call {
        Call::new("Convert-VHD", "(default)")
            .with("Path", self.path.as_str())
            .with("DestinationPath", self.destination.as_str())
            .with("VHDType", Value::Word(self.kind.word()))
    }
}

/// `Merge-VHD`: writes a differencing disk into an ancestor and removes what lies between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeVhd {
    pub path: HostPath,
    /// The parent if `None`.
    pub destination: Option<HostPath>,
}

impl MergeVhd {
    pub fn call(&self) -> Call {
        Call::new("Merge-VHD", "(default)")
            .with("Path", self.path.as_str())
            .with_some("DestinationPath", self.destination.as_ref().map(HostPath::as_str))
            .switch("Force")
    }
}

/// How hard a disk is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactMode {
    /// The disk must be mounted read-only.
    Full,
    /// The disk must be mounted read-only.
    Quick,
    /// The disk must be mounted read-only.
    Retrim,
    /// Also for a detached disk.
    Pretrimmed,
    /// Also for a detached disk.
    Prezeroed,
}

impl CompactMode {
    pub fn needs_mount(self) -> bool {
        matches!(self, CompactMode::Full | CompactMode::Quick | CompactMode::Retrim)
    }
}

/// `Optimize-VHD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptimizeVhd {
    pub path: HostPath,
    pub mode: CompactMode,
}

impl OptimizeVhd {
    pub fn call(&self) -> Call {
        let mode = match self.mode {
            CompactMode::Full => "Full",
            CompactMode::Quick => "Quick",
            CompactMode::Retrim => "Retrim",
            CompactMode::Pretrimmed => "Pretrimmed",
            CompactMode::Prezeroed => "Prezeroed",
        };
        Call::new("Optimize-VHD", "(default)")
            .with("Path", self.path.as_str())
            .with("Mode", Value::Word(mode))
    }
}

/// `Mount-VHD -ReadOnly`, without letters for its volumes: nothing else is allowed on a disk to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountVhd {
    pub path: HostPath,
}

impl MountVhd {
    pub fn call(&self) -> Call {
        Call::new("Mount-VHD", "(default)")
            .with("Path", self.path.as_str())
            .switch("ReadOnly")
            .switch("NoDriveLetter")
            .switch("Passthru")
    }
}

/// `Dismount-VHD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DismountVhd {
    pub path: HostPath,
}

impl DismountVhd {
    pub fn call(&self) -> Call {
        Call::new("Dismount-VHD", "Path").with("Path", self.path.as_str())
    }
}

/// `Get-VHD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetVhd {
    pub path: HostPath,
}

impl GetVhd {
    pub fn call(&self) -> Call {
        Call::new("Get-VHD", "Path").with("Path", self.path.as_str())
    }
}
