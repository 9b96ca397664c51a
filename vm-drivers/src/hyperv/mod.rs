//! Hyper-V, on this host or behind SSH, over the typed scripts of `hyperv-rs`.
//!
//! ```text
//!  HyperV ── Host ── Shell: RemoteShell (SSH, SFTP, tunnels) | LocalShell (Windows)
//!    │        └ operations of hyperv-rs, our folders on the host, files that stand for its disks
//!    └ start ─▶ HyperVVm: polls its state, copies its serial line, forwards ports to the guest's address
//! ```
//!
//! No Hyper-V has run this yet: docs/hyperv.md says what only a real host can confirm.

mod address;
mod forward;
mod held;
mod host;
#[cfg(windows)]
mod local;
mod remote;
mod shell;
mod vm;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hyperv_rs::{
    HostPath, VmName,
    cmdlet::{BiosDevice, BootDevice, SecureBootTemplate, Service, Slot, Stop},
    host::{self as operations, CreateMachine, DiskSpec, DvdSpec, FirmwareSpec, MachineRef},
    reply::State,
};

use self::{host::Host, shell::Shell, vm::HyperVVm};
use crate::{
    driver::*,
    drivers::DriverEntry,
    error::{Error, Result},
    spec::{
        Accelerator, DiskFormat, DiskInterface, Display, Firmware, GuestClock, MachineSpec,
        OnGuestReset,
    },
};

pub use address::{Address, Remote};

/// What this driver is called.
pub const NAME: &str = "hyperv";

/// How often a machine's state is asked for. Each question starts a PowerShell on the host.
const POLL: Duration = Duration::from_secs(2);
/// The footer behind the bytes of a fixed VHD.
const VHD_FOOTER_BYTES: u64 = 512;

/// For the registry of drivers.
pub const DRIVER: DriverEntry = DriverEntry {
    name: NAME,
    address: Some("//[user@]host[:port][/C:/folder][?switch=…]"),
    about: "Hyper-V, on this Windows host or on another by SSH",
    open: |setup| Ok(Arc::new(HyperV::new(Address::parse(setup.address.as_deref())?)?)),
};

/// The driver of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HyperV {
    host: Arc<Host>,
    poll: Duration,
    swept: Arc<tokio::sync::OnceCell<()>>,
}

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { driver: NAME, what: what.into() })
}

impl HyperV {
    /// Connects to nothing yet.
    pub fn new(address: Address) -> Result<Self> {
        let shell: Box<dyn Shell> = match &address.remote {
            Some(remote) => Box::new(remote::RemoteShell::new(remote.clone())),
            #[cfg(windows)]
            None => Box::new(local::LocalShell),
            #[cfg(not(windows))]
            None => {
                return Err(Error::HostLacks {
                    what: "Hyper-V".into(),
                    hint: "name a Windows host that has it: hyperv://user@host".into(),
                });
            }
        };
        let poll = address.poll.unwrap_or(POLL);
        Ok(Self { host: Arc::new(Host::new(shell, address)?), poll, swept: Arc::default() })
    }

    /// What killed gilts left, once in the life of this value.
    async fn sweep(&self) -> Result<()> {
        let swept = self.swept.get_or_try_init(|| async {
            for what in self.clean_up().await? {
                tracing::warn!(what, "cleaned up a leftover");
            }
            Ok::<(), Error>(())
        });
        swept.await.copied()
    }

    /// What this driver cannot do of a spec.
    fn check_spec(spec: &MachineSpec) -> Result<()> {
        if let Firmware::DirectKernel { .. } = spec.firmware {
            return unsupported("load a Linux kernel itself; boot it from a disk or CD");
        }
        if spec.on_guest_reset == OnGuestReset::Stop {
            return unsupported("see that a guest reboots, and so cannot stop its machine then");
        }
        if !matches!(spec.accelerator, Accelerator::Auto) {
            return unsupported("run on anything but the host's own hypervisor");
        }
        if spec.cpu_model.is_some() {
            return unsupported("give a guest another processor than the host's");
        }
        if spec.disks.iter().any(|disk| disk.interface == DiskInterface::Nvme) {
            return unsupported("give a guest NVMe disks; its own are on IDE or SCSI");
        }
        if matches!(spec.clock, GuestClock::Fixed(_)) {
            return unsupported("give a guest a time of its own");
        }
        if spec.display == Display::Vnc {
            return unsupported("show a machine by VNC");
        }
        if spec.network.as_ref().is_some_and(|network| network.isolated) {
            return unsupported("cut a guest off from its network and still reach it");
        }
        if spec.tpm.is_some() && matches!(spec.firmware, Firmware::Bios) {
            return Err(Error::InvalidSpec {
                machine: spec.name.clone(),
                what: "a TPM needs UEFI (a machine of generation 2)".into(),
            });
        }
        Ok(())
    }

    /// Where disks and CD drives hang, in the order of the spec.
    fn slots(spec: &MachineSpec) -> Result<(Vec<Slot>, Vec<Slot>)> {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let disks = spec.disks.len();
        if !matches!(spec.firmware, Firmware::Bios) {
            let all: Vec<Slot> =
                (0..disks + spec.cdroms.len()).map(|at| Slot::scsi(number(at))).collect();
            return Ok((all[..disks].to_vec(), all[disks..].to_vec()));
        }
        if spec.cdroms.len() > 2 {
            return Err(Error::InvalidSpec {
                machine: spec.name.clone(),
                what: "a machine with a BIOS has two CD drives at most on Hyper-V".into(),
            });
        }
        // Only IDE disks are booted from; the second controller is the CD drives'.
        let disk = |at: usize| match at {
            0 | 1 => Slot::ide(0, number(at)),
            _ => Slot::scsi(number(at - 2)),
        };
        let dvds = (0..spec.cdroms.len()).map(|at| Slot::ide(1, number(at))).collect();
        Ok(((0..disks).map(disk).collect(), dvds))
    }

    fn firmware(spec: &MachineSpec, disks: &[Slot], dvds: &[Slot]) -> FirmwareSpec {
        let mut order: Vec<(u32, BootDevice)> = Vec::new();
        for (disk, slot) in spec.disks.iter().zip(disks) {
            order.extend(disk.boot_index.map(|index| (index, BootDevice::HardDisk(*slot))));
        }
        for (drive, slot) in spec.cdroms.iter().zip(dvds) {
            order.extend(drive.boot_index.map(|index| (index, BootDevice::Dvd(*slot))));
        }
        order.sort_by_key(|(index, _)| *index);
        let boot_order: Vec<BootDevice> = order.into_iter().map(|(_, device)| device).collect();
        let Firmware::Uefi { secure_boot, .. } = spec.firmware else {
            let cd_first = matches!(boot_order.first(), Some(BootDevice::Dvd(_)));
            let (first, second) = match cd_first {
                true => (BiosDevice::Cd, BiosDevice::Ide),
                false => (BiosDevice::Ide, BiosDevice::Cd),
            };
            let rest = [BiosDevice::LegacyNetworkAdapter, BiosDevice::Floppy];
            return FirmwareSpec::Bios {
                startup_order: [first, second].into_iter().chain(rest).collect(),
            };
        };
        // A clock in local time is Windows'.
        let template = match spec.clock {
            GuestClock::LocalTime => SecureBootTemplate::MicrosoftWindows,
            _ => SecureBootTemplate::MicrosoftUefiCertificateAuthority,
        };
        let secure_boot = secure_boot.then_some(template);
        FirmwareSpec::Uefi { secure_boot, tpm: spec.tpm.is_some(), boot_order }
    }

    /// Makes and starts the machine in a folder that is removed by the caller when this fails.
    async fn start_in(&self, spec: &MachineSpec, folder: &HostPath) -> Result<HyperVVm> {
        let host = &self.host;
        let named = |e: hyperv_rs::Error| Error::InvalidSpec {
            machine: spec.name.clone(),
            what: e.to_string(),
        };
        let (disk_slots, dvd_slots) = Self::slots(spec)?;
        let mut disks = Vec::new();
        for (at, (disk, slot)) in spec.disks.iter().zip(&disk_slots).enumerate() {
            if !disk.throw_away_writes && !host.is_held(&disk.path)? {
                return Err(Error::InvalidSpec {
                    machine: spec.name.clone(),
                    what: format!(
                        "{} is a file of this system, and writes would stay on the host: \
                         lay a disk over it",
                        disk.path.display()
                    ),
                });
            }
            if disk.throw_away_writes && !host.is_held(&disk.path)? {
                // A copy for this machine alone; it goes with the machine's folder.
                let copy = folder.join(&format!("throw-away-{at}.vhdx")).map_err(named)?;
                host.shell.put(&disk.path, &copy).await?;
                disks.push(DiskSpec { path: copy, slot: *slot });
                continue;
            }
            let mut path = host.on_host(&disk.path).await?;
            if disk.throw_away_writes {
                let extension = path.extension().unwrap_or_default();
                let over = folder.join(&format!("throw-away-{at}.{extension}")).map_err(named)?;
                host.must(operations::create_overlay(&over, &path).map_err(named)?).await?;
                path = over;
            }
            disks.push(DiskSpec { path, slot: *slot });
        }
        let mut dvds = Vec::new();
        for (drive, slot) in spec.cdroms.iter().zip(&dvd_slots) {
            let medium = match &drive.medium {
                Some(medium) => Some(host.on_host(medium).await?),
                None => None,
            };
            dvds.push(DvdSpec { slot: *slot, medium });
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let pipe = format!("gilt-{id}");
        let machine = CreateMachine {
            name: VmName::new(&format!("gilt-{}-{}", spec.name, &id[..8])).map_err(named)?,
            owner: host.owner.clone(),
            more_notes: vec![format!("gilt-folder:{folder}")],
            folder: folder.clone(),
            processors: spec.cpu_count.into(),
            // In steps of 2 MiB.
            memory_bytes: spec.memory_bytes.next_multiple_of(2 << 20),
            nested_virtualization: false,
            switch: spec.network.as_ref().map(|_| host.address.switch.clone()),
            disks,
            dvds,
            firmware: Self::firmware(spec, &disk_slots, &dvd_slots),
            serial_pipe: Some(pipe.clone()),
            services: vec![Service::GuestFiles],
        };
        let forwards = forward::Listeners::bind(spec).await?;
        let made = host.must(machine.operation().map_err(named)?).await?;
        let reference = MachineRef { id: made.id, owner: host.owner.clone() };
        HyperVVm::start(self, spec, reference, folder.clone(), pipe, forwards, dvd_slots).await
    }
}

#[async_trait]
impl VmDriver for HyperV {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let host = self.host.must(operations::host_info()).await?;
        let switches = self.host.must(operations::list_switches()).await?;
        let mut missing = Vec::new();
        let switch = &self.host.address.switch;
        if !switches.iter().any(|it| it.name.eq_ignore_ascii_case(switch.as_str())) {
            let names: Vec<&str> = switches.iter().map(|it| it.name.as_str()).collect();
            missing.push(format!(
                "the switch {switch} (there are: {}; name one with ?switch=)",
                names.join(", ")
            ));
        }
        Ok(Capabilities {
            hypervisor: format!("Hyper-V of Windows {}", host.version),
            accelerator: "hyperv".into(),
            accelerator_reason: format!("the hypervisor of {}", self.host.address.place()),
            uefi: true,
            secure_boot: true,
            tpm: true,
            saved_memory: false,
            missing,
        })
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        _run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>> {
        if let StartFrom::SavedState(_) = from {
            return unsupported("resume a saved memory");
        }
        Self::check_spec(spec)?;
        self.sweep().await?;
        let begun = Instant::now();
        let folder = self.host.machine_folder().await?;
        match self.start_in(spec, &folder).await {
            Ok(vm) => {
                tracing::debug!(machine = %spec.name, took = ?begun.elapsed(), "started on Hyper-V");
                Ok(Box::new(vm))
            }
            Err(error) => {
                let gone = operations::remove_folder(&self.host.owner, &folder);
                if let Err(error) = self.host.must(gone).await {
                    tracing::warn!(%folder, %error, "a folder stays on the Hyper-V host");
                }
                Err(error)
            }
        }
    }

    async fn clean_up(&self) -> Result<Vec<String>> {
        let host = &self.host;
        let mut ended = Vec::new();
        for (machine, owner) in host.must(operations::list_marked()).await? {
            if !host::is_dead(&owner, &host.client) {
                continue;
            }
            let reference = MachineRef { id: machine.id.clone(), owner: owner.clone() };
            if machine.state != State::Off {
                host.must(reference.stop(Stop::TurnOff)).await?;
            }
            host.must(reference.remove()).await?;
            if let Some(folder) = vm::folder_in_notes(&machine.notes) {
                host.must(operations::remove_folder(&owner, &folder)).await?;
            }
            ended.push(format!("machine {} ({})", machine.name, machine.id));
        }
        Ok(ended)
    }

    fn disk_format(&self) -> DiskFormat {
        DiskFormat::Vhdx
    }

    fn loads_kernels(&self) -> bool {
        false
    }

    fn freezes(&self) -> bool {
        false
    }

    fn disk_home(&self) -> Option<String> {
        Some(format!("{NAME}:{}", held::home(self.host.address.remote.as_ref())))
    }

    fn check(&self, spec: &MachineSpec) -> Result<()> {
        Self::check_spec(spec)
    }

    async fn host_side(&self) -> Result<HostSide> {
        // The guest reaches its own host; whether it reaches this system nobody here knows.
        unsupported("tell how a guest reaches this system by itself")
    }

    async fn create_disk(&self, path: &Path, format: DiskFormat, size_bytes: u64) -> Result<()> {
        if format != DiskFormat::Vhdx {
            return unsupported(format!("make {} disks; it makes VHDX", format.qemu_name()));
        }
        let disk = self.host.new_disk("vhdx").await?;
        let new = operations::create_disk(&disk, size_bytes)
            .map_err(|e| host::refused("create disk", e))?;
        self.host.must(new).await?;
        self.host.hold(path, &disk).await
    }

    async fn create_overlay(
        &self,
        base: &Path,
        base_format: DiskFormat,
        path: &Path,
    ) -> Result<()> {
        if base_format != DiskFormat::Vhdx {
            return unsupported(format!(
                "lay a disk over {}: {} (qemu-img convert -O vhdx makes a VHDX of it)",
                base_format.qemu_name(),
                base.display()
            ));
        }
        if path.exists() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(Error::io("create", path)(exists));
        }
        let parent = self.host.on_host(base).await?;
        let disk = self.host.new_disk("vhdx").await?;
        let new = operations::create_overlay(&disk, &parent)
            .map_err(|e| host::refused("create overlay", e))?;
        self.host.must(new).await?;
        self.host.hold(path, &disk).await
    }

    async fn flatten(&self, disk: &Path, to: &Path, to_format: DiskFormat) -> Result<()> {
        let from = self.host.on_host(disk).await?;
        let extension = match to_format {
            DiskFormat::Vhdx => "vhdx",
            // A fixed VHD is the disk's bytes with a footer.
            DiskFormat::Raw => "vhd",
            DiskFormat::Qcow2 => return unsupported("write qcow2; it writes VHDX and raw"),
        };
        let copy = self.host.new_disk(extension).await?;
        let operation = match to_format {
            DiskFormat::Raw => operations::flatten_raw(&from, &copy),
            _ => operations::flatten(&from, &copy),
        };
        let described = self.host.must_within(operation, host::LONG).await?;
        let fetched = self.host.shell.get(&copy, to).await;
        self.host.remove_disk(&copy).await?;
        fetched?;
        if to_format == DiskFormat::Raw {
            let file =
                std::fs::File::options().write(true).open(to).map_err(Error::io("open", to))?;
            let length = file.metadata().map_err(Error::io("look at", to))?.len();
            if length != described.size_bytes + VHD_FOOTER_BYTES {
                return Err(Error::Malformed {
                    what: format!("the fixed VHD of {}", disk.display()),
                    reason: format!("{length} bytes for a disk of {}", described.size_bytes),
                });
            }
            file.set_len(described.size_bytes).map_err(Error::io("cut", to))?;
        }
        Ok(())
    }
}
