use super::write::{CaptureArgs, Compression, WriteArgs, default_name, describe, report};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{ImageInfo, ImageSource, Wim, WriteOptions, create};
use std::path::PathBuf;

#[derive(Args)]
pub struct Create {
    /// The directory to take
    dir: PathBuf,
    /// The WIM to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// LZMS makes solid resources, which only newer tools of Microsoft read
    #[arg(long, value_enum, default_value = "lzx")]
    compress: Compression,
    /// Bytes per chunk; other than 32768, Microsoft's tools may not read it
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u32>,
    /// Name of the image [default: the directory's]
    #[arg(long)]
    name: Option<String>,
    /// Description of the image
    #[arg(long)]
    description: Option<String>,
    /// Edition shown by Setup
    #[arg(long)]
    flags: Option<String>,
    /// Mark the image as the one to boot
    #[arg(long)]
    boot: bool,
    /// Leave out contents this WIM has: writes a delta that needs it; may be given several times
    #[arg(long, value_name = "WIM")]
    delta_from: Vec<PathBuf>,
    /// Copy compressed contents from this WIM where they are the same; may be given several times
    #[arg(long, value_name = "WIM")]
    seed: Vec<PathBuf>,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Create {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let open = |paths: &[PathBuf]| {
            let opened = paths
                .iter()
                .map(|path| Wim::open(path).map_err(|error| super::failed(path.display(), error)));
            opened.collect::<Result<Vec<_>, _>>()
        };
        let mut options = self.write.apply(WriteOptions::default());
        options.compression = self.compress.into();
        options.solid = options.compression == gilt_wim::Compression::Lzms;
        options.chunk_bytes = self.chunk_size.unwrap_or(options.compression.default_chunk_bytes());
        options.boot_index = u32::from(self.boot);
        options.lenders = open(&self.seed)?;
        options.references = open(&self.delta_from)?;
        let mut info =
            ImageInfo::named(&self.name.clone().unwrap_or_else(|| default_name(&self.dir)));
        if let Some(text) = &self.description {
            info.xml.set("DESCRIPTION", text);
        }
        if let Some(text) = &self.flags {
            info.xml.set("FLAGS", text);
        }
        let (tree, contents) = self.capture.capture(&self.dir)?;
        describe(&tree, &contents, &mut info);
        let image = ImageSource { tree: &tree, contents: &contents, info };
        report(context, &self.output, "creating", |progress| {
            create(&self.output, &[image], &options, progress)
        })
    }
}
