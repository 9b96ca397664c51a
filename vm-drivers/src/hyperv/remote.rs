//! A host behind SSH: Windows' own OpenSSH server with PowerShell behind it.

use std::{net::SocketAddr, path::Path, time::Duration};

use async_trait::async_trait;
use hyperv_rs::{HostPath, script::transport};
use tokio::sync::Mutex;

use super::{
    address::Remote,
    shell::{Duplex, Ran, Shell, Sink},
};
use crate::{
    error::{Error, Result},
    guest::{Communicator, Ssh, SshAuth, SshKey, SshTarget},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Much longer than any build.
const STREAM_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug)]
pub(super) struct RemoteShell {
    remote: Remote,
    connection: Mutex<Option<std::sync::Arc<Ssh>>>,
}

impl RemoteShell {
    pub(super) fn new(remote: Remote) -> Self {
        Self { remote, connection: Mutex::new(None) }
    }

    fn name(&self) -> String {
        format!("{}:{}", self.remote.host, self.remote.port)
    }

    fn key(&self) -> Result<SshKey> {
        let own = || {
            let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
            Some(Path::new(&home).join(".ssh/id_ed25519"))
        };
        let path = self
            .remote
            .key
            .clone()
            .or_else(|| std::env::var_os("GILT_HYPERV_KEY").map(Into::into))
            .or_else(own)
            .ok_or_else(|| Error::HostLacks {
                what: "a key for SSH".into(),
                hint: "set GILT_HYPERV_KEY to a private key without a passphrase".into(),
            })?;
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        SshKey::from_openssh(&text)
    }

    /// The connection, made anew where the last one broke.
    async fn ssh(&self) -> Result<std::sync::Arc<Ssh>> {
        let mut connection = self.connection.lock().await;
        if let Some(ssh) = connection.as_ref().filter(|ssh| ssh.is_open()) {
            return Ok(ssh.clone());
        }
        let no_host = |reason: String| Error::Ssh { target: self.name(), reason };
        let address = tokio::net::lookup_host((self.remote.host.as_str(), self.remote.port))
            .await
            .map_err(|e| no_host(format!("its name is not known: {e}")))?
            .next()
            .ok_or_else(|| no_host("its name has no address".into()))?;
        let mut target =
            SshTarget::new(address, self.remote.user.clone(), SshAuth::Key(self.key()?));
        target.host_key = crate::guest::HostKeyPin::of_host(
            &self.remote.host,
            self.remote.port,
            self.remote.host_key.as_deref(),
        )?;
        target.auth_patience = Duration::ZERO;
        let ssh = std::sync::Arc::new(Ssh::connect_to_host(&target, CONNECT_LIMIT).await?);
        *connection = Some(ssh.clone());
        Ok(ssh)
    }
}

/// As OpenSSH's SFTP server names it: `/C:/folder/file`.
fn sftp_path(path: &HostPath) -> Result<String> {
    if path.is_share() {
        return Err(Error::HostLacks {
            what: format!("a way to the share of {path}"),
            hint: "a remote session has no credentials for a second hop; use a folder of a local \
                   disk of the host"
                .into(),
        });
    }
    Ok(format!("/{}", path.as_str().replace('\\', "/")))
}

#[async_trait]
impl Shell for RemoteShell {
    async fn run(&self, text: &str, limit: Duration) -> Result<Ran> {
        let line = transport::stdin_line();
        let stdin = transport::to_stdin(text);
        let mut stdout = Vec::new();
        let (stderr, exit_code) = self
            .ssh()
            .await?
            .run_on_host(line, stdin, limit, &mut |piece| {
                // A cap, so that a host gone mad fills no memory; the reader refuses what is larger.
                if stdout.len() <= transport::MAX_OUTPUT {
                    stdout.extend_from_slice(piece);
                }
            })
            .await?;
        Ok(Ran { stdout, stderr, exit_code })
    }

    async fn stream(&self, text: &str, sink: Sink<'_>) -> Result<Option<u32>> {
        let ssh = self.ssh().await?;
        let stdin = transport::to_stdin(text);
        let (_, code) = ssh.run_on_host(transport::stdin_line(), stdin, STREAM_LIMIT, sink).await?;
        Ok(code)
    }

    async fn put(&self, local: &Path, to: &HostPath) -> Result<()> {
        let ssh = self.ssh().await?;
        let to = sftp_path(to)?;
        let part = format!("{to}.{}.part", uuid::Uuid::new_v4().simple());
        ssh.upload(local, &part, Some(0o644)).await?;
        ssh.rename_on_host(&part, &to).await
    }

    async fn get(&self, from: &HostPath, local: &Path) -> Result<()> {
        self.ssh().await?.download(&sftp_path(from)?, local).await.map(drop)
    }

    async fn dial(&self, to: SocketAddr) -> Result<Box<dyn Duplex>> {
        Ok(Box::new(self.ssh().await?.dial_from_host(to).await?))
    }

    fn is_local(&self) -> bool {
        false
    }
}
