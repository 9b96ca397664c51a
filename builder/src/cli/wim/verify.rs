use super::failed;
use super::interrupt::Watched;
use super::target::{References, Target};
use crate::cli::{Context, Exit, Failure};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub struct Verify {
    /// The WIM, or the first part of a split one
    file: PathBuf,
    #[command(flatten)]
    references: References,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Verify {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let target = Target { path: self.file.clone(), image: None };
        let wim = target.open(&self.references)?;
        let watched = Watched::new(context, "verifying");
        let threads = self.threads.unwrap_or_else(gilt_wim::default_threads);
        let report =
            wim.verify(threads, &watched).map_err(|error| failed(self.file.display(), error))?;
        drop(watched);
        let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
        if context.json {
            let line = json!({
                "path": self.file, "blobs": report.blobs, "bytes": report.bytes,
                "images": report.images, "integrity_table": report.integrity_table,
                "missing": report.missing, "faults": faults,
            });
            println!("{line}");
        } else {
            println!(
                "{}: {} images, {} resources, {} bytes{}",
                self.file.display(),
                report.images,
                report.blobs,
                report.bytes,
                if report.integrity_table { ", integrity table" } else { "" }
            );
            faults.iter().for_each(|fault| println!("fault: {fault}"));
        }
        if !faults.is_empty() {
            let text = format!("{}: {} faults", self.file.display(), faults.len());
            return Err(Failure::new(Exit::Corrupt, anyhow::anyhow!(text)));
        }
        if report.missing > 0 {
            let text = format!(
                "{}: sound, but {} contents are in none of the files given",
                self.file.display(),
                report.missing
            );
            return Err(
                Failure::usage(text).hint("give the base WIM or the other parts with --ref")
            );
        }
        Ok(())
    }
}
