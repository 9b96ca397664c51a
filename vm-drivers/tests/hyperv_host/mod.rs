//! An SSH server that plays a Hyper-V host.
//!
//! ```text
//!  driver ──SSH──▶ session: PowerShell text ─▶ Script::parse ─▶ model::Host (refuses) ─▶ Machinery
//!                  SFTP: files under `C:` ─────▶ a folder here                            │
//!                  tunnels to a guest's address ─▶ its forwarded port                  QEMU, qemu-img
//! ```
//!
//! What is read is the text alone, and only text that `hyperv-rs` itself would have written. The model
//! judges; QEMU and qemu-img then really do it. What is not Hyper-V about it: a guest has QEMU's devices
//! (virtio), its address comes from its SSH greeting instead of integration services, differencing disks
//! are qcow2 inside and cannot be copied out, and the power button stands for the shutdown service.

mod machinery;
mod session;
mod sftp;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use gilt_vm::guest::SshKey;
use hyperv_rs::{
    model::Host,
    reply::Switch,
    script::{Answer, Script, relay::Relay, transport},
};

pub use machinery::Running;

/// Everything behind the server.
pub struct World {
    /// What `C:` is.
    pub drive: PathBuf,
    pub host: Mutex<Host>,
    pub machines: Arc<Mutex<Vec<Running>>>,
    /// Texts that were no script of ours, for the test to see.
    pub not_understood: Mutex<Vec<String>>,
    pub scripts_run: std::sync::atomic::AtomicU64,
}

/// A running server. It ends with the value.
pub struct PlayedHost {
    pub world: Arc<World>,
    /// For the registry of drivers.
    pub address: String,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for PlayedHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The file of this system a path of the host stands for; Windows compares without case.
pub fn real_path(drive: &Path, path: &str) -> Option<PathBuf> {
    let lower = path.to_lowercase().replace('\\', "/");
    let inside = lower.trim_start_matches('/').strip_prefix("c:/")?.to_owned();
    let good = inside.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    good.then(|| drive.join(inside))
}

/// What became of a command.
pub enum Reply {
    Answer(String),
    /// A serial line to copy until its machine ends.
    Relay(Relay),
    Unknown,
}

impl World {
    /// Carries out a command line with what came on stdin.
    pub fn run(&self, line: &str, stdin: &[u8]) -> Reply {
        let text =
            (line == transport::stdin_line()).then(|| transport::from_stdin(stdin)).flatten();
        let Some(text) = text else {
            self.not_understood.lock().unwrap().push(line.to_owned());
            return Reply::Unknown;
        };
        if let Some(relay) = Relay::parse(&text) {
            return Reply::Relay(relay);
        }
        match Script::parse(&text) {
            Ok(script) => {
                self.scripts_run.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let answer: Answer = self.host.lock().unwrap().run(&script);
                Reply::Answer(answer.to_line())
            }
            Err(error) => {
                self.not_understood.lock().unwrap().push(format!("{error}\n{text}"));
                Reply::Unknown
            }
        }
    }
}

impl PlayedHost {
    /// Listens on a free port of 127.0.0.1 and lets in whoever has the key it made.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let drive = dir.path().join("c");
        std::fs::create_dir(&drive).unwrap();
        let machines: Arc<Mutex<Vec<Running>>> = Arc::default();
        let mut host = Host::new();
        host.client = true;
        host.switches.push(Switch {
            name: "Default Switch".into(),
            kind: "Internal".into(),
            notes: String::new(),
        });
        host.machinery = Some(Box::new(machinery::Real::new(
            dir.path().join("machines"),
            drive.clone(),
            machines.clone(),
        )));
        let world = Arc::new(World {
            drive,
            host: Mutex::new(host),
            machines,
            not_understood: Mutex::default(),
            scripts_run: Default::default(),
        });
        let client_key = SshKey::generate("who drives").unwrap();
        let host_key = SshKey::generate("the host").unwrap();
        let key_file = dir.path().join("key");
        std::fs::write(&key_file, client_key.private_openssh().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let public = client_key.public_line().unwrap();
        let host_line = host_key.public_line().unwrap();
        let task = tokio::spawn(session::listen(
            listener,
            host_key.private_openssh().unwrap(),
            public,
            world.clone(),
        ));
        let words: Vec<&str> = host_line.split(' ').take(2).collect();
        let host_key = words.join("%20").replace('+', "%2B");
        let address = format!(
            "//ci@127.0.0.1:{port}/C:/gilt?poll=250&key={}&host-key={host_key}",
            key_file.display(),
        );
        Self { world, address, task, _dir: dir }
    }

    /// What the test must find empty in the end.
    pub fn left_over(&self) -> Vec<String> {
        let host = self.world.host.lock().unwrap();
        let mut left: Vec<String> =
            host.machines.iter().map(|machine| format!("machine {}", machine.name)).collect();
        let machine_folder = |path: &&String| path.contains(r"\machines\");
        left.extend(host.folders.keys().filter(machine_folder).cloned());
        left.extend(host.disks.keys().filter(machine_folder).cloned());
        left
    }
}
