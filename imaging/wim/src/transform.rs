//! Changing WIMs: append, export, delete, optimize. Each writes a new file beside the old one
//! and renames it, so an interrupted change leaves the old file as it was. Resources go over as
//! they are wherever compression and chunk size agree.

use crate::error::{Error, Result};
use crate::header::header_flag;
use crate::info::ImageInfo;
use crate::progress::Progress;
use crate::tree::Tree;
use crate::wim::{Wim, WimContents};
use crate::write::{ImageSource, WriteOptions, Written, create};
use std::path::Path;

/// An image of an existing WIM, loaded.
pub struct LoadedImage {
    pub tree: Tree,
    pub contents: WimContents,
    pub info: ImageInfo,
}

impl LoadedImage {
    pub fn source(&self) -> ImageSource<'_> {
        ImageSource { tree: &self.tree, contents: &self.contents, info: self.info.clone() }
    }
}

impl Wim {
    /// Loads image `index` (1-based) to write it elsewhere.
    pub fn load_image(&self, index: u32) -> Result<LoadedImage> {
        let (tree, contents) = self.load_tree(index)?;
        Ok(LoadedImage { tree, contents, info: self.image_info(index) })
    }

    fn load_images(&self, indexes: impl Iterator<Item = u32>) -> Result<Vec<LoadedImage>> {
        indexes.map(|index| self.load_image(index)).collect()
    }

    fn check_writable(&self) -> Result<()> {
        let header = self.header();
        let fail = |why: &str| Err(Error::Options(format!("this WIM cannot be changed: {why}")));
        if header.flags & header_flag::READONLY != 0 {
            return fail("it is marked read-only");
        }
        if header.parts > 1 {
            return fail("it is a part of a split set; export its images to one file first");
        }
        if header.pipable {
            return fail("it is pipable; export its images to another file");
        }
        Ok(())
    }
}

impl WriteOptions {
    /// Options that keep what `wim` is: compression, chunk size, integrity table, boot image,
    /// identity; its resources are lent.
    pub fn like(wim: &Wim) -> Self {
        let header = wim.header();
        let defaults = Self::default();
        Self {
            compression: header.compression,
            chunk_bytes: match header.chunk_bytes {
                0 => defaults.chunk_bytes,
                bytes => bytes,
            },
            solid: wim.resources().any(|resource| resource.is_solid()),
            integrity: header.integrity.stored_bytes != 0,
            boot_index: header.boot_index,
            guid: Some(header.guid),
            rp_fix: Some(header.flags & header_flag::RP_FIX != 0),
            lenders: vec![wim.clone()],
            ..defaults
        }
    }
}

/// Adds images to the WIM at `path`. `options` come from [`WriteOptions::like`] with `wim`, the
/// file at `path` opened.
pub fn append(
    path: &Path,
    wim: &Wim,
    images: &[ImageSource<'_>],
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    wim.check_writable()?;
    let old = wim.load_images(1..=wim.image_count())?;
    for image in images {
        let name = image.info.name();
        if name.is_some() && old.iter().any(|old| old.info.name() == name) {
            let name = name.unwrap_or_default();
            return Err(Error::Options(format!("there is an image {name:?} already")));
        }
    }
    let mut all: Vec<ImageSource<'_>> = old.iter().map(LoadedImage::source).collect();
    all.extend(images.iter().cloned());
    create(path, &all, options, progress)
}

/// Removes image `index` and the contents only it has.
pub fn delete(
    path: &Path,
    wim: &Wim,
    index: u32,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    wim.check_writable()?;
    let count = wim.image_count();
    if index == 0 || index > count {
        return Err(Error::NoSuchImage { index, count });
    }
    if count == 1 {
        return Err(Error::Options("a WIM needs one image: delete the file instead".into()));
    }
    let kept = wim.load_images((1..=count).filter(|other| *other != index))?;
    let sources: Vec<ImageSource<'_>> = kept.iter().map(LoadedImage::source).collect();
    let boot_index = match options.boot_index {
        boot if boot == index => 0,
        boot if boot > index => boot - 1,
        boot => boot,
    };
    create(path, &sources, &WriteOptions { boot_index, ..options.clone() }, progress)
}

/// Writes all images of `wim` anew to `path`: without holes, and compressed anew if `options`
/// lend nothing.
pub fn optimize(
    path: &Path,
    wim: &Wim,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    wim.check_writable()?;
    let images = wim.load_images(1..=wim.image_count())?;
    let sources: Vec<ImageSource<'_>> = images.iter().map(LoadedImage::source).collect();
    create(path, &sources, options, progress)
}
