//! `gilt wim …`: one file per verb.

mod append;
mod create;
mod delete;
mod diff;
mod export;
mod extract;
mod info;
pub(super) mod interrupt;
mod ls;
mod optimize;
mod split;
pub(super) mod target;
mod verify;
pub(super) mod write;

use super::{Context, Exit, Failure};
use clap::Subcommand;
use gilt_wim::Error;

#[derive(Subcommand)]
pub enum WimCommand {
    /// Say what a WIM is and which images it holds
    Info(info::Info),
    /// List the files of an image
    Ls(ls::Ls),
    /// Read all of a WIM and compare every hash
    Verify(verify::Verify),
    /// Write an image, or parts of it, to a directory
    Extract(extract::Extract),
    /// Make a WIM of a directory
    Create(create::Create),
    /// Add a directory to a WIM as a new image
    Append(append::Append),
    /// Copy an image to another WIM
    Export(export::Export),
    /// Remove an image
    Delete(delete::Delete),
    /// Rewrite a WIM without holes, or compressed anew
    Optimize(optimize::Optimize),
    /// Split a WIM into parts of limited size
    Split(split::Split),
    /// Say what differs between two images
    Diff(diff::Diff),
}

impl WimCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Info(command) => command.run(context),
            Self::Ls(command) => command.run(context),
            Self::Verify(command) => command.run(context),
            Self::Extract(command) => command.run(context),
            Self::Create(command) => command.run(context),
            Self::Append(command) => command.run(context),
            Self::Export(command) => command.run(context),
            Self::Delete(command) => command.run(context),
            Self::Optimize(command) => command.run(context),
            Self::Split(command) => command.run(context),
            Self::Diff(command) => command.run(context),
        }
    }
}

/// Exit code and hint of an error of the WIM engine; `what` is the file it was about.
pub(super) fn failed(what: impl std::fmt::Display, error: Error) -> Failure {
    let exit = match &error {
        Error::Cancelled => Exit::Cancelled,
        error if error.is_corruption() => Exit::Corrupt,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Exit::Host,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::Usage,
        Error::Io { .. } => Exit::Internal,
        _ => Exit::Usage,
    };
    let hint = match &error {
        Error::MissingResource { .. } => Some("give the base WIM or the other parts with --ref"),
        Error::NoSuchImage { .. } => Some("`gilt wim info FILE` lists the images"),
        Error::HashMismatch { .. } | Error::Corrupt { .. } => {
            Some("`gilt wim verify FILE` lists every fault; fetch the file again if it was copied")
        }
        Error::SourceChanged { .. } => {
            Some("nothing may write to the directory while it is captured")
        }
        _ => None,
    };
    let failure = Failure::new(exit, anyhow::Error::from(error).context(what.to_string()));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
