//! A machine whose hypervisor is on another host: its files go there as volumes, and come back when
//! they are frozen or the machine has ended.
//!
//! ```text
//!   here   base <- overlay        ──upload──▶   there   volume <- volume  ◀── written by the guest
//!          base <- overlay (whole) ◀─download── checkpoint, power_off
//! ```
//! Between those moments the file here is only a place holder.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    address::Remote,
    domain::{Backing, Files, Image, Serial, Tpm, Uefi},
    owner::Owner,
    pool::{Pool, Volume},
    tunnel::{Ports, Tunnel},
    virsh::Virsh,
};
use crate::{
    error::{Error, Result},
    ports,
    qemu::{firmware, image},
    spec::*,
};

/// Where ports of the other host are looked for: above what services have, below what its kernel hands
/// out. Whether one is free is only known there; a clash is told, and the start is tried again.
const PORTS_THERE: std::ops::Range<u16> = 20_000..32_000;

/// All that is on the other host, or leads there.
#[derive(Debug)]
pub(super) struct Far {
    pool: Pool,
    owner: Owner,
    disks: Mutex<Vec<FarDisk>>,
    media: Mutex<Vec<Option<Volume>>>,
    variables: Option<(Volume, PathBuf)>,
    /// What nothing comes back from.
    others: Mutex<Vec<Volume>>,
    /// Where the serial line is read here.
    pub serial_port: u16,
    _tunnel: Tunnel,
    /// The files here are this machine's alone, as if its hypervisor wrote them.
    _locks: Vec<std::fs::File>,
}

#[derive(Clone, Debug)]
struct FarDisk {
    volume: Volume,
    format: DiskFormat,
    here: PathBuf,
    /// What the file here lies over, and its format.
    base: Option<(PathBuf, String)>,
}

/// The files as the other host knows them, and its ports that lead to the guest.
pub(super) struct Sent {
    pub far: Far,
    pub files: Files,
    /// In the order of the forwards.
    pub ports_there: Vec<u16>,
}

/// Sends what a machine needs and opens the way to it.
pub(super) async fn send(
    virsh: &Virsh,
    remote: &Remote,
    pool: &str,
    spec: &MachineSpec,
    forwards: &[(u16, SocketAddr)],
) -> Result<Sent> {
    let locks = lock_disks(spec)?;
    let pool = Pool::open(virsh, pool).await?;
    let owner = Owner::this_process();
    let sending = Sending { pool: &pool, owner: &owner, sent: Mutex::default() };
    let all = async {
        let (files, disks, media, variables) = sending.machine(virsh, spec).await?;
        let mut ports = Ports::default();
        if let Some(network) = &spec.network {
            ports.to_here.clone_from(&network.reaches_host_ports);
        }
        for (_, at) in forwards {
            ports.to_there.push((at.port(), port_there()));
        }
        let serial_port = ports::free(Ipv4Addr::LOCALHOST.into())?;
        let serial_there = port_there();
        ports.to_there.push((serial_port, serial_there));
        let files = Files { serial: Some(Serial::Listen(serial_there)), ..files };
        let tunnel = Tunnel::open(remote, &ports, &spec.name).await?;
        let ports_there =
            ports.to_there[..forwards.len()].iter().map(|(_, there)| *there).collect();
        Ok((files, disks, media, variables, serial_port, tunnel, ports_there))
    };
    match all.await {
        Ok((files, disks, media, variables, serial_port, tunnel, ports_there)) => {
            let kept: Vec<String> = disks.iter().map(|d: &FarDisk| d.volume.path.clone()).collect();
            let mut others = sending.take();
            others.retain(|volume| !kept.contains(&volume.path));
            others.retain(|volume| {
                variables.as_ref().is_none_or(|(v, _): &(Volume, PathBuf)| v.path != volume.path)
            });
            let far = Far {
                pool: pool.clone(),
                owner: owner.clone(),
                disks: Mutex::new(disks),
                media: Mutex::new(media),
                variables,
                others: Mutex::new(others),
                serial_port,
                _tunnel: tunnel,
                _locks: locks,
            };
            Ok(Sent { far, files, ports_there })
        }
        Err(error) => {
            for volume in sending.take() {
                pool.remove(&volume).await?;
            }
            Err(error)
        }
    }
}

/// Refuses a disk another machine of this host has.
fn lock_disks(spec: &MachineSpec) -> Result<Vec<std::fs::File>> {
    let mut locks = Vec::new();
    for disk in &spec.disks {
        let file = std::fs::File::open(&disk.path).map_err(Error::io("open", &disk.path))?;
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::StartFailed {
                    machine: spec.name.clone(),
                    reason: format!("{} is locked by another machine", disk.path.display()),
                });
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(Error::io("lock", &disk.path)(error));
            }
        }
    }
    Ok(locks)
}

fn port_there() -> u16 {
    let random = uuid::Uuid::new_v4().as_u128();
    let span = u128::from(PORTS_THERE.end - PORTS_THERE.start);
    PORTS_THERE.start + u16::try_from(random % span).unwrap_or(0)
}

struct Sending<'a> {
    pool: &'a Pool,
    owner: &'a Owner,
    /// Everything there so far, for the case that something fails.
    sent: Mutex<Vec<Volume>>,
}

type Machine = (Files, Vec<FarDisk>, Vec<Option<Volume>>, Option<(Volume, PathBuf)>);

impl Sending<'_> {
    fn take(&self) -> Vec<Volume> {
        self.sent.lock().map(|mut sent| std::mem::take(&mut *sent)).unwrap_or_default()
    }

    async fn file(&self, file: &Path) -> Result<Volume> {
        let volume = self.pool.upload(self.owner, file).await?;
        if let Ok(mut sent) = self.sent.lock() {
            sent.push(volume.clone());
        }
        Ok(volume)
    }

    async fn machine(&self, virsh: &Virsh, spec: &MachineSpec) -> Result<Machine> {
        let mut files = Files::default();
        let mut disks = Vec::new();
        for disk in &spec.disks {
            let volume = self.file(&disk.path).await?;
            let mut chain = Vec::new();
            let mut base = None;
            let mut next = image::info(&disk.path).await?.full_backing_filename;
            while let Some(file) = next {
                let info = image::info(&file).await?;
                let format =
                    DiskFormat::from_qemu_name(&info.format).ok_or_else(|| Error::Unsupported {
                        driver: super::NAME,
                        what: format!("send a disk of format {}", info.format),
                    })?;
                chain.push((self.file(&file).await?.path, format));
                base.get_or_insert((file, info.format));
                next = info.full_backing_filename;
            }
            files.disks.push(Image {
                path: volume.path.clone(),
                format: disk.format,
                backing: Backing::Chain(chain),
            });
            disks.push(FarDisk { volume, format: disk.format, here: disk.path.clone(), base });
        }
        let mut media = Vec::new();
        for cdrom in &spec.cdroms {
            let volume = match &cdrom.medium {
                Some(medium) => Some(self.file(medium).await?),
                None => None,
            };
            files.media.push(volume.as_ref().map(|volume| volume.path.clone()));
            media.push(volume);
        }
        let mut own_variables = None;
        match &spec.firmware {
            Firmware::Bios => {}
            Firmware::DirectKernel { kernel, initrd, .. } => {
                files.kernel = Some(self.file(kernel).await?.path);
                if let Some(initrd) = initrd {
                    files.initrd = Some(self.file(initrd).await?.path);
                }
            }
            Firmware::Uefi { secure_boot, variables } => {
                let found = firmware::find(*secure_boot)?;
                let code = found.code.display().to_string();
                let offered = virsh.run(&["domcapabilities", "--machine", "q35"]).await?;
                if !offered.contains(&format!("<value>{code}</value>")) {
                    return Err(Error::HostLacks {
                        what: format!("the UEFI firmware {code} at {}", virsh.uri()),
                        hint: "both hosts need the same build: on Debian, apt-get install ovmf"
                            .into(),
                    });
                }
                firmware::prepare_variables(&found, variables, &spec.name)?;
                let volume = self.file(variables).await?;
                files.uefi =
                    Some(Uefi { code, variables: volume.path.clone(), secure_boot: *secure_boot });
                own_variables = Some((volume, variables.clone()));
            }
        }
        files.tpm = spec.tpm.as_ref().map(|_| Tpm::OfLibvirt);
        Ok((files, disks, media, own_variables))
    }
}

/// What a checkpoint goes on over, there and here.
pub(super) struct Next(Vec<FarDisk>);

impl Next {
    /// As the hypervisor is told of them, in the order of the spec.
    pub fn paths(&self) -> Vec<String> {
        self.0.iter().map(|disk| disk.volume.path.clone()).collect()
    }
}

impl Far {
    fn disks(&self) -> Vec<FarDisk> {
        self.disks.lock().map(|disks| disks.clone()).unwrap_or_default()
    }

    /// Empty overlays over the present disks; the files here exist already.
    pub async fn next(&self, overlays: &[PathBuf]) -> Result<Next> {
        let mut next = Vec::new();
        for (disk, overlay) in self.disks().iter().zip(overlays) {
            let info = image::info(overlay).await?;
            // The empty overlay itself goes there, over what its base is called there.
            let mut empty = overlay.clone().into_os_string();
            empty.push(".far");
            let empty = tempfile::TempPath::try_from_path(PathBuf::from(empty))
                .map_err(Error::io("name", overlay))?;
            std::fs::copy(overlay, &empty).map_err(Error::io("copy", overlay))?;
            image::rename_base(&empty, Path::new(&disk.volume.path), disk.format.qemu_name())
                .await?;
            let volume = self.pool.upload(&self.owner, &empty).await?;
            let base = info
                .full_backing_filename
                .map(|file| (file, info.backing_filename_format.unwrap_or_else(|| "qcow2".into())));
            let format = DiskFormat::Qcow2;
            next.push(FarDisk { volume, format, here: overlay.clone(), base });
        }
        Ok(Next(next))
    }

    /// The machine goes on over `next`: what was written before comes here.
    pub async fn froze(&self, next: Next) -> Result<()> {
        let frozen = self.disks();
        if let (Ok(mut disks), Ok(mut others)) = (self.disks.lock(), self.others.lock()) {
            others.extend(frozen.iter().map(|disk| disk.volume.clone()));
            *disks = next.0;
        }
        for disk in &frozen {
            self.bring(disk).await?;
        }
        Ok(())
    }

    pub async fn forget(&self, next: Next) -> Result<()> {
        for disk in next.0 {
            self.pool.remove(&disk.volume).await?;
        }
        Ok(())
    }

    async fn bring(&self, disk: &FarDisk) -> Result<()> {
        self.pool.download(&disk.volume, &disk.here).await?;
        match &disk.base {
            // Over there its base had another name.
            Some((base, format)) => image::rename_base(&disk.here, base, format).await,
            None => Ok(()),
        }
    }

    pub async fn bring_variables(&self, to: &Path) -> Result<()> {
        match &self.variables {
            Some((volume, _)) => self.pool.download(volume, to).await,
            None => Ok(()),
        }
    }

    /// The medium as a volume; the one the drive had before is not needed any more.
    pub async fn medium(&self, cdrom: usize, medium: &Path) -> Result<String> {
        let volume = self.pool.upload(&self.owner, medium).await?;
        let path = volume.path.clone();
        let before = self.media.lock().ok().and_then(|mut m| m.get_mut(cdrom)?.replace(volume));
        if let Some(before) = before {
            self.pool.remove(&before).await?;
        }
        Ok(path)
    }

    /// The machine has ended: its disks and variables come here, and nothing stays there.
    pub async fn bring_all(&self) -> Result<()> {
        for disk in self.disks() {
            self.bring(&disk).await?;
        }
        if let Some((_, here)) = &self.variables {
            self.bring_variables(here).await?;
        }
        self.remove_all().await
    }

    pub async fn remove_all(&self) -> Result<()> {
        let mut all: Vec<Volume> = self.disks().into_iter().map(|disk| disk.volume).collect();
        all.extend(self.variables.iter().map(|(volume, _)| volume.clone()));
        if let Ok(mut media) = self.media.lock() {
            all.extend(media.iter_mut().filter_map(Option::take));
        }
        if let Ok(mut others) = self.others.lock() {
            all.append(&mut others);
        }
        let mut names = std::collections::BTreeSet::new();
        for volume in all.into_iter().filter(|volume| names.insert(volume.path.clone())) {
            self.pool.remove(&volume).await?;
        }
        Ok(())
    }
}
