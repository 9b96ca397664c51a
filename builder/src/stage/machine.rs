//! The reference machine while it runs: started cold or from a checkpoint, saved after a layer.

use super::guest::{Access, Guest, Served, in_time};
use super::{Job, StageError};
use crate::checkpoint::{self, Checkpoint, Checkpoints, History, LayerHistory, Record};
use crate::event::{Event, Events};
use crate::home::Home;
use crate::plan::LayerInputsRecord;
use crate::template::model as template;
use gilt_vm::{
    Accelerator, CdromInterface, CdromSpec, CheckpointRequest, DiskInterface, DiskSpec, Display,
    ExitReason, Firmware, GuestClock, MachineSpec, NetDevice, NetworkSpec, OnGuestReset, Rest,
    StartFrom, TpmSpec, Vm,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A running guest one is logged in to.
pub struct Machine {
    pub vm: Arc<dyn Vm>,
    pub guest: Guest,
    /// The key of the checkpoint the running disk lies over; `None` before the first.
    pub parent: Option<String>,
    /// The checkpoint that is being written while the guest goes on.
    saving: Option<JoinHandle<Result<(), StageError>>>,
    /// Shut down, for its driver freezes no running machine: `parent` is all of it.
    off: bool,
}

/// A layer that is done, to be made known once its checkpoint counts.
pub struct DoneLayer {
    pub key: String,
    pub name: String,
    pub seconds: f64,
    pub made_of: Option<LayerInputsRecord>,
    /// Held until the checkpoint is there.
    pub lock: std::fs::File,
}

/// Memory a machine's process needs beside the guest's own: firmware, device models, translated code.
pub const OVERHEAD_BYTES: u64 = 256 << 20;

impl Job {
    /// The machine of the template, over the disk given, with nothing else attached but a way to
    /// these ports of this host.
    pub fn spec(&self, disk: PathBuf, name: &str, reaches: Vec<u16>) -> MachineSpec {
        let machine = &self.build.spec.machine;
        let mut spec = MachineSpec::new(
            format!("{}-{}", self.build.spec.name, self.id),
            self.run.file(&format!("{name}-serial.log")),
        );
        spec.cpu_count = machine.cpus;
        spec.memory_bytes = machine.memory.bytes();
        spec.cpu_model = machine.cpu_model.clone();
        spec.firmware = match machine.firmware {
            template::Firmware::Bios => Firmware::Bios,
            template::Firmware::Uefi => Firmware::Uefi {
                secure_boot: machine.secure_boot,
                variables: self.run.file("uefi-vars.fd"),
            },
        };
        spec.disks = vec![DiskSpec {
            path: disk,
            format: self.driver.disk_format(),
            interface: match machine.disk_interface {
                template::DiskInterface::VirtioBlk => DiskInterface::VirtioBlk,
                template::DiskInterface::VirtioScsi => DiskInterface::VirtioScsi,
                template::DiskInterface::Sata => DiskInterface::Sata,
                template::DiskInterface::Nvme => DiskInterface::Nvme,
            },
            boot_index: Some(1),
            throw_away_writes: false,
        }];
        let device = match machine.net_device {
            template::NetDevice::VirtioNet => Some(NetDevice::VirtioNet),
            template::NetDevice::E1000e => Some(NetDevice::E1000e),
            template::NetDevice::None => None,
        };
        spec.network = device.map(|device| {
            let mut network = NetworkSpec::forwarding(self.build.spec.communicator.port);
            network.device = device;
            network.reaches_host_ports = reaches;
            for forward in &mut network.forwards {
                forward.host_port = self.options.ssh_port;
            }
            network
        });
        spec.tpm = machine.tpm.then(|| TpmSpec { state_dir: self.run.file("tpm") });
        spec.display = if self.options.vnc || machine.display == template::Display::Vnc {
            Display::Vnc
        } else {
            Display::Headless
        };
        spec.accelerator = match machine.accelerator {
            template::Accelerator::Kvm => Accelerator::Kvm,
            template::Accelerator::Tcg => Accelerator::Tcg,
            _ => Accelerator::Auto,
        };
        spec.clock = match self.build.spec.guest {
            template::Guest::Linux => GuestClock::Utc,
            template::Guest::Windows => GuestClock::LocalTime,
        };
        spec.on_guest_reset = OnGuestReset::Restart;
        spec
    }

    /// The drives of the installer's medium and of the answer medium; empty ones stay attached
    /// through the whole build, so that a saved state always fits. A Linux guest that begins on a disk
    /// and reads no answers has none: looking for them would only slow its boot.
    pub fn with_cdroms(&self, mut spec: MachineSpec, media: [Option<PathBuf>; 2]) -> MachineSpec {
        let source = &self.build.spec.source;
        if matches!(source.start, template::Start::Disk(_))
            && source.answer.is_none()
            && self.build.spec.guest == template::Guest::Linux
        {
            return spec;
        }
        spec.cdroms = media
            .into_iter()
            .enumerate()
            .map(|(index, medium)| CdromSpec {
                medium,
                interface: match self.build.spec.guest {
                    template::Guest::Linux => CdromInterface::VirtioScsi,
                    template::Guest::Windows => CdromInterface::Sata,
                },
                // The disk is tried first: empty it falls through to the medium, and after the
                // installation the same order boots what was installed.
                boot_index: (index == 0).then_some(2),
            })
            .collect();
        spec
    }

    /// A disk of this run that lies over checkpoint `key`.
    async fn overlay_over(&self, key: &str, number: u32) -> Result<PathBuf, StageError> {
        let path = self.overlay(number);
        let base = self.checkpoints.disk_path(key);
        self.driver.create_overlay(&base, self.driver.disk_format(), &path).await?;
        Ok(path)
    }

    /// Goes on from a checkpoint: by its memory where that fits, else by a boot.
    pub async fn resume(&self, checkpoint: &Checkpoint) -> Result<Machine, StageError> {
        let key = checkpoint.record.key.clone();
        let started = Instant::now();
        self.bring_firmware_state(checkpoint)?;
        let access = Access::of_checkpoint(checkpoint)?;
        let served = Served::start(self).await?;
        let number = self.next_overlay();
        let disk = self.overlay_over(&key, number).await?;
        let spec = self.spec(disk.clone(), "guest", served.reached_ports());
        let mut spec = self.with_cdroms(spec, [None, None]);
        self.boot_kernel_of_disk(&mut spec).await?;
        let mut resumed = None;
        if let Some(memory) = checkpoint.memory() {
            let from = StartFrom::SavedState(&memory);
            match self.driver.start(&spec, self.run.path(), from).await {
                Ok(vm) => {
                    let vm = self.watch(vm);
                    let patience = Duration::from_secs(60);
                    match Guest::connect(self, vm.as_ref(), &access, served.clone(), patience).await
                    {
                        Ok(guest) => resumed = Some((vm, guest)),
                        Err(error) => {
                            self.events.note(format!(
                                "the saved state did not answer ({error}); booting instead"
                            ));
                            vm.power_off().await?;
                        }
                    }
                }
                Err(gilt_vm::Error::StateMismatch { reason, .. }) => {
                    self.events.note(format!(
                        "the saved state cannot be resumed ({reason}); booting instead"
                    ));
                }
                Err(error) => return Err(error.into()),
            }
            if resumed.is_none() {
                // What the guest wrote in the meantime must not stay.
                std::fs::remove_file(&disk).map_err(StageError::io("remove an overlay"))?;
                self.overlay_over(&key, number).await?;
                self.bring_firmware_state(checkpoint)?;
            }
        }
        let (vm, guest) = match resumed {
            Some(both) => both,
            None => {
                let vm = self.driver.start(&spec, self.run.path(), StartFrom::PowerOn).await?;
                let vm = self.watch(vm);
                let patience = self.build.spec.communicator.timeout;
                let guest =
                    Guest::connect(self, vm.as_ref(), &access, served.clone(), patience).await?;
                (vm, guest)
            }
        };
        let how = if vm.info().resumed { "resumed" } else { "booted" };
        self.events.note(format!(
            "{how} the checkpoint of layer {} in {:.1} s",
            checkpoint.record.layer,
            started.elapsed().as_secs_f64()
        ));
        let mut machine = Machine { parent: Some(key), ..Machine::new(vm, guest) };
        machine.guest.renew_access(self).await?;
        Ok(machine)
    }

    fn bring_firmware_state(&self, checkpoint: &Checkpoint) -> Result<(), StageError> {
        if let Some(variables) = checkpoint.uefi_variables() {
            std::fs::copy(variables, self.run.file("uefi-vars.fd"))
                .map_err(StageError::io("copy the UEFI variables"))?;
        }
        if let Some(tpm) = checkpoint.tpm() {
            let here = self.run.file("tpm");
            copy_folder(&tpm, &here).map_err(StageError::io("copy the TPM's state"))?;
        }
        Ok(())
    }

    fn overlay(&self, number: u32) -> PathBuf {
        self.run.file(&format!("overlay-{number}.{}", self.driver.disk_format().qemu_name()))
    }

    /// The bytes of a disk no machine runs on, as a file here.
    pub async fn bytes_of(&self, disk: &Path) -> Result<PathBuf, StageError> {
        let Some(place) = self.driver.disk_home() else { return Ok(disk.to_path_buf()) };
        let format = self.driver.disk_format();
        let flat = self.run.file(&format!("flat-{}.{}", self.next_overlay(), format.qemu_name()));
        let started = Instant::now();
        self.driver.flatten(disk, &flat, format).await?;
        let bytes = std::fs::metadata(&flat).map_err(StageError::io("look at a disk"))?.len();
        self.events.note(format!(
            "fetched the disk from {place}: {:.1} MB in {:.1} s",
            bytes as f64 / 1e6,
            started.elapsed().as_secs_f64()
        ));
        Ok(flat)
    }

    fn next_overlay(&self) -> u32 {
        self.overlay_count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

impl Machine {
    pub fn new(vm: Arc<dyn Vm>, guest: Guest) -> Self {
        Self { vm, guest, parent: None, saving: None, off: false }
    }

    /// Keeps the guest's disk, and its memory where that pays, as checkpoint of a layer. Frozen, the
    /// guest goes on over a fresh overlay at once, and the checkpoint counts when it is written out, see
    /// [`Machine::saved`]. Where the driver freezes none, the guest is shut down; [`Machine::awake`]
    /// boots it.
    pub async fn save(&mut self, job: &Job, layer: DoneLayer) -> Result<(), StageError> {
        self.guest.sync(job).await?;
        self.saved().await?;
        let key = layer.key.clone();
        let staging = job
            .home
            .staging_dir(&job.id, &key)
            .map_err(StageError::io("make a folder for a checkpoint"))?;
        let freezes = job.driver.freezes();
        let (disk, rest) = if freezes {
            self.freeze(job, &key, &staging).await?
        } else {
            self.shut_down(job, &layer.name, &staging).await?
        };
        std::fs::rename(disk, staging.join(job.checkpoints.disk_name()))
            .map_err(StageError::io("move a checkpoint's disk into place"))?;
        self.guest.access.save(&staging.join(checkpoint::ACCESS_KEY))?;
        let record = Record {
            format: 0,
            key: key.clone(),
            parent: self.parent.clone(),
            image: job.build.spec.name.clone(),
            layer: layer.name.clone(),
            created: crate::now(),
            seconds: layer.seconds,
            username: self.guest.access.username.clone(),
            public_key: self.guest.access.public_key.clone(),
            key_is_ours: self.guest.access.is_ours(),
        };
        let keeper = Keeper {
            checkpoints: job.checkpoints.clone(),
            home: job.home.clone(),
            events: job.events.clone(),
        };
        self.saving = Some(job.beside(async move {
            rest.done().await?;
            let kept = tokio::task::spawn_blocking(move || keeper.keep(&staging, record, layer));
            kept.await.unwrap_or_else(|panic| Err(StageError::Imaging(panic.to_string())))
        }));
        self.parent = Some(key);
        if !freezes {
            self.off = true;
            self.saved().await?;
        }
        Ok(())
    }

    /// The disk as it is, and what is left to do for it while the guest goes on.
    async fn freeze(
        &self,
        job: &Job,
        key: &str,
        staging: &Path,
    ) -> Result<(PathBuf, Rest), StageError> {
        let machine = &job.build.spec.machine;
        let uefi = machine.firmware == template::Firmware::Uefi && !machine.boots_kernel();
        let keep_memory = job.options.keep_memory && job.driver.capabilities().await?.saved_memory;
        let request = CheckpointRequest {
            new_overlays: vec![job.overlay(job.next_overlay())],
            backing_names: Some(vec![job.checkpoints.disk_path(key)]),
            memory_state: keep_memory.then(|| staging.join(checkpoint::MEMORY)),
            uefi_variables: uefi.then(|| staging.join(checkpoint::UEFI_VARIABLES)),
            tpm_state: machine.tpm.then(|| staging.join(checkpoint::TPM)),
        };
        let frozen = self.vm.checkpoint(&request).await?;
        Ok((frozen.disks[0].clone(), frozen.rest))
    }

    /// The disk of a guest that has shut down, with what its machine leaves of its firmware's state.
    async fn shut_down(
        &mut self,
        job: &Job,
        layer: &str,
        staging: &Path,
    ) -> Result<(PathBuf, Rest), StageError> {
        let started = Instant::now();
        let limit = job.build.spec.generalize.shutdown_timeout;
        let what = format!("the shut-down that saves layer {layer} (generalize.shutdown_timeout)");
        let (exit, serial) = (self.vm.exit_watch(), self.vm.serial().clone());
        let asked = async {
            self.guest.shut_down(self.vm.as_ref()).await?;
            Ok(exit.wait().await)
        };
        let reason = in_time(&what, limit, asked).await.map_err(|error| match error {
            StageError::CommandTimedOut { what, limit, .. } => {
                StageError::CommandTimedOut { what, limit, tail: serial.tail() }
            }
            other => other,
        })?;
        if reason != ExitReason::PoweredOff {
            return Err(StageError::Guest(format!(
                "the guest was shut down to save layer {layer}, and that ended otherwise: {reason}"
            )));
        }
        // It is off; what a driver has of it elsewhere comes here now.
        self.vm.power_off().await?;
        job.take_live();
        let (variables, tpm) = (job.run.file("uefi-vars.fd"), job.run.file("tpm"));
        if variables.exists() {
            std::fs::copy(variables, staging.join(checkpoint::UEFI_VARIABLES))
                .map_err(StageError::io("keep the UEFI variables"))?;
        }
        if tpm.exists() {
            copy_folder(&tpm, &staging.join(checkpoint::TPM))
                .map_err(StageError::io("keep the TPM's state"))?;
        }
        job.events.note(format!(
            "the guest was shut down in {:.1} s, as {} freezes no running machine",
            started.elapsed().as_secs_f64(),
            job.driver.name()
        ));
        Ok((self.disk(), Rest::none()))
    }

    /// A machine that runs: one that was shut down boots from what was saved of it.
    pub async fn awake(self, job: &Job) -> Result<Self, StageError> {
        if !self.off {
            return Ok(self);
        }
        let saved = self.parent.as_ref().and_then(|key| job.checkpoints.find(key));
        let saved =
            saved.ok_or_else(|| StageError::Input("the layer's checkpoint is gone".into()))?;
        drop(self);
        job.resume(&saved).await
    }

    /// Waits until the last checkpoint counts.
    pub async fn saved(&mut self) -> Result<(), StageError> {
        match self.saving.take() {
            None => Ok(()),
            Some(saving) => saving.await.unwrap_or_else(|panic| {
                Err(StageError::Imaging(format!("a worker died: {panic}")))
            }),
        }
    }

    /// The disk the guest writes now.
    pub fn disk(&self) -> PathBuf {
        self.vm.disks().into_iter().next().unwrap_or_default()
    }
}

/// Makes a written checkpoint count, and tells.
struct Keeper {
    checkpoints: Checkpoints,
    home: Home,
    events: Events,
}

impl Keeper {
    fn keep(self, staging: &Path, record: Record, layer: DoneLayer) -> Result<(), StageError> {
        let DoneLayer { name, seconds, made_of, lock, .. } = layer;
        let image = record.image.clone();
        let saved = self
            .checkpoints
            .publish(staging, record)
            .map_err(StageError::io("save a checkpoint"))?;
        drop(lock);
        self.events.emit(Event::LayerFinished {
            layer: name.clone(),
            seconds,
            checkpoint_bytes: saved.bytes(),
        });
        let Some(made_of) = made_of else { return Ok(()) };
        History::change(&self.home, &image, |history| {
            history.layers.insert(name, LayerHistory { seconds, made_of });
        })
        .map_err(StageError::io("remember a layer"))
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
