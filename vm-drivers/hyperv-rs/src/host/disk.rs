//! Virtual disks and folders of ours.

use super::{Operation, quiet};
use crate::{
    cmdlet::*,
    error::{Error, Result},
    name::{HostPath, Owner},
    reply::{Mounted, Shape, Vhd},
    script::{Script, Step},
};

fn describe(path: &HostPath) -> Step {
    Step::Ask { cmdlet: GetVhd { path: path.clone() }.into(), shape: Shape::Vhd }
}

/// A folder that must not exist yet, marked as ours.
pub fn make_folder(owner: &Owner, path: &HostPath) -> Operation<()> {
    quiet(
        "make folder",
        Script::new(vec![Step::MakeFolder { path: path.clone(), owner: owner.clone() }]),
    )
}

/// Removes a folder of ours with all in it.
pub fn remove_folder(owner: &Owner, path: &HostPath) -> Operation<()> {
    quiet(
        "remove folder",
        Script::new(vec![Step::RemoveFolder { path: path.clone(), owner: owner.clone() }]),
    )
}

/// A folder that may exist, if it is ours.
pub fn own_folder(owner: &Owner, path: &HostPath) -> Operation<()> {
    quiet(
        "own folder",
        Script::new(vec![Step::OwnFolder { path: path.clone(), owner: owner.clone() }]),
    )
}

/// Removes a file from a folder of ours.
pub fn remove_file(owner: &Owner, path: &HostPath) -> Operation<()> {
    quiet(
        "remove file",
        Script::new(vec![Step::RemoveFile { path: path.clone(), owner: owner.clone() }]),
    )
}

/// Which of these files are there.
pub fn files_exist(paths: &[HostPath]) -> Operation<Vec<bool>> {
    let script = Script::new(vec![Step::FilesExist(paths.to_vec())]);
    Operation::new("look for files", script, |results| results.value())
}

/// A new, empty disk.
pub fn create_disk(path: &HostPath, size_bytes: u64) -> Result<Operation<Vhd>> {
    if path.extension().as_deref() != Some("vhdx")
        || size_bytes == 0
        || !size_bytes.is_multiple_of(4096)
    {
        let reason =
            format!("{path} of {size_bytes} bytes: needs .vhdx and whole sectors of 4096 bytes");
        return Err(Error::Invalid { what: "disk", reason });
    }
    let new = NewVhd::Dynamic { path: path.clone(), size_bytes, block_size_bytes: None };
    let script = Script::new(vec![new.into(), describe(path)]);
    Ok(Operation::new("create disk", script, |results| results.one()))
}

/// A differencing disk over a parent that must not change from now on.
pub fn create_overlay(path: &HostPath, parent: &HostPath) -> Result<Operation<Vhd>> {
    if path.extension() != parent.extension() || path.key() == parent.key() {
        let reason = format!("{path} over {parent}: two files of one format are needed");
        return Err(Error::Invalid { what: "overlay", reason });
    }
    let new = NewVhd::Differencing { path: path.clone(), parent: parent.clone() };
    let script = Script::new(vec![new.into(), describe(path)]);
    Ok(Operation::new("create overlay", script, |results| results.one()))
}

/// The disk as the host sees it.
pub fn inspect_disk(path: &HostPath) -> Operation<Vhd> {
    Operation::new("inspect disk", Script::new(vec![describe(path)]), |results| results.one())
}

/// A copy of a whole chain in one dynamic disk.
pub fn flatten(path: &HostPath, destination: &HostPath) -> Operation<Vhd> {
    let convert =
        ConvertVhd { path: path.clone(), destination: destination.clone(), kind: VhdType::Dynamic };
    let script = Script::new(vec![convert.into(), describe(destination)]);
    Operation::new("flatten disk", script, |results| results.one())
}

/// A copy of a whole chain as a fixed VHD: the disk's bytes and, behind them, a footer of 512 bytes.
pub fn flatten_raw(path: &HostPath, destination: &HostPath) -> Operation<Vhd> {
    let convert =
        ConvertVhd { path: path.clone(), destination: destination.clone(), kind: VhdType::Fixed };
    let script = Script::new(vec![convert.into(), describe(destination)]);
    Operation::new("flatten disk to a fixed one", script, |results| results.one())
}

/// Writes a differencing disk into its parent; the child is gone then.
pub fn merge_into_parent(path: &HostPath) -> Operation<()> {
    quiet(
        "merge disk",
        Script::new(vec![MergeVhd { path: path.clone(), destination: None }.into()]),
    )
}

/// Gives back what the guest no longer uses. The disk must belong to no running machine.
pub fn compact(path: &HostPath) -> Operation<Vhd> {
    let script = Script::new(vec![
        MountVhd { path: path.clone() }.into(),
        OptimizeVhd { path: path.clone(), mode: CompactMode::Full }.into(),
        DismountVhd { path: path.clone() }.into(),
        describe(path),
    ]);
    Operation::new("compact disk", script, |results| results.one())
}

/// Mounts a disk read-only and without letters, to capture it on the host.
pub fn mount(path: &HostPath) -> Operation<Mounted> {
    let cmdlet = MountVhd { path: path.clone() }.into();
    let script = Script::new(vec![Step::Ask { cmdlet, shape: Shape::Mounted }]);
    Operation::new("mount disk", script, |results| results.one())
}

pub fn dismount(path: &HostPath) -> Operation<()> {
    quiet("dismount disk", Script::new(vec![DismountVhd { path: path.clone() }.into()]))
}
