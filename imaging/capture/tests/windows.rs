//! What is read of an offline Windows, on a synthetic one with hives by hivex.

mod synthetic;

use std::process::Command;

use gilt_capture::TreeView;
use gilt_capture::windows::{
    CbsState, Check, Hives, PendingServicing, RegistryView, Verdict, WindowsError, generalization,
    image_properties, inventory, secrets,
};
use gilt_wim::tree::Tree;
use gilt_wim::{CaptureOptions, DirectoryContents, Wim, capture_directory};
use synthetic::{Windows, pe};

struct Captured(Tree, DirectoryContents);

impl Captured {
    fn of(windows: &Windows) -> Self {
        let (tree, contents) =
            capture_directory(&windows.root, &CaptureOptions::default()).unwrap();
        Self(tree, contents)
    }

    fn view(&self) -> TreeView<'_> {
        TreeView { tree: &self.0, contents: &self.1, ignores_case: true }
    }
}

#[test]
fn image_properties_are_those_wimlib_writes() {
    let windows = Windows::new();
    let captured = Captured::of(&windows);
    let ours = image_properties(captured.view()).unwrap().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let wim = dir.path().join("reference.wim");
    let output = Command::new("wimlib-imagex")
        .args(["capture", "--quiet", "--compress=none"])
        .arg(&windows.root)
        .arg(&wim)
        .output()
        .expect("needs wimlib-imagex (wimtools): run ci/setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = Wim::open(&wim).unwrap().images().remove(0);
    let reference = image.windows().unwrap();
    assert_eq!(reference.architecture, Some(9), "wimlib found the installation");
    let mut same = ours.windows.clone();
    // The order of languages is that of the hive for us and for wimlib.
    same.languages.sort();
    let mut expected = reference;
    expected.languages.sort();
    assert_eq!(same, expected);

    assert_eq!(ours.flags.as_deref(), Some("Professional"));
    assert_eq!(ours.display_name.as_deref(), Some("Windows 11 Pro"), "build 26100 is Windows 11");
}

#[test]
fn architectures_and_control_sets_are_told_apart() {
    for (machine, number) in [(0x014C, 0), (0x8664, 9), (0xAA64, 12), (0x01C4, 5)] {
        let windows = Windows::new();
        windows.write("Windows/System32/kernel32.dll", &pe(machine));
        windows.merge(
            "SYSTEM",
            "[HIVE\\Select]\n\"Current\"=dword:00000002\n\
             [HIVE\\ControlSet002\\Control\\ProductOptions]\n\"ProductType\"=\"ServerNT\"\n",
        );
        let properties = image_properties(Captured::of(&windows).view()).unwrap().unwrap();
        assert_eq!(properties.windows.architecture, Some(number));
        assert_eq!(properties.windows.product_type.as_deref(), Some("ServerNT"));
    }
}

#[test]
fn everything_installed_is_listed() {
    let found = inventory(Captured::of(&Windows::new()).view()).unwrap().unwrap();
    let release = &found.release;
    assert_eq!(release.name.as_deref(), Some("Windows 11 Pro"));
    assert_eq!((release.build, release.revision), (Some(26100), Some(2700)));
    assert_eq!(release.display_version.as_deref(), Some("24H2"));
    assert_eq!(release.architecture.as_deref(), Some("amd64"));
    assert_eq!(release.default_language.as_deref(), Some("en-US"));

    let states: Vec<_> =
        found.packages.iter().map(|p| (p.name.split('~').next().unwrap(), p.state)).collect();
    assert_eq!(
        states,
        [
            ("Microsoft-Windows-Foundation-Package", CbsState::Permanent),
            ("Package_for_RollupFix", CbsState::Superseded),
            ("Package_for_RollupFix", CbsState::Installed),
        ]
    );
    assert_eq!(found.packages[2].installed_at, Some(0x01db_4e3c_1234_5678));
    let features: Vec<_> = found.features.iter().map(|f| (f.name.as_str(), f.state)).collect();
    assert_eq!(features, [("NetFx3", CbsState::Installed), ("TelnetClient", CbsState::Staged)]);
    assert_eq!(found.pending, []);
    assert_eq!(found.provisioned_apps.len(), 1);
    assert_eq!(found.deprovisioned_apps, ["Microsoft.BingNews_8wekyb3d8bbwe"]);
    assert_eq!(found.drivers.len(), 1);
    assert_eq!(found.drivers[0].inf, "oem0.inf");
    assert_eq!(found.drivers[0].provider.as_deref(), Some("Red Hat, Inc."));
    let programs: Vec<_> =
        found.programs.iter().map(|p| (p.name.as_str(), p.registry, p.is_component)).collect();
    assert_eq!(
        programs,
        [
            ("A 32-bit Tool", RegistryView::ThirtyTwoBit, true),
            ("Example Runtime", RegistryView::Native, false)
        ]
    );
    assert!(found.has_recovery_environment);
}

#[test]
fn servicing_half_way_is_told() {
    let windows = Windows::new();
    let servicing = r"HIVE\Microsoft\Windows\CurrentVersion\Component Based Servicing";
    windows.merge(
        "SOFTWARE",
        &format!(
            "[{servicing}\\RebootPending]\n[{servicing}\\PackagesPending]\n\
             [{servicing}\\Packages\\Half]\n\"CurrentState\"=dword:00000060\n\
             [{servicing}\\Packages\\Broken]\n\"CurrentState\"=dword:ffffff90\n"
        ),
    );
    windows.write("Windows/WinSxS/pending.xml", b"<x/>");
    let found = inventory(Captured::of(&windows).view()).unwrap().unwrap();
    assert_eq!(
        found.pending,
        [
            PendingServicing::PackagesPending,
            PendingServicing::RebootPending,
            PendingServicing::PendingXml,
            PendingServicing::Package("Half".to_owned()),
        ]
    );
    assert_eq!(found.packages[0].state, CbsState::Broken(-112));
}

#[test]
fn a_generalized_installation_is_proved() {
    let windows = Windows::new();
    let captured = Captured::of(&windows);
    let hives = Hives::open(captured.view()).unwrap().unwrap();
    let proof = generalization(captured.view(), &hives).unwrap();
    assert!(proof.is_proved(), "{proof:?}");
    assert_eq!(proof.evidence.len(), 9);
    assert_eq!(secrets(captured.view(), &hives).unwrap(), []);
}

#[test]
fn every_sign_of_a_failed_generalize_refutes_it() {
    let setup = r"HIVE\Setup";
    type Spoil<'a> = (Check, &'a dyn Fn(&Windows));
    let cases: [Spoil<'_>; 8] = [
        (Check::SucceededTag, &|w| w.remove("Windows/System32/Sysprep/Sysprep_succeeded.tag")),
        (Check::StateFile, &|w| {
            w.write("Windows/Setup/State/State.ini", b"[State]\r\nImageState=IMAGE_STATE_COMPLETE");
        }),
        (Check::StateKey, &|w| {
            w.merge(
                "SOFTWARE",
                "[HIVE\\Microsoft\\Windows\\CurrentVersion\\Setup\\State]\n\
                 \"ImageState\"=\"IMAGE_STATE_UNDEPLOYABLE\"\n",
            );
        }),
        (Check::GeneralizationState, &|w| {
            let key = format!("[{setup}\\Status\\SysprepStatus]\n");
            w.merge("SYSTEM", &(key + "\"GeneralizationState\"=dword:00000003\n"));
        }),
        (Check::CleanupState, &|w| {
            let key = format!("[{setup}\\Status\\SysprepStatus]\n");
            w.merge("SYSTEM", &(key + "\"CleanupState\"=dword:00000003\n"));
        }),
        (Check::SetupType, &|w| {
            w.merge("SYSTEM", &format!("[{setup}]\n\"SetupType\"=dword:00000000\n"));
        }),
        (Check::CommandLine, &|w| {
            w.merge("SYSTEM", &format!("[{setup}]\n\"CmdLine\"=\"\"\n"));
        }),
        (Check::NothingPending, &|w| w.write("Windows/WinSxS/pending.xml", b"<x/>")),
    ];
    for (check, spoil) in cases {
        let windows = Windows::new();
        spoil(&windows);
        let captured = Captured::of(&windows);
        let hives = Hives::open(captured.view()).unwrap().unwrap();
        let proof = generalization(captured.view(), &hives).unwrap();
        let refuted: Vec<_> = proof.refuted().map(|row| row.check).collect();
        assert_eq!(refuted, [check]);
    }

    let windows = Windows::new();
    windows.remove("Windows/System32/Recovery/Winre.wim");
    let captured = Captured::of(&windows);
    let hives = Hives::open(captured.view()).unwrap().unwrap();
    let proof = generalization(captured.view(), &hives).unwrap();
    assert!(proof.is_proved(), "an image without a recovery environment is still generalized");
    assert!(proof.evidence.iter().any(|row| row.verdict == Verdict::Warning));
}

#[test]
fn secrets_left_behind_are_found_and_deleted_ones_are_not() {
    let windows = Windows::new();
    let answer = |password: &str| {
        format!(
            "<?xml version=\"1.0\"?><unattend><settings><component><UserAccounts>\
             <AdministratorPassword><Value>{password}</Value><PlainText>false</PlainText>\
             </AdministratorPassword></UserAccounts></component></settings></unattend>"
        )
        .into_bytes()
    };
    windows.write("Windows/Panther/unattend.xml", &answer("*SENSITIVE*DATA*DELETED*"));
    windows.write("Windows/Panther/Unattend/unattend.xml", &answer("cABhAHMAcwA="));
    windows.write("Windows/System32/Sysprep/ActionFiles/Generalize.xml", b"<sysprepInformation/>");
    windows.write(
        "autounattend.xml",
        b"<unattend><ProductKey><Key>AAAAA-1</Key></ProductKey></unattend>",
    );
    windows.write("ProgramData/ssh/ssh_host_ed25519_key", b"private");
    windows.write("ProgramData/ssh/ssh_host_ed25519_key.pub", b"public");
    windows.merge(
        "SOFTWARE",
        "[HIVE\\Microsoft\\Windows NT\\CurrentVersion\\Winlogon]\n\"DefaultPassword\"=\"hunter2\"\n\
         \"AutoAdminLogon\"=\"1\"\n",
    );
    let captured = Captured::of(&windows);
    let hives = Hives::open(captured.view()).unwrap().unwrap();
    let places: Vec<_> =
        secrets(captured.view(), &hives).unwrap().into_iter().map(|secret| secret.place).collect();
    let winlogon = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon";
    assert_eq!(
        places,
        [
            r"\Windows\Panther\Unattend\unattend.xml".to_owned(),
            r"\autounattend.xml".to_owned(),
            r"\ProgramData\ssh\ssh_host_ed25519_key".to_owned(),
            format!("{winlogon} DefaultPassword"),
            format!("{winlogon} AutoAdminLogon"),
        ]
    );
}

#[test]
fn a_tree_without_windows_is_none_and_a_damaged_hive_is_an_error_with_its_path() {
    let windows = Windows::new();
    windows.write("Windows/System32/config/SYSTEM", b"regf and nothing more");
    match image_properties(Captured::of(&windows).view()) {
        Err(WindowsError::Hive { path, .. }) => assert!(path.ends_with("SYSTEM"), "{path}"),
        other => panic!("{other:?}"),
    }
    windows.remove("Windows/System32/config/SYSTEM");
    assert_eq!(image_properties(Captured::of(&windows).view()).unwrap(), None);
}
