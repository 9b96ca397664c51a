//! The Hyper-V driver against an SSH server that plays a host, with real guests behind it.

mod hyperv_host;

use std::sync::Arc;

use gilt_vm::{
    DiskFormat, DiskSpec, Error, ExitReason, NetworkSpec, StartFrom, VmDriver,
    boot_command::{self, BootTyper},
    conformance::BOOT,
    guest::{Connector, GuestCommand, SshKey, SshLogin, quiet},
    hyperv::{Address, HyperV},
    media::AnswerMedium,
    screen::Screen,
    testing::{BootFromCd, TinyGuest},
};
use hyperv_host::PlayedHost;

fn driver(host: &PlayedHost) -> HyperV {
    HyperV::new(Address::parse(Some(&host.address)).unwrap()).unwrap()
}

fn qemu_img(arguments: &[&str]) {
    let output = std::process::Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Upload, boot, keys, address, commands, shutdown, and the disk back: all by SSH.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_machine_from_upload_to_its_disk() {
    let host = PlayedHost::start().await;
    let driver = BootFromCd::new(Arc::new(driver(&host)), true).unwrap();
    let about = driver.capabilities().await.unwrap();
    assert!(about.missing.is_empty(), "{about:?}");

    // A disk of ours, with something on it.
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut bytes = vec![0; 32 << 20];
    bytes[..9].copy_from_slice(b"from here");
    std::fs::write(path("base.raw"), &bytes).unwrap();
    let (raw, base) = (path("base.raw"), path("base.vhdx"));
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vhdx",
        raw.to_str().unwrap(),
        base.to_str().unwrap(),
    ]);
    let disk = path("disk.vhdx");
    driver.create_overlay(&base, DiskFormat::Vhdx, &disk).await.unwrap();

    let key = SshKey::generate("guest").unwrap();
    let guest = TinyGuest::build(Some(&key.public_line().unwrap())).unwrap();
    let login = SshLogin::with_key("root", key);
    let medium = path("answer.iso");
    AnswerMedium::new("ANSWER").unwrap().file("answer.env", "hello").write(&medium).unwrap();
    let mut spec = guest.machine("remote", dir.path(), "do=echo");
    spec.network = Some(NetworkSpec::forwarding(22));
    spec.disks.push(DiskSpec {
        format: DiskFormat::Vhdx,
        boot_index: None,
        ..DiskSpec::boot(disk.clone())
    });
    let vm = driver.start(&spec, dir.path(), StartFrom::PowerOn).await.unwrap();

    // Keys, and what they do on the serial line and the screen.
    let mut typer = BootTyper::new(&*vm);
    let steps = "<waitSerial 'guest ready' 120s>It's {Hyper-V}<enter>\
                 <waitSerial \"typed: It's {Hyper-V}\" 60s>";
    typer.play(&boot_command::parse(steps).unwrap()).await.unwrap();
    let png = path("screen.png");
    vm.screenshot().await.unwrap().write_png(&png).unwrap();
    let shown = Screen::read_png(&png).unwrap();
    assert_eq!((shown.width, shown.height), (1024, 768));
    assert!(!shown.is_blank());

    // Commands and files, by the address the host tells.
    let way_in = login.connect(&*vm, BOOT).await.unwrap();
    let line = "head -c 9 /dev/vda; printf 'from there' | dd of=/dev/vda bs=1 seek=512 conv=fsync,notrunc 2>/dev/null";
    let outcome = way_in.exec(&GuestCommand::new(line), &mut quiet()).await.unwrap();
    assert_eq!(outcome.stdout_text(), "from here", "{}", outcome.stderr_text());
    way_in.upload_bytes(b"into the guest", "/tmp/file", 0o600).await.unwrap();
    way_in.download("/tmp/file", &path("back")).await.unwrap();
    assert_eq!(std::fs::read(path("back")).unwrap(), b"into the guest");
    way_in.close().await;

    // Another medium while it runs; a disk that runs is not given away.
    let error = vm.change_medium(7, Some(&medium)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidSpec { .. }), "{error}");
    vm.change_medium(0, Some(&medium)).await.unwrap();
    let busy = driver.start(&spec, dir.path(), StartFrom::PowerOn).await.unwrap_err();
    assert!(busy.to_string().contains("0x80070020"), "{busy}");

    vm.request_shutdown().await.unwrap();
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    assert_eq!(reason, ExitReason::PoweredOff);
    assert!(vm.serial().tail().contains("power button pressed"), "{}", vm.serial().tail());
    drop(vm);

    // The disk comes back, flat; what was uploaded is as it was.
    let (flat, flat_raw) = (path("flat.vhdx"), path("flat.raw"));
    driver.flatten(&disk, &flat, DiskFormat::Vhdx).await.unwrap();
    driver.flatten(&disk, &flat_raw, DiskFormat::Raw).await.unwrap();
    qemu_img(&["compare", "-q", flat.to_str().unwrap(), flat_raw.to_str().unwrap()]);
    let got = std::fs::read(&flat_raw).unwrap();
    assert_eq!(got.len(), 32 << 20);
    assert!(got.starts_with(b"from here") && &got[512..522] == b"from there");
    let again = path("again.vhdx");
    driver.create_overlay(&base, DiskFormat::Vhdx, &again).await.unwrap();
    driver.flatten(&again, &path("again.raw"), DiskFormat::Raw).await.unwrap();
    assert!(std::fs::read(path("again.raw")).unwrap() == bytes, "the base did not change");

    assert_eq!(host.left_over(), Vec::<String>::new());
    assert_eq!(*host.world.not_understood.lock().unwrap(), Vec::<String>::new());
    assert!(host.world.scripts_run.load(std::sync::atomic::Ordering::SeqCst) > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_a_missing_module_and_a_missing_switch_come_with_their_cure() {
    let host = PlayedHost::start().await;
    let driver = driver(&host);
    host.world.host.lock().unwrap().rights_missing = true;
    let error = driver.capabilities().await.unwrap_err();
    assert!(matches!(error, Error::HostLacks { .. }), "{error}");
    assert!(error.to_string().contains("S-1-5-32-578"), "{error}");
    host.world.host.lock().unwrap().rights_missing = false;
    host.world.host.lock().unwrap().module_absent = true;
    let error = driver.capabilities().await.unwrap_err();
    assert!(error.to_string().contains("Enable-WindowsOptionalFeature"), "{error}");
    host.world.host.lock().unwrap().module_absent = false;
    host.world.host.lock().unwrap().switches.clear();
    let missing = driver.capabilities().await.unwrap().missing;
    assert!(missing[0].contains("Default Switch"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_known_and_a_login_that_is_refused_are_told_apart() {
    let host = PlayedHost::start().await;
    let stranger = SshKey::generate("another").unwrap().public_line().unwrap();
    let words: Vec<&str> = stranger.split(' ').take(2).collect();
    let (address, _) = host.address.split_once("host-key=").unwrap();
    let open = |address: &str| HyperV::new(Address::parse(Some(address)).unwrap()).unwrap();
    let error = open(&format!("{address}host-key={}", words.join("%20").replace('+', "%2B")))
        .capabilities()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("host key changed"), "{error}");
    let error =
        open(&host.address.replace("//ci@", "//somebody@")).capabilities().await.unwrap_err();
    assert!(error.to_string().contains("refuses the login of somebody"), "{error}");
}

/// What a killed gilt left is ended by the next; what another made is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_dead_gilt_left_is_cleaned_up() {
    let host = PlayedHost::start().await;
    let driver = driver(&host);
    let guest = TinyGuest::build(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cd = BootFromCd::new(Arc::new(driver.clone()), false).unwrap();
    let spec = cd.with_cd(&guest.machine("left", dir.path(), "do=silent")).await.unwrap();
    let vm = driver.start(&spec, dir.path(), StartFrom::PowerOn).await.unwrap();
    assert_eq!(driver.clean_up().await.unwrap(), Vec::<String>::new(), "its gilt lives");
    let foreign = {
        let mut host = host.world.host.lock().unwrap();
        let notes = host.machines[0].notes.clone();
        let owner = notes.lines().next().unwrap().to_owned();
        let (client, _) = owner.rsplit_once('.').unwrap();
        // Its process started at another time: it is another process, and gone.
        let dead = format!("{client}.1");
        host.machines[0].notes = notes.replace(&owner, &dead);
        let dead_folders: Vec<String> =
            host.folders.iter().filter(|(_, tag)| **tag == owner).map(|(k, _)| k.clone()).collect();
        dead_folders.into_iter().for_each(|folder| drop(host.folders.insert(folder, dead.clone())));
        let mut foreign = host.machines[0].clone();
        foreign.id = hyperv_rs::VmId::new("00000000-0000-4000-8000-00000000ffff").unwrap();
        foreign.notes = "the payroll server".into();
        foreign.state = hyperv_rs::reply::State::Off;
        host.machines.push(foreign.clone());
        foreign.id
    };
    let cleaned = driver.clean_up().await.unwrap();
    assert!(cleaned.len() == 1 && cleaned[0].contains("gilt-left"), "{cleaned:?}");
    {
        let host = host.world.host.lock().unwrap();
        assert_eq!(host.machines.iter().map(|m| m.id.clone()).collect::<Vec<_>>(), [foreign]);
        assert!(
            !host.folders.keys().any(|folder| folder.contains(r"\machines\")),
            "{:?}",
            host.folders
        );
    }
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    assert!(matches!(reason, ExitReason::Died { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_this_system_is_not_written_to_on_the_host() {
    let host = PlayedHost::start().await;
    let driver = driver(&host);
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.vhdx");
    qemu_img(&["create", "-q", "-f", "vhdx", base.to_str().unwrap(), "8M"]);
    let mut spec = gilt_vm::MachineSpec::new("direct", dir.path().join("serial.log"));
    spec.disks.push(DiskSpec { format: DiskFormat::Vhdx, ..DiskSpec::boot(&base) });
    let error = driver.start(&spec, dir.path(), StartFrom::PowerOn).await.unwrap_err();
    assert!(error.to_string().contains("lay a disk over it"), "{error}");
    assert_eq!(host.left_over(), Vec::<String>::new());
}
