//! A machine of ours: power, media, keys, screen, addresses, checkpoints, export.

use super::{Operation, quiet};
use crate::{
    cmdlet::*,
    error::Result,
    name::{HostPath, Owner, VmId},
    reply::{Adapter, Drive, HostInfo, Machine, Shape, Snapshot},
    script::{Script, Step},
    wmi::{
        Address, Item, Keys, KvpAnswer, KvpChange, Screenshot, ThumbnailAnswer, Wmi, find_addresses,
    },
};

/// A machine of ours, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRef {
    pub id: VmId,
    pub owner: Owner,
}

/// Every machine of the host that some gilt made, and whose it is.
pub fn list_marked() -> Operation<Vec<(Machine, Owner)>> {
    let script =
        Script::new(vec![Step::Ask { cmdlet: GetVm { id: None }.into(), shape: Shape::Machine }]);
    Operation::new("list machines", script, |results| {
        let all: Vec<Machine> = results.value()?;
        let marked = |machine: Machine| {
            let owner = Owner::of_notes(&machine.notes)?;
            Some((machine, owner))
        };
        Ok(all.into_iter().filter_map(marked).collect())
    })
}

/// What the host is; fails where rights or the module are missing.
pub fn host_info() -> Operation<HostInfo> {
    Operation::new("look at the host", Script::new(vec![Step::HostInfo]), |results| results.value())
}

/// Every machine of the host whose notes say it is the owner's.
pub fn list_machines(owner: &Owner) -> Operation<Vec<Machine>> {
    let owner = owner.clone();
    let script =
        Script::new(vec![Step::Ask { cmdlet: GetVm { id: None }.into(), shape: Shape::Machine }]);
    Operation::new("list machines", script, move |results| {
        let mut all: Vec<Machine> = results.value()?;
        all.retain(|machine| owner.owns(&machine.notes));
        Ok(all)
    })
}

impl MachineRef {
    /// A script that proves the machine is ours and then does this.
    fn script(&self, steps: impl IntoIterator<Item = Step>) -> Script {
        let mut script =
            Script::new(vec![Step::Take { id: self.id.clone(), owner: self.owner.clone() }]);
        steps.into_iter().for_each(|step| script.push(step));
        script
    }

    fn quiet(&self, name: &'static str, cmdlet: impl Into<Cmdlet>) -> Operation<()> {
        quiet(name, self.script([Step::Run(cmdlet.into())]))
    }

    pub fn inspect(&self) -> Operation<Machine> {
        let cmdlet = GetVm { id: Some(self.id.clone()) }.into();
        let script = self.script([Step::Ask { cmdlet, shape: Shape::Machine }]);
        Operation::new("inspect machine", script, |results| results.one())
    }

    pub fn start(&self) -> Operation<()> {
        self.quiet("start machine", StartVm)
    }

    /// `Stop::ShutDown` returns when the guest is off; run it where waiting is allowed.
    pub fn stop(&self, how: Stop) -> Operation<()> {
        self.quiet("stop machine", StopVm { how })
    }

    /// Presses the reset button.
    pub fn reset(&self) -> Operation<()> {
        self.quiet("reset machine", RestartVm)
    }

    /// The machine must be off; its disks stay.
    pub fn remove(&self) -> Operation<()> {
        self.quiet("remove machine", RemoveVm)
    }

    /// Another medium in a DVD drive, or none; also while the machine runs.
    pub fn change_medium(&self, slot: Slot, medium: Option<HostPath>) -> Operation<()> {
        self.quiet("change medium", SetDvd { slot, path: medium })
    }

    pub fn disks(&self) -> Operation<Vec<Drive>> {
        let cmdlet = GetHardDisks { slot: None }.into();
        let script = self.script([Step::Ask { cmdlet, shape: Shape::HardDisk }]);
        Operation::new("list disks", script, |results| results.value())
    }

    /// Boot order of a Gen2 machine that is off.
    pub fn set_boot_order(&self, boot_order: Vec<BootDevice>) -> Operation<()> {
        self.quiet("set boot order", SetFirmware { boot_order, ..SetFirmware::default() })
    }

    pub fn send_keys(&self, keys: Vec<Keys>) -> Operation<()> {
        quiet("send keys", self.script(keys.into_iter().map(|keys| Step::Wmi(Wmi::Keys(keys)))))
    }

    pub fn screenshot(&self, width: u16, height: u16) -> Operation<Screenshot> {
        let script = self.script([Step::Wmi(Wmi::Thumbnail { width, height })]);
        Operation::new("screenshot", script, |results| {
            results.value::<ThumbnailAnswer>()?.screenshot()
        })
    }

    /// Addresses by the integration services, and by key-value pairs where these do not tell.
    pub fn addresses(&self) -> Operation<Vec<Address>> {
        let adapters = Step::Ask { cmdlet: GetNetworkAdapters.into(), shape: Shape::Adapter };
        let script = self.script([adapters, Step::Wmi(Wmi::ReadKvp)]);
        Operation::new("find addresses", script, |results| {
            let adapters: Vec<Adapter> = results.value()?;
            let items = results.value::<KvpAnswer>()?.intrinsic()?;
            Ok(find_addresses(&adapters, &items))
        })
    }

    /// The pairs the guest wrote.
    pub fn read_pairs(&self) -> Operation<Vec<Item>> {
        let script = self.script([Step::Wmi(Wmi::ReadKvp)]);
        Operation::new("read key-value pairs", script, |results| {
            results.value::<KvpAnswer>()?.guest()
        })
    }

    pub fn change_pairs(&self, change: KvpChange, items: Vec<Item>) -> Operation<()> {
        quiet("change key-value pairs", self.script([Step::Wmi(Wmi::ChangeKvp { change, items })]))
    }

    /// A file of the host into the running guest.
    pub fn copy_file(&self, source: &HostPath, destination: &str) -> Operation<()> {
        let copy = CopyFile { source: source.clone(), destination: destination.into() };
        self.quiet("copy file into the guest", copy)
    }

    pub fn enable_service(&self, service: Service) -> Operation<()> {
        self.quiet("enable integration service", EnableIntegration { service })
    }

    pub fn checkpoint(&self, name: &str) -> Operation<()> {
        self.quiet("make checkpoint", Checkpoint { name: name.into() })
    }

    pub fn snapshots(&self) -> Operation<Vec<Snapshot>> {
        let cmdlet = GetSnapshots.into();
        let script = self.script([Step::Ask { cmdlet, shape: Shape::Snapshot }]);
        Operation::new("list checkpoints", script, |results| results.value())
    }

    pub fn restore(&self, name: &str) -> Operation<()> {
        self.quiet("restore checkpoint", RestoreSnapshot { name: name.into() })
    }

    /// The merge goes on afterwards: ask `merge_state` until `MergeWatch` says it is over.
    pub fn remove_checkpoint(&self, name: &str) -> Operation<()> {
        self.quiet("remove checkpoint", RemoveSnapshot { name: name.into() })
    }

    /// The machine and its disks into a folder named after it inside `folder`.
    pub fn export(&self, folder: &HostPath, live: Option<LiveState>) -> Operation<()> {
        self.quiet("export machine", Export { folder: folder.clone(), live })
    }

    /// Which disks the machine runs on, and which of the old differencing files are still there.
    pub fn merge_state(&self, old: &[HostPath]) -> Operation<super::MergeState> {
        let drives =
            Step::Ask { cmdlet: GetHardDisks { slot: None }.into(), shape: Shape::HardDisk };
        let script = self.script([drives, Step::FilesExist(old.to_vec())]);
        Operation::new("watch merge", script, |results| -> Result<super::MergeState> {
            let drives: Vec<Drive> = results.value()?;
            Ok(super::MergeState { drives, files_left: results.value()? })
        })
    }
}
