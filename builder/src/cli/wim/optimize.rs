use super::target::{References, Target};
use super::write::{Compression, WriteArgs, report};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{WriteOptions, optimize};
use std::path::PathBuf;

#[derive(Args)]
pub struct Optimize {
    /// The WIM to rewrite
    file: PathBuf,
    /// Compress everything anew, at --level
    #[arg(long)]
    recompress: bool,
    /// Change the compression
    #[arg(long, value_enum)]
    compress: Option<Compression>,
    #[command(flatten)]
    write: WriteArgs,
}

impl Optimize {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let target = Target { path: self.file.clone(), image: None };
        let wim = target.open(&References { refs: Vec::new() })?;
        let mut options = self.write.apply(WriteOptions::like(&wim));
        if self.recompress {
            options.lenders.clear();
        }
        if let Some(compression) = self.compress {
            options.set_compression(compression.into());
        }
        report(context, &self.file, "rewriting", |progress| {
            optimize(&self.file, &wim, &options, progress)
        })
    }
}
