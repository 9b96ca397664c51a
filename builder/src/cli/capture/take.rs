//! `gilt capture`.

use super::{DiskArgs, failed};
use crate::cli::store::{At, failed as store_failed};
use crate::cli::wim::interrupt::Watched;
use crate::cli::wim::write::{Compression, WriteArgs};
use crate::cli::{Context, Failure};
use crate::image_store::StoredReader;
use clap::Args;
use gilt_capture::{
    CaptureError, CaptureOptions, CaptureRequest, Elsewhere, Encrypted, ExcludeRules, Incremental,
    PartitionChoice, SpecialPolicy, capture_with, index_path,
};
use gilt_store::Reference;
use gilt_wim::{ImageInfo, Wim, WriteOptions};
use serde_json::json;
use std::path::PathBuf;
use tokio::runtime::Runtime;

/// Capture a powered-off machine's disk into a WIM.
#[derive(Args)]
pub struct Capture {
    #[command(flatten)]
    disk: DiskArgs,
    /// The WIM to write
    #[arg(short, long, value_name = "OUT.wim")]
    out: PathBuf,
    /// Partition to capture, counted from 1 [default: the one with the operating system]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// A WIM whose compressed resources are taken over; with its index beside it, files that were
    /// not touched since are not even read. Also a version in a store. May be given several times
    #[arg(long, value_name = "OLD.wim|INDEX|IMAGE:CHANNEL|IMAGE@N")]
    base: Vec<PathBuf>,
    #[command(flatten)]
    at: At,
    #[arg(long, value_enum, default_value = "lzx")]
    compress: Compression,
    #[command(flatten)]
    write: WriteArgs,
    /// Leave out what matches, as in WimScript.ini: `\pagefile.sys`, `*.tmp`, `/var/**/*.log`
    #[arg(long, value_name = "RULE")]
    exclude: Vec<String>,
    /// Rules of a WimScript.ini, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    exclude_file: Option<PathBuf>,
    /// Leave out nothing but what --exclude says
    #[arg(long)]
    no_default_excludes: bool,
    /// Name of the image [default: the name of the WIM]
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    description: Option<String>,
    /// Leave out files encrypted by EFS instead of refusing
    #[arg(long)]
    skip_encrypted: bool,
    /// Leave out files whose contents are elsewhere (deduplicated, in a cloud) instead of refusing
    #[arg(long)]
    skip_elsewhere: bool,
    /// Write no index for the next capture
    #[arg(long)]
    no_index: bool,
    /// Read everything all the same, and fail if an index was wrong
    #[arg(long)]
    verify_incremental: bool,
}

impl Capture {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.name.clone().unwrap_or_else(|| {
            self.out.file_stem().map_or_else(|| "image".into(), |s| s.to_string_lossy().into())
        });
        let mut info = ImageInfo::named(&name);
        if let Some(text) = &self.description {
            info.xml.set("DESCRIPTION", text);
        }
        // Reads from a store go through it while the capture runs.
        let runtime = tokio::runtime::Runtime::new()?;
        let (previous, lenders) = self.bases(&runtime)?;
        let watched = Watched::new(context, "capture");
        let request = CaptureRequest {
            disk: &self.disk.disk,
            open: self.disk.options(),
            partition: self.partition.map_or(PartitionChoice::Auto, PartitionChoice::Number),
            exclude: self.rules()?,
            out: &self.out,
            info,
            write: self.write.apply(WriteOptions {
                compression: self.compress.into(),
                lenders,
                ..WriteOptions::default()
            }),
            progress: &watched,
        };
        let options = CaptureOptions {
            previous,
            write_index: !self.no_index,
            verify_incremental: self.verify_incremental,
            specials: SpecialPolicy {
                encrypted: match self.skip_encrypted {
                    true => Encrypted::LeaveOut,
                    false => Encrypted::Refuse,
                },
                elsewhere: match self.skip_elsewhere {
                    true => Elsewhere::LeaveOut,
                    false => Elsewhere::Refuse,
                },
            },
        };
        let done = capture_with(&request, &options).map_err(failed)?;
        drop(watched);
        if context.json {
            let incremental = match &done.incremental {
                Incremental::NotAsked => json!(null),
                Incremental::Ignored { reason } => json!({ "used": false, "reason": reason }),
                Incremental::Used { known_bytes, changed_bytes, verified_files } => json!({
                    "used": true, "known_bytes": known_bytes, "changed_bytes": changed_bytes,
                    "verified_files": verified_files,
                }),
            };
            let line = json!({
                "path": done.wim, "partition": done.partition,
                "file_system": done.file_system.name(), "label": done.label,
                "file_bytes": done.written.file_bytes, "total_bytes": done.written.total_bytes,
                "unique_bytes": done.written.unique_bytes,
                "copied_bytes": done.written.lent_bytes, "excluded": done.excluded.paths,
                "incremental": incremental, "index": done.index, "notes": done.notes,
            });
            println!("{line}");
            return Ok(());
        }
        for note in &done.notes {
            eprintln!("note: {note}");
        }
        match &done.incremental {
            Incremental::NotAsked => {}
            Incremental::Ignored { reason } => eprintln!("index not used: {reason}"),
            Incremental::Used { known_bytes, changed_bytes, verified_files } => {
                println!(
                    "{known_bytes} bytes of files not read again; {changed_bytes} bytes of the \
                     volume were written since"
                );
                if self.verify_incremental {
                    println!("{verified_files} files proved unchanged");
                }
            }
        }
        println!(
            "{}: {} bytes for {} bytes of files ({} without duplicates, {} copied as they were)",
            done.wim.display(),
            done.written.file_bytes,
            done.written.total_bytes,
            done.written.unique_bytes,
            done.written.lent_bytes
        );
        Ok(())
    }

    fn rules(&self) -> Result<Option<ExcludeRules>, Failure> {
        let mut rules = match (&self.exclude_file, self.no_default_excludes) {
            (Some(path), _) => {
                let bytes = std::fs::read(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                let text = gilt_wim::xml::decode_text(&bytes);
                ExcludeRules::parse_script(&text)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
            (None, true) => ExcludeRules::none(),
            // With rules of its own on top of the usual ones, those of both systems are taken: a rule
            // of the other one matches nothing.
            (None, false) if !self.exclude.is_empty() => ExcludeRules::usual(),
            (None, false) => return Ok(None),
        };
        for rule in &self.exclude {
            rules.exclude(rule).map_err(Failure::usage)?;
        }
        Ok(Some(rules))
    }

    /// The first base with an index is what the disk is compared with; all lend.
    fn bases(&self, runtime: &Runtime) -> Result<(Option<PathBuf>, Vec<Wim>), Failure> {
        let mut previous = None;
        let mut lenders = Vec::new();
        for path in &self.base {
            let wim = match path.extension() {
                Some(extension) if extension == "index" => path.with_extension(""),
                _ => path.clone(),
            };
            if previous.is_none() && index_path(&wim).is_file() {
                previous = Some(wim);
                continue;
            }
            // A name alone is that of a file which is not there.
            let is_version = |text: &&str| text.contains([':', '@']) && !wim.exists();
            let version = path.to_str().filter(is_version);
            let version = version.and_then(|text| text.parse::<Reference>().ok());
            lenders.push(match version {
                Some(version) => stored(&self.at, &version, runtime)?,
                None => Wim::open(&wim).map_err(|error| failed(CaptureError::Wim(error)))?,
            });
        }
        Ok((previous, lenders))
    }
}

/// The WIM of a version in a store; what is copied from it is fetched when its turn comes.
fn stored(at: &At, version: &Reference, runtime: &Runtime) -> Result<Wim, Failure> {
    let file = runtime.block_on(async {
        let store = at.open().await?;
        let found = store.resolve(version).await.map_err(store_failed)?;
        store.file(&found.manifest.file.content).await.map_err(store_failed)
    })?;
    let reader = StoredReader::over(file, runtime.handle().clone());
    Wim::from_reader(reader).map_err(|error| failed(CaptureError::Wim(error)))
}
