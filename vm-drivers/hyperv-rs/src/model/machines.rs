//! Machines of the model.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Host, Outcome, fail, list, operation_failed, rules};
use crate::{
    cmdlet::*,
    name::VmId,
    reply::{Adapter, Drive, Machine, ServiceState, Snapshot, State, Switch},
    wmi::Keys,
};

/// A machine.
#[derive(Debug, Clone)]
pub struct Model {
    pub id: VmId,
    pub name: String,
    pub generation: Generation,
    pub state: State,
    pub notes: String,
    pub processors: u64,
    pub memory_bytes: u64,
    pub automatic_checkpoints: bool,
    /// Slot and key of the file.
    pub disks: Vec<(Slot, String)>,
    pub dvds: Vec<(Slot, Option<String>)>,
    pub key_protector: bool,
    pub tpm: bool,
    pub services: Vec<Service>,
    pub snapshots: Vec<String>,
    pub typed: Vec<Keys>,
    pub switch: String,
    /// What the guest told of its addresses.
    pub addresses: Vec<String>,
    /// Pairs the guest wrote, and those the host gave it.
    pub guest_pairs: BTreeMap<String, String>,
    pub host_pairs: BTreeMap<String, String>,
    /// The pipe of its first serial line.
    pub pipe: Option<String>,
    /// What a Gen1 machine tries first, by the words of `Set-VMBios`; Gen2 names devices.
    pub boot_order: Vec<BootDevice>,
    pub secure_boot: bool,
    started: Option<std::time::Instant>,
}

impl Model {
    pub fn is_running(&self) -> bool {
        !matches!(self.state, State::Off | State::Saved)
    }

    fn reply(&self) -> Machine {
        Machine {
            id: self.id.clone(),
            name: self.name.clone(),
            state: self.state.clone(),
            generation: self.generation.number() as u32,
            notes: self.notes.clone(),
            processors: self.processors as u32,
            memory_bytes: self.memory_bytes,
            uptime_seconds: self
                .started
                .filter(|_| self.is_running())
                .map_or(0, |at| at.elapsed().as_secs()),
            heartbeat: String::new(),
        }
    }
}

impl Host {
    pub(super) fn machine(&mut self, id: Option<&VmId>, cmdlet: &str) -> Outcome<&mut Model> {
        let found = self.machines.iter_mut().find(|machine| Some(&machine.id) == id);
        found.ok_or_else(|| fail(cmdlet, "InvalidParameter", "InvalidArgument", "no such machine"))
    }

    pub(super) fn new_machine(&mut self, new: &NewVm) -> Outcome<VmId> {
        if let Some(switch) = &new.switch
            && !self.switches.iter().any(|it| it.name == switch.as_str())
        {
            return Err(fail(
                "New-VM",
                "ObjectNotFound",
                "ObjectNotFound",
                format!("no switch {switch}"),
            ));
        }
        if new.disk != FirstDisk::None {
            return Err(fail("New-VM", "GiltNotModelled", "NotImplemented", "a first disk"));
        }
        self.next_id += 1;
        let id = VmId::new(&format!("00000000-0000-4000-8000-{:012}", self.next_id))
            .map_err(|e| operation_failed("New-VM", e.to_string()))?;
        self.machines.push(Model {
            id: id.clone(),
            name: new.name.to_string(),
            generation: new.generation,
            state: State::Off,
            notes: String::new(),
            processors: 1,
            memory_bytes: new.memory_bytes,
            automatic_checkpoints: self.client,
            disks: Vec::new(),
            dvds: match new.generation {
                Generation::One => vec![(Slot::ide(1, 0), None)],
                Generation::Two => Vec::new(),
            },
            key_protector: false,
            tpm: false,
            services: Vec::new(),
            snapshots: Vec::new(),
            typed: Vec::new(),
            switch: new.switch.as_ref().map(ToString::to_string).unwrap_or_default(),
            addresses: Vec::new(),
            guest_pairs: BTreeMap::new(),
            host_pairs: BTreeMap::new(),
            pipe: None,
            boot_order: Vec::new(),
            // Gen2 machines are born with Secure Boot on.
            secure_boot: new.generation == Generation::Two,
            started: None,
        });
        Ok(id)
    }

    pub(super) fn cmdlet(&mut self, cmdlet: &Cmdlet, id: Option<&VmId>) -> Outcome<Json> {
        let name = cmdlet.call().cmdlet;
        self.allowed(name)?;
        if let Some(outcome) = self.disk_cmdlet(cmdlet) {
            return outcome;
        }
        match cmdlet {
            Cmdlet::GetVm(GetVm { id: None }) => {
                return Ok(list(self.machines.iter().map(Model::reply)));
            }
            Cmdlet::GetVm(GetVm { id: Some(id) }) => {
                return self.machine(Some(id), name).map(|machine| list([machine.reply()]));
            }
            Cmdlet::GetSwitches(_) => return Ok(list(&self.switches)),
            Cmdlet::NewSwitch(new) => {
                let kind = match new.kind {
                    SwitchKind::Internal => "Internal",
                    SwitchKind::Private => "Private",
                    SwitchKind::External { .. } => "External",
                };
                let (name, notes) = (new.name.to_string(), new.notes.clone());
                self.switches.push(Switch { name, kind: kind.into(), notes });
                return Ok(json!([]));
            }
            Cmdlet::RemoveSwitch(remove) => {
                self.switches.retain(|switch| switch.name != remove.name.as_str());
                return Ok(json!([]));
            }
            Cmdlet::NewIpAddress(_) => return Ok(json!([])),
            Cmdlet::NewNat(_) if !self.nats.is_empty() => {
                return Err(fail(
                    "",
                    "Windows System Error 87,New-NetNat",
                    "InvalidArgument",
                    "one NAT",
                ));
            }
            Cmdlet::NewNat(new) => {
                let nat =
                    crate::reply::Nat { name: new.name.clone(), prefix: new.prefix.to_string() };
                self.nats.push(nat);
                return Ok(json!([]));
            }
            Cmdlet::GetNat(_) => return Ok(list(&self.nats)),
            _ => {}
        }
        let (generation, needs) = rules::rule(cmdlet);
        let machine = self.machine(id, name)?;
        let ready = match needs {
            rules::Needs::Any => true,
            rules::Needs::Off => machine.state == State::Off,
            rules::Needs::NotRunning => !machine.is_running(),
            rules::Needs::Running => machine.is_running(),
        };
        if !ready || generation.is_some_and(|generation| generation != machine.generation) {
            return Err(fail(name, "InvalidState", "InvalidOperation", "not in its current state"));
        }
        let (id, machine_generation) = (machine.id.clone(), machine.generation);
        let slot_fits = |slot: Slot, dvd: bool| match (machine_generation, slot.controller) {
            (Generation::Two, Controller::Ide) => false,
            (Generation::One, Controller::Scsi) => !dvd,
            _ => slot.exists(),
        };
        match cmdlet {
            Cmdlet::SetVm(set) => {
                machine.processors = set.processor_count.unwrap_or(machine.processors);
                let automatic = set.automatic_checkpoints.unwrap_or(machine.automatic_checkpoints);
                machine.automatic_checkpoints = automatic;
                machine.notes = set.notes.clone().unwrap_or_else(|| machine.notes.clone());
            }
            Cmdlet::SetProcessor(set) => {
                machine.processors = set.count.unwrap_or(machine.processors)
            }
            Cmdlet::SetMemory(set) => machine.memory_bytes = set.startup_bytes,
            Cmdlet::SetKeyProtector(_) => machine.key_protector = true,
            Cmdlet::EnableTpm(_) if !machine.key_protector => {
                return Err(operation_failed(name, "no key protector is set".into()));
            }
            Cmdlet::EnableTpm(_) => machine.tpm = true,
            Cmdlet::SetFirmware(set) => {
                let missing = set.boot_order.iter().any(|device| match device {
                    BootDevice::HardDisk(slot) => machine.disks.iter().all(|(at, _)| at != slot),
                    BootDevice::Dvd(slot) => machine.dvds.iter().all(|(at, _)| at != slot),
                    BootDevice::Network => false,
                });
                if missing {
                    return Err(fail(name, "InvalidParameter", "InvalidArgument", "no such drive"));
                }
                if let Some(template) = set.secure_boot {
                    machine.secure_boot = template.is_some();
                }
                if !set.boot_order.is_empty() {
                    machine.boot_order = set.boot_order.clone();
                }
            }
            Cmdlet::SetBios(set) => {
                let devices = |device: &BiosDevice| -> Vec<BootDevice> {
                    match device {
                        BiosDevice::Cd => {
                            machine.dvds.iter().map(|(slot, _)| BootDevice::Dvd(*slot)).collect()
                        }
                        BiosDevice::Ide => machine
                            .disks
                            .iter()
                            .filter(|(slot, _)| slot.controller == Controller::Ide)
                            .map(|(slot, _)| BootDevice::HardDisk(*slot))
                            .collect(),
                        BiosDevice::LegacyNetworkAdapter | BiosDevice::Floppy => Vec::new(),
                    }
                };
                machine.boot_order = set.startup_order.iter().flat_map(devices).collect();
            }
            Cmdlet::SetComPort(set) => machine.pipe = Some(set.pipe.clone()),
            Cmdlet::RestartVm(_) => {
                machine.started = Some(std::time::Instant::now());
                self.really(name, |machinery| machinery.reset(&id))?;
            }
            Cmdlet::Export(export) => {
                if machine.is_running() && export.live.is_none() {
                    return Err(fail(name, "InvalidState", "InvalidOperation", "it is running"));
                }
                let folder = format!("{}\\{}", export.folder.key(), machine.name.to_lowercase());
                let files: Vec<String> =
                    machine.disks.iter().map(|(_, path)| path.clone()).collect();
                if self.folders.contains_key(&folder) {
                    return Err(operation_failed(name, format!("'{folder}' exists (0x80070050).")));
                }
                for file in files {
                    let Some(disk) = self.disks.get(&file).cloned() else { continue };
                    let leaf = file.rsplit('\\').next().unwrap_or_default();
                    let path = format!("{folder}\\virtual hard disks\\{leaf}");
                    self.disks.insert(path.clone(), super::Disk { path, ..disk });
                }
                self.folders.insert(folder, String::new());
            }
            Cmdlet::EnableIntegration(enable) => machine.services.push(enable.service),
            Cmdlet::GetIntegration(_) => {
                let state = |service: Service| ServiceState {
                    id: format!("Microsoft:{id}\\{}", service.guid()),
                    enabled: service != Service::GuestFiles || machine.services.contains(&service),
                };
                return Ok(list(Service::ALL.map(state)));
            }
            Cmdlet::GetNetworkAdapters(_) => {
                let addresses = machine.addresses.clone();
                return Ok(list([Adapter {
                    mac: "00155D000001".into(),
                    switch: machine.switch.clone(),
                    addresses,
                }]));
            }
            Cmdlet::CopyFile(_) if !machine.services.contains(&Service::GuestFiles) => {
                return Err(operation_failed(
                    name,
                    "Guest Service Interface is off (0x8007139f).".into(),
                ));
            }
            Cmdlet::StopVm(stop) => {
                if stop.how != Stop::TurnOff && !machine.is_running() {
                    return Err(fail(name, "InvalidState", "InvalidOperation", "it is off"));
                }
                if stop.how == Stop::ShutDown && self.machinery.is_some() {
                    // The guest's end is seen when it comes.
                    self.really(name, |machinery| machinery.shut_down(&id))?;
                    return Ok(json!([]));
                }
                let machine = self.machine(Some(&id), name)?;
                machine.state = if stop.how == Stop::Save { State::Saved } else { State::Off };
                self.really(name, |machinery| {
                    machinery.cut(&id);
                    Ok(())
                })?;
            }
            Cmdlet::RemoveVm(_) => self.machines.retain(|machine| machine.id != id),
            Cmdlet::AddHardDisk(add) => {
                let taken = machine.disks.iter().any(|(slot, _)| *slot == add.slot)
                    || machine.dvds.iter().any(|(slot, _)| *slot == add.slot);
                if taken || !slot_fits(add.slot, false) {
                    return Err(fail(
                        name,
                        "InvalidParameter",
                        "InvalidArgument",
                        "no such free slot",
                    ));
                }
                self.disk(name, &add.path)?;
                self.machine(Some(&id), name)?.disks.push((add.slot, add.path.key()));
            }
            Cmdlet::AddDvd(AddDvd { slot, path }) | Cmdlet::SetDvd(SetDvd { slot, path }) => {
                let new = matches!(cmdlet, Cmdlet::AddDvd(_));
                let there = machine.dvds.iter().any(|(at, _)| at == slot);
                let taken = machine.disks.iter().any(|(at, _)| at == slot);
                if there == new || taken || !slot_fits(*slot, true) {
                    return Err(fail(name, "InvalidParameter", "InvalidArgument", "no such slot"));
                }
                if let Some(path) = path.as_ref().filter(|path| path.is_share()) {
                    return Err(operation_failed(
                        name,
                        format!("'{path}': General access denied error (0x80070005)."),
                    ));
                }
                if let Some(path) = path.as_ref().filter(|path| !self.files.contains(&path.key())) {
                    return Err(operation_failed(
                        name,
                        format!("'{path}' not found (0x80070002)."),
                    ));
                }
                let key = path.as_ref().map(|path| path.key());
                let machine = self.machine(Some(&id), name)?;
                let running = machine.is_running();
                match machine.dvds.iter_mut().find(|(at, _)| at == slot) {
                    Some((_, medium)) => *medium = key.clone(),
                    None => machine.dvds.push((*slot, key.clone())),
                }
                if running {
                    self.really(name, |machinery| {
                        machinery.change_medium(&id, *slot, key.as_deref())
                    })?;
                }
            }
            Cmdlet::GetHardDisks(GetHardDisks { slot }) => {
                let drives =
                    machine.disks.iter().filter(|(at, _)| slot.is_none_or(|slot| slot == *at));
                return Ok(list(
                    drives.map(|(at, path)| Drive { slot: (*at).into(), path: path.clone() }),
                ));
            }
            Cmdlet::GetSnapshots(_) => {
                let kind = "Standard".to_owned();
                return Ok(list(machine.snapshots.iter().map(|name| Snapshot {
                    id: id.clone(),
                    name: name.clone(),
                    kind: kind.clone(),
                })));
            }
            Cmdlet::StartVm(_) => {
                let (automatic, disks) = (machine.automatic_checkpoints, machine.disks.clone());
                if let Some((_, path)) = disks.iter().find(|(_, path)| self.in_use(path)) {
                    let message = format!(
                        "'{path}': The process cannot access the file because it is being used by \
                         another process. (0x80070020)."
                    );
                    return Err(operation_failed(name, message));
                }
                if automatic {
                    self.differ(&id, "Automatic", name)?;
                }
                let machine = self.machine(Some(&id), name)?.clone();
                self.really(name, |machinery| machinery.start(&machine))?;
                let machine = self.machine(Some(&id), name)?;
                machine.state = State::Running;
                machine.started = Some(std::time::Instant::now());
            }
            Cmdlet::Checkpoint(checkpoint) => self.differ(&id, &checkpoint.name, name)?,
            Cmdlet::RemoveSnapshot(remove) => {
                let Some(at) = machine.snapshots.iter().position(|name| *name == remove.name)
                else {
                    return Err(fail(
                        name,
                        "ObjectNotFound",
                        "ObjectNotFound",
                        "no such checkpoint",
                    ));
                };
                machine.snapshots.remove(at);
                let tops: Vec<String> =
                    machine.disks.iter().map(|(_, path)| path.clone()).collect();
                for path in tops {
                    if let Some(disk) = self.disks.get_mut(&path) {
                        disk.merging = path.ends_with(".avhdx");
                    }
                }
            }
            other => {
                let message = format!("{} is not modelled", other.call().cmdlet);
                return Err(fail("", "GiltNotModelled", "NotImplemented", message));
            }
        }
        Ok(json!([]))
    }

    /// A checkpoint: every disk of the machine goes on in a differencing file.
    fn differ(&mut self, id: &VmId, name: &str, cmdlet: &str) -> Outcome<()> {
        let mut tops = self.machine(Some(id), cmdlet)?.disks.clone();
        for (_, path) in &mut tops {
            let count = self.disks.len();
            let stem = path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem);
            let new = format!("{stem}_{count}.avhdx");
            if let Some(mut disk) = self.disks.get(path).cloned() {
                disk.parent = Some(path.clone());
                disk.path = new.clone();
                disk.kind = VhdType::Differencing;
                self.disks.insert(new.clone(), disk);
            }
            *path = new;
        }
        let machine = self.machine(Some(id), cmdlet)?;
        machine.disks = tops;
        machine.snapshots.push(name.into());
        Ok(())
    }
}
