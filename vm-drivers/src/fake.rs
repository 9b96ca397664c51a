//! A driver without a hypervisor, for tests of what uses one: machines follow a script, disks
//! are small text files that name their base, guests are a map of files and a function.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use crate::{
    driver::*,
    error::{Error, Result},
    guest::{
        Communicator, Connector, ExecOutcome, ExitStatus, GuestCommand, Output, OutputSink,
        Transferred,
    },
    keys::KeyEvent,
    screen::Screen,
    serial::SerialLog,
    spec::{DiskFormat, MachineSpec},
};

/// What every machine of a fake driver does.
#[derive(Clone, Debug)]
pub struct FakeScript {
    /// Said on the serial line at once.
    pub serial: String,
    /// How it ends by itself, and when.
    pub ends: Option<(Duration, ExitReason)>,
    pub heeds_power_button: bool,
    /// Whether a way in ever opens.
    pub lets_in: bool,
    /// Why a start fails.
    pub start_fails: Option<String>,
}

impl Default for FakeScript {
    fn default() -> Self {
        Self {
            serial: "fake guest ready\n".into(),
            ends: None,
            heeds_power_button: true,
            lets_in: true,
            start_fails: None,
        }
    }
}

/// Answers a command: exit code, stdout, stderr.
pub type FakeShell = Arc<dyn Fn(&GuestCommand) -> (u32, String, String) + Send + Sync>;

/// Counts of what a driver was asked, for tests that something was *not* done.
#[derive(Debug, Default)]
pub struct FakeCounts {
    pub starts: AtomicU64,
    pub resumes: AtomicU64,
    pub checkpoints: AtomicU64,
    pub running: AtomicU64,
}

#[derive(Debug, Default)]
pub struct FakeDriver {
    pub script: Mutex<FakeScript>,
    pub counts: Arc<FakeCounts>,
}

impl FakeDriver {
    pub fn new(script: FakeScript) -> Self {
        Self { script: Mutex::new(script), counts: Arc::default() }
    }

    fn script(&self) -> FakeScript {
        self.script.lock().map(|s| s.clone()).unwrap_or_default()
    }
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(Error::io("create", path))
}

#[async_trait]
impl VmDriver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn host_side(&self) -> Result<HostSide> {
        Ok(HostSide::USER_MODE)
    }

    async fn clean_up(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities {
            hypervisor: "fake".into(),
            accelerator: "none".into(),
            accelerator_reason: "nothing runs".into(),
            uefi: true,
            secure_boot: true,
            tpm: true,
            saved_memory: true,
            missing: Vec::new(),
        })
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        _run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>> {
        let script = self.script();
        if let Some(reason) = script.start_fails {
            return Err(Error::StartFailed { machine: spec.name.clone(), reason });
        }
        for disk in &spec.disks {
            std::fs::metadata(&disk.path).map_err(Error::io("open", &disk.path))?;
        }
        match from {
            StartFrom::PowerOn => self.counts.starts.fetch_add(1, Ordering::SeqCst),
            StartFrom::SavedState(state) => {
                std::fs::read(state).map_err(|e| Error::StateMismatch {
                    path: state.into(),
                    reason: e.to_string(),
                })?;
                self.counts.resumes.fetch_add(1, Ordering::SeqCst)
            }
        };
        let serial = SerialLog::continuing(&spec.serial_log);
        let mut said = std::fs::read(&spec.serial_log).unwrap_or_default();
        said.extend_from_slice(script.serial.as_bytes());
        std::fs::write(&spec.serial_log, said).map_err(Error::io("write", &spec.serial_log))?;
        let (sender, exit) = ExitWatch::channel();
        let sender = Arc::new(sender);
        if let Some((after, reason)) = script.ends.clone() {
            let sender = sender.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                end(&sender, reason);
            });
        }
        self.counts.running.fetch_add(1, Ordering::SeqCst);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let forwards = spec.network.iter().flat_map(|n| &n.forwards);
        Ok(Box::new(FakeVm {
            info: VmInfo {
                name: spec.name.clone(),
                driver: "fake",
                accelerator: "none".into(),
                accelerator_reason: None,
                forwards: forwards.map(|f| (f.guest_port, address)).collect(),
                host_as_seen_by_guest: Some([10, 0, 2, 2].into()),
                vnc: None,
                pid: None,
                resumed: matches!(from, StartFrom::SavedState(_)),
            },
            script,
            serial,
            sender,
            exit,
            events: broadcast::channel(16).0,
            disks: Mutex::new(spec.disks.iter().map(|d| d.path.clone()).collect()),
            cdroms: spec.cdroms.len(),
            typed: Mutex::default(),
            counts: self.counts.clone(),
        }))
    }

    async fn create_disk(&self, path: &Path, _: DiskFormat, size_bytes: u64) -> Result<()> {
        write_new(path, &format!("disk of {size_bytes} bytes\n"))
    }

    async fn create_overlay(&self, base: &Path, _: DiskFormat, path: &Path) -> Result<()> {
        std::fs::metadata(base).map_err(Error::io("open", base))?;
        write_new(path, &format!("overlay over {}\n", base.display()))
    }

    async fn flatten(&self, disk: &Path, to: &Path, _: DiskFormat) -> Result<()> {
        let text = std::fs::read_to_string(disk).map_err(Error::io("read", disk))?;
        write_new(to, &format!("flat: {text}"))
    }
}

fn end(sender: &watch::Sender<Option<ExitReason>>, reason: ExitReason) {
    sender.send_if_modified(|now| {
        let first = now.is_none();
        if first {
            *now = Some(reason);
        }
        first
    });
}

#[derive(Debug)]
struct FakeVm {
    info: VmInfo,
    script: FakeScript,
    serial: SerialLog,
    sender: Arc<watch::Sender<Option<ExitReason>>>,
    exit: ExitWatch,
    events: broadcast::Sender<VmEvent>,
    disks: Mutex<Vec<PathBuf>>,
    cdroms: usize,
    typed: Mutex<Vec<KeyEvent>>,
    counts: Arc<FakeCounts>,
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        end(&self.sender, ExitReason::Stopped);
        self.counts.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Vm for FakeVm {
    fn info(&self) -> &VmInfo {
        &self.info
    }

    fn serial(&self) -> &SerialLog {
        &self.serial
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }

    fn exit_watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    async fn send_keys(&self, events: &[KeyEvent]) -> Result<()> {
        if let Ok(mut typed) = self.typed.lock() {
            typed.extend_from_slice(events);
        }
        Ok(())
    }

    async fn screenshot(&self) -> Result<Screen> {
        Ok(Screen { width: 2, height: 1, rgb: vec![0, 0, 0, 255, 255, 255] })
    }

    async fn request_shutdown(&self) -> Result<()> {
        if self.script.heeds_power_button {
            end(&self.sender, ExitReason::PoweredOff);
        }
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        Ok(())
    }

    async fn power_off(&self) -> Result<ExitReason> {
        end(&self.sender, ExitReason::Stopped);
        Ok(self.exit.wait().await)
    }

    async fn change_medium(&self, cdrom: usize, medium: Option<&Path>) -> Result<()> {
        let wrong = |what: String| Error::InvalidSpec { machine: self.info.name.clone(), what };
        if cdrom >= self.cdroms {
            return Err(wrong(format!("there is no CD drive {cdrom}")));
        }
        match medium.filter(|p| !p.is_file()) {
            Some(path) => Err(wrong(format!("{} does not exist", path.display()))),
            None => Ok(()),
        }
    }

    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<Checkpoint> {
        let frozen = self.disks();
        for (base, overlay) in frozen.iter().zip(&request.new_overlays) {
            write_new(overlay, &format!("overlay over {}\n", base.display()))?;
        }
        if let Ok(mut disks) = self.disks.lock() {
            disks.clone_from(&request.new_overlays);
        }
        for state in [&request.memory_state, &request.uefi_variables].into_iter().flatten() {
            write_new(state, "state\n")?;
        }
        if let Some(dir) = &request.tpm_state {
            std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        self.counts.checkpoints.fetch_add(1, Ordering::SeqCst);
        Ok(Checkpoint { disks: frozen, paused_for: Duration::ZERO, rest: Rest::none() })
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.disks.lock().map(|d| d.clone()).unwrap_or_default()
    }
}

/// Opens fake ways in; all of them see the same guest.
#[derive(Clone)]
pub struct FakeConnector {
    pub driver: Arc<FakeDriver>,
    pub shell: FakeShell,
    pub files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl std::fmt::Debug for FakeConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeConnector")
    }
}

#[async_trait]
impl Connector for FakeConnector {
    async fn connect(&self, vm: &dyn Vm, limit: Duration) -> Result<Box<dyn Communicator>> {
        let (exit, serial) = (vm.exit_watch(), vm.serial().clone());
        if !self.driver.script().lets_in {
            let refused = async {
                tokio::time::sleep(limit).await;
                Err(Error::TimedOut {
                    subject: "the fake guest to let us in".into(),
                    after: limit,
                    last_seen: "nothing".into(),
                    serial_tail: serial.tail(),
                })
            };
            return exit.or_ended("a way into the guest", &serial, refused).await;
        }
        Ok(Box::new(FakeCommunicator { connector: self.clone(), exit, serial }))
    }
}

#[derive(Debug)]
struct FakeCommunicator {
    connector: FakeConnector,
    exit: ExitWatch,
    serial: SerialLog,
}

impl FakeCommunicator {
    async fn alive(&self, subject: &str) -> Result<()> {
        match self.exit.ended() {
            Some(reason) => Err(Error::Ended {
                subject: subject.into(),
                reason,
                serial_tail: self.serial.tail(),
            }),
            None => Ok(()),
        }
    }

    fn files(&self) -> Result<std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>>> {
        self.connector.files.lock().map_err(|_| Error::Malformed {
            what: "fake guest".into(),
            reason: "its files are lost".into(),
        })
    }

    fn add(&self, local: &Path, remote: &str, sum: &mut Transferred) -> Result<()> {
        if local.is_dir() {
            let entries = std::fs::read_dir(local).map_err(Error::io("read", local))?;
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                self.add(&entry.path(), &format!("{remote}/{name}"), sum)?;
            }
            return Ok(());
        }
        let bytes = std::fs::read(local).map_err(Error::io("read", local))?;
        sum.files += 1;
        sum.bytes += bytes.len() as u64;
        self.files()?.insert(remote.into(), bytes);
        Ok(())
    }
}

#[async_trait]
impl Communicator for FakeCommunicator {
    fn target(&self) -> String {
        "fake guest".into()
    }

    async fn exec(&self, command: &GuestCommand, output: OutputSink<'_>) -> Result<ExecOutcome> {
        self.alive("a command in the guest").await?;
        let (code, stdout, stderr) = (self.connector.shell)(command);
        output(Output::Stdout, stdout.as_bytes());
        output(Output::Stderr, stderr.as_bytes());
        Ok(ExecOutcome {
            status: ExitStatus::Code(code),
            stdout: stdout.into_bytes(),
            stderr: stderr.into_bytes(),
            took: Duration::ZERO,
        })
    }

    async fn upload(&self, local: &Path, remote: &str, _: Option<u32>) -> Result<Transferred> {
        self.alive("an upload").await?;
        let mut sum = Transferred::default();
        self.add(local, remote, &mut sum)?;
        Ok(sum)
    }

    async fn upload_bytes(&self, bytes: &[u8], remote: &str, _: u32) -> Result<()> {
        self.alive("an upload").await?;
        self.files()?.insert(remote.into(), bytes.to_vec());
        Ok(())
    }

    async fn download(&self, remote: &str, local: &Path) -> Result<Transferred> {
        self.alive("a download").await?;
        let bytes = self.files()?.get(remote).cloned().ok_or_else(|| Error::GuestFile {
            action: "read",
            path: remote.into(),
            reason: "there is no such file".into(),
        })?;
        std::fs::write(local, &bytes).map_err(Error::io("write", local))?;
        Ok(Transferred { files: 1, bytes: bytes.len() as u64 })
    }

    fn is_open(&self) -> bool {
        self.exit.ended().is_none()
    }

    async fn close(&self) {}
}
