//! The QEMU driver: one QEMU process per machine, spoken to by its monitor protocol.
//!
//! ```text
//!  mod     the driver: prepares, starts, retries a taken port
//!  args    spec -> command line            accel   proof of an accelerator
//!  vm      a running machine               qmp     the monitor's protocol
//!  state   what a saved memory fits        image   qemu-img
//!  firmware, tpm   what stands beside a machine
//! ```

pub mod accel;
mod args;
pub mod firmware;
pub mod image;
mod qmp;
mod state;
mod tpm;
mod vm;

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::{
    driver::{Capabilities, HostSide, StartFrom, Vm, VmDriver, VmInfo},
    drivers::DriverEntry,
    error::{Error, Result},
    process::{Invocation, which},
    registry::RunRegistry,
    spec::*,
};
use accel::{Choice, Prover};

const NAME: &str = "qemu";
/// How often a port that was free and then was not is chosen anew.
const PORT_TRIES: u32 = 5;

/// For the registry of drivers.
pub const DRIVER: DriverEntry = DriverEntry {
    name: NAME,
    address: None,
    about: "QEMU on this host, one process for each machine",
    open: |setup| Ok(Arc::new(Qemu::new(QemuConfig::new(&setup.cache_dir)))),
};

/// How to find QEMU and where to remember things about it.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// Program name or path.
    pub qemu: PathBuf,
    /// For verdicts on accelerators.
    pub cache_dir: PathBuf,
    pub registry: RunRegistry,
    /// Kernel to prove an accelerator with; `None` takes the newest under `/boot`.
    pub probe_kernel: Option<PathBuf>,
    /// Time between key strokes. Emulated keyboards hold 16 events; guests under load read
    /// them slowly.
    pub key_interval: Duration,
}

impl QemuConfig {
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            cache_dir: cache_dir.into(),
            registry: RunRegistry::for_user(),
            probe_kernel: None,
            key_interval: Duration::from_millis(50),
        }
    }
}

/// Drives QEMU on this host.
#[derive(Debug)]
pub struct Qemu {
    config: QemuConfig,
    program: OnceCell<(PathBuf, String)>,
    choice: OnceCell<Choice>,
}

impl Qemu {
    pub fn new(config: QemuConfig) -> Self {
        Self { config, program: OnceCell::new(), choice: OnceCell::new() }
    }

    /// QEMU's path and version.
    async fn program(&self) -> Result<&(PathBuf, String)> {
        self.program
            .get_or_try_init(|| async {
                // What a killed gilt left behind may hold ports and locks.
                for left in self.config.registry.reap()? {
                    tracing::warn!(what = left.what, killed = ?left.killed, "cleaned up a leftover");
                }
                let path = which(self.config.qemu.as_os_str()).ok_or_else(|| Error::HostLacks {
                    what: format!("QEMU ({})", self.config.qemu.display()),
                    hint: "on Debian: apt-get install qemu-system-x86 qemu-utils".into(),
                })?;
                let said =
                    Invocation::new(&path).arg("--version").run(Duration::from_secs(20)).await?;
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                let version = text
                    .split_ascii_whitespace()
                    .skip_while(|w| *w != "version")
                    .nth(1)
                    .ok_or_else(|| Error::Malformed {
                        what: format!("{} --version", path.display()),
                        reason: format!("no version in {text:?}"),
                    })?;
                Ok((path, version.to_owned()))
            })
            .await
    }

    /// The accelerator `auto` means on this host, with the reason.
    pub async fn automatic_accelerator(&self) -> Result<&Choice> {
        self.choice
            .get_or_try_init(|| async {
                let (path, version) = self.program().await?;
                let prover = Prover {
                    cache_dir: self.config.cache_dir.clone(),
                    kernel: self.config.probe_kernel.clone(),
                };
                prover.choose(path, version).await
            })
            .await
    }

    async fn accelerator(&self, wanted: Accelerator) -> Result<(&'static str, Option<String>)> {
        Ok(match wanted {
            Accelerator::Kvm => ("kvm", None),
            Accelerator::Tcg => ("tcg", None),
            Accelerator::Auto => {
                let choice = self.automatic_accelerator().await?;
                (choice.accelerator, Some(choice.reason.clone()))
            }
        })
    }
}

#[async_trait]
impl VmDriver for Qemu {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let (_, version) = self.program().await?;
        let choice = self.automatic_accelerator().await?;
        let tpm = which(OsStr::new("swtpm")).is_some();
        let mut missing = Vec::new();
        for found in [firmware::find(false), firmware::find(true)] {
            missing.extend(found.err().map(|e| e.to_string()));
        }
        if !tpm {
            missing
                .push("this host lacks a TPM emulator (on Debian: apt-get install swtpm)".into());
        }
        if which(OsStr::new("qemu-img")).is_none() {
            missing.push("this host lacks qemu-img (on Debian: apt-get install qemu-utils)".into());
        }
        Ok(Capabilities {
            hypervisor: format!("QEMU {version}"),
            accelerator: choice.accelerator.into(),
            accelerator_reason: choice.reason.clone(),
            uefi: firmware::find(false).is_ok(),
            secure_boot: firmware::find(true).is_ok(),
            tpm,
            saved_memory: true,
            missing,
        })
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>> {
        args::check(spec)?;
        let (program, version) = self.program().await?;
        let mut spec = spec.clone();
        for (index, disk) in spec.disks.iter_mut().enumerate() {
            if disk.throw_away_writes {
                let scratch = run_dir.join(format!("scratch-{index}.qcow2"));
                image::create_overlay(&disk.path, disk.format, &scratch).await?;
                disk.path = scratch;
                disk.format = DiskFormat::Qcow2;
            }
        }
        let (accelerator, accelerator_reason) = self.accelerator(spec.accelerator).await?;
        let uefi = match &spec.firmware {
            Firmware::Uefi { secure_boot, variables } => {
                let found = firmware::find(*secure_boot)?;
                firmware::prepare_variables(&found, variables, &spec.name)?;
                Some(found)
            }
            _ => None,
        };
        let mut attempt = 1;
        loop {
            let tpm = match &spec.tpm {
                Some(tpm) => Some(tpm::Tpm::start(tpm, &spec.name).await?),
                None => None,
            };
            let forwards = choose_ports(&spec)?;
            let vnc = match spec.display {
                Display::Vnc => Some(free_port(Ipv4Addr::LOCALHOST.into())?.max(5900)),
                _ => None,
            };
            let ports: Vec<u16> = forwards.iter().map(|(_, at)| at.port()).collect();
            let line = args::build(
                &spec,
                &args::Surroundings {
                    accelerator,
                    uefi: uefi.as_ref(),
                    host_ports: &ports,
                    tpm_socket: tpm.as_ref().map(|t| t.socket.as_path()),
                    vnc_display: vnc.map(|port| port - 5900),
                    incoming: matches!(from, StartFrom::SavedState(_)),
                },
            )?;
            let fingerprint = state::Fingerprint::new(version, accelerator, line.guest_visible);
            if let StartFrom::SavedState(state) = from {
                fingerprint.check(state)?;
            }
            let info = VmInfo {
                name: spec.name.clone(),
                driver: NAME,
                accelerator: accelerator.into(),
                accelerator_reason: accelerator_reason.clone(),
                forwards,
                host_as_seen_by_guest: spec
                    .network
                    .is_some()
                    .then_some(HostSide::USER_MODE.seen_by_guest),
                vnc: vnc.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
                pid: None,
                resumed: matches!(from, StartFrom::SavedState(_)),
            };
            let launch = vm::Launch {
                spec: spec.clone(),
                run_dir: run_dir.to_path_buf(),
                invocation: Invocation::new(program).args(&line.arguments),
                info,
                tpm,
                fingerprint,
                registry: &self.config.registry,
                key_interval: self.config.key_interval,
            };
            match launch.run(from).await {
                Ok(vm) => return Ok(Box::new(vm)),
                Err(Error::StartFailed { reason, machine }) if is_port_clash(&reason) => {
                    let fixed = spec.network.iter().flat_map(|n| &n.forwards).find_map(|f| {
                        f.host_port.map(|port| Error::PortTaken { address: f.host_address, port })
                    });
                    match fixed {
                        Some(error) => return Err(error),
                        None if attempt < PORT_TRIES => attempt += 1,
                        None => return Err(Error::StartFailed { machine, reason }),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn create_disk(&self, path: &Path, format: DiskFormat, size_bytes: u64) -> Result<()> {
        image::create(path, format, size_bytes).await
    }

    async fn create_overlay(
        &self,
        base: &Path,
        base_format: DiskFormat,
        path: &Path,
    ) -> Result<()> {
        image::create_overlay(base, base_format, path).await
    }

    async fn flatten(&self, disk: &Path, to: &Path, to_format: DiskFormat) -> Result<()> {
        image::flatten(disk, to, to_format).await
    }

    async fn host_side(&self) -> Result<HostSide> {
        Ok(HostSide::USER_MODE)
    }

    async fn clean_up(&self) -> Result<Vec<String>> {
        let leftovers = self.config.registry.reap()?;
        Ok(leftovers.into_iter().map(|left| left.what).collect())
    }
}

fn is_port_clash(reason: &str) -> bool {
    reason.contains("Could not set up host forwarding rule")
        || reason.contains("Address already in use")
}

fn free_port(address: IpAddr) -> Result<u16> {
    TcpListener::bind((address, 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(Error::io("find a free port of", address.to_string()))
}

/// A host port for each forward. Between here and QEMU's own bind it may be taken; then QEMU
/// says so and the start is tried again.
fn choose_ports(spec: &MachineSpec) -> Result<Vec<(u16, SocketAddr)>> {
    let forwards = spec.network.iter().flat_map(|n| &n.forwards);
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    for forward in forwards {
        let address = forward.host_address;
        let listener = TcpListener::bind((address, forward.host_port.unwrap_or(0))).map_err(
            |e| match forward.host_port {
                Some(port) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    Error::PortTaken { address, port }
                }
                _ => Error::io("listen on", address.to_string())(e),
            },
        )?;
        let at = listener.local_addr().map_err(Error::io("listen on", address.to_string()))?;
        held.push((forward.guest_port, at, listener));
    }
    Ok(held.into_iter().map(|(guest, at, _)| (guest, at)).collect())
}
