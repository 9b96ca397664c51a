//! From a machine's spec to the XML of a libvirt domain.
//!
//! Devices stand where the QEMU driver has them (SCSI targets, SATA ports, serial numbers), so that a
//! disk finds its way from one driver to the other.

use super::{
    owner::Owner,
    xml::{Element, el},
};
use crate::{
    error::{Error, Result},
    spec::*,
};

/// QEMU's own extension of the domain format: for user-mode networks with forwarded ports, which
/// libvirt has no words for before its version 9, and only with another program's help since.
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// Of the network card on bus `pcie.0`; libvirt fills that bus from below.
const NIC_SLOT: &str = "0x18";
const FIRST_SCSI_CDROM: usize = 24;
const DEFAULT_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x67, 0x69, 0x6c];

/// What is only known when the machine starts.
#[derive(Debug)]
pub struct Around<'a> {
    pub name: &'a str,
    pub uuid: &'a str,
    pub owner: &'a Owner,
    pub kvm: bool,
    pub files: &'a Files,
    /// Host port of each forward, in the order of the spec.
    pub host_ports: &'a [u16],
    /// A network of libvirt in place of QEMU's user-mode one.
    pub network: Option<&'a str>,
    pub vnc_port: Option<u16>,
}

/// What a machine is made of, by the names its hypervisor's host knows.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// In the order of the spec.
    pub disks: Vec<Image>,
    pub media: Vec<Option<String>>,
    pub uefi: Option<Uefi>,
    pub kernel: Option<String>,
    pub initrd: Option<String>,
    pub serial: Option<Serial>,
    pub tpm: Option<Tpm>,
}

/// A disk image and, where it is said here and not by the file itself, what it lies over.
#[derive(Clone, Debug)]
pub struct Image {
    pub path: String,
    pub format: DiskFormat,
    pub backing: Backing,
}

#[derive(Clone, Debug)]
pub enum Backing {
    /// libvirt reads it from the file.
    AsTheFileSays,
    /// What the file says does not hold on that host: the whole chain, next first.
    Chain(Vec<(String, DiskFormat)>),
}

#[derive(Clone, Debug)]
pub struct Uefi {
    pub code: String,
    pub variables: String,
    pub secure_boot: bool,
}

#[derive(Clone, Debug)]
pub enum Serial {
    /// The hypervisor appends to it.
    File(String),
    /// The hypervisor listens on a port of its 127.0.0.1.
    Listen(u16),
}

#[derive(Clone, Debug)]
pub enum Tpm {
    /// The socket of a `swtpm` of ours.
    Socket(String),
    /// libvirt starts one; its state ends with the machine.
    OfLibvirt,
}

/// The names libvirt has for the disks and the CD drives of a spec.
pub fn targets(spec: &MachineSpec) -> (Vec<String>, Vec<String>) {
    let (mut virtio, mut other) = (0u8, 0u8);
    let name = |prefix: &str, count: &mut u8| {
        let letter = char::from(b'a' + *count % 26);
        *count += 1;
        format!("{prefix}{letter}")
    };
    let disks = spec.disks.iter().map(|disk| match disk.interface {
        DiskInterface::VirtioBlk => name("vd", &mut virtio),
        _ => name("sd", &mut other),
    });
    let disks = disks.collect();
    let cdroms = spec.cdroms.iter().map(|_| name("sd", &mut other)).collect();
    (disks, cdroms)
}

/// The domain's XML.
pub fn xml(spec: &MachineSpec, around: &Around<'_>) -> Result<String> {
    let unsupported = |what: &str| Error::Unsupported { driver: super::NAME, what: what.into() };
    if spec.disks.iter().any(|disk| disk.interface == DiskInterface::Nvme) {
        return Err(unsupported(
            "attach an NVMe disk: libvirt emulates none before its version 11.5",
        ));
    }
    let user_mode = spec.network.as_ref().filter(|_| around.network.is_none());
    if around.network.is_some() && spec.network.as_ref().is_some_and(|n| n.isolated) {
        return Err(unsupported("keep a guest of a libvirt network from reaching out"));
    }
    let mut domain = el("domain").attr("type", if around.kvm { "kvm" } else { "qemu" });
    if user_mode.is_some() {
        domain = domain.attr("xmlns:qemu", QEMU_NAMESPACE);
    }
    domain = domain
        .child(el("name").text(around.name))
        .child(el("uuid").text(around.uuid))
        .child(el("metadata").child(around.owner.element()))
        .child(el("memory").attr("unit", "MiB").text(spec.memory_bytes >> 20))
        .child(el("vcpu").text(spec.cpu_count))
        .child(boot(spec, around))
        .child(features(spec))
        .child(cpu(spec, around.kvm))
        .child(clock(spec.clock))
        .child(el("on_poweroff").text("destroy"))
        // A reset by the guest is told as an event; the driver ends the machine where asked.
        .child(el("on_reboot").text("restart"))
        // A panicked guest stands still, so that it can be looked at.
        .child(el("on_crash").text("preserve"))
        .child(
            el("pm")
                .child(el("suspend-to-mem").attr("enabled", "no"))
                .child(el("suspend-to-disk").attr("enabled", "no")),
        )
        .child(devices(spec, around));
    if let Some(network) = user_mode {
        domain = domain.child(user_network(network, around.host_ports));
    }
    domain.to_xml().map_err(|value| Error::InvalidSpec {
        machine: spec.name.clone(),
        what: format!("libvirt has no way to write {value:?}"),
    })
}

fn boot(spec: &MachineSpec, around: &Around<'_>) -> Element {
    let mut os =
        el("os").child(el("type").attr("arch", "x86_64").attr("machine", "q35").text("hvm"));
    if let Some(uefi) = &around.files.uefi {
        os = os
            .child(
                el("loader")
                    .attr("readonly", "yes")
                    .attr("secure", if uefi.secure_boot { "yes" } else { "no" })
                    .attr("type", "pflash")
                    .text(&uefi.code),
            )
            .child(el("nvram").text(&uefi.variables));
    }
    if let Some(kernel) = &around.files.kernel {
        os = os.child(el("kernel").text(kernel));
    }
    if let Some(initrd) = &around.files.initrd {
        os = os.child(el("initrd").text(initrd));
    }
    if let Firmware::DirectKernel { command_line, .. } = &spec.firmware {
        os = os.child(el("cmdline").text(command_line));
    }
    os
}

fn features(spec: &MachineSpec) -> Element {
    let secure = matches!(spec.firmware, Firmware::Uefi { secure_boot: true, .. });
    el("features")
        .child(el("acpi"))
        .child(el("apic"))
        .child(el("vmport").attr("state", "off"))
        // Without SMM the guest could write the keys Secure Boot rests on.
        .child(el("smm").attr("state", if secure { "on" } else { "off" }))
}

fn cpu(spec: &MachineSpec, kvm: bool) -> Element {
    match spec.cpu_model.as_deref() {
        Some("host") => el("cpu").attr("mode", "host-passthrough"),
        None if kvm => el("cpu").attr("mode", "host-passthrough"),
        Some("max") => el("cpu").attr("mode", "maximum"),
        // As the QEMU driver: five-level page tables only cost a small guest.
        None => el("cpu")
            .attr("mode", "maximum")
            .child(el("feature").attr("policy", "disable").attr("name", "la57")),
        Some(model) => el("cpu")
            .attr("mode", "custom")
            .attr("match", "exact")
            .attr("check", "none")
            .child(el("model").attr("fallback", "forbid").text(model)),
    }
}

fn clock(clock: GuestClock) -> Element {
    let rtc = |name: &'static str, value: &str| el("timer").attr("name", "rtc").attr(name, value);
    match clock {
        GuestClock::Utc => el("clock").attr("offset", "utc"),
        GuestClock::LocalTime => {
            el("clock").attr("offset", "localtime").child(rtc("tickpolicy", "catchup"))
        }
        GuestClock::Fixed(seconds) => el("clock")
            .attr("offset", "absolute")
            .attr("start", seconds)
            .child(rtc("track", "guest")),
    }
}

fn devices(spec: &MachineSpec, around: &Around<'_>) -> Element {
    let mut devices =
        el("devices").child(el("controller").attr("type", "usb").attr("model", "none"));
    let scsi = spec.disks.iter().any(|d| d.interface == DiskInterface::VirtioScsi)
        || spec.cdroms.iter().any(|d| d.interface == CdromInterface::VirtioScsi);
    if scsi {
        let controller = el("controller").attr("type", "scsi").attr("index", 0);
        devices = devices.child(controller.attr("model", "virtio-scsi"));
    }
    devices = devices.children(drives(spec, around.files));
    if let (Some(network), Some(name)) = (&spec.network, around.network) {
        devices = devices.child(
            el("interface")
                .attr("type", "network")
                .child(el("mac").attr("address", mac(network)))
                .child(el("source").attr("network", name))
                .child(el("model").attr("type", card(network.device).1))
                .child(el("rom").attr("enabled", "no")),
        );
    }
    devices = match &around.files.serial {
        Some(Serial::File(path)) => devices.child(
            el("serial")
                .attr("type", "file")
                .child(el("source").attr("path", path).attr("append", "on"))
                .child(el("target").attr("port", 0)),
        ),
        Some(Serial::Listen(port)) => devices.child(
            el("serial")
                .attr("type", "tcp")
                .child(
                    el("source")
                        .attr("mode", "bind")
                        .attr("host", "127.0.0.1")
                        .attr("service", port),
                )
                .child(el("protocol").attr("type", "raw"))
                .child(el("target").attr("port", 0)),
        ),
        None => devices,
    };
    let agent = el("target").attr("type", "virtio").attr("name", "org.qemu.guest_agent.0");
    devices = devices.child(el("channel").attr("type", "unix").child(agent));
    if let Some(port) = around.vnc_port {
        devices = devices.child(
            el("graphics")
                .attr("type", "vnc")
                .attr("port", port)
                .attr("autoport", "no")
                .attr("listen", "127.0.0.1"),
        );
    }
    let adapter = if spec.display == Display::None { "none" } else { "vga" };
    devices = devices.child(el("video").child(el("model").attr("type", adapter)));
    if let Some(tpm) = &around.files.tpm {
        let backend = el("backend");
        let backend = match tpm {
            Tpm::Socket(path) => backend.attr("type", "external").child(
                el("source").attr("type", "unix").attr("mode", "connect").attr("path", path),
            ),
            Tpm::OfLibvirt => backend.attr("type", "emulator").attr("version", "2.0"),
        };
        devices = devices.child(el("tpm").attr("model", "tpm-crb").child(backend));
    }
    devices
        .child(el("memballoon").attr("model", "none"))
        .child(el("rng").attr("model", "virtio").child(el("backend").attr("model", "builtin")))
        .child(el("panic").attr("model", "isa"))
}

fn drives(spec: &MachineSpec, files: &Files) -> Vec<Element> {
    let (disk_targets, cdrom_targets) = targets(spec);
    let mut sata_port = 0;
    let mut place = |sata: bool, scsi_target: usize| {
        let (target, unit) = if sata { (0, sata_port) } else { (scsi_target, 0) };
        sata_port += usize::from(sata);
        el("address")
            .attr("type", "drive")
            .attr("controller", 0)
            .attr("bus", 0)
            .attr("target", target)
            .attr("unit", unit)
    };
    let mut drives = Vec::new();
    for (index, ((disk, image), target)) in
        spec.disks.iter().zip(&files.disks).zip(disk_targets).enumerate()
    {
        let (bus, address) = match disk.interface {
            DiskInterface::VirtioBlk => ("virtio", None),
            DiskInterface::VirtioScsi => ("scsi", Some(place(false, index))),
            // NVMe was refused before.
            DiskInterface::Sata | DiskInterface::Nvme => ("sata", Some(place(true, 0))),
        };
        let mut drive = el("disk")
            .attr("type", "file")
            .attr("device", "disk")
            // Caches are never flushed: a disk becomes durable when a checkpoint or the end of the
            // machine makes it so, and until then it is thrown away anyway.
            .child(
                el("driver")
                    .attr("name", "qemu")
                    .attr("type", image.format.qemu_name())
                    .attr("cache", "unsafe")
                    .attr("discard", "unmap"),
            )
            .child(el("source").attr("file", &image.path));
        if let Backing::Chain(chain) = &image.backing {
            drive = drive.child(backing_store(chain));
        }
        drive = drive
            .child(el("target").attr("dev", target).attr("bus", bus))
            .child(el("serial").text(format!("gilt-{index}")));
        drives.push(drive.children(order(disk.boot_index)).children(address));
    }
    for (index, (cdrom, target)) in spec.cdroms.iter().zip(cdrom_targets).enumerate() {
        let (bus, address) = match cdrom.interface {
            CdromInterface::Sata => ("sata", place(true, 0)),
            CdromInterface::VirtioScsi => ("scsi", place(false, FIRST_SCSI_CDROM + index)),
        };
        let medium = files.media.get(index).and_then(Option::as_ref);
        drives.push(
            el("disk")
                .attr("type", "file")
                .attr("device", "cdrom")
                .child(el("driver").attr("name", "qemu").attr("type", "raw"))
                .children(medium.map(|path| el("source").attr("file", path)))
                .child(el("target").attr("dev", target).attr("bus", bus))
                .child(el("readonly"))
                .children(order(cdrom.boot_index))
                .child(address),
        );
    }
    drives
}

fn backing_store(chain: &[(String, DiskFormat)]) -> Element {
    let Some(((path, format), rest)) = chain.split_first() else {
        return el("backingStore");
    };
    el("backingStore")
        .attr("type", "file")
        .child(el("format").attr("type", format.qemu_name()))
        .child(el("source").attr("file", path))
        .child(backing_store(rest))
}

fn order(boot_index: Option<u32>) -> Option<Element> {
    boot_index.map(|index| el("boot").attr("order", index))
}

/// QEMU's and libvirt's names of a card.
fn card(device: NetDevice) -> (&'static str, &'static str) {
    match device {
        NetDevice::VirtioNet => ("virtio-net-pci", "virtio"),
        NetDevice::E1000e => ("e1000e", "e1000e"),
    }
}

fn mac(network: &NetworkSpec) -> String {
    network.mac.unwrap_or(DEFAULT_MAC).map(|b| format!("{b:02x}")).join(":")
}

fn user_network(network: &NetworkSpec, host_ports: &[u16]) -> Element {
    let mut netdev = String::from("user,id=giltnet,ipv6=off");
    if network.isolated {
        netdev.push_str(",restrict=on");
    }
    for (forward, host_port) in network.forwards.iter().zip(host_ports) {
        netdev.push_str(&format!(
            ",hostfwd=tcp:{}:{host_port}-:{}",
            forward.host_address, forward.guest_port
        ));
    }
    // No boot ROM: nothing is ever booted from this network.
    let device = format!(
        "{},netdev=giltnet,id=giltnic,mac={},romfile=,bus=pcie.0,addr={NIC_SLOT}",
        card(network.device).0,
        mac(network)
    );
    el("qemu:commandline").children(
        ["-netdev", &netdev, "-device", &device].map(|value| el("qemu:arg").attr("value", value)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { host: "0123".into(), boot: "b".into(), pid: 7, started: 8 }
    }

    fn around<'a>(files: &'a Files, owner: &'a Owner, ports: &'a [u16]) -> Around<'a> {
        Around {
            name: "gilt-small-1a2b3c4d",
            uuid: "11111111-2222-3333-4444-555555555555",
            owner,
            kvm: false,
            files,
            host_ports: ports,
            network: None,
            vnc_port: None,
        }
    }

    fn image(path: &str) -> Image {
        Image { path: path.into(), format: DiskFormat::Qcow2, backing: Backing::AsTheFileSays }
    }

    #[test]
    fn a_linux_guest_by_its_kernel() {
        let mut spec = MachineSpec::new("small", "/run/serial.log");
        spec.firmware = Firmware::DirectKernel {
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd".into()),
            command_line: "console=ttyS0 answer=\"a&b\"".into(),
        };
        spec.network = Some(NetworkSpec::forwarding(22));
        spec.display = Display::None;
        let files = Files {
            kernel: Some("/boot/vmlinuz".into()),
            initrd: Some("/boot/initrd".into()),
            serial: Some(Serial::File("/run/serial.log".into())),
            ..Default::default()
        };
        insta::assert_snapshot!(xml(&spec, &around(&files, &owner(), &[2022])).unwrap());
    }

    #[test]
    fn a_windows_machine_with_secure_boot_tpm_and_sata() {
        let mut spec = MachineSpec::new("win", "/run/serial.log");
        spec.cpu_count = 2;
        spec.memory_bytes = 4 << 30;
        spec.clock = GuestClock::LocalTime;
        spec.firmware = Firmware::Uefi { secure_boot: true, variables: "/run/vars.fd".into() };
        spec.disks = vec![DiskSpec { interface: DiskInterface::Sata, ..DiskSpec::boot("/run/d") }];
        spec.cdroms = vec![
            CdromSpec {
                medium: Some("/iso/win.iso".into()),
                interface: CdromInterface::Sata,
                boot_index: Some(2),
            },
            CdromSpec { medium: None, interface: CdromInterface::Sata, boot_index: None },
        ];
        spec.network =
            Some(NetworkSpec { device: NetDevice::E1000e, ..NetworkSpec::forwarding(22) });
        spec.display = Display::Vnc;
        let files = Files {
            disks: vec![image("/run/d")],
            media: vec![Some("/iso/win.iso".into()), None],
            uefi: Some(Uefi {
                code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd".into(),
                variables: "/run/vars.fd".into(),
                secure_boot: true,
            }),
            serial: Some(Serial::File("/run/serial.log".into())),
            tpm: Some(Tpm::Socket("/run/tpm/sock".into())),
            ..Default::default()
        };
        let owner = owner();
        let around = Around { vnc_port: Some(5901), ..around(&files, &owner, &[2022]) };
        insta::assert_snapshot!(xml(&spec, &around).unwrap());
    }

    #[test]
    fn a_machine_of_another_host_on_a_network_of_libvirt() {
        let mut spec = MachineSpec::new("far", "/run/serial.log");
        spec.clock = GuestClock::Fixed(1_795_000_000);
        spec.cpu_model = Some("Nehalem".into());
        spec.disks = vec![
            DiskSpec { interface: DiskInterface::VirtioScsi, ..DiskSpec::boot("/run/d") },
            DiskSpec { boot_index: None, ..DiskSpec::boot("/run/e") },
        ];
        spec.cdroms = vec![CdromSpec {
            medium: None,
            interface: CdromInterface::VirtioScsi,
            boot_index: Some(2),
        }];
        spec.network = Some(NetworkSpec::forwarding(22));
        let chain = vec![
            ("/pool/b".to_owned(), DiskFormat::Qcow2),
            ("/pool/c".to_owned(), DiskFormat::Raw),
        ];
        let files = Files {
            disks: vec![
                Image { backing: Backing::Chain(chain), ..image("/pool/a") },
                Image { backing: Backing::Chain(Vec::new()), ..image("/pool/e") },
            ],
            media: vec![None],
            serial: Some(Serial::Listen(45000)),
            tpm: Some(Tpm::OfLibvirt),
            ..Default::default()
        };
        let owner = owner();
        let around = Around { kvm: true, network: Some("lab"), ..around(&files, &owner, &[]) };
        insta::assert_snapshot!(xml(&spec, &around).unwrap());
    }

    #[test]
    fn what_libvirt_cannot_do_is_said() {
        let mut spec = MachineSpec::new("nvme", "/run/serial.log");
        spec.disks = vec![DiskSpec { interface: DiskInterface::Nvme, ..DiskSpec::boot("/run/d") }];
        let files = Files { disks: vec![image("/run/d")], ..Default::default() };
        let error = xml(&spec, &around(&files, &owner(), &[])).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");

        spec.disks.clear();
        spec.network = Some(NetworkSpec { isolated: true, ..NetworkSpec::forwarding(22) });
        let owner = owner();
        let around = Around { network: Some("lab"), ..around(&files, &owner, &[]) };
        assert!(matches!(xml(&spec, &around), Err(Error::Unsupported { .. })));
    }
}
