//! `make-ntfs-volume IMAGE [FILES [BYTES [SEED]]]`: a volume like that of an installed Windows;
//! 80,000 files and 2.5 GiB unless told otherwise. Writes `IMAGE.manifest` beside it.
//!
//! `make-ntfs-volume --change IMAGE BYTES [SEED]`: gives files of about so many bytes new contents.

use std::path::PathBuf;

use anyhow::{Context, Result};
use gilt_ntfs_volumes::{Recipe, change, make};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).peekable();
    let changing = args.next_if(|arg| arg == "--change").is_some();
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
    if changing {
        let (wanted, seed) = (number(50 << 20)?, number(2)?);
        let (files, bytes) = change(&image, wanted, seed)?;
        println!("{}: {files} files of {bytes} bytes have new contents", image.display());
        return Ok(());
    }
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
