//! Every cmdlet and parameter of the generated text is in Microsoft's documentation, in one legal
//! parameter set, with the mandatory ones present. The table: tests/oracles.rs.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use hyperv_rs::{
    HostPath, Owner, SwitchName, VmId, VmName,
    cmdlet::*,
    host::*,
    script::{Script, Step, direct::Direct, relay::Relay, transport},
    wmi::*,
};

/// Parameter set -> parameter -> mandatory.
type Sets = BTreeMap<String, BTreeMap<String, bool>>;

fn table() -> BTreeMap<(String, String), Sets> {
    let Some(folder) = option_env!("GILT_ORACLES_FOLDER") else {
        panic!("tests without the tables are ignored")
    };
    let path = Path::new(folder).join("ps-cmdlet-params.tsv");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut table: BTreeMap<(String, String), Sets> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [module, cmdlet, set, parameter, mandatory, _] = fields[..] else {
            panic!("a row of {} fields: {line}", fields.len());
        };
        let set = set.trim_end_matches(" (Default)");
        let sets = table.entry((module.into(), cmdlet.into())).or_default();
        sets.entry(set.into()).or_default().insert(parameter.into(), mandatory == "yes");
    }
    table
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

fn owner() -> Owner {
    Owner::new("build-7").unwrap()
}

fn every_call() -> Vec<Cmdlet> {
    let vhd = path(r"C:\vm\a.vhdx");
    let slot = Slot::scsi(0);
    let switch = SwitchName::new("inner").unwrap();
    let new_vm = |disk| NewVm {
        name: VmName::new("we'b").unwrap(),
        generation: Generation::Two,
        memory_bytes: 4 << 30,
        switch: Some(switch.clone()),
        disk,
        folder: path(r"C:\vm"),
        version: Some("9.0".into()),
    };
    let all_set = SetVm {
        processor_count: Some(4),
        static_memory: true,
        automatic_checkpoints: Some(false),
        checkpoint_type: Some(CheckpointType::Standard),
        stop_action: Some(StopAction::TurnOff),
        start_with_host: Some(false),
        notes: Some("gilt-owner:build-7\nx".into()),
    };
    let firmware = SetFirmware {
        secure_boot: Some(Some(SecureBootTemplate::MicrosoftWindows)),
        boot_order: vec![
            BootDevice::Dvd(Slot::scsi(1)),
            BootDevice::HardDisk(slot),
            BootDevice::Network,
        ],
        first_boot_device: Some(BootDevice::HardDisk(slot)),
        pause_after_boot_failure: Some(true),
    };
    let no_secure_boot = SetFirmware { secure_boot: Some(None), ..SetFirmware::default() };
    let new_switch = |kind| NewSwitch { name: switch.clone(), kind, notes: owner().tag() };
    let prefix = Prefix { network: Ipv4Addr::new(10, 9, 0, 0), length: 24 };
    vec![
        new_vm(FirstDisk::None).into(),
        new_vm(FirstDisk::Existing(vhd.clone())).into(),
        new_vm(FirstDisk::New { path: vhd.clone(), size_bytes: 64 << 30 }).into(),
        all_set.into(),
        SetProcessor { count: Some(2), expose_virtualization: Some(true) }.into(),
        SetMemory { startup_bytes: 4 << 30, dynamic: false }.into(),
        GetVm { id: None }.into(),
        GetVm { id: Some(VmId::new("2a34b1c2-fd73-4043-8a5b-dd2159bc743f").unwrap()) }.into(),
        RemoveVm.into(),
        StartVm.into(),
        RestartVm.into(),
        GetHost.into(),
        StopVm { how: Stop::ShutDown }.into(),
        StopVm { how: Stop::TurnOff }.into(),
        StopVm { how: Stop::Save }.into(),
        SetComPort { number: 1, pipe: "serial".into() }.into(),
        NewVhd::Dynamic {
            path: vhd.clone(),
            size_bytes: 64 << 30,
            block_size_bytes: Some(1 << 20),
        }
        .into(),
        NewVhd::Fixed { path: vhd.clone(), size_bytes: 1 << 30 }.into(),
        NewVhd::Differencing { path: path(r"C:\vm\b.vhdx"), parent: vhd.clone() }.into(),
        ResizeVhd { path: vhd.clone(), size_bytes: Some(128 << 30) }.into(),
        ResizeVhd { path: vhd.clone(), size_bytes: None }.into(),
        ConvertVhd { path: vhd.clone(), destination: path(r"C:\f.vhdx"), kind: VhdType::Dynamic }
            .into(),
        MergeVhd { path: vhd.clone(), destination: Some(path(r"C:\p.vhdx")) }.into(),
        OptimizeVhd { path: vhd.clone(), mode: CompactMode::Full }.into(),
        MountVhd { path: vhd.clone() }.into(),
        DismountVhd { path: vhd.clone() }.into(),
        GetVhd { path: vhd.clone() }.into(),
        AddHardDisk { slot, path: vhd.clone() }.into(),
        RemoveHardDisk { slot }.into(),
        GetHardDisks { slot: None }.into(),
        AddDvd { slot: Slot::scsi(1), path: Some(path(r"C:\w.iso")) }.into(),
        AddDvd { slot: Slot::scsi(1), path: None }.into(),
        SetDvd { slot: Slot::scsi(1), path: None }.into(),
        SetDvd { slot: Slot::scsi(1), path: Some(path(r"\\nas\iso\Büro’s 11.iso")) }.into(),
        GetDvds { slot: None }.into(),
        SetFloppy { path: None }.into(),
        firmware.into(),
        no_secure_boot.into(),
        GetFirmware.into(),
        SetBios {
            startup_order: vec![
                BiosDevice::Cd,
                BiosDevice::Ide,
                BiosDevice::LegacyNetworkAdapter,
                BiosDevice::Floppy,
            ],
        }
        .into(),
        SetKeyProtector.into(),
        EnableTpm.into(),
        GetIntegration.into(),
        EnableIntegration { service: Service::GuestFiles }.into(),
        CopyFile { source: path(r"C:\a.txt"), destination: r"C:\b\a.txt".into() }.into(),
        Checkpoint { name: "base".into() }.into(),
        GetSnapshots.into(),
        RestoreSnapshot { name: "base".into() }.into(),
        RemoveSnapshot { name: "base".into() }.into(),
        Export { folder: path(r"C:\out"), live: None }.into(),
        Export { folder: path(r"C:\out"), live: Some(LiveState::CaptureSavedState) }.into(),
        new_switch(SwitchKind::Internal).into(),
        new_switch(SwitchKind::Private).into(),
        new_switch(SwitchKind::External { adapter: "Ethernet".into() }).into(),
        GetSwitches.into(),
        RemoveSwitch { name: switch.clone() }.into(),
        NewIpAddress { switch, address: Ipv4Addr::new(10, 9, 0, 1), prefix_length: 24 }.into(),
        NewNat { name: "gilt-build-7".into(), prefix }.into(),
        GetNat.into(),
        RemoveNat { name: "gilt-build-7".into() }.into(),
        GetNetworkAdapters.into(),
    ]
}

/// Calls in a text, read from the text alone: `Module\Verb-Noun` and the parameters behind it, up to the
/// pipe, line or bracket which ends the call. Literals and nested calls are stepped over.
fn calls_in(text: &str) -> Vec<(String, String, Vec<String>)> {
    let chars: Vec<char> = text.chars().collect();
    let quote = |c: char| matches!(c, '\'' | '‘' | '’' | '‚' | '‛');
    let skip_literal = |mut at: usize| {
        loop {
            at += 1;
            if quote(chars[at]) {
                if at + 1 < chars.len() && quote(chars[at + 1]) {
                    at += 1;
                } else {
                    return at + 1;
                }
            }
        }
    };
    let mut calls = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if quote(chars[at]) {
            at = skip_literal(at);
            continue;
        }
        let rest: String = chars[at..chars.len().min(at + 12)].iter().collect();
        let starts = at == 0 || !chars[at - 1].is_alphanumeric();
        let module = ["Hyper-V\\", "NetNat\\", "NetTCPIP\\"]
            .into_iter()
            .find(|m| starts && rest.starts_with(m));
        let Some(module) = module else {
            at += 1;
            continue;
        };
        at += module.len();
        let word = |from: usize| -> String {
            chars[from..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '-').collect()
        };
        let cmdlet = word(at);
        at += cmdlet.len();
        let after_name = at;
        let (mut depth, mut parameters) = (0usize, Vec::new());
        let mut here = at;
        while here < chars.len() {
            match chars[here] {
                c if quote(c) => {
                    here = skip_literal(here);
                    continue;
                }
                '(' | '{' => depth += 1,
                ')' | '}' if depth == 0 => break,
                ')' | '}' => depth -= 1,
                '|' | '\n' | ';' if depth == 0 => break,
                '-' if depth == 0
                    && chars[here - 1] == ' '
                    && chars[here + 1].is_ascii_alphabetic() =>
                {
                    parameters.push(word(here + 1));
                }
                _ => {}
            }
            here += 1;
        }
        calls.push((module.trim_end_matches('\\').to_owned(), cmdlet, parameters));
        at = after_name; // nested calls are read too
    }
    calls
}

/// The address cmdlets are not in the table; their one call is pinned by the snapshot.
const NOT_IN_TABLE: [&str; 1] = ["New-NetIPAddress"];

fn check(table: &BTreeMap<(String, String), Sets>, text: &str) -> usize {
    let calls = calls_in(text);
    for (module, cmdlet, parameters) in &calls {
        if NOT_IN_TABLE.contains(&cmdlet.as_str()) {
            continue;
        }
        let sets = table
            .get(&(module.clone(), cmdlet.clone()))
            .unwrap_or_else(|| panic!("{module}\\{cmdlet} is not documented: {text}"));
        let fits = sets.values().any(|set| {
            parameters.iter().all(|p| set.contains_key(p))
                && set.iter().all(|(p, mandatory)| !mandatory || parameters.contains(p))
        });
        assert!(fits, "{cmdlet} has no parameter set for {parameters:?}: {text}");
        let mut once = parameters.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), parameters.len(), "a parameter twice: {text}");
    }
    calls.len()
}

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn every_call_fits_the_parameter_set_it_commits_to() {
    let table = table();
    for cmdlet in every_call() {
        let call = cmdlet.call();
        let text = call.render();
        assert!(check(&table, &text) >= 1, "no call found in {text}");
        if NOT_IN_TABLE.contains(&call.cmdlet) {
            continue;
        }
        let sets = &table[&(call.module.name().to_owned(), call.cmdlet.to_owned())];
        let set = sets
            .get(call.parameter_set)
            .unwrap_or_else(|| panic!("no set {} of {text}", call.parameter_set));
        for (name, _) in &call.parameters {
            assert!(
                set.contains_key(*name),
                "-{name} is not in set {}: {text}",
                call.parameter_set
            );
        }
        for (name, _) in set.iter().filter(|(_, mandatory)| **mandatory) {
            assert!(call.parameters.iter().any(|(p, _)| p == name), "-{name} is missing: {text}");
        }
    }
}

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn a_wrong_parameter_would_be_seen() {
    let table = table();
    let bad = std::panic::catch_unwind(|| check(&table, r"Hyper-V\Start-VM -VM $vm -Gently"));
    assert!(bad.is_err());
    let missing = std::panic::catch_unwind(|| check(&table, r"Hyper-V\Merge-VHD -Force"));
    assert!(missing.is_err());
}

fn gen2() -> CreateMachine {
    CreateMachine {
        name: VmName::new("Büro 'Süd'").unwrap(),
        owner: owner(),
        more_notes: vec![],
        folder: path(r"C:\vm"),
        processors: 2,
        memory_bytes: 4 << 30,
        nested_virtualization: true,
        switch: Some(SwitchName::new("Default Switch").unwrap()),
        disks: vec![DiskSpec { path: path(r"C:\vm\a.vhdx"), slot: Slot::scsi(0) }],
        dvds: vec![DvdSpec { slot: Slot::scsi(1), medium: Some(path(r"C:\iso\w.iso")) }],
        firmware: FirmwareSpec::Uefi {
            secure_boot: Some(SecureBootTemplate::MicrosoftWindows),
            tpm: true,
            boot_order: vec![BootDevice::Dvd(Slot::scsi(1)), BootDevice::HardDisk(Slot::scsi(0))],
        },
        serial_pipe: Some("gilt-build-7".into()),
        services: vec![Service::GuestFiles],
    }
}

fn scripts() -> Vec<(&'static str, Script)> {
    let id = VmId::new("2a34b1c2-fd73-4043-8a5b-dd2159bc743f").unwrap();
    let vm = MachineRef { id, owner: owner() };
    let disk = path(r"C:\vm\a.vhdx");
    let item = Item::new("gilt.step", "a'b & c").unwrap();
    let switch = SwitchName::new("inner").unwrap();
    let prefix = Prefix { network: Ipv4Addr::new(10, 9, 0, 0), length: 24 };
    let scan = |down| Scan { code: 0x4d, extended: true, down };
    let scans = Keys::scan_codes(&[scan(true), scan(false)]).unwrap();
    let nat = create_nat(&owner(), &switch, prefix, Ipv4Addr::new(10, 9, 0, 1)).unwrap();
    vec![
        ("create", gen2().operation().unwrap().script().clone()),
        ("list", list_machines(&owner()).script().clone()),
        ("stop", vm.stop(Stop::TurnOff).script().clone()),
        ("eject", vm.change_medium(Slot::scsi(1), None).script().clone()),
        ("keys", vm.send_keys(Keys::text("it's $x\n").unwrap()).script().clone()),
        ("ctrl_alt_del", vm.send_keys(vec![Keys::CtrlAltDel]).script().clone()),
        ("screenshot", vm.screenshot(1024, 768).script().clone()),
        ("addresses", vm.addresses().script().clone()),
        ("pairs", vm.change_pairs(KvpChange::Add, vec![item]).script().clone()),
        ("merge_state", vm.merge_state(std::slice::from_ref(&disk)).script().clone()),
        ("host_info", host_info().script().clone()),
        ("reset", vm.reset().script().clone()),
        ("own_folder", own_folder(&owner(), &path(r"C:\gilt\disks")).script().clone()),
        ("remove_file", remove_file(&owner(), &path(r"C:\gilt\disks\a.vhdx")).script().clone()),
        ("flatten_raw", flatten_raw(&disk, &path(r"C:\gilt\disks\a.vhd")).script().clone()),
        ("scan_codes", vm.send_keys(scans).script().clone()),
        ("export", vm.export(&path(r"C:\out"), None).script().clone()),
        ("copy_file", vm.copy_file(&path(r"C:\a.ps1"), r"C:\Windows\Temp\a.ps1").script().clone()),
        ("compact", compact(&disk).script().clone()),
        ("make_folder", make_folder(&owner(), &path(r"C:\vm\b 7")).script().clone()),
        ("remove_folder", remove_folder(&owner(), &path(r"C:\vm\b 7")).script().clone()),
        ("remove_switch", remove_switch(&owner(), &switch).script().clone()),
        ("nat", nat.script().clone()),
    ]
}

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn every_call_of_every_script_is_documented() {
    let table = table();
    let found: usize = scripts().iter().map(|(_, script)| check(&table, &script.render())).sum();
    assert!(found > 30, "only {found} calls were read from the scripts");
    for (name, text) in other_texts() {
        assert!(check(&table, &text) <= 1, "{name}");
    }
}

#[test]
fn calls_as_text() {
    let lines: Vec<String> = every_call().iter().map(|cmdlet| cmdlet.call().render()).collect();
    insta::assert_snapshot!("calls", lines.join("\n"));
}

/// Texts that are no [`Script`].
fn other_texts() -> Vec<(&'static str, String)> {
    let id = VmId::new("2a34b1c2-fd73-4043-8a5b-dd2159bc743f").unwrap();
    let direct = Direct {
        id,
        owner: owner(),
        user: "Administrator".into(),
        password: "it's a 'secret'".into(),
        command: "whoami /all".into(),
    };
    let relay = Relay { pipe: "gilt-build-7".into(), patience_ms: 60_000 };
    vec![
        ("direct", direct.render()),
        ("relay", relay.render()),
        ("from_stdin", transport::FROM_STDIN.to_owned()),
    ]
}

#[test]
fn other_scripts_as_text() {
    for (name, text) in other_texts() {
        insta::assert_snapshot!(name, text);
    }
}

/// A grammar of PowerShell that is not ours finds nothing wrong in any text of ours.
#[test]
fn every_script_parses() {
    let mut parser = tree_sitter::Parser::new();
    parser.set_language(&tree_sitter_pwsh::LANGUAGE.into()).unwrap();
    let mut wrong = |text: &str| {
        let tree = parser.parse(text, None).unwrap();
        let mut stack = vec![tree.root_node()];
        let mut found = Vec::new();
        while let Some(node) = stack.pop() {
            if node.is_error() || node.is_missing() {
                found.push(format!("{}: {}", node.start_position(), &text[node.byte_range()]));
            }
            let mut cursor = node.walk();
            stack.extend(node.children(&mut cursor));
        }
        found
    };
    let texts = scripts().into_iter().map(|(name, script)| (name, script.render()));
    for (name, text) in texts.chain(other_texts()) {
        assert_eq!(wrong(&text), Vec::<String>::new(), "{name}: {text}");
        assert!(!wrong(&text[..text.len() * 2 / 3]).is_empty(), "a cut {name} would be seen");
    }
}

#[test]
fn scripts_as_text() {
    for (name, script) in scripts() {
        insta::assert_snapshot!(name, script.render());
    }
}

#[test]
fn every_script_is_read_back_as_it_was_written() {
    for (name, script) in scripts() {
        let read = Script::parse(&script.render()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read.steps().len(), script.steps().len(), "{name}");
    }
    for cmdlet in every_call() {
        let text = cmdlet.call().render();
        let script = Script::new(vec![Step::Run(cmdlet)]);
        Script::parse(&script.render()).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn a_text_that_does_more_than_it_should_is_not_read() {
    let script = list_machines(&owner()).script().render();
    assert!(Script::parse(&script).is_ok());
    for bad in [
        script.replace("try{\n", "try{\nRemove-Item C:\\\n"),
        script.replace("[string]$_.Name", "[string]$_.Nome"),
        script.replace("Hyper-V\\Get-VM", "Get-VM"),
        format!("{script}Remove-Item C:\\"),
        script[..script.len() / 2].to_owned(),
        String::new(),
    ] {
        assert!(Script::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn a_machine_that_cannot_be_is_refused_before_a_host_sees_it() {
    let with = |change: fn(&mut CreateMachine)| {
        let mut machine = gen2();
        change(&mut machine);
        machine.operation().is_err()
    };
    assert!(with(|m| m.disks[0].slot = Slot::ide(0, 0)), "IDE on Gen2");
    assert!(with(|m| m.dvds[0].slot = Slot::scsi(0)), "two drives in one slot");
    assert!(with(|m| m.memory_bytes = 3), "three bytes of memory");
    assert!(with(|m| m.dvds.clear()), "a boot device it does not have");
    assert!(
        with(|m| m.firmware = FirmwareSpec::Bios { startup_order: vec![] }),
        "a SCSI DVD on Gen1"
    );
}
