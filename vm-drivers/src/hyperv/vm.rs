//! A running machine on a Hyper-V host.
//!
//! ```text
//!   HyperVVm ── verbs of the trait, one script each
//!      ├ watcher: state of the machine ─▶ Off -> PoweredOff, or Stopped when we cut it
//!      │          serial line          ─▶ "Kernel panic" -> Panicked
//!      │          gone, or host silent ─▶ Died
//!      ├ relay: the host's named pipe  ─▶ the serial log here
//!      └ dropped: power cut, machine and its folder removed; disks stay
//! ```

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hyperv_rs::{
    HostPath, Refusal,
    cmdlet::{Slot, Stop},
    host::{self as operations, MachineRef},
    reply::State,
    script::relay::Relay,
    wmi::{Keys, Scan},
};
use tokio::sync::{broadcast, watch};

use super::{
    HyperV, NAME, forward,
    host::{Host, LONG, SHORT, is_gone, refusal, refused},
    unsupported,
};
use crate::{
    driver::*,
    error::{Error, Result},
    keys::KeyEvent,
    screen::Screen,
    serial::SerialLog,
    spec::MachineSpec,
};

/// How long a host may be silent before its machine counts as lost.
const SILENCE: Duration = Duration::from_secs(120);
/// How long the serial line may bring last words after the machine is off.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long removing a machine may hold up whoever drops it.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);
/// A guest that cannot be asked to shut down says so within this.
const REFUSES_WITHIN: Duration = Duration::from_secs(5);
const SCREEN: (u16, u16) = (1024, 768);
/// Calls of the keyboard for one script.
const CALLS_AT_ONCE: usize = 32;

/// What the watcher, the relay and the machine share.
#[derive(Debug)]
struct Shared {
    host: Arc<Host>,
    machine: MachineRef,
    folder: HostPath,
    name: String,
    serial: SerialLog,
    exit: watch::Sender<Option<ExitReason>>,
    events: broadcast::Sender<VmEvent>,
    stopped_by_us: AtomicBool,
    /// Whether the serial line is being read now.
    relaying: watch::Sender<bool>,
    look_now: tokio::sync::Notify,
    cleaned: AtomicBool,
}

#[derive(Debug)]
pub(super) struct HyperVVm {
    info: VmInfo,
    shared: Arc<Shared>,
    exit: ExitWatch,
    disks: Vec<PathBuf>,
    dvds: Vec<Slot>,
    _forwards: forward::Forwards,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// The folder of a machine, from the second line of its notes.
pub(super) fn folder_in_notes(notes: &str) -> Option<HostPath> {
    HostPath::new(notes.lines().nth(1)?.strip_prefix("gilt-folder:")?.trim_end()).ok()
}

impl Shared {
    /// The first reason stands.
    fn end(&self, reason: ExitReason) {
        let first = self.exit.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(reason.clone());
            }
            first
        });
        if first {
            // Nobody needs to be listening.
            let _ = self.events.send(VmEvent::Ended(reason));
        }
    }

    fn ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Removes the machine and its folder, once; power is cut where it is on.
    async fn clean(&self) -> Result<()> {
        if self.cleaned.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.stopped_by_us.store(true, Ordering::SeqCst);
        let host = &self.host;
        let state = match host.ask(self.machine.inspect(), SHORT).await? {
            Ok(machine) => Some(machine.state),
            Err(error) if is_gone(&error) => None,
            Err(error) => return Err(refused("inspect machine", error)),
        };
        if let Some(state) = state {
            if state != State::Off {
                host.must(self.machine.stop(Stop::TurnOff)).await?;
            }
            host.must(self.machine.remove()).await?;
        }
        host.must(operations::remove_folder(&self.machine.owner, &self.folder)).await
    }
}

impl HyperVVm {
    /// Starts what was made; it is removed again when that fails.
    pub(super) async fn start(
        driver: &HyperV,
        spec: &MachineSpec,
        machine: MachineRef,
        folder: HostPath,
        pipe: String,
        listeners: forward::Listeners,
        dvds: Vec<Slot>,
    ) -> Result<Self> {
        let host = driver.host.clone();
        let serial = SerialLog::continuing(&spec.serial_log);
        let (exit, exit_watch) = ExitWatch::channel();
        let forwards = listeners.serve(host.clone(), machine.clone())?;
        let shared = Arc::new(Shared {
            host,
            machine,
            folder,
            name: spec.name.clone(),
            serial,
            exit,
            events: broadcast::channel(64).0,
            stopped_by_us: AtomicBool::new(false),
            relaying: watch::channel(false).0,
            look_now: tokio::sync::Notify::new(),
            cleaned: AtomicBool::new(false),
        });
        let vm = HyperVVm {
            info: VmInfo {
                name: spec.name.clone(),
                driver: NAME,
                accelerator: "hyperv".into(),
                accelerator_reason: None,
                forwards: forwards.ports.clone(),
                host_as_seen_by_guest: None,
                vnc: None,
                pid: None,
                resumed: false,
            },
            exit: exit_watch,
            disks: spec.disks.iter().map(|disk| disk.path.clone()).collect(),
            dvds,
            _forwards: forwards,
            // The relay waits for the pipe from before the start, so that no word is lost.
            tasks: vec![tokio::spawn(relay(shared.clone(), pipe))],
            shared,
        };
        if let Err(error) = vm.shared.host.ask(vm.shared.machine.start(), SHORT).await? {
            let reason = match refusal(&error) {
                Some(Refusal::InUse) => {
                    format!("a disk is locked by another machine: {error}")
                }
                _ => error.to_string(),
            };
            return Err(Error::StartFailed { machine: spec.name.clone(), reason });
        }
        let mut vm = vm;
        vm.tasks.push(tokio::spawn(watch_machine(vm.shared.clone(), driver.poll)));
        Ok(vm)
    }
}

/// Copies the serial line here, for as long as there is a machine.
async fn relay(shared: Arc<Shared>, pipe: String) {
    let path = shared.serial.path().to_path_buf();
    let open = std::fs::File::options().create(true).append(true).open(&path);
    let mut log = match open {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the serial line is not kept");
            return;
        }
    };
    let text = Relay { pipe, patience_ms: 120_000 }.render();
    while !shared.ended() {
        shared.relaying.send_replace(true);
        let mut sink = |piece: &[u8]| {
            if let Err(error) = log.write_all(piece) {
                tracing::warn!(path = %path.display(), %error, "the serial line is not kept");
            }
        };
        let streamed = shared.host.shell.stream(&text, &mut sink).await;
        shared.relaying.send_replace(false);
        if let Err(error) = streamed {
            tracing::debug!(%error, "the serial line broke off");
        }
        // A line that ends because the machine does is not taken up again.
        let mut exit = shared.exit.subscribe();
        let _ = tokio::time::timeout(Duration::from_secs(1), exit.wait_for(Option::is_some)).await;
    }
}

/// Decides how the machine ended.
async fn watch_machine(shared: Arc<Shared>, poll: Duration) {
    let mut heard = Instant::now();
    let panics = ["Kernel panic - not syncing"];
    while !shared.ended() {
        // A deadline between two looks, cut short when there is reason to look.
        let _ = tokio::time::timeout(poll, shared.look_now.notified()).await;
        let text = shared.serial.tail();
        if let Some(line) = text.lines().find(|line| panics.iter().any(|sign| line.contains(sign)))
        {
            let message = line.split_once("not syncing: ").map(|(_, rest)| rest.trim().to_owned());
            let _ = shared.events.send(VmEvent::Panicked { message: message.clone() });
            shared.end(ExitReason::Panicked { message });
            return;
        }
        let reason = match shared.host.ask(shared.machine.inspect(), SHORT).await {
            Ok(Ok(machine)) => {
                heard = Instant::now();
                match machine.state {
                    State::Off | State::Saved => {
                        if shared.stopped_by_us.load(Ordering::SeqCst) {
                            ExitReason::Stopped
                        } else {
                            ExitReason::PoweredOff
                        }
                    }
                    // `RunningCritical`, `PausedCritical`: the host's storage gave out.
                    State::Other(word) if word.ends_with("Critical") => ExitReason::StorageFailed {
                        disk: shared.folder.to_string(),
                        disk_full: word.starts_with("Paused"),
                        reason: word,
                    },
                    _ => continue,
                }
            }
            // Removed by us between two looks.
            Ok(Err(error)) if is_gone(&error) && shared.stopped_by_us.load(Ordering::SeqCst) => {
                ExitReason::Stopped
            }
            Ok(Err(error)) if is_gone(&error) => ExitReason::Died {
                status: "the machine is gone from its host".into(),
                stderr_tail: String::new(),
            },
            Ok(Err(error)) => {
                tracing::debug!(%error, "no state of the machine");
                continue;
            }
            Err(error) if heard.elapsed() >= SILENCE => ExitReason::Died {
                status: "its host cannot be reached".into(),
                stderr_tail: error.to_string(),
            },
            Err(_) => continue,
        };
        // What the guest said last is still on its way.
        let mut relaying = shared.relaying.subscribe();
        let _ = tokio::time::timeout(LAST_WORDS, relaying.wait_for(|on| !on)).await;
        shared.end(reason);
    }
}

#[async_trait]
impl Vm for HyperVVm {
    fn info(&self) -> &VmInfo {
        &self.info
    }

    fn serial(&self) -> &SerialLog {
        &self.shared.serial
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.shared.events.subscribe()
    }

    /// Its state says nothing of a guest that boots anew.
    fn tells_resets(&self) -> bool {
        false
    }

    fn exit_watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    async fn send_keys(&self, events: &[KeyEvent]) -> Result<()> {
        let scans: Vec<Scan> = events
            .iter()
            .map(|event| {
                let code = event.key.scan_code();
                Scan { code: (code & 0x7f) as u8, extended: code >> 8 == 0xe0, down: event.down }
            })
            .collect();
        let calls = Keys::scan_codes(&scans).map_err(|e| refused("send keys", e))?;
        for part in calls.chunks(CALLS_AT_ONCE) {
            self.shared.host.must(self.shared.machine.send_keys(part.to_vec())).await?;
        }
        Ok(())
    }

    async fn screenshot(&self) -> Result<Screen> {
        let (width, height) = SCREEN;
        let shot = self.shared.host.must(self.shared.machine.screenshot(width, height)).await?;
        Ok(Screen { width: shot.width, height: shot.height, rgb: shot.rgb })
    }

    async fn request_shutdown(&self) -> Result<()> {
        let shared = self.shared.clone();
        let _ = shared.events.send(VmEvent::ShutdownRequested);
        // The call returns when the guest is off, or at once when nobody in the guest hears it.
        let mut asked = tokio::spawn(async move {
            let answer = shared.host.ask(shared.machine.stop(Stop::ShutDown), LONG).await;
            shared.look_now.notify_one();
            answer
        });
        match tokio::time::timeout(REFUSES_WITHIN, &mut asked).await {
            Ok(Ok(answer)) => answer?.map_err(|e| refused("shut the guest down", e)),
            Ok(Err(error)) => {
                Err(Error::Monitor { command: "stop machine".into(), reason: error.to_string() })
            }
            Err(_) => Ok(()),
        }
    }

    async fn reset(&self) -> Result<()> {
        self.shared.host.must(self.shared.machine.reset()).await?;
        let _ = self.shared.events.send(VmEvent::Reset { by_guest: false });
        Ok(())
    }

    async fn power_off(&self) -> Result<ExitReason> {
        self.shared.clean().await?;
        self.shared.look_now.notify_one();
        if let Some(reason) = self.exit.ended() {
            return Ok(reason);
        }
        self.shared.end(ExitReason::Stopped);
        Ok(self.exit.wait().await)
    }

    async fn change_medium(&self, cdrom: usize, medium: Option<&Path>) -> Result<()> {
        let invalid = |what: String| Error::InvalidSpec { machine: self.shared.name.clone(), what };
        let slot = self.dvds.get(cdrom).ok_or_else(|| invalid(format!("no CD drive {cdrom}")))?;
        let medium = match medium {
            None => None,
            Some(path) if !path.is_file() => {
                return Err(invalid(format!("there is no medium {}", path.display())));
            }
            Some(path) => Some(self.shared.host.on_host(path).await?),
        };
        self.shared.host.must(self.shared.machine.change_medium(*slot, medium)).await
    }

    async fn checkpoint(&self, _request: &CheckpointRequest) -> Result<Checkpoint> {
        // A checkpoint of Hyper-V's own names its files itself, and removing the machine would merge it.
        unsupported("freeze the disks of a running machine; shut it down and lay a disk over them")
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.disks.clone()
    }
}

impl Drop for HyperVVm {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let shared = self.shared.clone();
        if shared.cleaned.load(Ordering::SeqCst) {
            return;
        }
        let clean = async move {
            match tokio::time::timeout(CLEAN_LIMIT, shared.clean()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(machine = %shared.name, %error, "a machine stays on the Hyper-V host");
                }
                Err(_) => {
                    tracing::warn!(machine = %shared.name, "a machine may stay on the Hyper-V host")
                }
            }
            shared.end(ExitReason::Stopped);
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!("a machine stays on the Hyper-V host until the next gilt cleans up");
            return;
        };
        // Waited for where that is possible, so that a gilt that ends now leaves nothing.
        match runtime.runtime_flavor() {
            tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| runtime.block_on(clean));
            }
            _ => drop(runtime.spawn(clean)),
        }
    }
}
