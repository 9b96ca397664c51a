//! Operations against the model: what Hyper-V refuses is refused, and told with its cure.

use std::time::Duration;

use hyperv_rs::{
    Error, HostPath, Owner, Refusal, SwitchName, VmName, cmdlet::*, host::*, model::Host, reply::*,
    wmi::Keys,
};

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

fn owner() -> Owner {
    Owner::new("build-7").unwrap()
}

fn run<T>(host: &mut Host, operation: Operation<T>) -> Result<T, Error> {
    let answer = host.run(operation.script());
    operation.read(answer)
}

fn refusal<T>(outcome: Result<T, Error>) -> Refusal {
    match outcome {
        Err(Error::Refused { failure, .. }) => failure.refusal(),
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

fn gen2() -> CreateMachine {
    CreateMachine {
        name: VmName::new("web").unwrap(),
        owner: owner(),
        more_notes: vec![],
        folder: path(r"C:\vm"),
        processors: 2,
        memory_bytes: 4 << 30,
        nested_virtualization: false,
        switch: None,
        disks: vec![DiskSpec { path: path(r"C:\vm\a.vhdx"), slot: Slot::scsi(0) }],
        dvds: vec![DvdSpec { slot: Slot::scsi(1), medium: Some(path(r"C:\iso\w.iso")) }],
        firmware: FirmwareSpec::Uefi {
            secure_boot: Some(SecureBootTemplate::MicrosoftWindows),
            tpm: true,
            boot_order: vec![BootDevice::Dvd(Slot::scsi(1)), BootDevice::HardDisk(Slot::scsi(0))],
        },
        serial_pipe: None,
        services: vec![],
    }
}

fn made(client: bool) -> (Host, MachineRef) {
    let mut host = Host::new().with_file(r"C:\iso\w.iso");
    host.client = client;
    run(&mut host, create_disk(&path(r"C:\vm\a.vhdx"), 64 << 30).unwrap()).unwrap();
    let machine = run(&mut host, gen2().operation().unwrap()).unwrap();
    assert_eq!((machine.generation, machine.state), (2, State::Off));
    (host, MachineRef { id: machine.id, owner: owner() })
}

#[test]
fn a_machine_on_client_windows_runs_on_the_disk_it_was_given() {
    let (mut host, vm) = made(true);
    run(&mut host, vm.start()).unwrap();
    let drives = run(&mut host, vm.disks()).unwrap();
    assert_eq!(drives[0].path, r"c:\vm\a.vhdx");
    assert!(host.machines[0].tpm && host.machines[0].key_protector);
}

#[test]
fn a_failed_creation_leaves_no_machine() {
    let mut host = Host::new();
    run(&mut host, create_disk(&path(r"C:\vm\a.vhdx"), 64 << 30).unwrap()).unwrap();
    assert_eq!(refusal(run(&mut host, gen2().operation().unwrap())), Refusal::NotFound, "no ISO");
    assert!(host.machines.is_empty());
}

#[test]
fn a_name_is_taken_once_and_a_file_too() {
    let (mut host, _) = made(false);
    assert_eq!(refusal(run(&mut host, gen2().operation().unwrap())), Refusal::NameTaken);
    let again = create_disk(&path(r"C:\VM\A.vhdx"), 64 << 30).unwrap();
    assert_eq!(refusal(run(&mut host, again)), Refusal::NameTaken);
}

#[test]
fn what_somebody_else_made_is_not_touched() {
    let (mut host, vm) = made(false);
    host.machines[0].notes = "precious".into();
    for operation in [vm.start(), vm.stop(Stop::TurnOff), vm.remove(), vm.checkpoint("x")] {
        assert_eq!(refusal(run(&mut host, operation)), Refusal::NotOurs);
    }
    assert!(run(&mut host, list_machines(&owner())).unwrap().is_empty());
    let switch = SwitchName::new("lab").unwrap();
    let other = Owner::new("other").unwrap();
    run(&mut host, create_switch(&other, &switch, SwitchKind::Internal)).unwrap();
    assert_eq!(refusal(run(&mut host, remove_switch(&owner(), &switch))), Refusal::NotOurs);
}

#[test]
fn a_running_machine_keeps_its_firmware_and_its_disks() {
    let (mut host, vm) = made(false);
    run(&mut host, vm.start()).unwrap();
    assert_eq!(refusal(run(&mut host, vm.start())), Refusal::WrongState);
    assert_eq!(refusal(run(&mut host, vm.remove())), Refusal::WrongState);
    assert_eq!(
        refusal(run(&mut host, vm.set_boot_order(vec![BootDevice::Network]))),
        Refusal::WrongState
    );
    assert_eq!(refusal(run(&mut host, mount(&path(r"C:\vm\a.vhdx")))), Refusal::InUse);
    run(&mut host, vm.change_medium(Slot::scsi(1), None)).unwrap();
    run(&mut host, vm.stop(Stop::TurnOff)).unwrap();
    run(&mut host, vm.remove()).unwrap();
}

#[test]
fn keys_go_to_a_running_machine_only() {
    let (mut host, vm) = made(false);
    assert!(run(&mut host, vm.send_keys(Keys::text("x").unwrap())).is_err());
    run(&mut host, vm.start()).unwrap();
    run(&mut host, vm.send_keys(Keys::text("x").unwrap())).unwrap();
    assert_eq!(host.machines[0].typed, [Keys::Text("x".into())]);
}

#[test]
fn an_overlay_needs_its_parent_and_merges_when_the_machine_is_off() {
    let mut host = Host::new();
    let (base, child) = (path(r"C:\vm\base.vhdx"), path(r"C:\vm\child.vhdx"));
    assert_eq!(refusal(run(&mut host, create_overlay(&child, &base).unwrap())), Refusal::NotFound);
    run(&mut host, create_disk(&base, 1 << 30).unwrap()).unwrap();
    let overlay = run(&mut host, create_overlay(&child, &base).unwrap()).unwrap();
    assert_eq!((overlay.kind, overlay.size_bytes), (VhdType::Differencing, 1 << 30));
    run(&mut host, merge_into_parent(&child)).unwrap();
    assert_eq!(refusal(run(&mut host, inspect_disk(&child))), Refusal::NotFound);
}

#[test]
fn a_removed_checkpoint_is_merged_only_later() {
    let (mut host, vm) = made(false);
    run(&mut host, vm.start()).unwrap();
    run(&mut host, vm.checkpoint("base")).unwrap();
    run(&mut host, vm.remove_checkpoint("base")).unwrap();
    let watch = MergeWatch::new("web", Duration::from_secs(60));
    let state = run(&mut host, vm.merge_state(&[])).unwrap();
    assert_eq!(watch.look(Duration::ZERO, &state).unwrap(), Verdict::LookAgain);
    host.finish_merges();
    let state = run(&mut host, vm.merge_state(&[])).unwrap();
    assert_eq!(watch.look(Duration::ZERO, &state).unwrap(), Verdict::Done);
}

#[test]
fn missing_rights_and_a_missing_module_come_with_their_cure() {
    let mut host = Host::new();
    host.rights_missing = true;
    let error = run(&mut host, list_machines(&owner())).unwrap_err();
    assert!(error.to_string().contains("S-1-5-32-578"), "{error}");
    let mut host = Host::new();
    host.module_absent = true;
    assert_eq!(refusal(run(&mut host, list_machines(&owner()))), Refusal::ModuleAbsent);
}
