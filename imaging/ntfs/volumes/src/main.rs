//! `make-ntfs-volume IMAGE [FILES [BYTES [SEED]]]`: a volume like that of an installed Windows;
//! 80,000 files and 2.5 GiB unless told otherwise. Writes `IMAGE.manifest` beside it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use gilt_ntfs_volumes::{Recipe, make};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let image: PathBuf =
        args.next().context("usage: make-ntfs-volume IMAGE [FILES [BYTES [SEED]]]")?.into();
    let mut number = |default: u64| -> Result<u64> {
        match args.next() {
            None => Ok(default),
            Some(arg) => arg
                .to_string_lossy()
                .parse()
                .with_context(|| format!("{} is not a number", arg.display())),
        }
    };
    let mut recipe = Recipe::full();
    recipe.files = number(recipe.files)?;
    recipe.bytes = number(recipe.bytes)?;
    recipe.seed = number(recipe.seed)?;
    let manifest = make(&image, &recipe)?;
    let beside = image.with_added_extension("manifest");
    std::fs::write(&beside, manifest.to_text())
        .with_context(|| format!("writing {}", beside.display()))?;
    println!(
        "{}: {} streams, {} bytes",
        image.display(),
        manifest.streams.len(),
        manifest.total_bytes()
    );
    Ok(())
}
