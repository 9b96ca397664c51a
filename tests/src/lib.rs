//! End-to-end tests with real machines: the frame. The tests are in `tests/tests`.
//!
//! All of them share one home below the build folder, so that the base is installed once; they run
//! one at a time (`.config/nextest.toml`). Media come from `ci/media`.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any single build here takes on two busy cores.
const PATIENCE: Duration = Duration::from_secs(1500);

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    // target/<profile>/deps/<test>
    test.ancestors().nth(2).expect("the build folder").to_path_buf()
}

/// One test's surroundings: a folder for its templates and its store.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub home: PathBuf,
}

/// How a run of gilt ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    /// The JSON lines of stdout.
    pub events: Vec<Value>,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        let home = target_dir().join("e2e-home");
        std::fs::create_dir_all(&home).expect("a home for the tests");
        let media = root().join("templates/media/debian-12/installer.iso");
        assert!(media.exists(), "needs {}: run ci/media debian-12", media.display());
        Self { dir: tempfile::tempdir().expect("a folder"), home }
    }

    /// A template over the base, with `text` laid over it.
    pub fn template(&self, name: &str, text: &str) -> PathBuf {
        let base = root().join("tests/templates/base.yaml");
        let path = self.dir.path().join(format!("{name}.yaml"));
        let text = format!("name: {name}\ninclude: [{}]\n{text}", base.display());
        std::fs::write(&path, text).expect("write a template");
        path
    }

    /// A disk with an installed system, `base.qcow2`, which the key `key` opens; both in the test's folder.
    pub fn thin_disk(&self) {
        let key = self.dir.path().join("key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        run(Command::new(root().join("tests/guests/thin-disk"))
            .arg(self.dir.path().join("base.qcow2"))
            .arg(key.with_extension("pub")));
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(target_dir().join("gilt"));
        command
            .env("GILT_HOME", &self.home)
            .env("GILT_STORE", self.store())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn gilt(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        Running::start(command).finish()
    }

    pub fn build(&self, template: &Path, more: &[&str]) -> Finished {
        let mut command = self.command();
        command.args(["build", "--json"]).arg(template).args(more);
        Running::start(command).finish()
    }

    pub fn start_build(&self, template: &Path, more: &[&str]) -> Running {
        let mut command = self.command();
        command.args(["build", "--json"]).arg(template).args(more);
        Running::start(command)
    }

    /// No machine of this home runs, and no half-made thing lies about.
    pub fn assert_nothing_left(&self) {
        self.assert_no_machine();
        for folder in ["runs", "tmp"] {
            let left: Vec<_> = std::fs::read_dir(self.home.join(folder))
                .expect("the home")
                .flatten()
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }

    /// No machine of this home runs; one that was killed may take a moment to go.
    pub fn assert_no_machine(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.machines().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(self.machines(), Vec::<u32>::new(), "machines are left running");
    }

    /// Waits until a machine of this home runs.
    pub fn wait_for_machine(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.machines().is_empty() {
            assert!(Instant::now() < deadline, "no machine was started");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processes of hypervisors that have this home on their command line.
    pub fn machines(&self) -> Vec<u32> {
        let home = self.home.display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let hypervisor = line.contains("qemu-system") || line.contains("swtpm");
            if hypervisor && line.contains(&home) {
                found.push(pid);
            }
        }
        found
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// A gilt that runs, its events as they come.
pub struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    stderr: Option<std::thread::JoinHandle<String>>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("start gilt; build it first");
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { child, lines, stderr: Some(stderr), seen: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event for which `wanted` holds.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let _ = self.child.kill();
                panic!("gilt never came to {what}; it said: {:#?}", self.seen);
            };
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            self.seen.push(line);
            if wanted(&event) {
                return;
            }
        }
    }

    /// Waits until the guest prints `text`.
    pub fn wait_for_output(&mut self, text: &str) {
        self.wait_for(text, |event| {
            event["event"] == "output" && event["line"].as_str().is_some_and(|l| l.contains(text))
        });
    }

    pub fn wait_for_stage(&mut self, stage: &str) {
        self.wait_for(stage, |event| event["event"] == "stage-started" && event["stage"] == stage);
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for gilt") {
                break status;
            }
            assert!(Instant::now() < deadline, "gilt did not end; it said: {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(50));
        };
        self.seen.extend(self.lines.iter());
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        Finished {
            code: status.code().unwrap_or(-1),
            events: self.seen.iter().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            stdout: self.seen.join("\n"),
            stderr,
        }
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Sends a signal by name to a process this test started.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(done.is_ok_and(|status| status.success()), "cannot signal {pid}");
}

impl Finished {
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["event"] == name)
    }

    /// Names of the layers that ran.
    pub fn layers_run(&self) -> Vec<&str> {
        self.named("layer-started").filter_map(|event| event["layer"].as_str()).collect()
    }

    /// The evidence folder: the last thing printed.
    pub fn evidence(&self) -> PathBuf {
        let last = self.stderr.trim_end().lines().last().unwrap_or_default();
        let path = last.strip_prefix("evidence: ");
        PathBuf::from(path.unwrap_or_else(|| panic!("no evidence at the end of: {}", self.stderr)))
    }

    /// Fails unless the build failed with `code`, a diagnosis that holds `words`, and evidence that
    /// says the same.
    pub fn assert_failed(&self, code: i32, words: &str) -> &Self {
        self.assert_code(code);
        assert!(self.stderr.contains(words), "no {words:?} in: {}", self.stderr);
        let evidence = self.evidence();
        let text = std::fs::read_to_string(evidence.join("diagnosis.txt")).expect("a diagnosis");
        assert!(text.contains(words), "no {words:?} in: {text}");
        assert!(evidence.join("events.jsonl").metadata().expect("events").len() > 0);
        let failed = self.named("build-failed").next().expect("an event of the failure");
        assert_eq!(failed["exit_code"], code);
        self
    }
}
