//! Ways into a guest: running commands, moving files, proving a reboot, serving it files.

mod command;
mod http;
mod key;
mod reboot;
mod sftp;
mod ssh;

use std::{fmt, path::Path, time::Duration};

use async_trait::async_trait;

use crate::{driver::Vm, error::Result};

pub use command::{ExecOutcome, ExitStatus, GuestCommand, GuestShell, Output, OutputSink, quiet};
pub use http::{HttpServer, SERVED};
pub use key::SshKey;
pub use reboot::{boot_id, restart};
pub use ssh::{HostKeyPin, Ssh, SshAuth, SshLogin, SshTarget};

/// Files moved to or from a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    pub files: u64,
    pub bytes: u64,
}

/// An open way into a guest.
///
/// Every method fails with `Error::Ended` as soon as the machine ends, with
/// `Error::ConnectionLost` when the way in breaks while the machine runs on.
#[async_trait]
pub trait Communicator: Send + Sync + fmt::Debug {
    /// Such as `gilt@127.0.0.1:40123`.
    fn target(&self) -> String;

    /// Runs a command to its end. A failing command is an `Ok` with its status; running out of
    /// `GuestCommand::limit` kills it and is an `Error::TimedOut`.
    async fn exec(&self, command: &GuestCommand, output: OutputSink<'_>) -> Result<ExecOutcome>;

    /// Copies a file, or a folder with all in it, to `remote`, which names the copy itself.
    /// `mode` is for files; `None` keeps what they have here.
    async fn upload(&self, local: &Path, remote: &str, mode: Option<u32>) -> Result<Transferred>;

    /// Writes a file from memory.
    async fn upload_bytes(&self, bytes: &[u8], remote: &str, mode: u32) -> Result<()>;

    /// Copies a file, or a folder with all in it, to `local`, which names the copy itself.
    async fn download(&self, remote: &str, local: &Path) -> Result<Transferred>;

    fn is_open(&self) -> bool;

    async fn close(&self);
}

/// Knows how to get into the guests of a build.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// Tries until the guest lets us in, `limit` is over or the machine has ended.
    async fn connect(&self, vm: &dyn Vm, limit: Duration) -> Result<Box<dyn Communicator>>;
}
