use super::failed;
use super::interrupt::Watched;
use super::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{ExtractOptions, extract_tree};
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub struct Extract {
    /// The image, as FILE, FILE:INDEX or FILE:NAME
    target: Target,
    /// Only these paths of it (`Windows/System32/config`); directories with all in them
    paths: Vec<String>,
    /// The directory to write to
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    references: References,
    /// Leave owner, mode, extended attributes and special files of Unix
    #[arg(long)]
    no_unix_data: bool,
    /// Threads [default: one per processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Extract {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let wim = self.target.open(&self.references)?;
        let index = self.target.index(&wim)?;
        let path = &self.target.path;
        let fail = |error| failed(path.display(), error);
        let (tree, contents) = wim.load_tree(index).map_err(fail)?;
        let options = ExtractOptions {
            unix_data: !self.no_unix_data,
            paths: self.paths.clone(),
            threads: self.threads.unwrap_or_else(gilt_wim::default_threads),
        };
        let watched = Watched::new(context, "extracting");
        let done =
            extract_tree(&tree, &contents, &self.output, &options, &watched).map_err(fail)?;
        drop(watched);
        if context.json {
            let line = json!({
                "directory": self.output, "files": done.files, "directories": done.directories,
                "bytes": done.bytes, "warnings": done.warnings,
            });
            println!("{line}");
        } else {
            done.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!(
                "{}: {} files, {} directories, {} bytes",
                self.output.display(),
                done.files,
                done.directories,
                done.bytes
            );
        }
        Ok(())
    }
}
