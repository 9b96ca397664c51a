//! The way to a machine on another host: one `ssh` that carries the guest's forwarded ports and its
//! serial line here, and ports of this host there. No port of the other host is open to others.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Child,
    time::Instant,
};

use super::address::Remote;
use crate::{
    error::{Error, Result},
    process::{Invocation, tail_text},
    serial::SerialLog,
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `ssh`. Dropped, it is killed and its ports close.
#[derive(Debug)]
pub struct Tunnel {
    _ssh: Child,
}

/// Ports of 127.0.0.1 on both sides.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// `(here, there)`: connections to ours go there.
    pub to_there: Vec<(u16, u16)>,
    /// The same number on both sides: connections there come here.
    pub to_here: Vec<u16>,
}

impl Remote {
    /// `ssh` with the host, before anything it shall do.
    fn ssh(&self) -> Invocation {
        let mut ssh = Invocation::new("ssh").args([
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            "-x",
            "-a",
        ]);
        if let Some(port) = self.port {
            ssh = ssh.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.user {
            ssh = ssh.arg("-l").arg(user);
        }
        if let Some(key) = &self.key_file {
            ssh = ssh.arg("-i").arg(key);
        }
        if self.trust_any_key {
            ssh =
                ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        }
        ssh
    }
}

impl Tunnel {
    pub async fn open(remote: &Remote, ports: &Ports, machine: &str) -> Result<Self> {
        let failed = |reason: String| Error::StartFailed { machine: machine.into(), reason };
        let mut ssh = remote.ssh().args(["-N", "-T", "-o", "ExitOnForwardFailure=yes"]);
        for (here, there) in &ports.to_there {
            ssh = ssh.arg("-L").arg(format!("127.0.0.1:{here}:127.0.0.1:{there}"));
        }
        for port in &ports.to_here {
            ssh = ssh.arg("-R").arg(format!("127.0.0.1:{port}:127.0.0.1:{port}"));
        }
        let mut child = ssh.arg("--").arg(&remote.host).spawn_tied(Stdio::null()).await?;
        let deadline = Instant::now() + START_LIMIT;
        for (here, _) in &ports.to_there {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *here)).await.is_err() {
                let ended = child.try_wait().map_err(Error::io("watch", "ssh"))?;
                if ended.is_some() || Instant::now() > deadline {
                    let _ = child.start_kill();
                    let said = child.wait_with_output().await.map_err(Error::io("watch", "ssh"))?;
                    let words = tail_text(&said.stderr);
                    return Err(failed(format!("ssh to {}: {}", remote.host, words.trim_end())));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(Self { _ssh: child })
    }
}

/// Appends what a port of this host says to a machine's log, until it ends.
pub async fn follow_serial(port: u16, log: SerialLog) -> Result<tokio::task::JoinHandle<()>> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut line = TcpStream::connect(at).await.map_err(Error::io("connect to", at.to_string()))?;
    let mut file = tokio::fs::File::options()
        .create(true)
        .append(true)
        .open(log.path())
        .await
        .map_err(Error::io("write", log.path()))?;
    Ok(tokio::spawn(async move {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = line.read(&mut bytes).await {
            if file.write_all(&bytes[..count]).await.is_err() || file.flush().await.is_err() {
                return;
            }
        }
    }))
}
