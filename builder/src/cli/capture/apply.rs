//! `gilt apply`: an image of a WIM as a bootable disk.

use super::{failed, parse_size};
use crate::cli::wim::interrupt::Watched;
use crate::cli::wim::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::{Args, ValueEnum};
use gilt_capture::{BootLoader, ExtraFile, LayoutRequest, OutFormat, layout};
use serde_json::json;
use std::path::PathBuf;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Raw,
    Qcow2,
}

/// Lay out a bootable disk: an EFI system partition and an ext4 root.
#[derive(Args)]
pub struct Apply {
    /// The WIM with the image meant: `image.wim:1`
    image: Target,
    /// The disk to write
    #[arg(short, long, value_name = "DISK")]
    out: PathBuf,
    /// Size of the disk: 4G
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Size of the EFI system partition
    #[arg(long, value_parser = parse_size, default_value = "64M")]
    esp_size: u64,
    /// [default: raw for names that end in .raw or .img, else qcow2]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Write no boot loader
    #[arg(long)]
    no_boot: bool,
    /// Name of the machine
    #[arg(long)]
    hostname: Option<String>,
    /// Put a file of this host into the disk, mode 644, of root; may be given several times
    #[arg(long, value_name = "HOST_PATH:GUEST_PATH")]
    file: Vec<String>,
    /// Derive all ids from this text, to get the same bytes again
    #[arg(long)]
    seed: Option<String>,
}

impl Apply {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let wim = self.image.open(&References { refs: Vec::new() })?;
        let image = self.image.index(&wim)?;
        drop(wim);
        let raw = self.out.extension().is_some_and(|e| e == "raw" || e == "img");
        let format = match self.format {
            Some(FormatName::Raw) => OutFormat::Raw,
            Some(FormatName::Qcow2) => OutFormat::Qcow2,
            None if raw => OutFormat::Raw,
            None => OutFormat::Qcow2,
        };
        let mut extra_files = Vec::new();
        for pair in &self.file {
            let (host, guest) = pair.split_once(':').ok_or_else(|| {
                Failure::usage(format!("--file {pair:?}: HOST_PATH:GUEST_PATH is meant"))
            })?;
            let contents = std::fs::read(host)
                .map_err(|error| Failure::usage(format!("--file {host}: {error}")))?;
            extra_files.push(ExtraFile { contents, ..ExtraFile::text(guest, "") });
        }
        let watched = Watched::new(context, "apply");
        let seed = self.seed.as_ref().map(|text| {
            use sha2::Digest;
            sha2::Sha256::digest(text).into()
        });
        let done = layout(&LayoutRequest {
            image,
            format,
            esp_bytes: self.esp_size,
            boot: if self.no_boot { BootLoader::None } else { BootLoader::Grub },
            hostname: self.hostname.clone(),
            extra_files,
            seed,
            ..LayoutRequest::new(&self.image.path, &self.out, self.size, &watched)
        })
        .map_err(failed)?;
        drop(watched);
        if context.json {
            let line = json!({
                "path": done.path, "size_bytes": done.size_bytes, "root_uuid": done.root_uuid,
                "root_bytes": done.root.total_bytes, "root_free_bytes": done.root.free_bytes,
            });
            println!("{line}");
        } else {
            println!(
                "{}: {} MiB, root of {} MiB with {} MiB free",
                done.path.display(),
                done.size_bytes >> 20,
                done.root.total_bytes >> 20,
                done.root.free_bytes >> 20
            );
        }
        Ok(())
    }
}
