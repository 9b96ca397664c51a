//! `gilt capture | disk | inventory | apply`: disks in, WIMs out, and back.

mod apply;
mod disk;
mod inventory;
mod take;

use super::{Context, Exit, Failure};
use clap::Subcommand;
use gilt_capture::CaptureError;
use gilt_disk::{DiskError, OpenOptions};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum CaptureCommand {
    /// Capture a powered-off machine's disk into a WIM, without root and without mounting
    Capture(take::Capture),
    /// Look into a disk image of any format
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    /// List the operating system and packages of a disk or of an image in a WIM
    Inventory(inventory::InventoryCommand),
    /// Lay out a bootable disk from an image in a WIM
    Apply(apply::Apply),
}

impl CaptureCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Capture(command) => command.run(context),
            Self::Disk(command) => command.run(context),
            Self::Inventory(command) => command.run(context),
            Self::Apply(command) => command.run(context),
        }
    }
}

/// Which disk, and which of its states.
#[derive(clap::Args)]
struct DiskArgs {
    /// Disk image: raw, qcow2, VHDX or VHD, with its backing images
    disk: PathBuf,
    /// A snapshot kept inside a qcow2 image, by name or id
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
}

impl DiskArgs {
    fn options(&self) -> OpenOptions {
        OpenOptions { snapshot: self.snapshot.clone(), ..OpenOptions::default() }
    }

    fn open(&self) -> Result<gilt_disk::Disk, Failure> {
        gilt_disk::open_with(&self.disk, &self.options()).map_err(|error| failed(error.into()))
    }
}

/// Exit code and hint of an error between disk and WIM.
fn failed(error: CaptureError) -> Failure {
    use std::io::ErrorKind;
    let exit_of_io = |kind: ErrorKind| match kind {
        ErrorKind::StorageFull => Exit::Host,
        ErrorKind::NotFound => Exit::Usage,
        ErrorKind::InvalidData => Exit::Corrupt,
        _ => Exit::Internal,
    };
    let exit = match &error {
        CaptureError::Wim(gilt_wim::Error::Cancelled) => Exit::Cancelled,
        CaptureError::Wim(inner) if inner.is_corruption() => Exit::Corrupt,
        CaptureError::Disk(DiskError::Corrupt { .. }) | CaptureError::IndexWrong { .. } => {
            Exit::Corrupt
        }
        CaptureError::Ext4(gilt_ext4::Ext4Error::Corrupt { .. }) => Exit::Corrupt,
        CaptureError::Disk(DiskError::Io { source, .. })
        | CaptureError::Io { source, .. }
        | CaptureError::File { source, .. } => exit_of_io(source.kind()),
        CaptureError::Changed { .. } => Exit::Corrupt,
        _ => Exit::Usage,
    };
    let hint = match &error {
        CaptureError::Disk(DiskError::InUse { .. }) => {
            Some("shut the machine down first; a disk that is written to has no one state")
        }
        CaptureError::NoSystem { .. } => Some("say which partition with --partition N"),
        CaptureError::NoPartition { .. } => Some("`gilt disk info DISK` lists the partitions"),
        CaptureError::IndexWrong { .. } => {
            Some("capture without --base, and report this: it must not happen")
        }
        CaptureError::Changed { .. } => Some("nothing may write to the disk while it is captured"),
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// `64M`, `4G`, `1T`, or bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        other => return Err(format!("{other:?} is no unit; K, M, G and T are")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_the_usual_units() {
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("4X").is_err() && parse_size("G").is_err());
    }
}
