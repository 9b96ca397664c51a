//! The lines of the suite.

use std::{
    net::Ipv4Addr,
    process::Stdio,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::io::AsyncBufReadExt;

use super::{BOOT, Bench, Failure, HOLDING, Line, claim, said};
use crate::{
    boot_command::{self, BootTyper},
    driver::{CheckpointRequest, ExitReason, StartFrom, VmEvent},
    error::Error,
    guest::{
        Communicator, Connector, ExitStatus, GuestCommand, HttpServer, SshLogin, boot_id, quiet,
        restart,
    },
    media::AnswerMedium,
    registry,
    spec::{CdromInterface, CdromSpec, DiskFormat, OnGuestReset, PortForward},
    testing::READY,
};

macro_rules! lines {
    ($($states:literal $check:ident,)*) => {
        /// Every line, in the order they are best run.
        pub const LINES: &[Line] = &[$(Line {
            states: $states,
            check: |bench| -> BoxFuture<'_, Result<(), Failure>> { Box::pin($check(bench)) },
        }),*];
    };
}

lines! {
    "a guest that powers off ends its machine as powered off" guest_powers_off,
    "the power button reaches the guest" power_button,
    "cutting the power ends the machine and leaves no process" power_cut,
    "dropping a machine leaves no process" dropped_machine,
    "a reset by the guest is told, and stops the machine where asked" guest_reset,
    "a kernel panic is told with its message" kernel_panic,
    "a hypervisor that dies is told apart from a shutdown" hypervisor_dies,
    "a gilt that is killed leaves no machine" killed_gilt,
    "a wait ends early when the machine does" early_end,
    "keys arrive in order, shifted ones too" keys,
    "the screen can be seen" screenshot,
    "a medium can be taken out and another put in" media,
    "writes go to the overlay and not to its base" overlays,
    "throw-away writes touch no file of the caller" throw_away,
    "a disk in use by one machine is refused to a second" disk_in_use,
    "a port that is taken is refused by number" port_taken,
    "commands and files reach the guest" exec_and_files,
    "a reboot is proved" reboot,
    "a checkpoint freezes the disk while the guest goes on" checkpoint,
    "a checkpoint with memory goes on in another machine" resume,
    "a saved state is refused to a machine it does not fit" state_mismatch,
}

async fn guest_powers_off(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("off", "do=poweroff")).await?;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await?;
    claim(reason == ExitReason::PoweredOff, format!("it ended as: {reason}"))?;
    claim(vm.serial().tail().contains("bye"), "its last words are in the serial log")
}

async fn power_button(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.ready(&bench.machine("button", "")).await?;
    vm.request_shutdown().await?;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await?;
    claim(reason == ExitReason::PoweredOff, format!("it ended as: {reason}"))
}

async fn power_cut(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("cut", "do=silent")).await?;
    let process = vm.info().pid.and_then(registry::mark);
    let reason = vm.power_off().await?;
    claim(reason == ExitReason::Stopped, format!("it ended as: {reason}"))?;
    claim(!process.is_some_and(registry::is_alive), "its process is gone")?;
    claim(vm.power_off().await? == ExitReason::Stopped, "a second time is no error")
}

async fn dropped_machine(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("dropped", "do=silent")).await?;
    let process = vm.info().pid.and_then(registry::mark);
    let watch = vm.exit_watch();
    drop(vm);
    let reason = tokio::time::timeout(Duration::from_secs(10), watch.wait()).await;
    claim(reason == Ok(ExitReason::Stopped), format!("it ended as: {reason:?}"))?;
    claim(!process.is_some_and(registry::is_alive), "its process is gone")
}

async fn guest_reset(bench: &Bench) -> Result<(), Failure> {
    let mut spec = bench.machine("reset", "do=reboot");
    spec.on_guest_reset = OnGuestReset::Stop;
    let vm = bench.start(&spec).await?;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await?;
    claim(reason == ExitReason::Reset, format!("it ended as: {reason}"))?;
    drop(vm);
    spec.on_guest_reset = OnGuestReset::Restart;
    let vm = bench.start(&spec).await?;
    let mut events = vm.events();
    let seen = async {
        loop {
            match events.recv().await {
                Ok(VmEvent::Reset { by_guest: true }) => return true,
                Ok(VmEvent::Ended(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    };
    let seen = tokio::time::timeout(BOOT, seen).await;
    claim(seen == Ok(true), format!("a reset was told: {seen:?}"))?;
    vm.power_off().await?;
    Ok(())
}

async fn kernel_panic(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("panic", "do=exit")).await?;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await?;
    let ExitReason::Panicked { message } = &reason else {
        return Err(Failure::Claim(format!("it ended as: {reason}")));
    };
    let told = message.as_deref().unwrap_or_default();
    claim(told.contains("Attempted to kill init"), format!("the message is {message:?}"))
}

async fn hypervisor_dies(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("killed", "do=silent")).await?;
    let Some(pid) = vm.info().pid else {
        return Err(Failure::Driver(Error::Unsupported {
            driver: vm.info().driver,
            what: "say which process a machine is".into(),
        }));
    };
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    let reason = vm.exit_watch().wait_at_most(BOOT, vm.serial()).await?;
    claim(matches!(reason, ExitReason::Died { .. }), format!("it ended as: {reason}"))
}

async fn killed_gilt(bench: &Bench) -> Result<(), Failure> {
    let disk = bench.path("held.qcow2");
    bench.driver.create_disk(&disk, bench.driver.disk_format(), 64 << 20).await?;
    let Some(holder) = &bench.holder else {
        return Err(Failure::Claim("there is no process to kill".into()));
    };
    let mut holder = tokio::process::Command::from(holder(&disk));
    let mut holder = holder.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let Some(stdout) = holder.stdout.take() else {
        return Err(Failure::Claim("the holder has no stdout".into()));
    };
    let mut lines = tokio::io::BufReader::new(stdout).lines();
    let holding = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(pid) = line.strip_prefix(HOLDING) {
                return Ok(pid.parse().ok());
            }
        }
        Err(Failure::Claim("the holder ended before its machine ran".into()))
    };
    let pid: Option<u32> = tokio::time::timeout(BOOT, holding)
        .await
        .map_err(|_| Failure::Claim("the holder says nothing".into()))??;
    let machine = pid.and_then(registry::mark);
    // Nothing of a living gilt is cleaned up.
    bench.driver.clean_up().await?;
    let second = bench.machine_with_disk("second", &disk);
    claim(bench.start(&second).await.is_err(), "its machine holds its disk")?;

    holder.kill().await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let vm = loop {
        bench.driver.clean_up().await?;
        match bench.start(&second).await {
            Ok(vm) => break vm,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    claim(!machine.is_some_and(registry::is_alive), "its process is gone")?;
    vm.power_off().await.map(drop).map_err(Into::into)
}

async fn early_end(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.start(&bench.machine("early", "do=poweroff")).await?;
    let begun = Instant::now();
    let error = said(&*vm, "never said").await.err();
    claim(begun.elapsed() < BOOT, "it did not wait for the deadline")?;
    match error {
        Some(Error::Ended { reason: ExitReason::PoweredOff, serial_tail, .. }) => {
            claim(serial_tail.contains("bye"), "the serial tail comes with the error")
        }
        other => Err(Failure::Claim(format!("the wait gave {other:?}"))),
    }
}

async fn keys(bench: &Bench) -> Result<(), Failure> {
    const TEXT: &str = "linux /boot/vmlinuz root=LABEL=x answer=\"http://10.0.2.2:80/A_b?c={1}\"";
    let vm = bench.ready(&bench.machine("keys", "do=echo")).await?;
    let mut typer = BootTyper::new(&*vm);
    let steps = boot_command::parse(&format!("{TEXT}<enter><waitSerial 'typed: ' 60s>"))?;
    typer.play(&steps).await?;
    said(&*vm, &format!("typed: {TEXT}\n")).await?;
    Ok(())
}

async fn screenshot(bench: &Bench) -> Result<(), Failure> {
    let vm = bench.ready(&bench.machine("screen", "console=tty0 do=echo")).await?;
    let screen = vm.screenshot().await?;
    claim(screen.width >= 640 && screen.height >= 400, format!("it is {screen:?}"))?;
    claim(!screen.is_blank(), "something is shown")?;
    let mut typer = BootTyper::new(&*vm);
    typer.play(&boot_command::parse("shown<waitScreenStable 500ms 30s>")?).await?;
    let png = bench.path("screen.png");
    vm.screenshot().await?.write_png(&png)?;
    claim(crate::screen::Screen::read_png(&png)? != screen, "typing changes it")
}

async fn media(bench: &Bench) -> Result<(), Failure> {
    let (first, second) = (bench.path("first.iso"), bench.path("second.iso"));
    AnswerMedium::new("FIRST")?.file("answer.env", "one").write(&first)?;
    AnswerMedium::new("SECOND")?.file("answer.env", "two").write(&second)?;
    let mut spec = bench.machine("media", "do=cdrom");
    spec.cdroms.push(CdromSpec {
        medium: Some(first),
        interface: CdromInterface::VirtioScsi,
        boot_index: None,
    });
    let vm = bench.ready(&spec).await?;
    said(&*vm, "medium: one").await?;
    vm.change_medium(0, None).await?;
    said(&*vm, "no medium").await?;
    vm.change_medium(0, Some(&second)).await?;
    said(&*vm, "medium: two").await?;
    let error = vm.change_medium(7, None).await.err();
    claim(matches!(error, Some(Error::InvalidSpec { .. })), "there is no eighth drive")?;
    let error = vm.change_medium(0, Some(&bench.path("none"))).await.err();
    claim(matches!(error, Some(Error::InvalidSpec { .. })), "a missing medium is refused")?;
    let count = vm.serial().tail().matches("medium: two").count();
    said_again(&*vm, "medium: two", count).await
}

/// A refused change leaves the medium that was in.
async fn said_again(vm: &dyn crate::Vm, words: &str, before: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while vm.serial().tail().matches(words).count() <= before {
        claim(Instant::now() < deadline, format!("{words:?} was said again"))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn overlays(bench: &Bench) -> Result<(), Failure> {
    let (base, overlay) = (bench.path("base.qcow2"), bench.path("overlay.qcow2"));
    bench.driver.create_disk(&base, bench.driver.disk_format(), 64 << 20).await?;
    bench.driver.create_overlay(&base, bench.driver.disk_format(), &overlay).await?;
    let error =
        bench.driver.create_overlay(&base, bench.driver.disk_format(), &overlay).await.err();
    claim(error.is_some(), "an existing disk is not overwritten")?;
    let before = std::fs::read(&base)?;
    let vm = bench.ready(&bench.machine_with_disk("overlay", &overlay)).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    run(&*way_in, "printf MARK | dd of=/dev/vda conv=fsync 2>/dev/null").await?;
    way_in.close().await;
    vm.power_off().await?;
    claim(std::fs::read(&base)? == before, "the base is as it was")?;
    let flat = bench.path("flat.raw");
    bench.driver.flatten(&overlay, &flat, DiskFormat::Raw).await?;
    let flat = std::fs::read(&flat)?;
    claim(flat.len() == 64 << 20 && flat.starts_with(b"MARK"), "the flat disk holds the write")
}

async fn throw_away(bench: &Bench) -> Result<(), Failure> {
    let disk = bench.path("kept.qcow2");
    bench.driver.create_disk(&disk, bench.driver.disk_format(), 64 << 20).await?;
    let before = std::fs::read(&disk)?;
    let mut spec = bench.machine_with_disk("throw-away", &disk);
    spec.disks[0].throw_away_writes = true;
    let vm = bench.ready(&spec).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    run(&*way_in, "printf MARK | dd of=/dev/vda conv=fsync 2>/dev/null").await?;
    claim(run(&*way_in, "head -c 4 /dev/vda").await? == "MARK", "the guest sees its write")?;
    vm.power_off().await?;
    claim(std::fs::read(&disk)? == before, "the disk is as it was")
}

async fn disk_in_use(bench: &Bench) -> Result<(), Failure> {
    let disk = bench.path("one.qcow2");
    bench.driver.create_disk(&disk, bench.driver.disk_format(), 64 << 20).await?;
    let vm = bench.start(&bench.machine_with_disk("holder", &disk)).await?;
    match bench.start(&bench.machine_with_disk("second", &disk)).await {
        Ok(_) => Err(Failure::Claim("two machines write to one disk".into())),
        Err(Error::StartFailed { reason, .. }) => {
            claim(reason.contains("lock"), format!("the reason is {reason}"))?;
            claim(vm.exit_watch().ended().is_none(), "the first machine runs on")
        }
        Err(other) => Err(other.into()),
    }
}

async fn port_taken(bench: &Bench) -> Result<(), Failure> {
    let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = holder.local_addr()?.port();
    let mut spec = bench.machine("port", "do=silent");
    let mut network = crate::spec::NetworkSpec::forwarding(22);
    network.forwards = vec![PortForward { host_port: Some(port), ..PortForward::to(22) }];
    spec.network = Some(network);
    match bench.start(&spec).await {
        Err(Error::PortTaken { port: told, .. }) => claim(told == port, "the port is named"),
        Err(other) => Err(other.into()),
        Ok(_) => Err(Failure::Claim("it started on a port that was taken".into())),
    }
}

/// The stdout of a command that must succeed.
async fn run(way_in: &dyn Communicator, line: &str) -> Result<String, Failure> {
    let outcome = way_in.exec(&GuestCommand::new(line), &mut quiet()).await?;
    claim(outcome.succeeded(), format!("`{line}`: {} {}", outcome.status, outcome.stderr_text()))?;
    Ok(outcome.stdout_text())
}

async fn exec_and_files(bench: &Bench) -> Result<(), Failure> {
    let mut spec = bench.machine("exec", "");
    spec.network = Some(crate::spec::NetworkSpec::forwarding(22));
    let vm = bench.start(&spec).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    let outcome = way_in
        .exec(&GuestCommand::new("cat; echo err >&2; exit 3").stdin("in"), &mut quiet())
        .await?;
    claim(outcome.status == ExitStatus::Code(3), "the exit code comes back")?;
    claim(outcome.stdout == b"in" && outcome.stderr == b"err\n", "streams are apart")?;
    let (up, down) = (bench.path("up"), bench.path("down"));
    std::fs::create_dir_all(up.join("sub"))?;
    let bytes: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(up.join("sub/file"), &bytes)?;
    way_in.upload(&up, "/tmp/up", None).await?;
    let got = way_in.download("/tmp/up", &down).await?;
    claim(got.files == 1 && got.bytes == 1_000_003, format!("{got:?} came back"))?;
    claim(std::fs::read(down.join("sub/file"))? == bytes, "every byte came back")?;
    way_in.close().await;

    // What is served here reaches the guest through a login, also through the next one.
    let server = HttpServer::start().await?;
    server.serve_path("file", up.join("sub/file"));
    let url = format!("{}/file", server.url(Ipv4Addr::LOCALHOST.into()));
    let line = format!("wget -q -O /tmp/got {url} && cmp /tmp/got /tmp/up/sub/file");
    let login = SshLogin { brings: vec![server.address().port()], ..bench.login.clone() };
    for _ in 0..2 {
        let way_in = login.connect(&*vm, BOOT).await?;
        run(&*way_in, &line).await?;
    }
    Ok(())
}

async fn reboot(bench: &Bench) -> Result<(), Failure> {
    let mut spec = bench.machine("reboot", "");
    spec.network = Some(crate::spec::NetworkSpec::forwarding(22));
    let vm = bench.start(&spec).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    let before = boot_id(&*way_in).await?;
    let line = "(sleep 0.2; reboot -f) >/dev/null 2>&1 &";
    let way_in = restart(way_in, &bench.login, &*vm, line, BOOT).await?;
    claim(boot_id(&*way_in).await? != before, "the boot is another")
}

async fn checkpoint(bench: &Bench) -> Result<(), Failure> {
    let (base, next) = (bench.path("base.qcow2"), bench.path("next.qcow2"));
    bench.driver.create_disk(&base, bench.driver.disk_format(), 64 << 20).await?;
    let vm = bench.start(&bench.machine_with_disk("checkpoint", &base)).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    let boot = boot_id(&*way_in).await?;
    run(&*way_in, "printf BEFORE | dd of=/dev/vda conv=fsync 2>/dev/null").await?;
    let request = CheckpointRequest { new_overlays: vec![next.clone()], ..Default::default() };
    let made = vm.checkpoint(&request).await;
    // Whoever saves a layer goes by what the driver says of itself.
    let refused = matches!(made, Err(Error::Unsupported { .. }));
    claim(refused != bench.driver.freezes(), "it freezes as it says")?;
    let made = made?;
    claim(made.disks == [base.clone()], "the frozen disk is the one it began with")?;
    made.rest.done().await?;
    claim(vm.disks() == [next.clone()], "it goes on over the new one")?;
    run(&*way_in, "printf AFTER! | dd of=/dev/vda conv=fsync 2>/dev/null").await?;
    claim(boot_id(&*way_in).await? == boot, "nothing was rebooted")?;
    // The frozen disk can be used while the machine runs on.
    let (copy, raw) = (bench.path("copy.qcow2"), bench.path("copy.raw"));
    bench.driver.create_overlay(&base, bench.driver.disk_format(), &copy).await?;
    bench.driver.flatten(&copy, &raw, DiskFormat::Raw).await?;
    claim(std::fs::read(&raw)?.starts_with(b"BEFORE"), "the checkpoint holds what was before")?;
    // And once more, over the overlay.
    let third = bench.path("third.qcow2");
    let request = CheckpointRequest { new_overlays: vec![third], ..request };
    claim(
        vm.checkpoint(&request).await?.disks == [next.clone()],
        "a second one freezes the first",
    )?;
    run(&*way_in, "printf LATER! | dd of=/dev/vda conv=fsync 2>/dev/null").await?;
    vm.power_off().await?;
    let raw = bench.path("next.raw");
    bench.driver.flatten(&next, &raw, DiskFormat::Raw).await?;
    claim(std::fs::read(&raw)?.starts_with(b"AFTER!"), "each checkpoint holds its own time")
}

/// Asked first, where a boot would only lead to the same answer.
async fn needs_saved_memory(bench: &Bench) -> Result<(), Failure> {
    if bench.driver.capabilities().await?.saved_memory {
        return Ok(());
    }
    let (driver, what) = (bench.driver.name(), "save a machine's memory".into());
    Err(Failure::Driver(Error::Unsupported { driver, what }))
}

async fn resume(bench: &Bench) -> Result<(), Failure> {
    needs_saved_memory(bench).await?;
    let (base, next) = (bench.path("base.qcow2"), bench.path("next.qcow2"));
    let memory = bench.path("memory");
    bench.driver.create_disk(&base, bench.driver.disk_format(), 64 << 20).await?;
    let vm = bench.start(&bench.machine_with_disk("saved", &base)).await?;
    let way_in = bench.login.connect(&*vm, BOOT).await?;
    let boot = boot_id(&*way_in).await?;
    run(&*way_in, "echo kept > /tmp/m; printf BEFORE | dd of=/dev/vda conv=fsync").await?;
    let request = CheckpointRequest {
        new_overlays: vec![next],
        memory_state: Some(memory.clone()),
        ..Default::default()
    };
    vm.checkpoint(&request).await?.rest.done().await?;
    run(&*way_in, "echo lost > /tmp/m; printf AFTER! | dd of=/dev/vda conv=fsync").await?;
    vm.power_off().await?;
    // Twice: a state is not used up.
    for round in ["one", "two"] {
        let overlay = bench.path("resumed.qcow2");
        bench.driver.create_overlay(&base, bench.driver.disk_format(), &overlay).await?;
        let spec = bench.machine_with_disk(round, &overlay);
        let vm = bench.start_from(&spec, StartFrom::SavedState(&memory)).await?;
        let way_in = bench.login.connect(&*vm, BOOT).await?;
        claim(boot_id(&*way_in).await? == boot, "it did not boot")?;
        let seen = run(&*way_in, "cat /tmp/m; head -c 6 /dev/vda").await?;
        claim(seen == "kept\nBEFORE", format!("round {round} sees {seen:?}"))?;
        run(&*way_in, "echo used > /tmp/m").await?;
        vm.power_off().await?;
    }
    Ok(())
}

async fn state_mismatch(bench: &Bench) -> Result<(), Failure> {
    needs_saved_memory(bench).await?;
    let memory = bench.path("memory");
    let mut spec = bench.machine("small", "");
    let vm = bench.start(&spec).await?;
    said(&*vm, READY).await?;
    let request = CheckpointRequest {
        new_overlays: Vec::new(),
        memory_state: Some(memory.clone()),
        ..Default::default()
    };
    vm.checkpoint(&request).await?.rest.done().await?;
    vm.power_off().await?;
    spec.memory_bytes *= 2;
    match bench.start_from(&spec, StartFrom::SavedState(&memory)).await {
        Err(Error::StateMismatch { reason, .. }) => {
            claim(reason.contains("256M"), format!("the reason is {reason}"))
        }
        Err(other) => Err(other.into()),
        Ok(_) => Err(Failure::Claim("a state for 256 MiB was given 512 MiB".into())),
    }
}
