//! The two traits between the pipeline and a hypervisor, and what they speak of.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use crate::{
    error::{Error, Result},
    keys::KeyEvent,
    screen::Screen,
    serial::SerialLog,
    spec::{DiskFormat, MachineSpec},
};

/// Starts machines and prepares their disks.
///
/// A driver leaves nothing behind: whatever `start` made is gone when the [`Vm`] is dropped, and
/// a failed `start` has removed what it had made.
#[async_trait]
pub trait VmDriver: Send + Sync + fmt::Debug {
    fn name(&self) -> &'static str;

    /// What this host's hypervisor can do.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Starts a machine. `run_dir` exists and belongs to this machine alone until it ends.
    async fn start(
        &self,
        spec: &MachineSpec,
        run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>>;

    /// Makes an empty disk; refuses to overwrite.
    async fn create_disk(&self, path: &Path, format: DiskFormat, size_bytes: u64) -> Result<()>;

    /// Makes a disk that holds only what differs from `base`, which must not change any more.
    async fn create_overlay(&self, base: &Path, base_format: DiskFormat, path: &Path)
    -> Result<()>;

    /// Writes a disk and all it lies over into one file that stands alone.
    async fn flatten(&self, disk: &Path, to: &Path, to_format: DiskFormat) -> Result<()>;

    /// The format this driver makes disks in.
    fn disk_format(&self) -> DiskFormat {
        DiskFormat::Qcow2
    }

    /// Whether it takes [`crate::Firmware::DirectKernel`].
    fn loads_kernels(&self) -> bool {
        true
    }

    /// Whether [`Vm::checkpoint`] freezes the disks of a running machine. Where not, a disk is kept by
    /// shutting the guest down and laying the next disk over it.
    fn freezes(&self) -> bool {
        true
    }

    /// Where its disks stay. `None`: they are files here, and another driver may go on with them. Else
    /// a file here only stands for a disk of the place named; none but a driver of that place can use
    /// it, and its bytes are had by [`flatten`](VmDriver::flatten).
    fn disk_home(&self) -> Option<String> {
        None
    }

    /// What it can do of no such machine, on whatever host; told before any work is begun, and again
    /// by `start`.
    fn check(&self, _spec: &MachineSpec) -> Result<()> {
        Ok(())
    }

    /// How guests will reach services of this host; asked before there is a machine. `Unsupported`
    /// where they may have no way here but the one we have to them
    /// ([`SshLogin::brings`](crate::guest::SshLogin::brings)).
    async fn host_side(&self) -> Result<HostSide>;

    /// Removes what gilts that were killed left behind, and says what that was. Touches nothing
    /// that is not provably gilt's own, and nothing of a gilt that lives.
    async fn clean_up(&self) -> Result<Vec<String>>;
}

/// Both ends of the way from a guest to a service of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSide {
    /// Where the service listens.
    pub listen_on: IpAddr,
    /// What the guest calls it.
    pub seen_by_guest: IpAddr,
}

impl HostSide {
    /// Of QEMU's user-mode network: the guest's 10.0.2.2 is this host's 127.0.0.1.
    pub const USER_MODE: HostSide = HostSide {
        listen_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
        seen_by_guest: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)),
    };
}

/// A machine that was started. Dropping it kills it and removes what the driver made for it.
#[async_trait]
pub trait Vm: Send + Sync + fmt::Debug {
    fn info(&self) -> &VmInfo;

    /// What the guest wrote on its first serial line.
    fn serial(&self) -> &SerialLog;

    /// Happenings from now on.
    fn events(&self) -> broadcast::Receiver<VmEvent>;

    /// Whether a reset is told by an event; nobody waits for one otherwise.
    fn tells_resets(&self) -> bool {
        true
    }

    /// Tells when the machine has ended; outlives the machine.
    fn exit_watch(&self) -> ExitWatch;

    /// Presses and releases keys in the order given, at the driver's pace.
    async fn send_keys(&self, events: &[KeyEvent]) -> Result<()>;

    /// What the screen shows now.
    async fn screenshot(&self) -> Result<Screen>;

    /// Presses the power button: the guest may heed it.
    async fn request_shutdown(&self) -> Result<()>;

    /// Presses the reset button.
    async fn reset(&self) -> Result<()>;

    /// Cuts the power and waits until nothing is left. Not an error when it had ended already.
    async fn power_off(&self) -> Result<ExitReason>;

    /// Puts a medium into drive `cdrom` (an index into `MachineSpec::cdroms`), or takes it out.
    async fn change_medium(&self, cdrom: usize, medium: Option<&Path>) -> Result<()>;

    /// Freezes all disks as they are and goes on over fresh overlays. See [`CheckpointRequest`]. What
    /// takes long is left to [`Checkpoint::rest`]; a next checkpoint waits for it.
    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<Checkpoint>;

    /// The files the machine's disks are written to now, in the order of the spec.
    fn disks(&self) -> Vec<PathBuf>;
}

/// What every user of a machine may ask without asking the hypervisor.
#[derive(Clone, Debug)]
pub struct VmInfo {
    pub name: String,
    pub driver: &'static str,
    /// Such as `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that accelerator, when it was chosen for the user.
    pub accelerator_reason: Option<String>,
    /// `(guest port, where the host reaches it)`.
    pub forwards: Vec<(u16, SocketAddr)>,
    /// How the guest reaches this host.
    pub host_as_seen_by_guest: Option<IpAddr>,
    pub vnc: Option<SocketAddr>,
    pub pid: Option<u32>,
    /// Whether it went on from a saved state instead of power-on.
    pub resumed: bool,
}

impl VmInfo {
    /// Where the host reaches a guest port.
    pub fn forwarded(&self, guest_port: u16) -> Option<SocketAddr> {
        self.forwards.iter().find(|(port, _)| *port == guest_port).map(|(_, at)| *at)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum StartFrom<'a> {
    PowerOn,
    /// Go on where a checkpoint with memory left off. The spec's disks are overlays over the
    /// checkpoint's. [`Error::StateMismatch`] when the state does not fit.
    SavedState(&'a Path),
}

#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Such as `QEMU 7.2.22`.
    pub hypervisor: String,
    pub accelerator: String,
    pub accelerator_reason: String,
    pub uefi: bool,
    pub secure_boot: bool,
    pub tpm: bool,
    pub saved_memory: bool,
    /// What is missing, each with how to get it.
    pub missing: Vec<String>,
}

/// Where a checkpoint goes. The caller asks the guest to write out its caches first.
///
/// ```text
///   before:  base <- overlay A (written)        after:  base <- A (frozen, the checkpoint) <- new overlay
/// ```
#[derive(Clone, Debug, Default)]
pub struct CheckpointRequest {
    /// For each disk of the spec, the overlay to go on with; none of them exists yet.
    pub new_overlays: Vec<PathBuf>,
    /// What the new overlays name as their base, where the frozen disks are going to be moved by
    /// the caller; where they are now if not given.
    pub backing_names: Option<Vec<PathBuf>>,
    /// Keep the memory too, so that a resume needs no boot. A file next to it
    /// (`<name>.json`) says what it fits.
    pub memory_state: Option<PathBuf>,
    /// A copy of the UEFI variables as of the checkpoint.
    pub uefi_variables: Option<PathBuf>,
    /// A copy of the TPM's state folder as of the checkpoint.
    pub tpm_state: Option<PathBuf>,
}

/// A frozen machine, of which the last part may still be on its way to the disk of the host.
#[derive(Debug)]
pub struct Checkpoint {
    /// The frozen disks, in the order of the spec. They may be moved at once.
    pub disks: Vec<PathBuf>,
    /// How long the guest stood still.
    pub paused_for: Duration,
    /// The rest of the work. Until it is done well the checkpoint does not count.
    pub rest: Rest,
}

/// What is left to do of a checkpoint while the guest goes on: it runs by itself, also when nobody
/// waits for it.
#[derive(Debug)]
pub struct Rest(Option<tokio::task::JoinHandle<Result<()>>>);

impl Rest {
    /// Nothing is left to do.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn spawn(work: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(work)))
    }

    /// Waits until everything is safe on the disk of the host.
    pub async fn done(self) -> Result<()> {
        let Some(work) = self.0 else { return Ok(()) };
        work.await.unwrap_or_else(|panic| {
            Err(Error::Monitor { command: "checkpoint".into(), reason: panic.to_string() })
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    Paused,
    Running,
    Reset { by_guest: bool },
    ShutdownRequested,
    ShuttingDown { by_guest: bool },
    Panicked { message: Option<String> },
    DiskError { disk: String, disk_full: bool, reason: String },
    TrayMoved { cdrom: String, open: bool },
    Ended(ExitReason),
}

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest rebooted and the spec says to stop then.
    Reset,
    /// We cut the power.
    Stopped,
    /// The guest's kernel gave up; the machine stands still for evidence.
    Panicked { message: Option<String> },
    /// A disk's file could not be written; the machine stands still.
    StorageFailed { disk: String, disk_full: bool, reason: String },
    /// The hypervisor went away.
    Died { status: String, stderr_tail: String },
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::PoweredOff => write!(f, "the guest powered off"),
            ExitReason::Reset => write!(f, "the guest rebooted"),
            ExitReason::Stopped => write!(f, "the machine was switched off"),
            ExitReason::Panicked { message: Some(m) } => {
                write!(f, "the guest's kernel panicked: {m}")
            }
            ExitReason::Panicked { message: None } => write!(f, "the guest's kernel panicked"),
            ExitReason::StorageFailed { disk, disk_full: true, .. } => {
                write!(f, "no space left on the host for {disk}")
            }
            ExitReason::StorageFailed { disk, reason, .. } => {
                write!(f, "{disk} could not be written: {reason}")
            }
            ExitReason::Died { status, stderr_tail } if stderr_tail.is_empty() => {
                write!(f, "the hypervisor died ({status})")
            }
            ExitReason::Died { status, stderr_tail } => {
                write!(f, "the hypervisor died ({status}): {}", stderr_tail.trim_end())
            }
        }
    }
}

/// Knows whether a machine has ended, and can be waited on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ExitWatch {
    receiver: watch::Receiver<Option<ExitReason>>,
}

impl ExitWatch {
    /// The sender half is kept by the driver's watcher.
    pub fn channel() -> (watch::Sender<Option<ExitReason>>, ExitWatch) {
        let (sender, receiver) = watch::channel(None);
        (sender, ExitWatch { receiver })
    }

    /// For things that run on no machine: never ends.
    pub fn never() -> ExitWatch {
        let (sender, watch) = Self::channel();
        // A dropped sender would read as a death; this one must live as long as the process.
        std::mem::forget(sender);
        watch
    }

    pub fn ended(&self) -> Option<ExitReason> {
        self.receiver.borrow().clone()
    }

    /// Resolves when the machine has ended.
    pub async fn wait(&self) -> ExitReason {
        let mut receiver = self.receiver.clone();
        let result = receiver.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match result {
            Ok(Some(reason)) => reason,
            _ => ExitReason::Died {
                status: "its watcher is gone".into(),
                stderr_tail: String::new(),
            },
        }
    }

    /// Waits for the end, at most `limit`.
    pub async fn wait_at_most(&self, limit: Duration, serial: &SerialLog) -> Result<ExitReason> {
        match tokio::time::timeout(limit, self.wait()).await {
            Ok(reason) => Ok(reason),
            // The last poll counts even when it and the deadline fell together.
            Err(_) => self.ended().ok_or_else(|| Error::TimedOut {
                subject: "the machine to end".into(),
                after: limit,
                last_seen: "still running".into(),
                serial_tail: serial.tail(),
            }),
        }
    }

    /// Runs `work`, or fails with [`Error::Ended`] as soon as the machine ends.
    pub async fn or_ended<T>(
        &self,
        subject: &str,
        serial: &SerialLog,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            reason = self.wait() => Err(Error::Ended {
                subject: subject.into(),
                reason,
                serial_tail: serial.tail(),
            }),
        }
    }
}
