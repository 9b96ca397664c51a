//! The way into a guest, against a real SSH server in a real machine.

use std::time::{Duration, Instant};

use gilt_vm::{
    CheckpointRequest, DiskFormat, Error, StartFrom, Vm, VmDriver,
    guest::{
        Communicator, ExitStatus, GuestCommand, HttpServer, Output, Ssh, SshAuth, SshKey, SshLogin,
        boot_id, quiet, restart,
    },
    qemu::{Qemu, QemuConfig},
    registry::RunRegistry,
    testing::TinyGuest,
};

const BOOT: Duration = Duration::from_secs(120);

struct Bench {
    dir: tempfile::TempDir,
    qemu: Qemu,
    guest: TinyGuest,
    key: SshKey,
}

impl Bench {
    fn new() -> Self {
        let key = SshKey::generate("test").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = QemuConfig::new(dir.path().join("cache"));
        config.registry = RunRegistry::at(dir.path().join("run"));
        let guest = TinyGuest::build(Some(&key.public_line().unwrap()))
            .unwrap_or_else(|what| panic!("{what}"));
        Self { qemu: Qemu::new(config), guest, key, dir }
    }

    async fn start(&self, name: &str, from: StartFrom<'_>) -> Box<dyn Vm> {
        let disk = self.dir.path().join(format!("{name}.qcow2"));
        if !disk.exists() {
            self.qemu.create_disk(&disk, DiskFormat::Qcow2, 64 << 20).await.unwrap();
        }
        let spec = self.guest.machine_with_disk(name, self.dir.path(), &disk);
        self.qemu.start(&spec, self.dir.path(), from).await.unwrap()
    }

    fn login(&self) -> SshLogin {
        SshLogin::with_key("root", self.key.clone())
    }
}

#[tokio::test]
async fn commands_files_and_reboot() {
    let bench = Bench::new();
    let vm = bench.start("way-in", StartFrom::PowerOn).await;
    let login = bench.login();
    let target = login.target(&*vm).unwrap();
    let begun = Instant::now();
    let ssh = Ssh::connect(&target, &*vm, BOOT).await.unwrap();
    eprintln!("logged in after {:?}", begun.elapsed());

    // Streams and status.
    let mut seen = Vec::new();
    let begun = Instant::now();
    let outcome = ssh
        .exec(
            &GuestCommand::new("echo out; echo err >&2; echo \"$A\"; cat; exit 7")
                .env("A", "it's")
                .stdin("in"),
            &mut |stream, piece: &[u8]| seen.push((stream, piece.to_vec())),
        )
        .await
        .unwrap();
    eprintln!("a command takes {:?}", begun.elapsed());
    assert_eq!(outcome.status, ExitStatus::Code(7));
    assert_eq!(outcome.stdout_text(), "out\nit's\nin");
    assert_eq!(outcome.stderr_text(), "err\n");
    let err: Vec<u8> =
        seen.iter().filter(|(s, _)| *s == Output::Stderr).flat_map(|(_, p)| p.clone()).collect();
    assert_eq!(err, b"err\n");
    let killed = ssh.exec(&GuestCommand::new("kill -TERM $$"), &mut quiet()).await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal("TERM".into()));

    // A command over its time is killed with what it started.
    let slow = GuestCommand::new("echo begun; sleep 4321 & wait").limit(Duration::from_secs(3));
    let error = ssh.exec(&slow, &mut quiet()).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("begun"), "{error}");
    let left = ssh.output("ps | grep -c '[s]leep 4321' || true").await.unwrap();
    assert_eq!(left.trim(), "0");

    // Files.
    let tree = bench.dir.path().join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    for i in 0..20 {
        std::fs::write(tree.join(format!("a/b/{i} x")), format!("file {i}")).unwrap();
    }
    let big: Vec<u8> =
        (0..20 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(tree.join("big"), &big).unwrap();
    let begun = Instant::now();
    let sent = ssh.upload(&tree, "/tmp/tree", None).await.unwrap();
    eprintln!("20 MiB and 20 files up in {:?}", begun.elapsed());
    assert_eq!(sent.files, 21);
    ssh.upload_bytes(b"#!/bin/sh\necho ran\n", "/tmp/run me", 0o755).await.unwrap();
    assert_eq!(ssh.output("'/tmp/run me'").await.unwrap(), "ran\n");
    let begun = Instant::now();
    let back = bench.dir.path().join("back");
    let got = ssh.download("/tmp/tree", &back).await.unwrap();
    eprintln!("20 MiB and 20 files down in {:?}", begun.elapsed());
    assert_eq!(got, sent);
    assert!(std::fs::read(back.join("big")).unwrap() == big);
    assert_eq!(std::fs::read(back.join("a/b/7 x")).unwrap(), b"file 7");
    let error = ssh.download("/no/such", &back.join("n")).await.unwrap_err();
    assert!(matches!(error, Error::GuestFile { .. }), "{error}");
    let error = ssh.upload_bytes(b"", "/no/such/folder", 0o644).await.unwrap_err();
    assert!(matches!(error, Error::GuestFile { .. }), "{error}");

    // The guest reaches the host's file server.
    let server = HttpServer::start().await.unwrap();
    server.serve_path("tree", &tree);
    let url = server.url(vm.info().host_as_seen_by_guest.unwrap());
    let line = format!("wget -q -O - {url}/tree/big | sha1sum; sha1sum < /tmp/tree/big");
    let sums = ssh.output(&line).await.unwrap();
    let sums: Vec<&str> = sums.lines().collect();
    assert_eq!(sums[0], sums[1]);

    // Another key is refused with the reason, the pinned host key is kept over a reboot.
    let mut stranger = target.clone();
    stranger.auth = SshAuth::Key(SshKey::generate("stranger").unwrap());
    stranger.auth_patience = Duration::ZERO;
    let error = Ssh::connect(&stranger, &*vm, BOOT).await.unwrap_err();
    assert!(error.to_string().contains("refuses the login of root"), "{error}");
    let before = boot_id(&ssh).await.unwrap();
    let begun = Instant::now();
    let reboot = "(sleep 0.2; reboot -f) &";
    let ssh = restart(Box::new(ssh), &login, &*vm, reboot, BOOT).await.unwrap();
    eprintln!("booted anew in {:?}", begun.elapsed());
    assert_ne!(boot_id(&*ssh).await.unwrap(), before);
    assert!(login.host_key.fingerprint().unwrap().starts_with("SHA256:"));

    // A machine that ends during a command is told as that.
    let error =
        ssh.exec(&GuestCommand::new("poweroff -f; sleep 100"), &mut quiet()).await.unwrap_err();
    assert!(
        matches!(error, Error::Ended { reason: gilt_vm::ExitReason::PoweredOff, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_resumed_guest_answers_on_another_port_with_its_memory() {
    let bench = Bench::new();
    let vm = bench.start("first", StartFrom::PowerOn).await;
    let login = bench.login();
    let target = login.target(&*vm).unwrap();
    let ssh = Ssh::connect(&target, &*vm, BOOT).await.unwrap();
    ssh.output("echo kept > /tmp/memory; echo frozen > /dev/vda; sync").await.unwrap();
    let memory = bench.dir.path().join("memory");
    let request = CheckpointRequest {
        new_overlays: vec![bench.dir.path().join("next.qcow2")],
        memory_state: Some(memory.clone()),
        ..Default::default()
    };
    let checkpoint = vm.checkpoint(&request).await.unwrap();
    eprintln!("stood still for {:?}", checkpoint.paused_for);
    checkpoint.rest.done().await.unwrap();
    // The same connection lives on, and what is written now is not in the checkpoint.
    ssh.output("echo later > /dev/vda; sync; echo later > /tmp/memory").await.unwrap();
    vm.power_off().await.unwrap();

    let overlay = bench.dir.path().join("second.qcow2");
    let base = bench.dir.path().join("first.qcow2");
    bench.qemu.create_overlay(&base, DiskFormat::Qcow2, &overlay).await.unwrap();
    let begun = Instant::now();
    let again = bench.start("second", StartFrom::SavedState(&memory)).await;
    let second = login.target(&*again).unwrap();
    assert_ne!(second.address, target.address);
    let ssh = Ssh::connect(&second, &*again, BOOT).await.unwrap();
    eprintln!("answers {:?} after the start", begun.elapsed());
    let seen = ssh.output("cat /tmp/memory; head -c 7 /dev/vda").await.unwrap();
    assert_eq!(seen, "kept\nfrozen\n");
}
