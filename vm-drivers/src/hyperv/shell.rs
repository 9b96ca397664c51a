//! A PowerShell on the host, and the ways files and connections get there.

use std::{net::SocketAddr, path::Path, time::Duration};

use async_trait::async_trait;
use hyperv_rs::HostPath;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;

/// A connection to a guest.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a run of a script gave.
pub(super) struct Ran {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: Option<u32>,
}

/// Takes a stream's pieces.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// The way to a host.
#[async_trait]
pub(super) trait Shell: Send + Sync + std::fmt::Debug {
    /// Runs a script's text to its end.
    async fn run(&self, text: &str, limit: Duration) -> Result<Ran>;

    /// Runs a script that lasts, handing on its stdout. Ends it when dropped.
    async fn stream(&self, text: &str, sink: Sink<'_>) -> Result<Option<u32>>;

    /// Copies a file of ours to the host; it has its name there only when it is whole.
    async fn put(&self, local: &Path, to: &HostPath) -> Result<()>;

    /// Copies a file of the host here; it has its name only when it is whole.
    async fn get(&self, from: &HostPath, local: &Path) -> Result<()>;

    /// Connects to an address the host reaches.
    async fn dial(&self, to: SocketAddr) -> Result<Box<dyn Duplex>>;

    /// Whether the host's files are this system's, so that nothing needs to be copied.
    fn is_local(&self) -> bool;
}
