//! A running domain.
//!
//! ```text
//!   virsh "create --paused --autodestroy; event --all --loop"      one process: the holder
//!     │  its connection owns the domain: when it ends, however it ends, libvirt destroys the domain
//!     └─ its lines decide how the machine ended:
//!          Stopped Shutdown  -> PoweredOff      Crashed Panicked, "Kernel panic" -> Panicked
//!          reboot, and Stop  -> Reset           io-error-reason … pause          -> StorageFailed
//!          Stopped Destroyed -> Stopped         anything else                    -> Died
//! ```
//! All verbs go to the domain by the UUID this process made for it; nothing else can be meant.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    sync::{Notify, OnceCell, broadcast, watch},
};

use super::{
    NAME,
    events::{self, Line, Stopped},
    far::{Far, Next},
    tunnel,
    typing::Held,
    virsh::{self, Virsh, is_gone, plain_reason},
};
use crate::{
    driver::*,
    ending::Ending,
    error::{Error, Result},
    keys::KeyEvent,
    process::tail_text,
    qemu::{image, tpm::Tpm},
    registry::{Recorded, RunRegistry},
    screen::Screen,
    serial::SerialLog,
    spec::{DiskFormat, Display, Firmware, MachineSpec, OnGuestReset},
};

/// libvirt asks a new QEMU many things before it says that the domain is there.
const START_LIMIT: Duration = Duration::from_secs(120);
/// From `resume` to its event, on a busy host or over SSH.
const EVENT_LIMIT: Duration = Duration::from_secs(5);
const EVENT_TRIES: u32 = 6;
const KILL_LIMIT: Duration = Duration::from_secs(60);
/// What a reset of ours sets off comes within this time.
const RESET_ECHO: Duration = Duration::from_secs(3);
/// The event of a domain's end comes with the answer to `destroy`, if it comes at all.
const END_ECHO: Duration = Duration::from_secs(3);
/// QEMU's queue of keys holds 1024 entries, three for each press or release.
const CHORDS_AT_ONCE: usize = 40;

/// Everything a domain needs to come up.
pub(super) struct Launch<'a> {
    pub spec: MachineSpec,
    pub run_dir: PathBuf,
    pub virsh: Virsh,
    pub name: String,
    pub uuid: String,
    pub xml: String,
    pub info: VmInfo,
    /// The names of disks and of CD drives.
    pub targets: (Vec<String>, Vec<String>),
    pub tpm: Option<Tpm>,
    pub registry: &'a RunRegistry,
    pub key_interval: Duration,
    /// What is on another host; `None` where the domain's process is one of this.
    pub far: Option<Far>,
}

#[derive(Debug)]
struct Shared {
    ending: Ending,
    stopped_by_us: AtomicBool,
    reset_by_us: Mutex<Option<Instant>>,
    kill: Notify,
    gone: watch::Sender<bool>,
    stop_at_reset: bool,
    targets: (Vec<String>, Vec<String>),
}

/// A machine in a domain. Dropping it destroys the domain.
#[derive(Debug)]
pub(super) struct LibvirtVm {
    info: VmInfo,
    spec: MachineSpec,
    run_dir: PathBuf,
    virsh: Virsh,
    uuid: String,
    serial: SerialLog,
    shared: Arc<Shared>,
    exit: ExitWatch,
    key_interval: Duration,
    disks: Mutex<Vec<PathBuf>>,
    /// Whether each CD drive has a medium.
    media: Mutex<Vec<bool>>,
    /// One change of the machine's drives at a time.
    busy: Arc<tokio::sync::Mutex<()>>,
    keyboard: tokio::sync::Mutex<Held>,
    tpm: tokio::sync::Mutex<Option<Tpm>>,
    far: Option<Arc<Far>>,
    /// That all which was far has come back.
    settled: OnceCell<()>,
    _recorded: Recorded,
}

impl Launch<'_> {
    pub async fn run(self) -> Result<LibvirtVm> {
        let machine = self.spec.name.clone();
        let serial = SerialLog::continuing(&self.spec.serial_log);
        let description = self.run_dir.join(format!("{}.xml", self.name));
        std::fs::write(&description, &self.xml).map_err(Error::io("write", &description))?;
        let path = std::path::absolute(&description).map_err(Error::io("find", &description))?;
        let commands = format!(
            "create --paused --autodestroy {}; event --all --loop --domain {}",
            virsh::quote(&path.to_string_lossy()),
            self.uuid
        );
        let mut holder = self.virsh.invocation().arg(commands).spawn_tied(Stdio::null()).await?;
        let mut children: Vec<u32> = holder.id().into_iter().collect();
        let mut scratch = vec![path];
        if let Some(tpm) = &self.tpm {
            children.extend(tpm.pid());
            scratch.push(tpm.socket_dir.path().to_path_buf());
        }
        let recorded = self.registry.record(&format!("machine {machine}"), &children, &scratch)?;
        let (Some(stdout), Some(stderr)) = (holder.stdout.take(), holder.stderr.take()) else {
            return Err(Error::StartFailed { machine, reason: "its streams are missing".into() });
        };
        let stderr = tokio::spawn(async move {
            let mut words = Vec::new();
            // What came before a broken pipe is still worth showing.
            let _ = stderr.take(64 << 10).read_to_end(&mut words).await;
            plain_reason(&tail_text(&words))
        });
        let mut lines = BufReader::new(stdout).lines();
        let far = self.far.as_ref().map(|far| (far.serial_port, &serial));
        if let Err(error) = set_going(&self.virsh, &self.uuid, &machine, &mut lines, far).await {
            // Its own words say more than that it ended. Its end is the domain's, too.
            let _ = holder.kill().await;
            let said = tokio::time::timeout(Duration::from_secs(2), stderr).await;
            if let Some(far) = &self.far
                && let Err(left) = far.remove_all().await
            {
                tracing::warn!(%left, "volumes were left on the other host");
            }
            return Err(match said {
                Ok(Ok(words)) if !words.is_empty() => Error::StartFailed { machine, reason: words },
                _ => error,
            });
        }
        let (exit_sender, exit) = ExitWatch::channel();
        let shared = Arc::new(Shared {
            ending: Ending::new(exit_sender),
            stopped_by_us: AtomicBool::new(false),
            reset_by_us: Mutex::default(),
            kill: Notify::new(),
            gone: watch::channel(false).0,
            stop_at_reset: self.spec.on_guest_reset == OnGuestReset::Stop,
            targets: self.targets,
        });
        let watcher =
            Watcher { shared: shared.clone(), virsh: self.virsh.clone(), uuid: self.uuid.clone() };
        tokio::spawn(watcher.follow(holder, lines, serial.clone()));
        tokio::spawn(watch_for_panic(
            serial.clone(),
            shared.clone(),
            self.virsh.clone(),
            self.uuid.clone(),
        ));
        let pid = if self.far.is_none() { process_of(&self.uuid) } else { None };
        tracing::info!(machine, uuid = self.uuid, "domain started");
        Ok(LibvirtVm {
            info: VmInfo { pid, ..self.info },
            disks: Mutex::new(self.spec.disks.iter().map(|disk| disk.path.clone()).collect()),
            media: Mutex::new(self.spec.cdroms.iter().map(|c| c.medium.is_some()).collect()),
            run_dir: self.run_dir,
            virsh: self.virsh,
            uuid: self.uuid,
            serial,
            shared,
            exit,
            key_interval: self.key_interval,
            busy: Arc::default(),
            keyboard: tokio::sync::Mutex::default(),
            tpm: tokio::sync::Mutex::new(self.tpm),
            far: self.far.map(Arc::new),
            settled: OnceCell::new(),
            _recorded: recorded,
            spec: self.spec,
        })
    }
}

/// Waits for the paused domain and lets it run. That the event of it arrives proves that all later
/// ones will; when the domain was quicker than the watch on its events, it is paused and resumed
/// once more.
async fn set_going(
    virsh: &Virsh,
    uuid: &str,
    machine: &str,
    lines: &mut Lines<BufReader<ChildStdout>>,
    far_serial: Option<(u16, &SerialLog)>,
) -> Result<()> {
    let failed =
        |reason: &str| Error::StartFailed { machine: machine.into(), reason: reason.into() };
    let created = wait_for(lines, |line| *line == Line::Created);
    match tokio::time::timeout(START_LIMIT, created).await {
        Ok(true) => {}
        Ok(false) => return Err(failed("virsh ended")),
        Err(_) => return Err(failed("libvirt does not say that the domain is there")),
    }
    if let Some((port, log)) = far_serial {
        tunnel::follow_serial(port, log.clone()).await?;
        serial_is_heard(virsh, uuid, machine).await?;
    }
    for _ in 0..EVENT_TRIES {
        virsh.run(&["resume", uuid]).await?;
        let resumed = wait_for(lines, |line| *line == Line::Resumed);
        match tokio::time::timeout(EVENT_LIMIT, resumed).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(failed("the domain ended")),
            Err(_) => virsh.run(&["suspend", uuid]).await.map(drop)?,
        }
    }
    Err(failed("libvirt tells no events of the domain"))
}

/// Waits until the other end of the serial line is taken: what a guest says before that is lost.
async fn serial_is_heard(virsh: &Virsh, uuid: &str, machine: &str) -> Result<()> {
    let deadline = Instant::now() + EVENT_LIMIT * EVENT_TRIES;
    loop {
        let told =
            virsh.run(&["qemu-monitor-command", uuid, r#"{"execute":"query-chardev"}"#]).await?;
        let told: serde_json::Value = serde_json::from_str(&told).map_err(|e| {
            Error::Malformed { what: "query-chardev".into(), reason: e.to_string() }
        })?;
        let all = told["return"].as_array().map(Vec::as_slice).unwrap_or_default();
        let serial = all.iter().find(|c| c["label"] == "charserial0");
        let name = serial.and_then(|c| c["filename"].as_str()).unwrap_or("disconnected");
        if !name.starts_with("disconnected") {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::StartFailed {
                machine: machine.into(),
                reason: "its serial line cannot be reached through ssh".into(),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `false` when the lines end, or the domain does, before a wanted one.
async fn wait_for(
    lines: &mut Lines<BufReader<ChildStdout>>,
    wanted: impl Fn(&Line) -> bool,
) -> bool {
    while let Ok(Some(text)) = lines.next_line().await {
        tracing::debug!(text, "virsh says");
        match events::parse(&text) {
            Some(line) if wanted(&line) => return true,
            Some(Line::Stopped(_)) => return false,
            _ => {}
        }
    }
    false
}

/// The hypervisor's process, found by the UUID on its command line.
fn process_of(uuid: &str) -> Option<u32> {
    let wanted = format!("-uuid\0{uuid}\0");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        line.windows(wanted.len()).any(|part| part == wanted.as_bytes()).then_some(pid)
    })
}

struct Watcher {
    shared: Arc<Shared>,
    virsh: Virsh,
    uuid: String,
}

impl Watcher {
    /// Owns the holder: when this ends, so does the domain.
    async fn follow(
        self,
        mut holder: Child,
        mut lines: Lines<BufReader<ChildStdout>>,
        serial: SerialLog,
    ) {
        let mut destroyed: Option<tokio::time::Instant> = None;
        let reason = loop {
            let patience = async {
                match destroyed {
                    Some(at) => tokio::time::sleep_until(at + END_ECHO).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(text)) => {
                        tracing::debug!(text, "virsh says");
                        if let Some(reason) = events::parse(&text).and_then(|line| self.act(line, &serial)) {
                            break reason;
                        }
                    }
                    _ if self.shared.stopped_by_us.load(Ordering::SeqCst) => break ExitReason::Stopped,
                    _ => break ExitReason::Died {
                        status: "the connection to libvirt ended".into(),
                        stderr_tail: String::new(),
                    },
                },
                () = self.shared.kill.notified() => match self.virsh.run(&["destroy", &self.uuid]).await {
                    Ok(_) => destroyed = Some(tokio::time::Instant::now()),
                    Err(error) if is_gone(&error) => destroyed = Some(tokio::time::Instant::now()),
                    Err(error) => {
                        // The holder's end destroys it as well.
                        tracing::warn!(%error, "a domain could not be destroyed");
                        break ExitReason::Stopped;
                    }
                },
                // The event of its end may have been lost with a daemon that was restarted.
                () = patience => break ExitReason::Stopped,
            }
        };
        let _ = holder.kill().await;
        tracing::info!(%reason, "domain ended");
        self.shared.ending.end(reason);
        self.shared.gone.send_replace(true);
    }

    /// What a line means; a reason when the domain is gone.
    fn act(&self, line: Line, serial: &SerialLog) -> Option<ExitReason> {
        let shared = &self.shared;
        let ours = shared.stopped_by_us.load(Ordering::SeqCst);
        match line {
            Line::Suspended => shared.ending.tell(VmEvent::Paused),
            Line::Resumed => shared.ending.tell(VmEvent::Running),
            Line::ShuttingDown { by_guest } => {
                shared.ending.tell(VmEvent::ShuttingDown { by_guest });
            }
            Line::Rebooted => {
                let last = shared.reset_by_us.lock().ok().and_then(|at| *at);
                let by_guest = last.is_none_or(|at| at.elapsed() > RESET_ECHO);
                shared.ending.tell(VmEvent::Reset { by_guest });
                if by_guest && shared.stop_at_reset {
                    shared.ending.end(ExitReason::Reset);
                    shared.stopped_by_us.store(true, Ordering::SeqCst);
                    shared.kill.notify_one();
                }
            }
            Line::Panicked => {
                // The kernel tells the device first and prints its reason a moment earlier or later.
                let message = crate::serial::diagnose(&serial.tail());
                shared.ending.tell(VmEvent::Panicked { message: message.clone() });
                shared.ending.end(ExitReason::Panicked { message });
            }
            Line::DiskError { disk, disk_full, stops, reason } => {
                shared.ending.tell(VmEvent::DiskError {
                    disk: disk.clone(),
                    disk_full,
                    reason: reason.clone(),
                });
                if stops {
                    shared.ending.end(ExitReason::StorageFailed { disk, disk_full, reason });
                }
            }
            Line::Tray { device, open } => {
                shared.ending.tell(VmEvent::TrayMoved { cdrom: device, open });
            }
            Line::Stopped(Stopped::PoweredOff) => return Some(ExitReason::PoweredOff),
            Line::Stopped(_) if ours => return Some(ExitReason::Stopped),
            Line::Stopped(Stopped::Crashed) => return Some(ExitReason::Panicked { message: None }),
            Line::Stopped(Stopped::Destroyed) => {
                return Some(ExitReason::Died {
                    status: "another client of libvirt destroyed it".into(),
                    stderr_tail: String::new(),
                });
            }
            Line::Stopped(Stopped::Otherwise(words)) => {
                return Some(ExitReason::Died {
                    status: format!("libvirt says: {words}"),
                    stderr_tail: String::new(),
                });
            }
            Line::Created => {}
            Line::Other(words) => tracing::debug!(words, "not acted on"),
        }
        None
    }
}

/// Kernels without a driver for the panic device say it on the serial line only.
async fn watch_for_panic(serial: SerialLog, shared: Arc<Shared>, virsh: Virsh, uuid: String) {
    let mut gone = shared.gone.subscribe();
    let message = tokio::select! {
        _ = gone.wait_for(|gone| *gone) => return,
        message = serial.kernel_panic() => message,
    };
    // It would reboot or spin otherwise; stopped, it can be looked at.
    if let Err(error) = virsh.run(&["suspend", &uuid]).await {
        tracing::debug!(%error, "a panicked domain was not suspended");
    }
    shared.ending.tell(VmEvent::Panicked { message: Some(message.clone()) });
    shared.ending.end(ExitReason::Panicked { message: Some(message) });
}

impl LibvirtVm {
    async fn tell(&self, command: &str, more: &[&str]) -> Result<String> {
        let mut arguments = vec![command, self.uuid.as_str()];
        arguments.extend(more);
        self.virsh.run(&arguments).await
    }

    fn kill(&self) {
        self.shared.stopped_by_us.store(true, Ordering::SeqCst);
        self.shared.kill.notify_one();
    }

    fn wrong(&self, what: String) -> Error {
        Error::InvalidSpec { machine: self.info.name.clone(), what }
    }

    /// The part of a checkpoint for which the guest stands still.
    async fn freeze(&self, request: &CheckpointRequest, next: Option<&Next>) -> Result<()> {
        if !request.new_overlays.is_empty() {
            let mut arguments: Vec<String> = ["snapshot-create-as", &self.uuid, "--no-metadata"]
                .iter()
                .chain(&["--disk-only", "--atomic", "--reuse-external"])
                .map(|word| (*word).to_owned())
                .collect();
            let paths = match next {
                Some(next) => next.paths(),
                None => absolute(&request.new_overlays)?,
            };
            for (target, path) in self.shared.targets.0.iter().zip(paths) {
                // virsh takes a comma in a value twice.
                let path = path.replace(',', ",,");
                arguments.push("--diskspec".into());
                arguments.push(format!("{target},snapshot=external,file={path}"));
            }
            self.virsh.run(&arguments).await?;
            if let Ok(mut disks) = self.disks.lock() {
                disks.clone_from(&request.new_overlays);
            }
        }
        if let (Some(to), Firmware::Uefi { variables, .. }) =
            (&request.uefi_variables, &self.spec.firmware)
        {
            match &self.far {
                Some(far) => far.bring_variables(to).await?,
                None => {
                    std::fs::copy(variables, to)
                        .map_err(Error::io("copy UEFI variables to", to))?;
                }
            }
        }
        if let (Some(to), Some(tpm)) = (&request.tpm_state, &self.spec.tpm) {
            crate::qemu::tpm::copy_state(&tpm.state_dir, to)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Vm for LibvirtVm {
    fn info(&self) -> &VmInfo {
        &self.info
    }

    fn serial(&self) -> &SerialLog {
        &self.serial
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.shared.ending.events()
    }

    fn exit_watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    async fn send_keys(&self, events: &[KeyEvent]) -> Result<()> {
        let mut held = self.keyboard.lock().await;
        // A press and its release take half an interval each; QEMU keeps the time.
        let hold = self.key_interval / 2;
        for some in held.chords(events).chunks(CHORDS_AT_ONCE) {
            let mut commands = Vec::new();
            let mut strokes = 0;
            for chord in some {
                let codes: Vec<String> =
                    chord.iter().map(|key| key.linux_code().to_string()).collect();
                strokes += 2 * chord.len();
                commands.push(format!(
                    "send-key {} --codeset linux --holdtime {} {}",
                    self.uuid,
                    hold.as_millis(),
                    codes.join(" ")
                ));
            }
            let begun = Instant::now();
            self.virsh.run(&[commands.join("; ")]).await?;
            // virsh returns when the keys stand in QEMU's queue; typed they are when it is empty.
            let takes = hold * u32::try_from(strokes).unwrap_or(u32::MAX);
            tokio::time::sleep(takes.saturating_sub(begun.elapsed())).await;
        }
        Ok(())
    }

    async fn screenshot(&self) -> Result<Screen> {
        if self.spec.display == Display::None {
            return Err(Error::Unsupported {
                driver: NAME,
                what: "photograph a machine without a graphics adapter".into(),
            });
        }
        let picture = tempfile::Builder::new()
            .prefix("screen-")
            .tempfile_in(&self.run_dir)
            .map_err(Error::io("write in", &self.run_dir))?;
        self.tell("screenshot", &["--file", &picture.path().to_string_lossy()]).await?;
        Screen::from_picture(
            &std::fs::read(picture.path()).map_err(Error::io("read", picture.path()))?,
        )
    }

    async fn request_shutdown(&self) -> Result<()> {
        self.tell("shutdown", &["--mode", "acpi"]).await?;
        self.shared.ending.tell(VmEvent::ShutdownRequested);
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        if let Ok(mut at) = self.shared.reset_by_us.lock() {
            *at = Some(Instant::now());
        }
        self.tell("reset", &[]).await.map(drop)
    }

    async fn power_off(&self) -> Result<ExitReason> {
        let mut gone = self.shared.gone.subscribe();
        if !*gone.borrow() {
            self.kill();
        }
        let ended = tokio::time::timeout(KILL_LIMIT, gone.wait_for(|gone| *gone)).await.is_ok();
        if let Some(tpm) = self.tpm.lock().await.take() {
            tpm.stop().await;
        }
        match self.exit.ended() {
            Some(reason) if ended => {
                if let Some(far) = &self.far {
                    self.settled.get_or_try_init(|| far.bring_all()).await?;
                }
                Ok(reason)
            }
            _ => Err(Error::TimedOut {
                subject: format!("domain {} to be destroyed", self.uuid),
                after: KILL_LIMIT,
                last_seen: "libvirt does not end it".into(),
                serial_tail: String::new(),
            }),
        }
    }

    async fn change_medium(&self, cdrom: usize, medium: Option<&Path>) -> Result<()> {
        let _busy = self.busy.lock().await;
        let target = self.shared.targets.1.get(cdrom).cloned();
        let target = target.ok_or_else(|| self.wrong(format!("there is no CD drive {cdrom}")))?;
        if let Some(path) = medium.filter(|path| !path.is_file()) {
            return Err(self.wrong(format!("{} does not exist", path.display())));
        }
        let loaded = |now: bool| {
            if let Ok(mut media) = self.media.lock() {
                media[cdrom] = now;
            }
        };
        let had = self.media.lock().map(|media| media[cdrom]).unwrap_or(true);
        if had {
            // The guest may have locked the tray of a medium it uses.
            self.tell("change-media", &[&target, "--eject", "--live", "--force"]).await?;
            loaded(false);
        }
        if let Some(path) = medium {
            let path = match &self.far {
                Some(far) => far.medium(cdrom, path).await?,
                None => absolute(&[path.to_path_buf()])?.remove(0),
            };
            self.tell("change-media", &[&target, &path, "--insert", "--live", "--force"]).await?;
            loaded(true);
        }
        Ok(())
    }

    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<Checkpoint> {
        let busy = self.busy.clone().lock_owned().await;
        if request.memory_state.is_some() {
            return Err(Error::Unsupported {
                driver: NAME,
                what: "keep a guest's memory: a domain that libvirt restores is not bound to the life \
                       of gilt"
                    .into(),
            });
        }
        if request.tpm_state.is_some() && self.far.is_some() {
            return Err(Error::Unsupported {
                driver: NAME,
                what: "bring a TPM's state here from another host".into(),
            });
        }
        let frozen = self.disks();
        if frozen.len() != request.new_overlays.len() {
            return Err(self.wrong(format!(
                "{} disks but {} new overlays",
                frozen.len(),
                request.new_overlays.len()
            )));
        }
        for (index, (file, overlay)) in frozen.iter().zip(&request.new_overlays).enumerate() {
            let disk = self.spec.disks.get(index).filter(|disk| disk.path == *file);
            let format = disk.map_or(DiskFormat::Qcow2, |disk| disk.format);
            let names = request.backing_names.as_ref();
            let name = names.and_then(|names| names.get(index)).unwrap_or(file);
            image::create_overlay_of_running(file, format, name, overlay).await?;
        }
        let next = match &self.far {
            Some(far) => Some(far.next(&request.new_overlays).await?),
            None => None,
        };
        let begun = Instant::now();
        self.tell("suspend", &[]).await?;
        let result = self.freeze(request, next.as_ref()).await;
        // The guest goes on, whatever came of it.
        self.tell("resume", &[]).await?;
        let paused_for = begun.elapsed();
        if let (Some(far), Some(next)) = (&self.far, next) {
            if result.is_ok() { far.froze(next).await? } else { far.forget(next).await? }
        }
        result?;
        // Opened now: the caller may move them while they are written out.
        let open = frozen.iter().map(|f| std::fs::File::open(f).map_err(Error::io("open", f)));
        let open: Vec<_> = open.collect::<Result<_>>()?;
        let names = frozen.clone();
        let rest = Rest::spawn(async move {
            let _busy = busy;
            let written = tokio::task::spawn_blocking(move || {
                open.iter()
                    .zip(&names)
                    .try_for_each(|(file, name)| file.sync_all().map_err(Error::io("sync", name)))
            });
            written.await.map_err(|panic| Error::Monitor {
                command: "checkpoint".into(),
                reason: panic.to_string(),
            })?
        });
        Ok(Checkpoint { disks: frozen, paused_for, rest })
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.disks.lock().map(|disks| disks.clone()).unwrap_or_default()
    }
}

impl Drop for LibvirtVm {
    fn drop(&mut self) {
        if !*self.shared.gone.borrow() {
            self.kill();
        }
        // Nobody waits for what is on the other host: it is removed beside, or by the next gilt.
        if let Some(far) = self.far.clone().filter(|_| !self.settled.initialized())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let mut gone = self.shared.gone.subscribe();
            runtime.spawn(async move {
                let _ = gone.wait_for(|gone| *gone).await;
                if let Err(error) = far.remove_all().await {
                    tracing::warn!(%error, "volumes were left on the other host");
                }
            });
        }
    }
}

/// The names libvirt takes.
fn absolute(paths: &[PathBuf]) -> Result<Vec<String>> {
    let each = paths.iter().map(|path| {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        Ok(path.to_string_lossy().into_owned())
    });
    each.collect()
}
