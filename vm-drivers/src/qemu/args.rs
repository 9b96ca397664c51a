//! From a machine's spec to QEMU's command line. Typed objects go as JSON where QEMU takes it,
//! so that no file name needs escaping.

use std::{ffi::OsString, path::Path};

use serde_json::{Value, json};

use super::firmware::UefiFirmware;
use crate::{
    error::{Error, Result},
    spec::*,
};

/// What is only known when the machine starts.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// `kvm` or `tcg`.
    pub accelerator: &'a str,
    pub uefi: Option<&'a UefiFirmware>,
    /// Host port of each forward, in the order of the spec.
    pub host_ports: &'a [u16],
    pub tpm_socket: Option<&'a Path>,
    /// Display number of VNC.
    pub vnc_display: Option<u16>,
    pub incoming: bool,
}

/// The command line, and the part of it a guest can see, for the fingerprint of a saved state.
#[derive(Debug, Default)]
pub struct CommandLine {
    pub arguments: Vec<OsString>,
    pub guest_visible: Vec<String>,
}

impl CommandLine {
    fn host(&mut self, option: &str, value: impl Into<OsString>) {
        self.arguments.push(option.into());
        self.arguments.push(value.into());
    }

    fn guest(&mut self, option: &str, value: impl Into<String>) {
        let value = value.into();
        self.guest_visible.push(format!("{option} {value}"));
        self.host(option, value);
    }

    fn device(&mut self, device: Value) {
        self.guest("-device", device.to_string());
    }

    fn block(&mut self, node: Value) {
        self.host("-blockdev", node.to_string());
    }
}

/// UEFI looks at SCSI targets 0 to 31 only (`PcdVirtioScsiMaxTargetLimit` of OVMF).
const FIRST_SCSI_CDROM: usize = 24;
const MAX_DISKS: usize = 16;
const MAX_CDROMS: usize = 8;

/// The level x86-64-v2, which Windows 11 and today's distributions ask for, and nothing above it.
/// Every feature more is one that guests use because it is fast in hardware, and that costs in
/// emulation: vectors of 32 bytes, XSAVE at each change of tasks, SMAP at each copy from user
/// memory. The vendor is AMD: on an emulated Intel of that age, kernels keep page tables apart
/// against Meltdown. Measured in `docs/bench-packer.md`.
const EMULATED_CPU: &str = "qemu64,ssse3=on,sse4.1=on,sse4.2=on,popcnt=on,svm=off";
/// The default of 1 GiB for translated code is more than a build fills.
const EMULATOR: &str = "tcg,tb-size=512";

pub fn disk_id(index: usize) -> String {
    format!("disk{index}")
}

pub fn cdrom_id(index: usize) -> String {
    format!("cd{index}")
}

/// Checks what no hypervisor would accept, before anything is started.
pub fn check(spec: &MachineSpec) -> Result<()> {
    let wrong = |what: String| Err(Error::InvalidSpec { machine: spec.name.clone(), what });
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if spec.name.is_empty() || !spec.name.chars().all(plain) {
        return wrong("its name must be letters, digits, '-', '_' and '.'".into());
    }
    if spec.cpu_count == 0 || spec.cpu_count > 255 {
        return wrong(format!("{} CPUs; 1 to 255 are possible", spec.cpu_count));
    }
    if spec.memory_bytes < 16 << 20 || !spec.memory_bytes.is_multiple_of(1 << 20) {
        return wrong(format!(
            "{} bytes of memory; a whole number of MiB from 16 on is possible",
            spec.memory_bytes
        ));
    }
    if spec.disks.len() > MAX_DISKS || spec.cdroms.len() > MAX_CDROMS {
        return wrong(format!("at most {MAX_DISKS} disks and {MAX_CDROMS} CD drives are possible"));
    }
    let sata = spec.disks.iter().filter(|d| d.interface == DiskInterface::Sata).count()
        + spec.cdroms.iter().filter(|c| c.interface == CdromInterface::Sata).count();
    if sata > 6 {
        return wrong(format!("{sata} SATA devices; there are 6 ports"));
    }
    let mut indexes: Vec<u32> = spec.disks.iter().filter_map(|d| d.boot_index).collect();
    indexes.extend(spec.cdroms.iter().filter_map(|c| c.boot_index));
    indexes.sort_unstable();
    if let Some(twice) = indexes.windows(2).find(|w| w[0] == w[1]) {
        return wrong(format!("boot index {} is given twice", twice[0]));
    }
    for path in spec.disks.iter().map(|d| &d.path).chain(spec.cdroms.iter().flat_map(|c| &c.medium))
    {
        if !path.is_file() {
            return wrong(format!("{} does not exist", path.display()));
        }
    }
    if let Firmware::DirectKernel { kernel, initrd, .. } = &spec.firmware {
        for path in [Some(kernel), initrd.as_ref()].into_iter().flatten() {
            if !path.is_file() {
                return wrong(format!("{} does not exist", path.display()));
            }
        }
    }
    Ok(())
}

pub fn build(spec: &MachineSpec, around: &Surroundings<'_>) -> Result<CommandLine> {
    let mut c = CommandLine::default();
    c.arguments.extend(["-nodefaults", "-no-user-config"].map(Into::into));
    c.host("-name", format!("guest=gilt-{},debug-threads=on", spec.name));
    c.host("-chardev", "stdio,id=qmp,signal=off");
    c.host("-mon", "chardev=qmp,mode=control");

    machine(&mut c, spec, around);
    c.guest("-smp", spec.cpu_count.to_string());
    c.guest("-m", format!("{}M", spec.memory_bytes >> 20));
    c.host("-rtc", clock(spec.clock));
    c.host("-boot", "menu=off,strict=on");
    // Suspend would only be a way to hang a build.
    c.guest("-global", "ICH9-LPC.disable_s3=1");
    c.guest("-global", "ICH9-LPC.disable_s4=1");

    c.host("-chardev", {
        let mut option = OsString::from("file,id=serial0,append=on,path=");
        option.push(without_commas(&spec.serial_log));
        option
    });
    c.device(json!({"driver": "isa-serial", "chardev": "serial0", "id": "com1"}));
    c.host("-object", json!({"qom-type": "rng-builtin", "id": "rng0"}).to_string());
    c.device(json!({"driver": "virtio-rng-pci", "rng": "rng0", "id": "random"}));
    c.device(json!({"driver": "pvpanic"}));
    let on_reset = match spec.on_guest_reset {
        OnGuestReset::Restart => "reset",
        OnGuestReset::Stop => "shutdown",
    };
    // A panicked guest stands still, so that it can be looked at.
    c.host("-action", format!("panic=pause,reboot={on_reset}"));

    c.host("-display", "none");
    if spec.display != Display::None {
        c.device(json!({"driver": "VGA", "id": "screen"}));
    }
    if let Some(display) = around.vnc_display {
        c.host("-vnc", format!("127.0.0.1:{display}"));
    }
    storage(&mut c, spec)?;
    network(&mut c, spec, around);
    if let Some(socket) = around.tpm_socket {
        c.host("-chardev", {
            let mut option = OsString::from("socket,id=tpm-line,path=");
            option.push(without_commas(socket));
            option
        });
        c.host("-tpmdev", "emulator,id=tpm0,chardev=tpm-line");
        c.device(json!({"driver": "tpm-crb", "tpmdev": "tpm0", "id": "tpm"}));
    }
    if around.incoming {
        c.host("-incoming", "defer");
    }
    Ok(c)
}

/// `-chardev` takes no JSON; a comma in a value is written twice.
fn without_commas(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => text.replace(',', ",,").into(),
        None => path.into(),
    }
}

fn clock(clock: GuestClock) -> String {
    match clock {
        GuestClock::Utc => "base=utc,clock=host".into(),
        GuestClock::LocalTime => "base=localtime,clock=host,driftfix=slew".into(),
        GuestClock::Fixed(seconds) => format!("base={},clock=vm", iso_time(seconds)),
    }
}

/// `2026-11-23T00:00:00` of seconds since 1970 (days to date after H. Hinnant's `civil_from_days`).
fn iso_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

fn machine(c: &mut CommandLine, spec: &MachineSpec, around: &Surroundings<'_>) {
    let mut machine = String::from("q35,vmport=off");
    match &spec.firmware {
        Firmware::Bios => machine.push_str(",smm=off"),
        Firmware::DirectKernel { kernel, initrd, command_line } => {
            machine.push_str(",smm=off");
            c.host("-kernel", kernel);
            if let Some(initrd) = initrd {
                c.host("-initrd", initrd);
            }
            c.host("-append", command_line);
        }
        Firmware::Uefi { secure_boot, variables } => {
            // Without SMM the guest could write the keys Secure Boot rests on.
            machine.push_str(if *secure_boot { ",smm=on" } else { ",smm=off" });
            machine.push_str(",pflash0=fw-code,pflash1=fw-vars");
            if *secure_boot {
                c.guest("-global", "driver=cfi.pflash01,property=secure,value=on");
            }
            if let Some(firmware) = around.uefi {
                c.block(json!({
                    "driver": "raw", "node-name": "fw-code", "read-only": true,
                    "file": {"driver": "file", "filename": firmware.code},
                }));
                c.guest_visible.push(format!("firmware {}", firmware.code.display()));
            }
            c.block(json!({
                "driver": "raw", "node-name": "fw-vars",
                "file": {"driver": "file", "filename": variables},
            }));
        }
    }
    c.guest("-machine", machine);
    c.guest_visible.push(format!("-accel {}", around.accelerator));
    c.host(
        "-accel",
        match around.accelerator {
            "tcg" => EMULATOR,
            other => other,
        },
    );
    let default = if around.accelerator == "kvm" { "host" } else { EMULATED_CPU };
    c.guest("-cpu", spec.cpu_model.as_deref().unwrap_or(default));
}

/// A disk's node. Caches are never flushed: a disk becomes durable when a checkpoint or the end
/// of the machine makes it so, and until then it is thrown away anyway.
pub fn disk_node(node_name: &str, disk: &Path, format: DiskFormat) -> Value {
    json!({
        "driver": format.qemu_name(), "node-name": node_name, "discard": "unmap",
        "cache": {"direct": false, "no-flush": true},
        "file": {
            "driver": "file", "filename": disk, "discard": "unmap",
            "cache": {"direct": false, "no-flush": true},
        },
    })
}

pub fn cdrom_node(node_name: &str, medium: &Path) -> Value {
    json!({
        "driver": "raw", "node-name": node_name, "read-only": true,
        "file": {"driver": "file", "filename": medium},
    })
}

fn storage(c: &mut CommandLine, spec: &MachineSpec) -> Result<()> {
    let wants_scsi = spec.disks.iter().any(|d| d.interface == DiskInterface::VirtioScsi)
        || spec.cdroms.iter().any(|d| d.interface == CdromInterface::VirtioScsi);
    if wants_scsi {
        c.device(json!({"driver": "virtio-scsi-pci", "id": "scsi"}));
    }
    let mut sata_port = 0;
    let mut next_port = || {
        let bus = format!("ide.{sata_port}");
        sata_port += 1;
        bus
    };
    for (index, disk) in spec.disks.iter().enumerate() {
        let id = disk_id(index);
        c.block(disk_node(&id, &disk.path, disk.format));
        let mut device = match disk.interface {
            DiskInterface::VirtioBlk => json!({"driver": "virtio-blk-pci"}),
            DiskInterface::VirtioScsi => {
                json!({"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": index})
            }
            DiskInterface::Sata => json!({"driver": "ide-hd", "bus": next_port()}),
            DiskInterface::Nvme => json!({"driver": "nvme"}),
        };
        device["id"] = format!("dev-{id}").into();
        device["drive"] = id.as_str().into();
        device["serial"] = format!("gilt-{index}").into();
        if let Some(boot_index) = disk.boot_index {
            device["bootindex"] = boot_index.into();
        }
        c.device(device);
    }
    for (index, cdrom) in spec.cdroms.iter().enumerate() {
        let id = cdrom_id(index);
        let mut device = match cdrom.interface {
            CdromInterface::Sata => json!({"driver": "ide-cd", "bus": next_port()}),
            CdromInterface::VirtioScsi => {
                json!({"driver": "scsi-cd", "bus": "scsi.0", "scsi-id": FIRST_SCSI_CDROM + index})
            }
        };
        device["id"] = id.as_str().into();
        if let Some(boot_index) = cdrom.boot_index {
            device["bootindex"] = boot_index.into();
        }
        // A medium comes and goes without the guest's hardware changing.
        c.guest_visible.push(format!("-device {device}"));
        if let Some(medium) = &cdrom.medium {
            let node = format!("{id}-medium0");
            c.block(cdrom_node(&node, medium));
            device["drive"] = node.into();
        }
        c.host("-device", device.to_string());
    }
    Ok(())
}

fn network(c: &mut CommandLine, spec: &MachineSpec, around: &Surroundings<'_>) {
    let Some(network) = &spec.network else { return };
    let mut netdev = String::from("user,id=net0,ipv6=off");
    if network.isolated {
        netdev.push_str(",restrict=on");
    }
    for (forward, host_port) in network.forwards.iter().zip(around.host_ports) {
        netdev.push_str(&format!(
            ",hostfwd=tcp:{}:{host_port}-:{}",
            forward.host_address, forward.guest_port
        ));
    }
    c.host("-netdev", netdev);
    let mac = network.mac.unwrap_or([0x52, 0x54, 0x00, 0x67, 0x69, 0x6c]);
    let mac = mac.map(|b| format!("{b:02x}")).join(":");
    let driver = match network.device {
        NetDevice::VirtioNet => "virtio-net-pci",
        NetDevice::E1000e => "e1000e",
    };
    // No boot ROM: nothing is ever booted from this network.
    c.device(json!({
        "driver": driver, "netdev": "net0", "mac": mac, "romfile": "", "id": "nic",
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00");
        assert_eq!(iso_time(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(iso_time(1_795_478_399), "2026-11-23T23:59:59");
    }

    #[test]
    fn impossible_machines_are_refused_with_the_reason() {
        let good = MachineSpec::new("ok-1", "serial.log");
        assert!(check(&good).is_ok());
        type Spoil = fn(&mut MachineSpec);
        let cases: [(&str, Spoil); 5] = [
            ("its name must be", |s| s.name = "a,b=c".into()),
            ("0 CPUs", |s| s.cpu_count = 0),
            ("whole number of MiB", |s| s.memory_bytes = (64 << 20) + 1),
            ("does not exist", |s| s.disks.push(DiskSpec::boot("/no/such/disk"))),
            ("7 SATA devices", |s| {
                let cd =
                    CdromSpec { medium: None, interface: CdromInterface::Sata, boot_index: None };
                s.cdroms = vec![cd; 7];
            }),
        ];
        for (words, spoil) in cases {
            let mut spec = good.clone();
            spoil(&mut spec);
            let error = check(&spec).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
