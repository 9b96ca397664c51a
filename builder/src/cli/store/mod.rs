//! `gilt store …` and what is done with published versions: one file per verb.

mod delete;
mod deprecate;
mod diff;
mod fsck;
mod gc;
mod history;
mod hold;
mod init;
mod key;
mod ls;
mod mirror;
mod policy;
mod promote;
mod publish;
mod pull;
mod retention;
mod revoke;
mod rollback;
mod serve;
mod show;
mod text;
mod verify;

use super::{Context, Exit, Failure};
use crate::image_store;
use clap::{Args, Subcommand};
use gilt_store::{Error, OpenOptions, Reference, Store, Watch};
use serde::Serialize;
use std::sync::Arc;

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Look at a store, make one, keep it in order
    #[command(subcommand)]
    Store(Upkeep),
    /// Serve the store over HTTP, read-only
    Serve(serve::Serve),
    /// Publish a file as a new version of an image
    Publish(publish::Publish),
    /// Get a version's file, bit for bit
    Pull(pull::Pull),
    /// Move a channel to a version, through the gates of the channel
    Promote(promote::Promote),
    /// Move a channel back to the version it was at before
    Rollback(rollback::Rollback),
    /// Forbid a version: it is neither pulled nor promoted any more
    Revoke(revoke::Revoke),
    /// Take back a revoke, a delete or a deprecate
    Restore(revoke::Restore),
    /// Mark a version as one not to start with; pulls warn
    Deprecate(deprecate::Deprecate),
    /// Keep a version from being deleted
    Hold(hold::Hold),
    /// Take a hold off a version
    Release(hold::Release),
    /// Say what happened to an image: who, when, why
    History(history::History),
    /// Say what differs between two versions
    Diff(diff::Diff),
    /// Check a version's signature and every byte of it
    Verify(verify::Verify),
}

#[derive(Subcommand)]
pub enum Upkeep {
    /// Make a store, after the backend has shown that it keeps its promises
    Init(init::Init),
    /// List images, or the versions of one
    Ls(ls::Ls),
    /// Show everything about one version
    Show(show::Show),
    /// Check every reference, signature and digest; put back what is damaged
    Fsck(fsck::Fsck),
    /// Free what nothing refers to, in two steps with a grace time
    Gc(gc::Gc),
    /// Copy the store to another place, moving only what that lacks
    Mirror(mirror::Mirror),
    /// Delete versions by the retention rules of the policy
    Retention(retention::Retention),
    /// Delete one version; it can be restored for the grace time
    Rm(delete::Delete),
    /// Serve the store over HTTP, read-only
    Serve(serve::Serve),
    /// Key pairs: list, make, trust, retire
    #[command(subcommand)]
    Key(key::Key),
    /// The rules of the store: keys, channels, gates, retention
    #[command(subcommand)]
    Policy(policy::Policy),
}

impl StoreCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            match self {
                Self::Store(command) => command.run(context).await,
                Self::Serve(command) => command.run(context).await,
                Self::Publish(command) => command.run(context).await,
                Self::Pull(command) => command.run(context).await,
                Self::Promote(command) => command.run(context).await,
                Self::Rollback(command) => command.run(context).await,
                Self::Revoke(command) => command.run(context).await,
                Self::Restore(command) => command.run(context).await,
                Self::Deprecate(command) => command.run(context).await,
                Self::Hold(command) => command.run(context).await,
                Self::Release(command) => command.run(context).await,
                Self::History(command) => command.run(context).await,
                Self::Diff(command) => command.run(context).await,
                Self::Verify(command) => command.run(context).await,
            }
        })
    }
}

impl Upkeep {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Init(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Fsck(command) => command.run(context).await,
            Self::Gc(command) => command.run(context).await,
            Self::Mirror(command) => command.run(context).await,
            Self::Retention(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Serve(command) => command.run(context).await,
            Self::Key(command) => command.run(context).await,
            Self::Policy(command) => command.run(context).await,
        }
    }
}

/// Which store.
#[derive(Args)]
pub struct At {
    /// The store: a folder or s3://BUCKET/PREFIX; by default a folder of the user, made on first use
    #[arg(long, env = "GILT_STORE", value_name = "URL")]
    store: Option<String>,
}

impl At {
    pub fn url(&self) -> Result<String, Failure> {
        self.store.clone().or_else(image_store::default_url).ok_or_else(|| {
            Failure::usage("no store is named and there is no home folder")
                .hint("name one with --store or GILT_STORE")
        })
    }

    /// A store that is named must exist; the user's own is made when it is first used.
    pub fn options(&self) -> OpenOptions {
        let mut options = image_store::options();
        options.create = self.store.is_none();
        options
    }

    pub async fn open(&self) -> Result<Store, Failure> {
        Store::open(&self.url()?, self.options()).await.map_err(failed)
    }
}

/// The one map from errors of the store to exit codes and hints.
pub fn failed(error: Error) -> Failure {
    let (exit, hint) = match &error {
        Error::Corrupt { .. } | Error::Sha1Collision { .. } => (
            Exit::Corrupt,
            Some("`gilt store fsck --repair --from OTHER` puts back what another store has"),
        ),
        Error::Signature { .. } => {
            (Exit::Corrupt, Some("`gilt store key ls` shows the keys this store trusts"))
        }
        Error::NotAStore { .. } => (Exit::Usage, Some("`gilt store init URL` makes one")),
        Error::Invalid { .. } => (Exit::Usage, None),
        Error::Cancelled => (Exit::Cancelled, None),
        Error::Gates { .. } => {
            (Exit::Store, Some("--force promotes it all the same, and is recorded"))
        }
        Error::NoKey { .. } => (
            Exit::Store,
            Some(
                "`gilt store key new` makes a key; who keeps the policy adds it with `gilt store key add`",
            ),
        ),
        Error::Replayed { .. } => {
            (Exit::Corrupt, Some("an old copy of the store is being shown; ask who serves it"))
        }
        Error::Identity { .. } => (
            Exit::Store,
            Some("if the store was replaced on purpose: `gilt store init --forget URL`"),
        ),
        Error::BackendLies { .. } => (
            Exit::Store,
            Some("use a server that keeps it: S3 itself, or a folder on a local disk"),
        ),
        Error::Io { .. } => (Exit::Internal, None),
        _ => (Exit::Store, None),
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Progress of bytes on the terminal.
fn watch(context: &Context, label: &str, bytes: u64) -> Watch {
    let progress = context.progress(label, bytes);
    Watch { progress: Some(Arc::new(move |bytes| progress.add(bytes))), cancel: None }
}

/// Prints a result: as JSON, or as `plain` makes it.
fn print<T: Serialize>(
    context: &Context,
    value: &T,
    plain: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    use std::io::Write;
    let text = if context.json {
        let mut text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
        text.push('\n');
        text
    } else {
        plain(value)
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// `IMAGE@N` with a number: for verbs that act on one version, not on where a channel is.
fn version_of(reference: &Reference) -> Result<(String, u64), Failure> {
    match reference.pick {
        gilt_store::Pick::Version(version) => Ok((reference.image.clone(), version)),
        _ => {
            Err(Failure::usage(format!("{reference}: want a version, as in {}@7", reference.image)))
        }
    }
}

/// `IMAGE:CHANNEL`.
fn channel_of(reference: &Reference) -> Result<(String, String), Failure> {
    match &reference.pick {
        gilt_store::Pick::Channel(channel) => Ok((reference.image.clone(), channel.clone())),
        _ => Err(Failure::usage(format!(
            "{reference}: want a channel, as in {}:prod",
            reference.image
        ))),
    }
}
