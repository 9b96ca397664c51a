//! The libvirt driver: domains of QEMU on this host or another, by way of `virsh`.
//!
//! ```text
//!  mod      the driver: prepares, starts, retries a taken port
//!  address  libvirt[:URI]                 virsh    one request, one process
//!  domain   spec -> XML                   xml      the tree it is written from
//!  vm       a running domain              events   what `virsh event` prints
//!  typing   keys -> chords                owner    whose a domain is; what killed gilts left
//!  far      a machine on another host     pool     its files there     tunnel   the way to it
//! ```
//! libvirt's own client library is LGPL, and so is the one Rust client of its protocol; gilt links
//! neither. `virsh` is a process, and what it says that we do not understand is an error.

mod address;
mod domain;
mod events;
mod far;
mod owner;
mod pool;
mod tunnel;
mod typing;
mod virsh;
mod vm;
mod xml;

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::{
    driver::{Capabilities, HostSide, StartFrom, Vm, VmDriver, VmInfo},
    drivers::DriverEntry,
    error::{Error, Result},
    ports,
    process::which,
    qemu::{Qemu, QemuConfig, check, firmware, image, tpm::Tpm},
    registry::RunRegistry,
    spec::*,
};
use address::{Address, Remote};
use domain::{Around, Backing, Files, Image, Serial, Uefi};
use owner::Owner;
use virsh::Virsh;

const NAME: &str = "libvirt";
/// Of a driver of another host: it can do less.
const FAR_NAME: &str = "libvirt+ssh";

/// For the registry of drivers.
pub const DRIVER: DriverEntry = DriverEntry {
    name: NAME,
    address: Some("URI"),
    about: "QEMU through libvirt, by `virsh`",
    open: |setup| {
        let address = Address::parse(setup.address.as_deref())?;
        if address.network.is_some() {
            return Err(Error::NoSuchDriver {
                asked: format!("libvirt:{}", setup.address.as_deref().unwrap_or_default()),
                why: "this version gives a guest QEMU's user-mode network only".into(),
            });
        }
        Ok(Arc::new(Libvirt::new(address, QemuConfig::new(&setup.cache_dir))))
    },
};

/// Drives one libvirt.
#[derive(Debug)]
pub struct Libvirt {
    virsh: Virsh,
    /// The other host, and the pool there.
    remote: Option<(Remote, String)>,
    registry: RunRegistry,
    key_interval: Duration,
    /// Proves accelerators of this host, with QEMU itself.
    qemu: Qemu,
    version: OnceCell<Version>,
    swept: OnceCell<()>,
}

/// What answers at the other end.
#[derive(Clone, Debug)]
struct Version {
    libvirt: String,
    hypervisor: String,
}

impl Libvirt {
    fn new(address: Address, config: QemuConfig) -> Self {
        let pool = address.pool.unwrap_or_else(|| pool::DEFAULT.into());
        Self {
            virsh: Virsh::new(&address.uri),
            remote: address.remote.map(|remote| (remote, pool)),
            registry: config.registry.clone(),
            key_interval: config.key_interval,
            qemu: Qemu::new(config),
            version: OnceCell::new(),
            swept: OnceCell::new(),
        }
    }

    async fn version(&self) -> Result<&Version> {
        self.version
            .get_or_try_init(|| async {
                if which(OsStr::new("virsh")).is_none() {
                    return Err(Error::HostLacks {
                        what: "libvirt's virsh".into(),
                        hint: "on Debian: apt-get install libvirt-clients libvirt-daemon \
                               libvirt-daemon-driver-qemu"
                            .into(),
                    });
                }
                let said = self.virsh.run(&["version"]).await.map_err(|error| match error {
                    Error::Monitor { reason, .. } => Error::HostLacks {
                        what: format!("a libvirt that answers at {}: {reason}", self.virsh.uri()),
                        hint: "start libvirtd or virtqemud, or name another: --driver libvirt:URI"
                            .into(),
                    },
                    other => other,
                })?;
                let of = |words: &str| {
                    let line = said.lines().find_map(|line| line.trim().strip_prefix(words));
                    line.map(|rest| rest.trim().to_owned()).ok_or_else(|| Error::Malformed {
                        what: "virsh version".into(),
                        reason: format!("no {words:?} in {said:?}"),
                    })
                };
                Ok(Version {
                    libvirt: of("Using library: libvirt")?,
                    hypervisor: of("Running hypervisor:")?,
                })
            })
            .await
    }

    /// What killed gilts left, once in the life of this value.
    async fn sweep(&self) -> Result<()> {
        let swept = self.swept.get_or_try_init(|| async {
            for what in self.clean_up().await? {
                tracing::warn!(what, "cleaned up a leftover");
            }
            Ok::<(), Error>(())
        });
        swept.await?;
        Ok(())
    }

    async fn accelerator(&self, wanted: Accelerator) -> Result<(&'static str, Option<String>)> {
        Ok(match wanted {
            Accelerator::Kvm => ("kvm", None),
            Accelerator::Tcg => ("tcg", None),
            Accelerator::Auto if self.remote.is_some() => {
                let offered = self.virsh.run(&["domcapabilities", "--virttype", "kvm"]).await;
                let (name, reason) = match offered {
                    Ok(_) => ("kvm", "libvirt there offers KVM"),
                    Err(Error::Monitor { .. }) => ("tcg", "libvirt there offers no KVM"),
                    Err(error) => return Err(error),
                };
                (name, Some(reason.to_owned()))
            }
            Accelerator::Auto => {
                let choice = self.qemu.automatic_accelerator().await?;
                (choice.accelerator, Some(choice.reason.clone()))
            }
        })
    }

    /// What the spec names, as files of this host.
    async fn files(&self, spec: &MachineSpec) -> Result<Files> {
        let name = |path: &Path| file_name(path, &spec.name);
        let mut files =
            Files { serial: Some(Serial::File(name(&spec.serial_log)?)), ..Files::default() };
        for disk in &spec.disks {
            files.disks.push(Image {
                path: name(&disk.path)?,
                format: disk.format,
                backing: Backing::AsTheFileSays,
            });
        }
        for cdrom in &spec.cdroms {
            files.media.push(cdrom.medium.as_deref().map(name).transpose()?);
        }
        match &spec.firmware {
            Firmware::Bios => {}
            Firmware::DirectKernel { kernel, initrd, .. } => {
                files.kernel = Some(name(kernel)?);
                files.initrd = initrd.as_deref().map(name).transpose()?;
            }
            Firmware::Uefi { secure_boot, variables } => {
                let found = firmware::find(*secure_boot)?;
                firmware::prepare_variables(&found, variables, &spec.name)?;
                files.uefi = Some(Uefi {
                    code: name(&found.code)?,
                    variables: name(variables)?,
                    secure_boot: *secure_boot,
                });
            }
        }
        Ok(files)
    }
}

/// Though gilt starts the TPM itself, libvirt offers none on a host without swtpm's tools.
fn tpm_tools() -> Result<()> {
    let mut tools = ["swtpm", "swtpm_setup", "swtpm_ioctl"].into_iter();
    match tools.find(|program| which(OsStr::new(program)).is_none()) {
        Some(program) => Err(Error::HostLacks {
            what: format!("a TPM emulator that libvirt accepts ({program})"),
            hint: "on Debian: apt-get install swtpm swtpm-tools".into(),
        }),
        None => Ok(()),
    }
}

/// libvirt takes absolute names only, and only ones that are text.
fn file_name(path: &Path, machine: &str) -> Result<String> {
    let path = std::path::absolute(path).map_err(Error::io("find", path))?;
    path.into_os_string().into_string().map_err(|name| Error::InvalidSpec {
        machine: machine.into(),
        what: format!("libvirt takes no file name that is not UTF-8: {}", name.display()),
    })
}

#[async_trait]
impl VmDriver for Libvirt {
    fn name(&self) -> &'static str {
        if self.remote.is_some() { FAR_NAME } else { NAME }
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let version = self.version().await?;
        let (accelerator, reason) = self.accelerator(Accelerator::Auto).await?;
        let tpm = tpm_tools().is_ok();
        let mut missing = Vec::new();
        for found in [firmware::find(false), firmware::find(true)] {
            missing.extend(found.err().map(|e| e.to_string()));
        }
        missing.extend(tpm_tools().err().map(|e| e.to_string()));
        if which(OsStr::new("qemu-img")).is_none() {
            missing.push("this host lacks qemu-img (on Debian: apt-get install qemu-utils)".into());
        }
        Ok(Capabilities {
            hypervisor: format!(
                "libvirt {} at {}, {}",
                version.libvirt,
                self.virsh.uri(),
                version.hypervisor
            ),
            accelerator: accelerator.into(),
            accelerator_reason: reason.unwrap_or_default(),
            uefi: firmware::find(false).is_ok(),
            secure_boot: firmware::find(true).is_ok(),
            tpm,
            saved_memory: false,
            missing,
        })
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>> {
        check(spec)?;
        if let StartFrom::SavedState(state) = from {
            return Err(Error::StateMismatch {
                path: state.into(),
                reason: "a guest's memory is resumed by the driver that saved it, and libvirt saves none"
                    .into(),
            });
        }
        self.version().await?;
        self.sweep().await?;
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
        let owner = Owner::this_process();
        let local = match self.remote {
            None => Some(self.files(&spec).await?),
            Some(_) => None,
        };
        let mut attempt = 1;
        loop {
            let forwards = ports::choose(&spec)?;
            let mut host_ports: Vec<u16> = forwards.iter().map(|(_, at)| at.port()).collect();
            let (mut tpm, mut far) = (None, None);
            let files = match (&self.remote, &local) {
                (Some((remote, pool)), _) => {
                    let sent = far::send(&self.virsh, remote, pool, &spec, &forwards).await?;
                    host_ports = sent.ports_there;
                    far = Some(sent.far);
                    sent.files
                }
                (None, local) => {
                    let mut files = local.clone().unwrap_or_default();
                    if let Some(wanted) = &spec.tpm {
                        tpm_tools()?;
                        let started = Tpm::start(wanted, &spec.name).await?;
                        let socket = file_name(&started.socket, &spec.name)?;
                        files.tpm = Some(domain::Tpm::Socket(socket));
                        tpm = Some(started);
                    }
                    files
                }
            };
            let vnc = match spec.display {
                Display::Vnc if self.remote.is_some() => {
                    return Err(Error::Unsupported {
                        driver: NAME,
                        what: "show a screen of another host over VNC".into(),
                    });
                }
                Display::Vnc => Some(ports::free(Ipv4Addr::LOCALHOST.into())?.max(5900)),
                _ => None,
            };
            let uuid = uuid::Uuid::new_v4().to_string();
            let name = format!("gilt-{}-{}", spec.name, &uuid[..8]);
            let xml = domain::xml(
                &spec,
                &Around {
                    name: &name,
                    uuid: &uuid,
                    owner: &owner,
                    kvm: accelerator == "kvm",
                    files: &files,
                    host_ports: &host_ports,
                    network: None,
                    vnc_port: vnc,
                },
            )?;
            let launch = vm::Launch {
                targets: domain::targets(&spec),
                run_dir: run_dir.to_path_buf(),
                virsh: self.virsh.clone(),
                name,
                uuid,
                xml,
                info: VmInfo {
                    name: spec.name.clone(),
                    driver: self.name(),
                    accelerator: accelerator.into(),
                    accelerator_reason: accelerator_reason.clone(),
                    forwards,
                    host_as_seen_by_guest: spec
                        .network
                        .as_ref()
                        .map(|_| HostSide::USER_MODE.seen_by_guest),
                    vnc: vnc.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
                    pid: None,
                    resumed: false,
                },
                tpm,
                registry: &self.registry,
                key_interval: self.key_interval,
                far,
                spec: spec.clone(),
            };
            match launch.run().await {
                Ok(vm) => return Ok(Box::new(vm)),
                Err(Error::StartFailed { reason, .. })
                    if ports::is_clash(&reason)
                        && (self.remote.is_some() || ports::fixed(&spec).is_none())
                        && attempt < ports::TRIES =>
                {
                    attempt += 1;
                }
                Err(Error::StartFailed { reason, machine }) if ports::is_clash(&reason) => {
                    return Err(
                        ports::fixed(&spec).unwrap_or(Error::StartFailed { machine, reason })
                    );
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
        self.version().await?;
        let mut done = owner::clean_up(&self.virsh).await?;
        if let Some((_, pool)) = &self.remote {
            done.extend(pool::Pool::open(&self.virsh, pool).await?.clean_up().await?);
        }
        done.extend(self.registry.reap()?.into_iter().map(|left| left.what));
        Ok(done)
    }
}
