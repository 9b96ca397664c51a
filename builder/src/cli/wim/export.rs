use super::target::{References, Target};
use super::write::{Compression, WriteArgs, report};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{WriteOptions, append, create};
use std::path::PathBuf;

#[derive(Args)]
pub struct Export {
    /// The image to copy, as FILE:INDEX or FILE:NAME
    source: Target,
    /// The WIM to add it to, or to make
    destination: PathBuf,
    /// Name of the copy [default: the same]
    #[arg(long)]
    name: Option<String>,
    /// Compression of a new WIM [default: that of the source]
    #[arg(long, value_enum)]
    compress: Option<Compression>,
    #[command(flatten)]
    references: References,
    #[command(flatten)]
    write: WriteArgs,
}

impl Export {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let source = self.source.open(&self.references)?;
        let index = self.source.index(&source)?;
        let mut image = source
            .load_image(index)
            .map_err(|error| super::failed(self.source.path.display(), error))?;
        if let Some(name) = &self.name {
            image.info.set_name(name);
        }
        let destination = &self.destination;
        if destination.exists() {
            let target = Target { path: destination.clone(), image: None };
            let wim = target.open(&References { refs: Vec::new() })?;
            let mut options = self.write.apply(WriteOptions::like(&wim));
            options.lenders.push(source);
            return report(context, destination, "exporting", |progress| {
                append(destination, &wim, &[image.source()], &options, progress)
            });
        }
        let mut options = self.write.apply(WriteOptions::like(&source));
        options.guid = None;
        options.boot_index = u32::from(source.header().boot_index == index);
        if let Some(compression) = self.compress {
            options.set_compression(compression.into());
        }
        report(context, destination, "exporting", |progress| {
            create(destination, &[image.source()], &options, progress)
        })
    }
}
