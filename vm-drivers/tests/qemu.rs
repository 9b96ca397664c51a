//! Real machines under emulation, with a guest of a kernel and a busybox.

use std::{path::PathBuf, time::Duration};

use gilt_vm::{
    CheckpointRequest, DiskFormat, ExitReason, StartFrom, Vm, VmDriver,
    qemu::{Qemu, QemuConfig},
    registry::RunRegistry,
    serial::SerialPattern,
    testing::{READY, TinyGuest},
};

const BOOT: Duration = Duration::from_secs(90);

struct Bench {
    dir: tempfile::TempDir,
    qemu: Qemu,
    guest: TinyGuest,
}

impl Bench {
    fn new() -> Self {
        Self::with_key(None)
    }

    fn with_key(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = QemuConfig::new(dir.path().join("cache"));
        config.registry = RunRegistry::at(dir.path().join("run"));
        let guest = TinyGuest::build(key).unwrap_or_else(|what| panic!("{what}"));
        Self { qemu: Qemu::new(config), guest, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn boot(&self, name: &str, words: &str) -> Box<dyn Vm> {
        let spec = self.guest.machine(name, self.dir.path(), words);
        self.qemu.start(&spec, self.dir.path(), StartFrom::PowerOn).await.unwrap()
    }
}

async fn says(vm: &dyn Vm, words: &str) {
    let pattern = SerialPattern::Literal(words.into());
    vm.serial().wait_for(&pattern, vm.serial().begin(), BOOT, &vm.exit_watch()).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_powers_off_is_seen_to() {
    let bench = Bench::new();
    let vm = bench.boot("off", "do=poweroff").await;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    assert_eq!(reason, ExitReason::PoweredOff, "{}", vm.serial().tail());
    assert!(vm.serial().tail().contains("bye"));
}

#[tokio::test]
async fn a_panic_is_seen_with_its_message_and_the_guest_stands_still() {
    let bench = Bench::new();
    let vm = bench.boot("panic", "do=exit").await;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    let ExitReason::Panicked { message } = reason else { panic!("{reason}") };
    let message = message.unwrap();
    assert!(message.contains("Attempted to kill init"), "{message}");
    assert!(!vm.screenshot().await.unwrap().is_blank());
}

#[tokio::test]
async fn the_power_button_reaches_the_guest() {
    let bench = Bench::new();
    let vm = bench.boot("button", "").await;
    says(&*vm, READY).await;
    vm.request_shutdown().await.unwrap();
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    assert_eq!(reason, ExitReason::PoweredOff);
}

#[tokio::test]
async fn a_killed_hypervisor_is_told_apart_from_a_shutdown() {
    let bench = Bench::new();
    let vm = bench.boot("killed", "do=silent").await;
    let pid = vm.info().pid.unwrap();
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    assert!(matches!(&reason, ExitReason::Died { status, .. } if status.contains('9')), "{reason}");
}

#[tokio::test]
async fn a_checkpoint_with_memory_goes_on_in_another_machine() {
    let bench = Bench::new();
    let base = bench.path("base.qcow2");
    bench.qemu.create_disk(&base, DiskFormat::Qcow2, 64 << 20).await.unwrap();
    let spec = bench.guest.machine_with_disk("first", bench.dir.path(), &base);
    let vm = bench.qemu.start(&spec, bench.dir.path(), StartFrom::PowerOn).await.unwrap();
    says(&*vm, READY).await;
    let request = CheckpointRequest {
        backing_names: None,
        new_overlays: vec![bench.path("next.qcow2")],
        memory_state: Some(bench.path("memory")),
        uefi_variables: None,
        tpm_state: None,
    };
    let checkpoint = vm.checkpoint(&request).await.unwrap();
    assert_eq!(checkpoint.disks, [base.clone()]);
    assert_eq!(vm.disks(), [bench.path("next.qcow2")]);
    eprintln!(
        "paused {:?}, memory {} MiB",
        checkpoint.paused_for,
        std::fs::metadata(bench.path("memory")).unwrap().len() >> 20
    );
    // The first machine goes on and can be switched off as ever.
    vm.request_shutdown().await.unwrap();
    vm.exit_watch().wait_at_most(BOOT, vm.serial()).await.unwrap();
    drop(vm);

    let overlay = bench.path("again.qcow2");
    bench.qemu.create_overlay(&base, DiskFormat::Qcow2, &overlay).await.unwrap();
    let spec = bench.guest.machine_with_disk("second", bench.dir.path(), &overlay);
    let state = bench.path("memory");
    let begun = std::time::Instant::now();
    let vm =
        bench.qemu.start(&spec, bench.dir.path(), StartFrom::SavedState(&state)).await.unwrap();
    eprintln!("resumed in {:?}", begun.elapsed());
    assert!(vm.info().resumed);
    vm.request_shutdown().await.unwrap();
    says(&*vm, "power button pressed").await;
}
