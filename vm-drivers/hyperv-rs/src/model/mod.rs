//! A host in memory that refuses what Hyper-V refuses. It carries out the typed steps of a `Script`; it is no
//! PowerShell. What it does not know it refuses, so that no test passes on an invented success.
//!
//! | rule | as documented for |
//! |---|---|
//! | generation and power state each call needs | `rules` |
//! | two machines may have one name; two files may not | New-VM, New-VHD |
//! | a parent with children does not change; no child without its parent | New-VHD, Merge-VHD |
//! | a key protector before the vTPM | Enable-VMTPM |
//! | client Windows switches automatic checkpoints on, and starts then run on an `.avhdx` | Set-VM |
//! | a removed checkpoint merges after the call | Remove-VMSnapshot |
//! | a disk of one running machine is refused to a second | Start-VM |
//! | a file on a share is refused to a remote session | Add-VMDvdDrive, Set-VMDvdDrive |
//! | a pair is added once and changed only where it is | AddKvpItems, ModifyKvpItems |
//! | one NAT network | New-NetNat |
//!
//! By itself it only keeps books. With a [`Machinery`] behind it, what it allows really happens.

mod disks;
mod machinery;
mod machines;
mod rules;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::{
    cmdlet::VhdType,
    error::{Failure, NAME_TAKEN, NOT_FOUND, NOT_OURS, WMI_FAILED},
    name::{HostPath, VmId},
    reply::{HostInfo, Nat, State, Switch},
    script::{Answer, Script, Step},
    wmi::{Item, KvpAnswer, KvpChange, ThumbnailAnswer, Wmi, emit_item},
};

pub use disks::Disk;
pub use machinery::Machinery;
pub use machines::Model as ModelMachine;

type Outcome<T> = Result<T, Failure>;

/// A host.
#[derive(Debug, Default)]
pub struct Host {
    /// By path in lower case.
    pub disks: BTreeMap<String, Disk>,
    /// Other files, such as ISOs, by path in lower case.
    pub files: std::collections::BTreeSet<String>,
    /// Folders and whose they are.
    pub folders: BTreeMap<String, String>,
    pub machines: Vec<ModelMachine>,
    pub switches: Vec<Switch>,
    pub nats: Vec<Nat>,
    /// The caller is no Hyper-V administrator.
    pub rights_missing: bool,
    /// The PowerShell module is not installed.
    pub module_absent: bool,
    /// Client Windows: automatic checkpoints are on by default.
    pub client: bool,
    /// Does what the rules allow; nobody if `None`.
    pub machinery: Option<Box<dyn Machinery>>,
    next_id: u32,
}

fn fail(cmdlet: &str, id: &str, category: &str, message: impl Into<String>) -> Failure {
    let id = if cmdlet.is_empty() {
        id.to_owned()
    } else {
        format!("{id},Microsoft.HyperV.PowerShell.Commands.{}", cmdlet.replace('-', ""))
    };
    let hresult = 0x8013_1501_u32 as i32;
    Failure { category: category.into(), id, hresult, message: message.into(), step: 0 }
}

fn operation_failed(cmdlet: &str, message: String) -> Failure {
    fail(cmdlet, "OperationFailed", "NotSpecified", message)
}

fn list(items: impl IntoIterator<Item = impl Serialize>) -> Json {
    Json::Array(items.into_iter().map(|item| json!(item)).collect())
}

/// `$vm` and whether this script made it.
#[derive(Default)]
struct Running {
    vm: Option<VmId>,
    made: bool,
    results: Vec<Json>,
}

impl Host {
    pub fn new() -> Self {
        Self::default()
    }

    /// An ISO or another file the host has.
    pub fn with_file(mut self, path: &str) -> Self {
        self.files.insert(path.to_lowercase());
        self
    }

    /// A file came to the host by other ways than a script.
    pub fn file_came(&mut self, path: &HostPath) {
        self.files.insert(path.key());
    }

    /// A disk that stands alone came to the host by other ways than a script.
    pub fn disk_came(&mut self, path: &HostPath, size_bytes: u64) {
        let disk = Disk {
            path: path.to_string(),
            kind: VhdType::Dynamic,
            size_bytes,
            parent: None,
            mounted: false,
            merging: false,
        };
        self.disks.insert(path.key(), disk);
    }

    /// Runs a script to its end or its first refusal.
    pub fn run(&mut self, script: &Script) -> Answer {
        self.look_at_machines();
        let mut running = Running::default();
        for (at, step) in script.steps().iter().enumerate() {
            if let Err(failure) = self.step(step, &mut running) {
                if let (true, Some(id)) = (running.made, &running.vm) {
                    self.machines.retain(|machine| machine.id != *id);
                }
                let failure = Some(Failure { step: at, ..failure });
                return Answer { ok: false, results: Vec::new(), failure };
            }
        }
        Answer { ok: true, results: running.results, failure: None }
    }

    /// Lets merges end, as they do some time after the checkpoint was removed.
    pub fn finish_merges(&mut self) {
        for machine in &mut self.machines {
            for (_, path) in &mut machine.disks {
                while let Some(disk) = self.disks.get(path).filter(|disk| disk.merging) {
                    let parent = disk.parent.clone();
                    self.disks.remove(path);
                    match parent {
                        Some(parent) => *path = parent,
                        None => break,
                    }
                }
            }
        }
    }

    /// Guests switch themselves off.
    fn look_at_machines(&mut self) {
        let Some(machinery) = &mut self.machinery else { return };
        for machine in self.machines.iter_mut().filter(|machine| machine.is_running()) {
            if !machinery.is_running(&machine.id) {
                machine.state = State::Off;
            } else {
                machine.addresses = machinery.addresses(&machine.id);
            }
        }
    }

    /// Lets the machinery do something, if there is one.
    fn really(
        &mut self,
        cmdlet: &str,
        work: impl FnOnce(&mut dyn Machinery) -> Result<(), String>,
    ) -> Outcome<()> {
        match &mut self.machinery {
            Some(machinery) => {
                work(machinery.as_mut()).map_err(|message| operation_failed(cmdlet, message))
            }
            None => Ok(()),
        }
    }

    fn step(&mut self, step: &Step, running: &mut Running) -> Outcome<()> {
        let taken = |what: String| fail("", NAME_TAKEN, "ResourceExists", what);
        let not_ours = |what: String| fail("", NOT_OURS, "PermissionDenied", what);
        match step {
            Step::NameIsFree(name) => {
                self.allowed("Get-VM")?;
                let key = name.as_str().to_lowercase();
                if self.machines.iter().any(|machine| machine.name.to_lowercase() == key) {
                    return Err(taken(format!("a machine named {name} exists")));
                }
            }
            Step::Make(new) => {
                self.allowed("New-VM")?;
                running.vm = Some(self.new_machine(new)?);
                running.made = true;
            }
            Step::Take { id, owner } => {
                self.allowed("Get-VM")?;
                let machine = self.machine(Some(id), "Get-VM")?;
                if !owner.owns(&machine.notes) {
                    return Err(not_ours(format!("machine {id} was not made by {owner}")));
                }
                running.vm = Some(id.clone());
            }
            Step::Run(cmdlet) | Step::RunIfKnown { cmdlet, .. } => {
                self.cmdlet(cmdlet, running.vm.as_ref())?;
            }
            Step::Ask { cmdlet, .. } => {
                let result = self.cmdlet(cmdlet, running.vm.as_ref())?;
                running.results.push(result);
            }
            Step::SwitchIsOurs { name, owner } => {
                self.allowed("Get-VMSwitch")?;
                let found = self.switches.iter().find(|switch| switch.name == name.as_str());
                let found =
                    found.ok_or_else(|| fail("", NOT_FOUND, "ObjectNotFound", "no such switch"))?;
                if !owner.owns(&found.notes) {
                    return Err(not_ours(format!("switch {name} was not made by {owner}")));
                }
            }
            Step::SwitchIsFree(name) => {
                self.allowed("Get-VMSwitch")?;
                if self.switches.iter().any(|switch| switch.name == name.as_str()) {
                    return Err(taken(format!("a switch named {name} exists")));
                }
            }
            Step::OwnFolder { path, owner } => {
                let tag = self.folders.entry(path.key()).or_insert_with(|| owner.tag());
                if *tag != owner.tag() {
                    return Err(not_ours(format!("{path} was not made by {owner}")));
                }
            }
            Step::RemoveFile { path, owner } => {
                let folder = path.parent().map(|folder| folder.key()).unwrap_or_default();
                if self.folders.get(&folder) != Some(&owner.tag()) {
                    return Err(not_ours(format!("{path} is in no folder of {owner}")));
                }
                if self.in_use(&path.key()) {
                    let message = format!("'{path}' is in use (0x80070020).");
                    return Err(operation_failed("Remove-Item", message));
                }
                self.disks.remove(&path.key());
                self.files.remove(&path.key());
                if let Some(machinery) = &mut self.machinery {
                    machinery.remove_file(&path.key());
                }
            }
            Step::HostInfo => {
                self.allowed("Get-VMHost")?;
                running.results.push(json!(HostInfo {
                    version: "10.0.20348.0".into(),
                    powershell: "5.1.20348.1".into(),
                    folder: r"C:\ProgramData\Microsoft\Windows\Hyper-V".into(),
                }));
            }
            Step::MakeFolder { path, owner } => {
                if self.folders.contains_key(&path.key()) {
                    return Err(taken(format!("{path} exists")));
                }
                self.folders.insert(path.key(), owner.tag());
            }
            Step::RemoveFolder { path, owner } => {
                match self.folders.get(&path.key()) {
                    Some(tag) if *tag != owner.tag() => return Err(not_ours(path.to_string())),
                    None => return Ok(()),
                    Some(_) => {}
                }
                self.folders.remove(&path.key());
                let inside = format!("{}\\", path.key());
                let gone: Vec<String> = self
                    .disks
                    .keys()
                    .chain(&self.files)
                    .filter(|file| file.starts_with(&inside))
                    .cloned()
                    .collect();
                if let Some(file) = gone.iter().find(|file| self.in_use(file)) {
                    let message = format!("'{file}' is in use (0x80070020).");
                    return Err(operation_failed("Remove-Item", message));
                }
                if let Some(machinery) = &mut self.machinery {
                    gone.iter().for_each(|file| machinery.remove_file(file));
                }
                self.disks.retain(|file, _| !file.starts_with(&inside));
                self.files.retain(|file| !file.starts_with(&inside));
            }
            Step::FilesExist(paths) => {
                let there = |key: &String| self.disks.contains_key(key) || self.files.contains(key);
                running.results.push(list(paths.iter().map(|path| there(&path.key()))));
            }
            Step::Wmi(call) => self.wmi(call, running)?,
        }
        Ok(())
    }

    fn wmi(&mut self, call: &Wmi, running: &mut Running) -> Outcome<()> {
        let failed = |code: u32| fail("", WMI_FAILED, "NotSpecified", code.to_string());
        let machine = self.machine(running.vm.as_ref(), "Get-VM")?;
        let (id, on) = (machine.id.clone(), machine.is_running());
        match call {
            // 32775: invalid state for this operation.
            Wmi::Keys(_) | Wmi::Thumbnail { .. } if !on => return Err(failed(32775)),
            Wmi::Keys(keys) => {
                machine.typed.push(keys.clone());
                self.really("", |machinery| machinery.press(&id, keys))?;
            }
            Wmi::ReadKvp => {
                let item = |(name, data): (&String, &String)| {
                    Item::new(name, data).map(|item| emit_item(&item)).unwrap_or_default()
                };
                let mut answer = KvpAnswer::default();
                if on && !machine.addresses.is_empty() {
                    let told = (&"NetworkAddressIPv4".to_owned(), &machine.addresses.join(";"));
                    answer.intrinsic.push(item(told));
                }
                answer.guest = machine.guest_pairs.iter().map(item).collect();
                running.results.push(json!(answer));
            }
            Wmi::ChangeKvp { change, items } => {
                for item in items {
                    let there = machine.host_pairs.contains_key(&item.name);
                    // 32773: invalid parameter.
                    if there == (*change == KvpChange::Add) {
                        return Err(failed(32773));
                    }
                    match change {
                        KvpChange::Remove => machine.host_pairs.remove(&item.name),
                        _ => machine.host_pairs.insert(item.name.clone(), item.data.clone()),
                    };
                }
            }
            Wmi::Thumbnail { width, height } => {
                let Some(machinery) = &mut self.machinery else {
                    return Err(fail("", "GiltNotModelled", "NotImplemented", "no screen"));
                };
                let image = machinery
                    .screen(&id, *width, *height)
                    .map_err(|message| fail("", WMI_FAILED, "NotSpecified", message))?;
                running.results.push(json!(ThumbnailAnswer {
                    width: (*width).into(),
                    height: (*height).into(),
                    rgb565: STANDARD.encode(image),
                }));
            }
        }
        Ok(())
    }

    fn allowed(&self, cmdlet: &str) -> Outcome<()> {
        if self.module_absent {
            return Err(fail("", "CommandNotFoundException", "ObjectNotFound", cmdlet));
        }
        if self.rights_missing {
            return Err(fail(cmdlet, "AccessDenied", "PermissionDenied", "no permission"));
        }
        Ok(())
    }
}
