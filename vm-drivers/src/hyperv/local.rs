//! This very host: Windows PowerShell as a child, files where they are.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use async_trait::async_trait;
use hyperv_rs::{HostPath, script::transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::shell::{Duplex, Ran, Shell, Sink};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct LocalShell;

impl LocalShell {
    async fn start(&self, text: &str) -> Result<Child> {
        let lacks = |what: std::io::Error| Error::HostLacks {
            what: format!("Windows PowerShell ({what})"),
            hint: "powershell.exe is part of Windows; look at PATH".into(),
        };
        let line = transport::stdin_line();
        let mut words = line.split(' ');
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(lacks)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&transport::to_stdin(text)).await.map_err(lacks)?;
        }
        Ok(child)
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::Monitor { command: "PowerShell".into(), reason: error.to_string() }
}

#[async_trait]
impl Shell for LocalShell {
    async fn run(&self, text: &str, limit: Duration) -> Result<Ran> {
        let child = self.start(text).await?;
        match tokio::time::timeout(limit, child.wait_with_output()).await {
            Ok(output) => {
                let output = output.map_err(broken)?;
                let exit_code = output.status.code().and_then(|code| u32::try_from(code).ok());
                Ok(Ran { stdout: output.stdout, stderr: output.stderr, exit_code })
            }
            Err(_) => Err(Error::TimedOut {
                subject: "PowerShell".into(),
                after: limit,
                last_seen: String::new(),
                serial_tail: String::new(),
            }),
        }
    }

    async fn stream(&self, text: &str, sink: Sink<'_>) -> Result<Option<u32>> {
        let mut child = self.start(text).await?;
        let Some(mut stdout) = child.stdout.take() else { return Ok(None) };
        let mut buffer = vec![0; 4096];
        loop {
            match stdout.read(&mut buffer).await.map_err(broken)? {
                0 => break,
                count => sink(&buffer[..count]),
            }
        }
        let status = child.wait().await.map_err(broken)?;
        Ok(status.code().and_then(|code| u32::try_from(code).ok()))
    }

    async fn put(&self, local: &Path, to: &HostPath) -> Result<()> {
        let part = format!("{to}.{}.part", uuid::Uuid::new_v4().simple());
        tokio::fs::copy(local, &part).await.map_err(Error::io("copy", local))?;
        tokio::fs::rename(&part, to.as_str()).await.map_err(Error::io("rename", &part))
    }

    async fn get(&self, from: &HostPath, local: &Path) -> Result<()> {
        let part = local.with_extension("part");
        tokio::fs::copy(from.as_str(), &part).await.map_err(Error::io("copy", from.as_str()))?;
        tokio::fs::rename(&part, local).await.map_err(Error::io("rename", &part))
    }

    async fn dial(&self, to: SocketAddr) -> Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(to).await.map_err(|e| Error::ConnectionLost {
            target: to.to_string(),
            during: "connecting".into(),
            reason: e.to_string(),
        })?;
        Ok(Box::new(stream))
    }

    fn is_local(&self) -> bool {
        true
    }
}
