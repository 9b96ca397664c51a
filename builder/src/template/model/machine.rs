//! The machine an image is built on, and how gilt talks to it.

use super::FileRef;
use crate::template::cx::Cx;
use crate::template::fields::{choices, fields};
use crate::template::node::Node;
use crate::template::scalar::ByteSize;
use crate::template::text::Text;
use std::time::Duration;

choices! {
    /// What runs inside the image.
    pub enum Guest {
        /// Any Linux.
        Linux = "linux",
        /// Windows 10 or Server 2016 and later.
        Windows = "windows",
    }
}

choices! {
    /// The firmware that starts the guest.
    pub enum Firmware {
        /// UEFI, with variables of its own for each build.
        Uefi = "uefi",
        /// The old PC BIOS.
        Bios = "bios",
    }
}

choices! {
    /// What starts the guest's kernel.
    pub enum Boot {
        /// The firmware and the boot loader on the disk, as on a real machine.
        Firmware = "firmware",
        /// The hypervisor: it loads the kernel, the initial RAM disk and the command line of the first entry in the
        /// disk's GRUB configuration. Under emulation that saves a third of a boot. The guest sees no UEFI, and
        /// may not restart. Linux guests that begin from a disk.
        Kernel = "kernel",
    }
}

choices! {
    /// What the guest's disk is attached to.
    pub enum DiskInterface {
        /// Paravirtual block device: fastest; needs a driver in Windows.
        VirtioBlk = "virtio-blk",
        /// Paravirtual SCSI; needs a driver in Windows.
        VirtioScsi = "virtio-scsi",
        /// AHCI; every guest knows it.
        Sata = "sata",
        /// NVM Express; every newer guest knows it.
        Nvme = "nvme",
    }
}

choices! {
    /// The guest's network card.
    pub enum NetDevice {
        /// Paravirtual: fastest; needs a driver in Windows.
        VirtioNet = "virtio-net",
        /// Intel 82574; every guest knows it.
        E1000e = "e1000e",
        /// No network at all.
        None = "none",
    }
}

choices! {
    /// What runs the guest's instructions.
    pub enum Accelerator {
        /// The fastest that is proved to work on this host.
        Auto = "auto",
        /// Linux KVM.
        Kvm = "kvm",
        /// QEMU's own translator: works everywhere, slowly.
        Tcg = "tcg",
        /// macOS Hypervisor.framework.
        Hvf = "hvf",
        /// Windows Hypervisor Platform.
        Whpx = "whpx",
    }
}

choices! {
    /// Where the guest's screen is shown.
    pub enum Display {
        /// Nowhere; screenshots are still taken on failure.
        None = "none",
        /// A VNC server on the loopback address.
        Vnc = "vnc",
        /// A window.
        Window = "window",
    }
}

fields! {
    /// The machine to build on. What the guest can see (firmware, devices, disk size) is part of
    /// every layer's key; what only changes the speed (CPUs, memory, accelerator) is not.
    pub struct Machine = "machine", check check_machine {
        /// Virtual CPUs.
        run cpus: u32 = 2,
        /// Memory.
        run memory: ByteSize = ByteSize::gib(1),
        /// Size of the disk. The image file grows only as it is filled.
        key disk: ByteSize = ByteSize::gib(8),
        /// Firmware that starts the guest.
        key firmware: Firmware = Firmware::Uefi,
        /// What starts the kernel while building; the tests always go through the firmware.
        key boot: Boot = Boot::Firmware,
        /// Start only signed boot loaders. Needs `firmware: uefi`.
        key secure_boot: bool = false,
        /// A TPM 2.0.
        key tpm: bool = false,
        /// What the disk is attached to.
        key disk_interface: DiskInterface = DiskInterface::VirtioBlk,
        /// Network card.
        key net_device: NetDevice = NetDevice::VirtioNet,
        /// CPU model the guest sees; without one, the driver's choice.
        key cpu_model: Option<String> = None,
        /// What runs the guest's instructions.
        run accelerator: Accelerator = Accelerator::Auto,
        /// Where the screen is shown while building.
        run display: Display = Display::None,
    }
}

impl Machine {
    /// Whether the hypervisor starts the kernel, past firmware and boot loader.
    pub fn boots_kernel(&self) -> bool {
        self.boot == Boot::Kernel
    }
}

fn check_machine(machine: &Machine, node: &Node, cx: &mut Cx) {
    let at = |key: &str| {
        node.as_map().and_then(|map| map.get(key)).map_or(node.span, |entry| entry.node.span)
    };
    if machine.cpus == 0 {
        cx.error(at("cpus"), "a machine needs a CPU");
    }
    if machine.memory < ByteSize::mib(16) {
        cx.error(at("memory"), format!("{} is too little memory for any guest", machine.memory));
    }
    if machine.disk < ByteSize::mib(16) || !machine.disk.bytes().is_multiple_of(512) {
        cx.error(at("disk"), "a disk has at least 16MiB, in whole sectors of 512 bytes");
    }
    if machine.secure_boot && machine.firmware == Firmware::Bios {
        cx.error_hint(at("secure_boot"), "Secure Boot needs UEFI", "set `firmware: uefi`");
    }
}

choices! {
    /// How gilt reaches the inside of the guest.
    pub enum CommunicatorType {
        /// SSH with a key made for this build.
        Ssh = "ssh",
        /// Windows Remote Management.
        Winrm = "winrm",
        /// Not at all: the image is only installed and captured.
        None = "none",
    }
}

fields! {
    /// How gilt reaches the inside of the guest.
    pub struct Communicator = "communicator" {
        /// Protocol.
        run kind as "type": CommunicatorType = CommunicatorType::Ssh,
        /// Account to log in with. It is removed when the image is generalized.
        key username: String = "gilt-build".to_owned(),
        /// Password, for guests that take no key.
        run password: Option<Text> = None,
        /// Private key to log in with instead of one made for this build.
        run private_key: Option<FileRef> = None,
        /// Port inside the guest.
        run port: u16 = 22,
        /// How long the guest may take from its start to the first login.
        run timeout: Duration = Duration::from_secs(300),
    }
}
