//! A running QEMU.
//!
//! ```text
//!   Launch::run ──▶ QemuVm ◀── verbs of the trait, by QMP
//!                     │
//!        watcher task ┴ owns the child; QMP events and the serial line decide how it ended:
//!          SHUTDOWN guest-shutdown -> PoweredOff      GUEST_PANICKED, "Kernel panic" -> Panicked
//!          SHUTDOWN guest-reset    -> Reset           BLOCK_IO_ERROR -> StorageFailed
//!          we killed it            -> Stopped         anything else  -> Died
//! ```

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    process::Child,
    sync::{Notify, broadcast, mpsc, watch},
};

use super::{
    args, image,
    qmp::{Event, Qmp},
    state::Fingerprint,
    tpm::{Tpm, copy_state},
};
use crate::{
    driver::*,
    ending::Ending,
    error::{Error, Result},
    keys::KeyEvent,
    process::{Invocation, shell_quote, tail_text},
    registry::{Recorded, RunRegistry},
    screen::Screen,
    serial::SerialLog,
    spec::{Display, Firmware, MachineSpec},
};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Loading or saving memory moves at most some GiB on the local disk.
const MIGRATION_LIMIT: Duration = Duration::from_secs(300);
/// A monitor that does not answer does not hold up the end of a machine.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
const KILL_LIMIT: Duration = Duration::from_secs(15);
const STDERR_KEPT: usize = 8 << 10;

/// Everything a machine needs to come up.
pub(super) struct Launch<'a> {
    pub spec: MachineSpec,
    pub run_dir: PathBuf,
    pub invocation: Invocation,
    pub info: VmInfo,
    pub tpm: Option<Tpm>,
    pub fingerprint: Fingerprint,
    pub registry: &'a RunRegistry,
    pub key_interval: Duration,
}

/// What the watcher, the event reader and the machine share.
#[derive(Debug)]
struct Shared {
    ending: Ending,
    /// The reason of the last SHUTDOWN event.
    shutdown: Mutex<Option<String>>,
    stopped_by_us: AtomicBool,
    stderr: Mutex<Vec<u8>>,
    kill: Notify,
    gone: watch::Sender<bool>,
}

impl Shared {
    fn end(&self, reason: ExitReason) {
        self.ending.end(reason);
    }

    fn tell(&self, event: VmEvent) {
        self.ending.tell(event);
    }

    fn stderr_tail(&self) -> String {
        self.stderr.lock().map(|s| tail_text(&s)).unwrap_or_default()
    }
}

/// A machine in a QEMU process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct QemuVm {
    info: VmInfo,
    spec: MachineSpec,
    run_dir: PathBuf,
    serial: SerialLog,
    qmp: Qmp,
    shared: Arc<Shared>,
    exit: ExitWatch,
    fingerprint: Fingerprint,
    key_interval: Duration,
    /// Node name and file of each disk, and of each drive's medium.
    disks: Mutex<Vec<(String, PathBuf)>>,
    media: Mutex<Vec<Option<String>>>,
    next_node: AtomicU64,
    /// One change of the machine's blocks at a time.
    busy: Arc<tokio::sync::Mutex<()>>,
    keyboard: tokio::sync::Mutex<()>,
    #[cfg(target_os = "linux")]
    handle: Option<std::os::fd::OwnedFd>,
    tpm: tokio::sync::Mutex<Option<Tpm>>,
    _recorded: Recorded,
}

impl Launch<'_> {
    pub async fn run(self, from: StartFrom<'_>) -> Result<QemuVm> {
        let machine = self.spec.name.clone();
        let serial = SerialLog::continuing(&self.spec.serial_log);
        let mut child = self.invocation.spawn_tied(Stdio::piped()).await?;
        let pid = child.id();
        let mut children: Vec<u32> = pid.into_iter().collect();
        let mut scratch = Vec::new();
        if let Some(tpm) = &self.tpm {
            children.extend(tpm.pid());
            scratch.push(tpm.socket_dir.path().to_path_buf());
        }
        let recorded = self.registry.record(&format!("machine {machine}"), &children, &scratch)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::StartFailed { machine, reason: "its streams are missing".into() });
        };
        let (exit_sender, exit) = ExitWatch::channel();
        let shared = Arc::new(Shared {
            ending: Ending::new(exit_sender),
            shutdown: Mutex::default(),
            stopped_by_us: AtomicBool::new(false),
            stderr: Mutex::default(),
            kill: Notify::new(),
            gone: watch::channel(false).0,
        });
        let stderr_done = tokio::spawn(keep_stderr(stderr, shared.clone()));
        let (qmp, events) = match Qmp::connect(stdout, stdin, START_LIMIT).await {
            Ok(connected) => connected,
            Err(error) => {
                // Its own words say more than the broken connection.
                let _ = child.kill().await;
                let _ = tokio::time::timeout(Duration::from_secs(2), stderr_done).await;
                let said = shared.stderr_tail();
                let reason =
                    if said.trim().is_empty() { error.to_string() } else { said.trim().to_owned() };
                return Err(Error::StartFailed { machine, reason });
            }
        };
        let events_done = tokio::spawn(follow_events(events, shared.clone(), serial.clone()));
        tokio::spawn(watch_child(child, shared.clone(), events_done, stderr_done));
        tokio::spawn(watch_for_panic(serial.clone(), shared.clone(), qmp.clone()));
        let media = self.spec.cdroms.iter().enumerate().map(|(index, cdrom)| {
            cdrom.medium.as_ref().map(|_| format!("{}-medium0", args::cdrom_id(index)))
        });
        let disks = self.spec.disks.iter().enumerate();
        let vm = QemuVm {
            info: VmInfo { pid, ..self.info },
            disks: Mutex::new(disks.map(|(i, d)| (args::disk_id(i), d.path.clone())).collect()),
            media: Mutex::new(media.collect()),
            run_dir: self.run_dir,
            serial,
            qmp,
            shared,
            exit,
            fingerprint: self.fingerprint,
            key_interval: self.key_interval,
            next_node: AtomicU64::new(1),
            busy: Arc::default(),
            keyboard: tokio::sync::Mutex::default(),
            #[cfg(target_os = "linux")]
            handle: pid.and_then(open_handle),
            tpm: tokio::sync::Mutex::new(self.tpm),
            _recorded: recorded,
            spec: self.spec,
        };
        if let StartFrom::SavedState(state) = from {
            vm.load_memory(state).await?;
        }
        tracing::info!(machine, pid, accelerator = vm.info.accelerator, "machine started");
        Ok(vm)
    }
}

#[cfg(target_os = "linux")]
fn open_handle(pid: u32) -> Option<std::os::fd::OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

async fn keep_stderr(mut stream: impl tokio::io::AsyncRead + Unpin, shared: Arc<Shared>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        tracing::debug!(text = %String::from_utf8_lossy(&buffer[..count]), "qemu says");
        if let Ok(mut kept) = shared.stderr.lock() {
            kept.extend_from_slice(&buffer[..count]);
            let excess = kept.len().saturating_sub(STDERR_KEPT);
            kept.drain(..excess);
        }
    }
}

async fn follow_events(
    mut events: mpsc::UnboundedReceiver<Event>,
    shared: Arc<Shared>,
    serial: SerialLog,
) {
    while let Some(event) = events.recv().await {
        tracing::debug!(?event, "qmp event");
        let by_guest = event.data["guest"].as_bool().unwrap_or(false);
        match event.name.as_str() {
            "STOP" => shared.tell(VmEvent::Paused),
            "RESUME" => shared.tell(VmEvent::Running),
            "RESET" => shared.tell(VmEvent::Reset { by_guest }),
            "POWERDOWN" => shared.tell(VmEvent::ShutdownRequested),
            "SHUTDOWN" => {
                if let Ok(mut last) = shared.shutdown.lock() {
                    *last = event.data["reason"].as_str().map(str::to_owned);
                }
                shared.tell(VmEvent::ShuttingDown { by_guest });
            }
            "GUEST_PANICKED" => {
                // The kernel tells the device first and prints its reason a moment earlier or
                // later; QEMU has stopped the guest, so what is there is all there will be.
                let message = crate::serial::diagnose(&serial.tail());
                shared.tell(VmEvent::Panicked { message: message.clone() });
                shared.end(ExitReason::Panicked { message });
            }
            "BLOCK_IO_ERROR" => {
                let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
                let disk = match text("node-name") {
                    name if name.is_empty() => text("device"),
                    name => name,
                };
                let disk_full = event.data["nospace"].as_bool().unwrap_or(false);
                let reason = text("reason");
                shared.tell(VmEvent::DiskError {
                    disk: disk.clone(),
                    disk_full,
                    reason: reason.clone(),
                });
                if event.data["action"] == "stop" {
                    shared.end(ExitReason::StorageFailed { disk, disk_full, reason });
                }
            }
            "DEVICE_TRAY_MOVED" => shared.tell(VmEvent::TrayMoved {
                cdrom: event.data["id"].as_str().unwrap_or_default().to_owned(),
                open: event.data["tray-open"].as_bool().unwrap_or(false),
            }),
            _ => {}
        }
    }
}

async fn watch_child(
    mut child: Child,
    shared: Arc<Shared>,
    events_done: tokio::task::JoinHandle<()>,
    stderr_done: tokio::task::JoinHandle<()>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = shared.kill.notified() => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    // The last events and words are still in the pipes.
    let drained = async { tokio::join!(events_done, stderr_done) };
    let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
    let shutdown = shared.shutdown.lock().ok().and_then(|mut s| s.take());
    let reason = match shutdown.as_deref() {
        Some("guest-shutdown") => ExitReason::PoweredOff,
        Some("guest-reset") => ExitReason::Reset,
        Some("guest-panic") => ExitReason::Panicked { message: None },
        _ if shared.stopped_by_us.load(Ordering::SeqCst) => ExitReason::Stopped,
        _ => ExitReason::Died {
            status: match status {
                Ok(status) => status.to_string(),
                Err(e) => e.to_string(),
            },
            stderr_tail: shared.stderr_tail(),
        },
    };
    tracing::info!(%reason, "machine ended");
    shared.end(reason);
    shared.gone.send_replace(true);
}

/// Kernels without a driver for the panic device say it on the serial line only.
async fn watch_for_panic(serial: SerialLog, shared: Arc<Shared>, qmp: Qmp) {
    let mut gone = shared.gone.subscribe();
    let message = tokio::select! {
        _ = gone.wait_for(|gone| *gone) => return,
        message = serial.kernel_panic() => message,
    };
    // It would reboot or spin otherwise; stopped, it can be looked at.
    let _ = qmp.stop().await;
    shared.tell(VmEvent::Panicked { message: Some(message.clone()) });
    shared.end(ExitReason::Panicked { message: Some(message) });
}

impl QemuVm {
    fn fresh_node(&self, base: &str) -> String {
        format!("{base}-n{}", self.next_node.fetch_add(1, Ordering::Relaxed))
    }

    async fn load_memory(&self, state: &Path) -> Result<()> {
        let state = std::path::absolute(state).map_err(Error::io("find", state))?;
        let uri = format!("exec:cat {}", shell_quote(&state.to_string_lossy()));
        let failed = |reason: String| Error::StateMismatch { path: state.clone(), reason };
        let loaded = async {
            self.qmp.execute("migrate-incoming", json!({"uri": uri})).await?;
            self.migration_done().await?;
            if self.qmp.status().await? != "running" {
                self.qmp.cont().await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = loaded.await {
            self.kill();
            // QEMU ends when it cannot read a state, and says why.
            let _ = tokio::time::timeout(KILL_LIMIT, self.exit.wait()).await;
            let said = self.shared.stderr_tail();
            let reason = if said.trim().is_empty() { error.to_string() } else { said };
            return Err(failed(reason.trim().to_owned()));
        }
        Ok(())
    }

    async fn migration_done(&self) -> Result<()> {
        let deadline = Instant::now() + MIGRATION_LIMIT;
        let refused = |reason: String| Error::Monitor { command: "migrate".into(), reason };
        loop {
            let (status, error) = self.qmp.migration().await?;
            match status.as_str() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    return Err(refused(error.unwrap_or_else(|| format!("it {status}"))));
                }
                _ if Instant::now() > deadline => {
                    return Err(refused(format!("still {status} at the deadline")));
                }
                _ => tokio::time::sleep(Duration::from_millis(15)).await,
            }
        }
    }

    fn kill(&self) {
        self.shared.stopped_by_us.store(true, Ordering::SeqCst);
        self.shared.kill.notify_one();
        // The watcher may never run again when the runtime is going down.
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle {
            use rustix::process::{Signal, pidfd_send_signal};
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }

    /// The part of a checkpoint for which the guest stands still.
    async fn freeze(
        &self,
        nodes: &[(String, String)],
        request: &CheckpointRequest,
        partial_memory: Option<&Path>,
    ) -> Result<()> {
        let actions: Vec<Value> = nodes
            .iter()
            .map(|(old, new)| {
                json!({"type": "blockdev-snapshot", "data": {"node": old, "overlay": new}})
            })
            .collect();
        if !actions.is_empty() {
            self.qmp.execute("transaction", json!({"actions": actions})).await?;
            if let Ok(mut disks) = self.disks.lock() {
                for ((disk, (_, new)), file) in
                    disks.iter_mut().zip(nodes).zip(&request.new_overlays)
                {
                    *disk = (new.clone(), file.clone());
                }
            }
        }
        if let (Some(to), Firmware::Uefi { variables, .. }) =
            (&request.uefi_variables, &self.spec.firmware)
        {
            std::fs::copy(variables, to).map_err(Error::io("copy UEFI variables to", to))?;
        }
        if let (Some(to), Some(tpm)) = (&request.tpm_state, &self.spec.tpm) {
            copy_state(&tpm.state_dir, to)?;
        }
        if let Some(partial) = partial_memory {
            let limits = json!({"max-bandwidth": i64::MAX / 2});
            self.qmp.execute("migrate-set-parameters", limits).await?;
            let uri = format!("exec:cat > {}", shell_quote(&partial.to_string_lossy()));
            self.qmp.execute("migrate", json!({"uri": uri})).await?;
            self.migration_done().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Vm for QemuVm {
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
        let _typing = self.keyboard.lock().await;
        for event in events {
            let key = json!({"type": "qcode", "data": event.key.qcode()});
            let input = json!({"type": "key", "data": {"down": event.down, "key": key}});
            self.qmp.execute("input-send-event", json!({"events": [input]})).await?;
            // One interval per stroke: a press and its release take half each.
            tokio::time::sleep(self.key_interval / 2).await;
        }
        Ok(())
    }

    async fn screenshot(&self) -> Result<Screen> {
        if self.spec.display == Display::None {
            return Err(Error::Unsupported {
                driver: "qemu",
                what: "photograph a machine without a graphics adapter".into(),
            });
        }
        let dump = tempfile::Builder::new()
            .prefix("screen-")
            .suffix(".ppm")
            .tempfile_in(&self.run_dir)
            .map_err(Error::io("write in", &self.run_dir))?;
        self.qmp.execute("screendump", json!({"filename": dump.path()})).await?;
        Screen::from_ppm(&std::fs::read(dump.path()).map_err(Error::io("read", dump.path()))?)
    }

    async fn request_shutdown(&self) -> Result<()> {
        self.qmp.execute("system_powerdown", Value::Null).await.map(drop)
    }

    async fn reset(&self) -> Result<()> {
        self.qmp.execute("system_reset", Value::Null).await.map(drop)
    }

    async fn power_off(&self) -> Result<ExitReason> {
        let mut gone = self.shared.gone.subscribe();
        if !*gone.borrow() {
            // Killed at once, QEMU would lose writes it told the guest are done: qcow2's tables are still in its memory.
            self.shared.stopped_by_us.store(true, Ordering::SeqCst);
            let quit = async {
                let _ = self.qmp.execute("quit", Value::Null).await;
                let _ = gone.wait_for(|gone| *gone).await;
            };
            if tokio::time::timeout(QUIT_LIMIT, quit).await.is_err() {
                self.kill();
            }
        }
        let ended = tokio::time::timeout(KILL_LIMIT, gone.wait_for(|gone| *gone)).await.is_ok();
        if let Some(tpm) = self.tpm.lock().await.take() {
            tpm.stop().await;
        }
        match self.exit.ended() {
            Some(reason) if ended => Ok(reason),
            _ => Err(Error::TimedOut {
                subject: format!("machine {} to die", self.info.name),
                after: KILL_LIMIT,
                last_seen: format!("process {:?} does not end", self.info.pid),
                serial_tail: String::new(),
            }),
        }
    }

    async fn change_medium(&self, cdrom: usize, medium: Option<&Path>) -> Result<()> {
        let _busy = self.busy.lock().await;
        let wrong = |what: String| Error::InvalidSpec { machine: self.info.name.clone(), what };
        let old = match self.media.lock() {
            Ok(mut media) => media
                .get_mut(cdrom)
                .ok_or_else(|| wrong(format!("there is no CD drive {cdrom}")))?
                .take(),
            Err(_) => return Err(wrong("its list of media is lost".into())),
        };
        if let Some(path) = medium.filter(|p| !p.is_file()) {
            return Err(wrong(format!("{} does not exist", path.display())));
        }
        let id = args::cdrom_id(cdrom);
        // The guest may have locked the tray of a medium it uses.
        self.qmp.execute("blockdev-open-tray", json!({"id": id, "force": true})).await?;
        if let Some(node) = old {
            self.qmp.execute("blockdev-remove-medium", json!({"id": id})).await?;
            self.qmp.execute("blockdev-del", json!({"node-name": node})).await?;
        }
        if let Some(path) = medium {
            let node = self.fresh_node(&format!("{id}-medium"));
            self.qmp.execute("blockdev-add", args::cdrom_node(&node, path)).await?;
            let insert = json!({"id": id, "node-name": node});
            self.qmp.execute("blockdev-insert-medium", insert).await?;
            self.qmp.execute("blockdev-close-tray", json!({"id": id})).await?;
            if let Ok(mut media) = self.media.lock() {
                media[cdrom] = Some(node);
            }
        }
        Ok(())
    }

    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<Checkpoint> {
        let busy = self.busy.clone().lock_owned().await;
        let frozen: Vec<(String, PathBuf)> =
            self.disks.lock().map(|d| d.clone()).unwrap_or_default();
        if frozen.len() != request.new_overlays.len() {
            return Err(Error::InvalidSpec {
                machine: self.info.name.clone(),
                what: format!(
                    "{} disks but {} new overlays",
                    frozen.len(),
                    request.new_overlays.len()
                ),
            });
        }
        let mut nodes = Vec::new();
        for (index, ((node, file), overlay)) in frozen.iter().zip(&request.new_overlays).enumerate()
        {
            let format = if index < self.spec.disks.len() && *file == self.spec.disks[index].path {
                self.spec.disks[index].format
            } else {
                crate::spec::DiskFormat::Qcow2
            };
            let names = request.backing_names.as_ref();
            let name = names.and_then(|names| names.get(index)).unwrap_or(file);
            image::create_overlay_of_running(file, format, name, overlay).await?;
            let new = self.fresh_node(&args::disk_id(index));
            let mut add = args::disk_node(&new, overlay, crate::spec::DiskFormat::Qcow2);
            // The chain is joined by the snapshot itself.
            add["backing"] = Value::Null;
            self.qmp.execute("blockdev-add", add).await?;
            nodes.push((node.clone(), new));
        }
        let partial = match &request.memory_state {
            Some(state) => {
                let absolute = std::path::absolute(state).map_err(Error::io("find", state))?;
                let mut name = absolute.into_os_string();
                name.push(format!(".partial-{}", uuid::Uuid::new_v4().simple()));
                Some(PathBuf::from(name))
            }
            None => None,
        };
        let begun = Instant::now();
        self.qmp.stop().await?;
        let result = self.freeze(&nodes, request, partial.as_deref()).await;
        // The guest goes on, whatever came of it.
        self.qmp.cont().await?;
        let paused_for = begun.elapsed();
        if let Err(error) = result {
            if let Some(partial) = &partial {
                let _ = std::fs::remove_file(partial);
            }
            return Err(error);
        }
        let files: Vec<PathBuf> = frozen.into_iter().map(|(_, file)| file).collect();
        // Opened now: the caller may move them while they are written out.
        let open = files.iter().map(|f| std::fs::File::open(f).map_err(Error::io("open", f)));
        let open: Vec<_> = open.collect::<Result<_>>()?;
        let (names, fingerprint) = (files.clone(), self.fingerprint.clone());
        let state = request.memory_state.clone();
        let rest = Rest::spawn(async move {
            let _busy = busy;
            let written = tokio::task::spawn_blocking(move || {
                for (file, name) in open.iter().zip(&names) {
                    file.sync_all().map_err(Error::io("sync", name))?;
                }
                match (partial, state) {
                    (Some(partial), Some(state)) => fingerprint.publish(&partial, &state),
                    _ => Ok(()),
                }
            });
            written.await.map_err(|panic| Error::Monitor {
                command: "checkpoint".into(),
                reason: panic.to_string(),
            })?
        });
        Ok(Checkpoint { disks: files, paused_for, rest })
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.disks.lock().map(|d| d.iter().map(|(_, f)| f.clone()).collect()).unwrap_or_default()
    }
}

impl Drop for QemuVm {
    fn drop(&mut self) {
        if !*self.shared.gone.borrow() {
            self.kill();
        }
    }
}
