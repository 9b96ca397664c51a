use super::target::{References, Target};
use super::write::{CaptureArgs, WriteArgs, default_name, describe, report};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{ImageInfo, ImageSource, WriteOptions, append};
use std::path::PathBuf;

#[derive(Args)]
pub struct Append {
    /// The directory to take
    dir: PathBuf,
    /// The WIM to add to
    file: PathBuf,
    /// Name of the image [default: the directory's]
    #[arg(long)]
    name: Option<String>,
    /// Description of the image
    #[arg(long)]
    description: Option<String>,
    /// Mark the new image as the one to boot
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Append {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let target = Target { path: self.file.clone(), image: None };
        let wim = target.open(&References { refs: Vec::new() })?;
        let mut options = self.write.apply(WriteOptions::like(&wim));
        if self.boot {
            options.boot_index = wim.image_count() + 1;
        }
        let mut info =
            ImageInfo::named(&self.name.clone().unwrap_or_else(|| default_name(&self.dir)));
        if let Some(text) = &self.description {
            info.xml.set("DESCRIPTION", text);
        }
        let (tree, contents) = self.capture.capture(&self.dir)?;
        describe(&tree, &contents, &mut info);
        let image = ImageSource { tree: &tree, contents: &contents, info };
        report(context, &self.file, "appending", |progress| {
            append(&self.file, &wim, &[image], &options, progress)
        })
    }
}
