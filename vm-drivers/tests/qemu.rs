//! What is QEMU's own, beyond the suite every driver is held to.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use gilt_vm::{
    CheckpointRequest, DiskFormat, DiskSpec, Firmware, StartFrom, TpmSpec, VmDriver,
    conformance::{BOOT, Bench, said},
    guest::{Connector, GuestCommand, quiet},
    qemu::{Qemu, QemuConfig, accel, image},
    registry::{self, RunRegistry},
    testing::READY,
};

fn bench() -> (Bench, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = QemuConfig::new(dir.path().join("cache"));
    config.registry = RunRegistry::at(dir.path().join("run"));
    let bench = Bench::new(Arc::new(Qemu::new(config)));
    (bench.unwrap_or_else(|what| panic!("{what}")), dir)
}

/// The firmware's own words, with and without Secure Boot; the variables are the machine's own.
#[tokio::test]
async fn uefi_comes_up_with_its_own_variables() {
    let (bench, _dir) = bench();
    for secure_boot in [false, true] {
        let mut spec = bench.machine("uefi", "");
        let variables = bench.path("vars.fd");
        spec.firmware = Firmware::Uefi { secure_boot, variables: variables.clone() };
        let disk = bench.path("empty.qcow2");
        bench.driver.create_disk(&disk, DiskFormat::Qcow2, 1 << 20).await.unwrap();
        spec.disks.push(DiskSpec::boot(&disk));
        let vm = bench.start(&spec).await.unwrap();
        said(&*vm, "BdsDxe: ").await.unwrap();
        // A second machine may not share them.
        assert!(bench.start(&spec).await.is_err());
        let request = CheckpointRequest {
            new_overlays: vec![bench.path("next.qcow2")],
            uefi_variables: Some(bench.path("vars-then.fd")),
            ..Default::default()
        };
        vm.checkpoint(&request).await.unwrap().rest.done().await.unwrap();
        vm.power_off().await.unwrap();
        let then = std::fs::metadata(request.uefi_variables.unwrap()).unwrap().len();
        assert_eq!(then, std::fs::metadata(&variables).unwrap().len());
    }
}

#[tokio::test]
async fn a_tpm_is_there_and_its_state_goes_with_a_checkpoint() {
    let (bench, _dir) = bench();
    let base = bench.path("base.qcow2");
    bench.driver.create_disk(&base, DiskFormat::Qcow2, 1 << 20).await.unwrap();
    let mut spec = bench.machine_with_disk("tpm", &base);
    spec.tpm = Some(TpmSpec { state_dir: bench.path("tpm, with a comma") });
    assert!(bench.start(&spec).await.is_err(), "swtpm cannot quote");
    spec.tpm = Some(TpmSpec { state_dir: bench.path("tpm") });
    let vm = bench.start(&spec).await.unwrap();
    let way_in = bench.login.connect(&*vm, BOOT).await.unwrap();
    let version = GuestCommand::new("cat /sys/class/tpm/tpm0/tpm_version_major");
    let said = way_in.exec(&version, &mut quiet()).await.unwrap();
    assert_eq!(said.stdout_text().trim(), "2", "{}", said.stderr_text());
    let memory = bench.path("memory");
    let request = CheckpointRequest {
        new_overlays: vec![bench.path("next.qcow2")],
        memory_state: Some(memory.clone()),
        tpm_state: Some(bench.path("tpm-then")),
        ..Default::default()
    };
    vm.checkpoint(&request).await.unwrap().rest.done().await.unwrap();
    vm.power_off().await.unwrap();

    let overlay = bench.path("again.qcow2");
    bench.driver.create_overlay(&base, DiskFormat::Qcow2, &overlay).await.unwrap();
    let mut spec = bench.machine_with_disk("tpm-again", &overlay);
    spec.tpm = Some(TpmSpec { state_dir: request.tpm_state.unwrap() });
    let vm = bench.start_from(&spec, StartFrom::SavedState(&memory)).await.unwrap();
    let way_in = bench.login.connect(&*vm, BOOT).await.unwrap();
    let said = way_in.exec(&version, &mut quiet()).await.unwrap();
    assert_eq!(said.stdout_text().trim(), "2", "{}", said.stderr_text());
}

#[tokio::test]
async fn an_accelerator_is_chosen_by_proof_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = || Qemu::new(QemuConfig::new(dir.path()));
    let first = qemu().automatic_accelerator().await.unwrap().clone();
    eprintln!("{first:?}");
    assert!(!first.reason.is_empty());
    let begun = Instant::now();
    let second = qemu().automatic_accelerator().await.unwrap().clone();
    assert_eq!(second.accelerator, first.accelerator);
    if dir.path().join("accelerators.json").exists() {
        assert!(second.reason.contains("remembered"), "{second:?}");
        assert!(begun.elapsed() < accel::PROOF_LIMIT);
    }
    // What is chosen boots a guest.
    let capabilities = qemu().capabilities().await.unwrap();
    assert_eq!(capabilities.missing, Vec::<String>::new());
}

#[tokio::test]
async fn a_disk_chain_is_told_and_flattened() {
    let (bench, _dir) = bench();
    let (base, top) = (bench.path("base.raw"), bench.path("top.qcow2"));
    bench.driver.create_disk(&base, DiskFormat::Raw, 3 << 20).await.unwrap();
    bench.driver.create_overlay(&base, DiskFormat::Raw, &top).await.unwrap();
    let info = image::info(&top).await.unwrap();
    assert_eq!((info.format.as_str(), info.virtual_size), ("qcow2", 3 << 20));
    assert_eq!(info.full_backing_filename.unwrap(), base);
    let flat = bench.path("flat.vhdx");
    bench.driver.flatten(&top, &flat, DiskFormat::Vhdx).await.unwrap();
    assert!(bench.driver.flatten(&top, &flat, DiskFormat::Vhdx).await.is_err());
    let info = image::info(&flat).await.unwrap();
    assert_eq!((info.format.as_str(), info.full_backing_filename), ("vhdx", None));
}

/// Not a test of its own: the process that is killed in the next one.
#[tokio::test]
#[ignore = "run by a_killed_gilt_leaves_no_machine as a process of its own"]
async fn holder_of_a_machine() {
    let mut config = QemuConfig::new(std::env::temp_dir().join("unused-cache"));
    config.registry = RunRegistry::at(std::env::var_os("HOLDER_REGISTRY").unwrap());
    let bench = Bench::new(Arc::new(Qemu::new(config))).unwrap_or_else(|what| panic!("{what}"));
    let mut spec = bench.machine("held", "do=silent");
    spec.tpm = Some(TpmSpec { state_dir: bench.path("tpm") });
    let vm = bench.start(&spec).await.unwrap();
    println!("\nholding {}", vm.info().pid.unwrap());
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_gilt_leaves_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("run");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .env("HOLDER_REGISTRY", &records)
        .env("TMPDIR", dir.path())
        .args(["--exact", "holder_of_a_machine", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|l| l.strip_prefix("holding ").and_then(|pid| pid.parse().ok()))
        .expect("the holder says which process it holds");
    let machine = registry::mark(pid).expect("the machine runs");
    // The threads that made it have long been idle; it lives on with the process.
    std::thread::sleep(Duration::from_millis(500));
    assert!(registry::is_alive(machine));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while registry::is_alive(machine) {
        assert!(Instant::now() < deadline, "the machine outlives its gilt");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The next gilt finds the record and removes what the machine needed.
    let reaped = RunRegistry::at(&records).reap().unwrap();
    assert_eq!(reaped.len(), 1);
    assert_eq!(reaped[0].removed.len(), 1, "the TPM's socket folder");
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 0);
}

#[tokio::test]
async fn a_state_that_was_cut_short_is_refused() {
    let (bench, _dir) = bench();
    let spec = bench.machine("cut", "");
    let vm = bench.ready(&spec).await.unwrap();
    let memory = bench.path("memory");
    let request = CheckpointRequest {
        new_overlays: Vec::new(),
        memory_state: Some(memory.clone()),
        ..Default::default()
    };
    vm.checkpoint(&request).await.unwrap().rest.done().await.unwrap();
    said(&*vm, READY).await.unwrap();
    vm.power_off().await.unwrap();
    let file = std::fs::File::options().write(true).open(&memory).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    let refused = |error: gilt_vm::Error| {
        assert!(matches!(error, gilt_vm::Error::StateMismatch { .. }), "{error}");
        error.to_string()
    };
    let error = bench.start_from(&spec, StartFrom::SavedState(&memory)).await.unwrap_err();
    assert!(refused(error).contains("bytes, not"));
    // Damage the size does not show is QEMU's to notice; it is refused all the same.
    file.set_len(length).unwrap();
    let error = bench.start_from(&spec, StartFrom::SavedState(&memory)).await.unwrap_err();
    refused(error);
}
