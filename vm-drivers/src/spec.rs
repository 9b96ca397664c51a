//! A machine in words every driver understands. Sizes are in bytes, everything has a name.

use std::{net::IpAddr, path::PathBuf};

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Shown in messages and process lists; letters, digits, `-`, `_` and `.`.
    pub name: String,
    pub cpu_count: u32,
    /// A whole number of MiB.
    pub memory_bytes: u64,
    /// A named CPU model; `None` lets the driver take what suits the accelerator.
    pub cpu_model: Option<String>,
    pub firmware: Firmware,
    pub disks: Vec<DiskSpec>,
    pub cdroms: Vec<CdromSpec>,
    pub network: Option<NetworkSpec>,
    pub tpm: Option<TpmSpec>,
    pub display: Display,
    /// Everything the guest writes to its first serial line is appended here.
    pub serial_log: PathBuf,
    pub accelerator: Accelerator,
    pub clock: GuestClock,
    pub on_guest_reset: OnGuestReset,
}

impl MachineSpec {
    /// A small headless machine with BIOS firmware and nothing attached.
    pub fn new(name: impl Into<String>, serial_log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            cpu_count: 1,
            memory_bytes: 512 << 20,
            cpu_model: None,
            firmware: Firmware::Bios,
            disks: Vec::new(),
            cdroms: Vec::new(),
            network: None,
            tpm: None,
            display: Display::Headless,
            serial_log: serial_log.into(),
            accelerator: Accelerator::Auto,
            clock: GuestClock::Utc,
            on_guest_reset: OnGuestReset::Restart,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Firmware {
    Bios,
    Uefi {
        secure_boot: bool,
        /// This machine's own copy of the variables; made from the driver's template when it
        /// does not exist yet, kept by the caller afterwards.
        variables: PathBuf,
    },
    /// The hypervisor loads a Linux kernel itself.
    DirectKernel {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        command_line: String,
    },
}

#[derive(Clone, Debug)]
pub struct DiskSpec {
    pub path: PathBuf,
    pub format: DiskFormat,
    pub interface: DiskInterface,
    /// 1 is tried first; `None` is never booted from.
    pub boot_index: Option<u32>,
    /// Writes of the guest are thrown away when the machine ends; the file is not touched.
    pub throw_away_writes: bool,
}

impl DiskSpec {
    /// A qcow2 disk the machine boots from.
    pub fn boot(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: DiskFormat::Qcow2,
            interface: DiskInterface::VirtioBlk,
            boot_index: Some(1),
            throw_away_writes: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    Raw,
    Qcow2,
    Vhdx,
}

impl DiskFormat {
    /// The name `qemu-img` and the monitor use.
    pub fn qemu_name(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vhdx => "vhdx",
        }
    }

    pub fn from_qemu_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2, Self::Vhdx].into_iter().find(|f| f.qemu_name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskInterface {
    VirtioBlk,
    VirtioScsi,
    Sata,
    Nvme,
}

/// A drive that is always there; its medium may come and go.
#[derive(Clone, Debug)]
pub struct CdromSpec {
    pub medium: Option<PathBuf>,
    pub interface: CdromInterface,
    pub boot_index: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CdromInterface {
    Sata,
    /// For guests without an AHCI driver, such as Debian's cloud kernel.
    VirtioScsi,
}

/// A user-mode network: the guest reaches the host and beyond, only forwarded ports lead in.
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    pub device: NetDevice,
    pub forwards: Vec<PortForward>,
    /// `true`: the guest reaches nothing, not even this host; forwarded ports still lead in.
    pub isolated: bool,
    /// Ports of this host's services the guest is going to use, by
    /// [`HostSide`](crate::HostSide); a driver of another host leads them here.
    pub reaches_host_ports: Vec<u16>,
    /// `None` gives every machine the same address, so that a guest sees no new card.
    pub mac: Option<[u8; 6]>,
}

impl NetworkSpec {
    /// virtio, with a forwarded way to `guest_port`.
    pub fn forwarding(guest_port: u16) -> Self {
        Self {
            device: NetDevice::VirtioNet,
            forwards: vec![PortForward::to(guest_port)],
            isolated: false,
            reaches_host_ports: Vec::new(),
            mac: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetDevice {
    VirtioNet,
    E1000e,
}

#[derive(Clone, Debug)]
pub struct PortForward {
    pub guest_port: u16,
    /// `None`: a free port is chosen.
    pub host_port: Option<u16>,
    /// Where it listens on the host.
    pub host_address: IpAddr,
}

impl PortForward {
    /// A free port of 127.0.0.1 that leads to `guest_port`.
    pub fn to(guest_port: u16) -> Self {
        Self { guest_port, host_port: None, host_address: IpAddr::from([127, 0, 0, 1]) }
    }
}

/// A TPM 2.0 with its state in a folder the caller keeps.
#[derive(Clone, Debug)]
pub struct TpmSpec {
    pub state_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// No graphics adapter at all: fastest; there is nothing to photograph.
    None,
    /// A graphics adapter nobody looks at; screenshots and screen waits work.
    Headless,
    /// As `Headless`, and a viewer may connect to a port of 127.0.0.1 (see `VmInfo::vnc`).
    Vnc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// The fastest one that proved itself by booting a tiny guest.
    Auto,
    Kvm,
    /// Emulation; works everywhere, slowly.
    Tcg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestClock {
    Utc,
    /// As Windows wants it.
    LocalTime,
    /// Seconds since 1970; runs with the guest.
    Fixed(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGuestReset {
    Restart,
    /// The machine ends with `ExitReason::Reset`.
    Stop,
}
