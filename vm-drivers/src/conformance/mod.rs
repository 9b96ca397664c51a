//! What every driver must do, as functions over the traits. A driver's tests run all lines;
//! one that a driver cannot do is listed as such, never passed over.
//!
//! The guests are those of [`crate::testing`]: a machine is up in seconds even when emulated.

mod lines;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    driver::{StartFrom, Vm, VmDriver},
    error::Error,
    guest::{SshKey, SshLogin},
    serial::SerialPattern,
    spec::MachineSpec,
    testing::{READY, TinyGuest, for_test_guests},
};

pub use lines::LINES;

/// Time for a boot of the tiny guest on a busy host without hardware acceleration.
pub const BOOT: Duration = Duration::from_secs(120);

/// For each driver, the lines it cannot hold, by their sentences; docs/drivers.md has them as a table.
/// Every other line must hold.
pub const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("qemu", &[]),
    (
        "libvirt",
        &[
            "a checkpoint with memory goes on in another machine",
            "a saved state is refused to a machine it does not fit",
        ],
    ),
    (
        "libvirt+ssh",
        &[
            "a hypervisor that dies is told apart from a shutdown",
            "a checkpoint with memory goes on in another machine",
            "a saved state is refused to a machine it does not fit",
        ],
    ),
    (
        "hyperv",
        &[
            "a reset by the guest is told, and stops the machine where asked",
            "a hypervisor that dies is told apart from a shutdown",
            "a checkpoint freezes the disk while the guest goes on",
            "a checkpoint with memory goes on in another machine",
            "a saved state is refused to a machine it does not fit",
        ],
    ),
];

/// What a holder says once its machine runs, before the machine's process number or `-`.
pub const HOLDING: &str = "holding ";

/// Makes the command of a process that calls [`hold`] with the disk given.
pub type Holder = Box<dyn Fn(&Path) -> Command + Send + Sync>;

/// One line of the suite: a sentence, and the proof of it.
pub struct Line {
    pub states: &'static str,
    pub check: for<'a> fn(&'a Bench) -> futures::future::BoxFuture<'a, Result<(), Failure>>,
}

/// How a line came out.
#[derive(Debug)]
pub enum Outcome {
    Held,
    /// The driver says it cannot.
    Unsupported(String),
    Broken(String),
}

/// Why a line did not hold.
#[derive(Debug)]
pub enum Failure {
    Driver(Error),
    Claim(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Driver(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Claim(error.to_string())
    }
}

/// Fails a line unless a claim holds.
pub fn claim(holds: bool, what: impl std::fmt::Display) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Claim(what.to_string())) }
}

/// A driver with guests to try it on and a folder for its files.
pub struct Bench {
    pub driver: Arc<dyn VmDriver>,
    pub guest: TinyGuest,
    pub login: SshLogin,
    /// For the line about a killed gilt.
    pub holder: Option<Holder>,
    dir: tempfile::TempDir,
}

impl Bench {
    /// `Err` says which package of the host is missing.
    pub fn new(driver: Arc<dyn VmDriver>) -> Result<Self, String> {
        let key = SshKey::generate("conformance").map_err(|e| e.to_string())?;
        let guest = TinyGuest::build(Some(&key.public_line().map_err(|e| e.to_string())?))?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let driver = for_test_guests(driver);
        Ok(Self { driver, guest, login: SshLogin::with_key("root", key), holder: None, dir })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path of this name that does not exist yet.
    pub fn path(&self, name: &str) -> PathBuf {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        self.dir.path().join(format!("{}-{name}", &unique[..8]))
    }

    pub fn machine(&self, name: &str, words: &str) -> MachineSpec {
        let mut spec = self.guest.machine(name, self.dir.path(), words);
        spec.serial_log = self.path("serial.log");
        spec
    }

    pub fn machine_with_disk(&self, name: &str, disk: &Path) -> MachineSpec {
        let mut spec = self.guest.machine_with_disk(name, self.dir.path(), disk);
        spec.disks[0].format = self.driver.disk_format();
        spec.serial_log = self.path("serial.log");
        spec
    }

    pub async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, Error> {
        self.start_from(spec, StartFrom::PowerOn).await
    }

    pub async fn start_from(
        &self,
        spec: &MachineSpec,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>, Error> {
        let run_dir = self.path("run");
        std::fs::create_dir(&run_dir).map_err(Error::io("create", &run_dir))?;
        self.driver.start(spec, &run_dir, from).await
    }

    /// A started machine whose guest has said that it is ready.
    pub async fn ready(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, Error> {
        let vm = self.start(spec).await?;
        said(&*vm, READY).await?;
        Ok(vm)
    }

    /// Runs one line.
    pub async fn check(&self, line: &Line) -> (Outcome, Duration) {
        let begun = Instant::now();
        let outcome = match (line.check)(self).await {
            Ok(()) => Outcome::Held,
            Err(Failure::Driver(error @ Error::Unsupported { .. })) => {
                Outcome::Unsupported(error.to_string())
            }
            Err(Failure::Driver(error)) => {
                let tail = error.serial_tail().unwrap_or_default();
                Outcome::Broken(format!("{error}\n{tail}"))
            }
            Err(Failure::Claim(what)) => Outcome::Broken(what),
        };
        (outcome, begun.elapsed())
    }
}

/// Of all lines, how many came out how, and what was not as [`UNSUPPORTED`] says.
#[derive(Debug, Default)]
pub struct Summary {
    pub held: usize,
    pub unsupported: usize,
    pub wrong: Vec<String>,
}

/// Runs the lines that are `wanted` by their sentences, tells each as it comes out, and compares them with
/// what is known of the driver.
pub async fn run(
    bench: &Bench,
    wanted: impl Fn(&str) -> bool,
    mut tell: impl FnMut(&Line, &Outcome, Duration),
) -> Summary {
    let name = bench.driver.name();
    let expected = UNSUPPORTED.iter().find(|(driver, _)| *driver == name).map(|(_, lines)| *lines);
    let mut summary = Summary::default();
    if expected.is_none() {
        summary.wrong.push(format!("{name} is not in the conformance list"));
    }
    for line in LINES.iter().filter(|line| wanted(line.states)) {
        let (outcome, took) = bench.check(line).await;
        tell(line, &outcome, took);
        let listed = expected.unwrap_or_default().contains(&line.states);
        let mut wrong = |what: &str| summary.wrong.push(format!("{}: {what}", line.states));
        match &outcome {
            Outcome::Held => {
                summary.held += 1;
                if listed {
                    wrong("it held, but is listed as unsupported");
                }
            }
            Outcome::Unsupported(what) => {
                summary.unsupported += 1;
                if !listed {
                    wrong(what);
                }
            }
            Outcome::Broken(what) => wrong(what),
        }
    }
    summary
}

/// The work of a process that is going to be killed: starts a machine over `disk`, says so on
/// stdout, and never ends by itself.
pub async fn hold(driver: Arc<dyn VmDriver>, disk: &Path) -> Result<(), Error> {
    let lacks = |what: String| Error::HostLacks { what, hint: "run ci/setup".into() };
    let guest = TinyGuest::build(None).map_err(lacks)?;
    let driver = for_test_guests(driver);
    let folder = disk.parent().unwrap_or(Path::new("."));
    let mut spec = guest.machine_with_disk("held", folder, disk);
    spec.disks[0].format = driver.disk_format();
    if let crate::spec::Firmware::DirectKernel { command_line, .. } = &mut spec.firmware {
        command_line.push_str(" do=silent");
    }
    let run_dir = folder.join("held-run");
    std::fs::create_dir(&run_dir).map_err(Error::io("create", &run_dir))?;
    let vm = driver.start(&spec, &run_dir, StartFrom::PowerOn).await?;
    let pid = vm.info().pid.map_or("-".to_owned(), |pid| pid.to_string());
    println!("\n{HOLDING}{pid}");
    std::future::pending().await
}

/// Waits until a guest has said something since its machine was started.
pub async fn said(vm: &dyn Vm, words: &str) -> Result<(), Error> {
    let pattern = SerialPattern::Literal(words.into());
    vm.serial().wait_for(&pattern, vm.serial().begin(), BOOT, &vm.exit_watch()).await.map(drop)
}
