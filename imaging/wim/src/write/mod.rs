//! Writing a WIM from trees.
//!
//! ```text
//! trees -> plan: one job per distinct stream, in order
//!       -> pipeline: read, hash, single-instance, compress on N threads; written in job order
//!       -> metadata of each image -> blob table -> XML -> integrity table -> header -> rename
//! ```
//! The bytes depend on the trees and the options alone, not on the number of threads.

mod output;
mod pipeline;
mod plan;

use crate::blob::{BlobEntry, SOLID_MARK};
use crate::codec::{Compression, DEFAULT_CHUNK_BYTES, Level};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::header::{Header, ResourceHeader, VERSION_NORMAL, VERSION_SOLID, resource_flag};
use crate::info::ImageInfo;
use crate::integrity;
use crate::metadata::{Hashes, write_tree};
use crate::progress::Progress;
use crate::tree::{ContentSource, FileTime, Sha1, Tree};
use crate::wim::{ResourceInfo, Wim};
use crate::xml::{self, Element};
pub(crate) use output::Output;
use pipeline::{Job, JobSource, Pipeline};
use plan::Plan;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How to write a WIM.
#[derive(Clone)]
pub struct WriteOptions {
    pub compression: Compression,
    pub level: Level,
    /// Uncompressed bytes of a chunk, a power of two. Microsoft's tools read 32 KiB for LZX and
    /// 4 to 64 KiB for XPRESS.
    pub chunk_bytes: u32,
    /// Pack contents into a solid resource (ESD): much smaller, slow to make, and one file cannot
    /// be read without unpacking its neighbours. Read by Windows 8.1 and later.
    pub solid: bool,
    /// Compression of the solid resource; Microsoft's tools write LZMS.
    pub solid_compression: Compression,
    /// Uncompressed bytes of a chunk of a solid resource, a power of two; Microsoft's tools read
    /// up to 64 MiB. Memory needed grows with it.
    pub solid_chunk_bytes: u32,
    /// Append a table of SHA-1s over the file, which `verify` and DISM's `/CheckIntegrity` use.
    pub integrity: bool,
    /// Threads that read, hash and compress; one more writes.
    pub threads: usize,
    /// The image to boot, 1-based; 0 for none.
    pub boot_index: u32,
    /// For CREATIONTIME and LASTMODIFICATIONTIME of images without them. `None` is now; set it
    /// to get the same bytes again.
    pub creation_time: Option<FileTime>,
    /// `None` derives it from the contents.
    pub guid: Option<[u8; 16]>,
    /// The header's flag that links were made relative to the image. `None`: set if a link in a
    /// tree says so.
    pub rp_fix: Option<bool>,
    /// WIMs whose compressed resources are copied as they are where contents, compression and
    /// chunk size agree.
    pub lenders: Vec<Wim>,
    /// Contents these hold are left out: the result is a delta that needs them.
    pub references: Vec<Wim>,
    /// Leave the metadata of images uncompressed. The file grows by some 1 %, but a store that keeps
    /// each version's metadata as the difference to the one before then keeps a tenth of it.
    pub plain_metadata: bool,
    /// Wait until the bytes are on the disk before the file appears under its name.
    pub sync: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Lzx,
            level: Level::Default,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            solid: false,
            solid_compression: Compression::Lzms,
            solid_chunk_bytes: DEFAULT_SOLID_CHUNK_BYTES,
            integrity: false,
            threads: default_threads(),
            boot_index: 0,
            creation_time: None,
            guid: None,
            rp_fix: None,
            lenders: Vec::new(),
            references: Vec::new(),
            plain_metadata: false,
            sync: true,
        }
    }
}

/// Keeps two threads within 300 MB.
const DEFAULT_SOLID_CHUNK_BYTES: u32 = 8 << 20;

/// One per processor this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// An image to write.
#[derive(Clone)]
pub struct ImageSource<'a> {
    pub tree: &'a Tree,
    pub contents: &'a dyn ContentSource,
    /// Counts are filled in by the writer, times where they are missing.
    pub info: ImageInfo,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub file_bytes: u64,
    /// Contents before single-instancing, and after.
    pub total_bytes: u64,
    pub unique_bytes: u64,
    /// Stored bytes that were copied from lenders.
    pub lent_bytes: u64,
    /// Every resource, in file order; metadata last.
    pub resources: Vec<ResourceInfo>,
    pub guid: [u8; 16],
    /// What the XML says of each image.
    pub images: Vec<ImageInfo>,
    /// The SHA-1s of the streams of each image.
    pub hashes: Vec<Hashes>,
}

/// Writes `images` to a new file at `path`, which appears complete or not at all; an older file
/// there is replaced.
pub fn create(
    path: impl AsRef<Path>,
    images: &[ImageSource<'_>],
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    let path = path.as_ref();
    options.check(images.len())?;
    let mut output = Output::create(path)?;
    let written = write_images(&mut output, images, options, progress)?;
    if progress.is_cancelled() {
        return Err(Error::Cancelled);
    }
    output.publish(options.sync)?;
    Ok(written)
}

impl WriteOptions {
    /// Changes the compression, with the chunk size it usually has.
    pub fn set_compression(&mut self, compression: Compression) {
        if compression != self.compression {
            self.compression = compression;
            self.chunk_bytes = compression.default_chunk_bytes();
        }
        self.solid = compression == Compression::Lzms;
    }

    fn check(&self, image_count: usize) -> Result<()> {
        let fail = |why: String| Err(Error::Options(why));
        if image_count == 0 {
            return fail("a WIM needs one image at least".into());
        }
        if self.boot_index as usize > image_count {
            return fail(format!("boot index {}: there are {image_count} images", self.boot_index));
        }
        if self.compression != Compression::None
            && let Err(expected) = self.compression.check_chunk_bytes(self.chunk_bytes)
        {
            return fail(format!("chunk size {}: {expected}", self.chunk_bytes));
        }
        if self.solid && self.solid_compression == Compression::None {
            return fail("a solid resource has to be compressed".into());
        }
        if self.solid {
            let chunk_bytes = self.solid_chunk_bytes;
            Compression::Lzms.check_chunk_bytes(chunk_bytes).map_err(|expected| {
                Error::Options(format!("chunk size {chunk_bytes}: {expected}"))
            })?;
        }
        Ok(())
    }
}

fn write_images(
    output: &mut Output,
    images: &[ImageSource<'_>],
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    let mut plan = Plan::new(images, options)?;
    progress.total_bytes(plan.read_bytes());
    let pipeline = Pipeline { options, progress, solid: options.solid };
    let stored = pipeline.run(std::mem::take(&mut plan.jobs), output)?;
    let hashes = plan.hashes(images, &stored);
    let references = plan.references(&stored);

    let mut metadata = Vec::with_capacity(images.len());
    for (image, hashes) in images.iter().zip(&hashes) {
        metadata.push(write_tree(image.tree, hashes)?);
    }
    let jobs = metadata.iter().enumerate().map(|(image, bytes)| Job::metadata(image, bytes));
    let jobs = jobs.collect();
    let quiet = QuietProgress(progress);
    // Metadata is never solid: nobody could read it.
    let mut how = options.clone();
    if options.plain_metadata {
        how.compression = Compression::None;
    }
    // Where little else is compressed, the metadata would take most of the time.
    if !options.lenders.is_empty() && options.level == Level::Default {
        how.level = Level::Fast;
    }
    let stored_metadata =
        Pipeline { options: &how, progress: &quiet, solid: false }.run(jobs, output)?;
    drop(metadata);

    let mut resources = Vec::new();
    let mut table = Vec::new();
    let mut add = |sha1: Sha1, resource: ResourceHeader, references: u32| {
        BlobEntry { resource, part: 1, references, sha1 }.write(&mut table);
        resources.push(ResourceInfo {
            sha1,
            file: 0,
            offset: resource.offset,
            stored_bytes: resource.stored_bytes,
            size_bytes: resource.size_bytes,
            flags: resource.flags,
            references,
        });
    };
    if let Some(resource) = stored.solid {
        add(Sha1::ZERO, ResourceHeader { size_bytes: SOLID_MARK, ..resource }, 1);
    }
    for blob in &stored.blobs {
        add(blob.sha1, blob.resource, references.get(&blob.sha1).copied().unwrap_or(1));
    }
    let mut guid = Hasher::default();
    let mut boot_metadata = ResourceHeader::default();
    for (index, blob) in stored_metadata.blobs.iter().enumerate() {
        let mut resource = blob.resource;
        resource.flags |= resource_flag::METADATA;
        add(blob.sha1, resource, 1);
        guid.update(&blob.sha1.0);
        if index + 1 == options.boot_index as usize {
            boot_metadata = resource;
        }
    }

    let blob_table = output.append_plain(&table)?;
    let (xml, infos) = make_xml(images, options, output.position());
    guid.update(&xml);
    let xml = output.append_plain(&xml)?;
    let mut guid_bytes = [0; 16];
    guid_bytes.copy_from_slice(&guid.finish().0[..16]);
    let mut header = Header {
        version: if options.solid { VERSION_SOLID } else { VERSION_NORMAL },
        flags: options.compression.header_flags() | plan.header_flags(options),
        compression: options.compression,
        chunk_bytes: if options.compression == Compression::None { 0 } else { options.chunk_bytes },
        guid: options.guid.unwrap_or(guid_bytes),
        part: 1,
        parts: 1,
        image_count: images.len() as u32,
        blob_table: ResourceHeader { flags: resource_flag::METADATA, ..blob_table },
        xml: ResourceHeader { flags: resource_flag::METADATA, ..xml },
        boot_metadata,
        boot_index: options.boot_index,
        integrity: ResourceHeader::default(),
        pipable: false,
    };
    if options.integrity {
        output.flush()?;
        let end = header.blob_table.offset + header.blob_table.stored_bytes;
        let table = integrity::make(output.file(), end, options.threads)?;
        header.integrity = output.append_plain(&table)?;
        header.integrity.flags = resource_flag::METADATA;
    }
    output.write_header(&header)?;
    Ok(Written {
        file_bytes: output.position(),
        total_bytes: plan.total_bytes(),
        unique_bytes: stored.unique_bytes,
        lent_bytes: stored.lent_bytes,
        resources,
        guid: header.guid,
        images: infos,
        hashes,
    })
}

/// Metadata is not counted as progress, but cancelling works.
struct QuietProgress<'a>(&'a dyn Progress);

impl Progress for QuietProgress<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

fn make_xml(
    images: &[ImageSource<'_>],
    options: &WriteOptions,
    total_bytes: u64,
) -> (Vec<u8>, Vec<ImageInfo>) {
    let now = options.creation_time.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        FileTime::from_unix(since.as_secs() as i64, since.subsec_nanos())
    });
    let mut root = Element::new("WIM");
    root.set("TOTALBYTES", total_bytes.to_string());
    let mut infos = Vec::with_capacity(images.len());
    for (index, image) in images.iter().enumerate() {
        let mut info = image.info.clone();
        info.xml.name = "IMAGE".into();
        info.xml.attributes.retain(|(key, _)| key != "INDEX");
        info.xml.attributes.insert(0, ("INDEX".into(), (index + 1).to_string()));
        info.set_counts(plan::count(image.tree));
        // Setup and the deployment tools want both, and equal.
        if let (None, Some(windows)) = (info.flags(), info.windows())
            && let Some(edition) = windows.edition_id
        {
            info.xml.set("FLAGS", edition);
        }
        if info.created().is_none() {
            info.set_time("CREATIONTIME", now);
        }
        if info.modified().is_none() {
            info.set_time("LASTMODIFICATIONTIME", now);
        }
        info.sort();
        root.children.push(info.xml.clone());
        infos.push(info);
    }
    (xml::encode(&root), infos)
}

impl<'a> Job<'a> {
    fn metadata(image: usize, bytes: &'a [u8]) -> Self {
        Self {
            source: JobSource::Metadata { bytes, image },
            len_bytes: bytes.len() as u64,
            known: None,
            single: false,
        }
    }
}
