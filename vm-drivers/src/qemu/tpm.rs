//! An emulated TPM 2.0 by `swtpm`, one process per machine.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Child, time::Instant};

use crate::{
    error::{Error, Result},
    process::{Invocation, tail_text},
    spec::TpmSpec,
};

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running TPM. Dropped, it is killed and its socket removed.
#[derive(Debug)]
pub struct Tpm {
    child: Child,
    pub socket: PathBuf,
    /// Socket paths may have about 100 bytes only, so they live in a short folder.
    pub socket_dir: tempfile::TempDir,
}

impl Tpm {
    pub async fn start(spec: &TpmSpec, machine: &str) -> Result<Self> {
        std::fs::create_dir_all(&spec.state_dir).map_err(Error::io("create", &spec.state_dir))?;
        let state_dir =
            std::path::absolute(&spec.state_dir).map_err(Error::io("find", &spec.state_dir))?;
        let state =
            state_dir.to_str().filter(|p| !p.contains(',')).ok_or_else(|| Error::InvalidSpec {
                machine: machine.into(),
                what: "swtpm cannot take a state folder with a comma in its name".into(),
            })?;
        let socket_dir = tempfile::Builder::new()
            .prefix("gilt-tpm-")
            .tempdir()
            .map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        let socket = socket_dir.path().join("tpm");
        let mut child = Invocation::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={state},mode=0600"))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .spawn_tied(Stdio::null())
            .await?;
        let deadline = Instant::now() + START_LIMIT;
        while !socket.exists() {
            let ended = child.try_wait().map_err(Error::io("watch", "swtpm"))?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.start_kill();
                let output = child.wait_with_output().await.map_err(Error::io("watch", "swtpm"))?;
                return Err(Error::StartFailed {
                    machine: machine.into(),
                    reason: format!("swtpm: {}", tail_text(&output.stderr).trim_end()),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { child, socket, socket_dir })
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it and waits until it is gone.
    pub async fn stop(mut self) {
        // With `--terminate` it usually went with QEMU already.
        let _ = self.child.kill().await;
    }
}

/// Copies the state as it is now; the guest must stand still.
pub fn copy_state(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io("create", to))?;
    for entry in std::fs::read_dir(from).map_err(Error::io("read", from))? {
        let path = entry.map_err(Error::io("read", from))?.path();
        // swtpm keeps its state flat; its lock is no state.
        if let Some(name) = path.file_name().filter(|n| path.is_file() && *n != ".lock") {
            std::fs::copy(&path, to.join(name)).map_err(Error::io("copy", &path))?;
        }
    }
    Ok(())
}
