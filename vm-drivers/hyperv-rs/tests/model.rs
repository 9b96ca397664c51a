//! Operations against the model: what Hyper-V refuses is refused, and told with its cure.

use std::time::Duration;

use hyperv_rs::{
    Error, HostPath, Owner, Refusal, SwitchName, VmName,
    cmdlet::*,
    host::*,
    model::Host,
    reply::*,
    script::{Script, Step},
    wmi::{Item, Keys, KvpChange},
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

/// A script of single calls about a machine that was made.
fn calls(vm: &MachineRef, calls: Vec<Cmdlet>) -> Script {
    let take = Step::Take { id: vm.id.clone(), owner: vm.owner.clone() };
    Script::new(std::iter::once(take).chain(calls.into_iter().map(Step::Run)).collect())
}

fn refused(host: &mut Host, script: &Script) -> Refusal {
    host.run(script).failure.expect("it was not refused").refusal()
}

#[test]
fn a_disk_of_a_running_machine_is_refused_to_a_second() {
    let (mut host, vm) = made(false);
    run(&mut host, vm.start()).unwrap();
    let mut second = gen2();
    second.name = VmName::new("second").unwrap();
    let id = run(&mut host, second.operation().unwrap()).unwrap().id;
    let second = MachineRef { id, owner: owner() };
    assert_eq!(refusal(run(&mut host, second.start())), Refusal::InUse);
    run(&mut host, vm.stop(Stop::TurnOff)).unwrap();
    run(&mut host, second.start()).unwrap();
}

#[test]
fn what_a_generation_has_not_is_refused() {
    let (mut host, vm) = made(false);
    for call in
        [SetBios { startup_order: vec![BiosDevice::Cd] }.into(), SetFloppy { path: None }.into()]
    {
        assert_eq!(refused(&mut host, &calls(&vm, vec![call])), Refusal::WrongState);
    }
    let ide = AddHardDisk { slot: Slot::ide(0, 0), path: path(r"C:\vm\a.vhdx") };
    assert_eq!(refused(&mut host, &calls(&vm, vec![ide.into()])), Refusal::BadArgument);
}

#[test]
fn a_vtpm_needs_a_key_protector_first() {
    let mut host = Host::new();
    let mut plain = gen2();
    plain.disks.clear();
    plain.dvds.clear();
    plain.firmware = FirmwareSpec::Uefi { secure_boot: None, tpm: false, boot_order: vec![] };
    let id = run(&mut host, plain.operation().unwrap()).unwrap().id;
    let vm = MachineRef { id, owner: owner() };
    assert!(host.run(&calls(&vm, vec![EnableTpm.into()])).failure.is_some());
    assert!(host.run(&calls(&vm, vec![SetKeyProtector.into(), EnableTpm.into()])).ok);
}

#[test]
fn a_medium_on_a_share_is_refused_with_the_reason() {
    let (mut host, vm) = made(false);
    host.files.insert(r"\\nas\iso\w.iso".into());
    let share = vm.change_medium(Slot::scsi(1), Some(path(r"\\nas\iso\w.iso")));
    let error = run(&mut host, share).unwrap_err();
    assert!(error.to_string().contains("second hop"), "{error}");
}

#[test]
fn a_pair_is_added_once_and_changed_only_where_it_is() {
    let (mut host, vm) = made(false);
    let item = || vec![Item::new("gilt.step", "1").unwrap()];
    assert!(run(&mut host, vm.change_pairs(KvpChange::Modify, item())).is_err());
    run(&mut host, vm.change_pairs(KvpChange::Add, item())).unwrap();
    assert!(run(&mut host, vm.change_pairs(KvpChange::Add, item())).is_err());
    run(&mut host, vm.change_pairs(KvpChange::Remove, item())).unwrap();
    assert!(host.machines[0].host_pairs.is_empty());
}

#[test]
fn what_the_guest_tells_comes_out_as_addresses_and_pairs() {
    let (mut host, vm) = made(false);
    run(&mut host, vm.start()).unwrap();
    assert!(run(&mut host, vm.addresses()).unwrap().is_empty(), "no guest has spoken yet");
    host.machines[0].addresses = vec!["169.254.7.7".into(), "10.0.0.7".into()];
    host.machines[0].guest_pairs.insert("done".into(), "it's <ok> & so on".into());
    let found = run(&mut host, vm.addresses()).unwrap();
    assert_eq!(found.iter().map(|a| a.ip.to_string()).collect::<Vec<_>>(), ["10.0.0.7"]);
    let pairs = run(&mut host, vm.read_pairs()).unwrap();
    assert_eq!(pairs, [Item::new("done", "it's <ok> & so on").unwrap()]);
}

#[test]
fn one_nat_network_and_an_export_only_of_what_stands_still() {
    let (mut host, vm) = made(false);
    let switch = SwitchName::new("inner").unwrap();
    run(&mut host, create_switch(&owner(), &switch, SwitchKind::Internal)).unwrap();
    let prefix = Prefix { network: [10, 9, 0, 0].into(), length: 24 };
    let nat = || create_nat(&owner(), &switch, prefix, [10, 9, 0, 1].into()).unwrap();
    run(&mut host, nat()).unwrap();
    assert!(run(&mut host, nat()).is_err());
    run(&mut host, vm.start()).unwrap();
    assert_eq!(refusal(run(&mut host, vm.export(&path(r"C:\out"), None))), Refusal::WrongState);
    run(&mut host, vm.stop(Stop::TurnOff)).unwrap();
    run(&mut host, vm.export(&path(r"C:\out"), None)).unwrap();
    assert!(host.disks.keys().any(|file| file.starts_with(r"c:\out\web\")));
}

#[test]
fn a_full_compaction_needs_a_mount_and_a_file_of_ours_is_removed_only_from_our_folder() {
    let (mut host, _) = made(false);
    let full = OptimizeVhd { path: path(r"C:\vm\a.vhdx"), mode: CompactMode::Full };
    assert!(host.run(&Script::new(vec![full.into()])).failure.is_some());
    run(&mut host, compact(&path(r"C:\vm\a.vhdx"))).unwrap();
    let file = path(r"C:\gilt\disks\b.vhdx");
    run(&mut host, create_disk(&file, 1 << 30).unwrap()).unwrap();
    assert_eq!(refusal(run(&mut host, remove_file(&owner(), &file))), Refusal::NotOurs);
    let folder = path(r"C:\gilt\disks");
    run(&mut host, own_folder(&owner(), &folder)).unwrap();
    let other = Owner::new("other").unwrap();
    assert_eq!(refusal(run(&mut host, own_folder(&other, &folder))), Refusal::NotOurs);
    run(&mut host, remove_file(&owner(), &file)).unwrap();
    assert_eq!(refusal(run(&mut host, inspect_disk(&file))), Refusal::NotFound);
}
