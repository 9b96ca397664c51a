//! WIM to disk: a bootable disk image from an image captured from Linux.
//!
//! ```text
//! GPT │ ESP (FAT32): the image's own GRUB, a grub.cfg that finds the root by label │ root (ext4)
//! ```
//! Nothing is mounted and no privilege is needed. The same request gives the same bytes when it
//! names a seed.

mod boot;
mod extra;
mod fat;
mod table;

use crate::error::{CaptureError, Result};
use crate::lookup::TreeView;
use gilt_ext4::{BuildOptions, Built, WriteAt};
use gilt_wim::tree::{Node, total_bytes};
use gilt_wim::{Progress, Wim, default_threads};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use extra::ExtraFile;

/// How a disk image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutFormat {
    Raw,
    Qcow2,
    /// A dynamic one.
    Vhdx,
}

/// What makes the disk boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootLoader {
    /// The image's own `grubx64.efi` (package grub-efi-amd64-bin).
    #[default]
    Grub,
    /// None: the disk is for reading, or is booted with a kernel from outside.
    None,
}

pub struct LayoutRequest<'a> {
    pub wim: &'a Path,
    /// 1-based.
    pub image: u32,
    pub out: &'a Path,
    pub format: OutFormat,
    /// Size of the disk.
    pub size_bytes: u64,
    pub esp_bytes: u64,
    pub root_label: String,
    pub boot: BootLoader,
    /// Written to /etc/hostname.
    pub hostname: Option<String>,
    /// Put into the disk, never into the WIM; they replace files of the same path.
    pub extra_files: Vec<ExtraFile>,
    /// Ids of disk, partitions and file systems are derived from it; random without.
    pub seed: Option<[u8; 32]>,
    /// Seconds since 1970 noted as the time the volume was made; 0 for now.
    pub created: u32,
    pub progress: &'a dyn Progress,
}

impl<'a> LayoutRequest<'a> {
    pub const DEFAULT_ESP_BYTES: u64 = 64 << 20;
    pub const DEFAULT_ROOT_LABEL: &'static str = "gilt-root";

    /// The usual: a qcow2 of `size_bytes` that boots by GRUB.
    pub fn new(wim: &'a Path, out: &'a Path, size_bytes: u64, progress: &'a dyn Progress) -> Self {
        Self {
            wim,
            image: 1,
            out,
            format: OutFormat::Qcow2,
            size_bytes,
            esp_bytes: Self::DEFAULT_ESP_BYTES,
            root_label: Self::DEFAULT_ROOT_LABEL.into(),
            boot: BootLoader::Grub,
            hostname: None,
            extra_files: Vec::new(),
            seed: None,
            created: 0,
            progress,
        }
    }
}

/// What was laid out.
#[derive(Clone, Debug)]
pub struct LaidOut {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub root: Built,
    pub root_uuid: String,
}

/// Writes a disk image that holds image `request.image` of a WIM.
pub fn layout(request: &LayoutRequest<'_>) -> Result<LaidOut> {
    let wim = Wim::open(request.wim)?;
    let (mut tree, contents) = wim.load_tree(request.image)?;
    let mut files = request.extra_files.clone();
    if let Some(hostname) = &request.hostname {
        files.push(ExtraFile::text("/etc/hostname", &format!("{hostname}\n")));
    }
    let contents = extra::inject(&mut tree, &contents, files)?;
    let loader = match request.boot {
        BootLoader::Grub => {
            let view = TreeView { tree: &tree, contents: &contents, ignores_case: false };
            Some(boot::grub_of(view)?)
        }
        BootLoader::None => None,
    };
    let ids = Ids { seed: request.seed.unwrap_or_else(random_seed) };
    let created = if request.created == 0 { now() } else { request.created };

    let partial = PartialDisk::beside(request.out);
    let raw = partial.path("raw");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&raw);
    let mut file = file.map_err(CaptureError::io(&raw))?;
    file.set_len(request.size_bytes).map_err(CaptureError::io(&raw))?;
    let places = table::write(&mut file, request, &ids)?;
    if let Some(loader) = &loader {
        let esp = boot::esp(loader, request.esp_bytes, &request.root_label, &ids)?;
        let region = Region { file: &file, start: places.esp.start };
        region.write_at(0, &esp).map_err(CaptureError::io(&raw))?;
    }
    request.progress.total_bytes(total_bytes(tree.nodes.iter().map(Node::streams_bytes)));
    let root_uuid = ids.uuid("root file system");
    let options = BuildOptions {
        size_bytes: places.root.end - places.root.start,
        label: request.root_label.clone(),
        uuid: root_uuid,
        created,
        threads: default_threads(),
    };
    let region = Region { file: &file, start: places.root.start };
    let advance = |bytes| {
        request.progress.advance_bytes(bytes);
        !request.progress.is_cancelled()
    };
    let built = gilt_ext4::build(&tree, &contents, &region, &options, &advance);
    let root = match built {
        Err(_) if request.progress.is_cancelled() => return Err(gilt_wim::Error::Cancelled.into()),
        other => other?,
    };
    drop(file);
    let done = match request.format {
        OutFormat::Raw => raw,
        OutFormat::Qcow2 => {
            let image = partial.path("qcow2");
            gilt_disk::write_qcow2(&*open_raw(&raw)?.reader(), &image)?;
            image
        }
        OutFormat::Vhdx => {
            let image = partial.path("vhdx");
            gilt_disk::write_vhdx(&*open_raw(&raw)?.reader(), &image)?;
            image
        }
    };
    std::fs::rename(&done, request.out).map_err(CaptureError::io(request.out))?;
    Ok(LaidOut {
        path: request.out.to_owned(),
        size_bytes: request.size_bytes,
        root,
        root_uuid: uuid::Uuid::from_bytes(root_uuid).to_string(),
    })
}

fn open_raw(path: &Path) -> Result<gilt_disk::Disk> {
    let format = Some(gilt_disk::Format::Raw);
    Ok(gilt_disk::open_with(path, &gilt_disk::OpenOptions { format, ..Default::default() })?)
}

/// Every id of the disk, from one seed.
pub(crate) struct Ids {
    seed: [u8; 32],
}

impl Ids {
    /// A version 4 UUID in the order its text has.
    fn uuid(&self, of: &str) -> [u8; 16] {
        let digest = Sha256::new().chain_update(self.seed).chain_update(of).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        *uuid::Builder::from_random_bytes(id).as_uuid().as_bytes()
    }

    /// The same as GPT stores it.
    fn guid(&self, of: &str) -> [u8; 16] {
        uuid::Uuid::from_bytes(self.uuid(of)).to_bytes_le()
    }

    fn serial(&self, of: &str) -> u32 {
        let id = self.uuid(of);
        u32::from_le_bytes([id[0], id[1], id[2], id[3]])
    }
}

fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    seed[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    seed
}

fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}

/// A part of the disk file. Zeros are not written, so that the file stays sparse.
struct Region<'a> {
    file: &'a File,
    start: u64,
}

const PIECE_BYTES: usize = 64 << 10;

impl WriteAt for Region<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Runs of pieces that hold something are written in one go.
        let mut run = 0..0;
        let flush = |run: &Range<usize>| match run.is_empty() {
            true => Ok(()),
            false => {
                let at = self.start + offset + run.start as u64;
                write_all_at(self.file, &bytes[run.clone()], at)
            }
        };
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let start = index * PIECE_BYTES;
            if piece.iter().all(|byte| *byte == 0) {
                flush(&run)?;
                run = start + piece.len()..start + piece.len();
            } else {
                run.end = start + piece.len();
            }
        }
        flush(&run)
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let done = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if done == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[done..];
        offset += done as u64;
    }
    Ok(())
}

/// Files that go away when the layout does not succeed.
struct PartialDisk {
    base: PathBuf,
}

impl PartialDisk {
    fn beside(out: &Path) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or("disk".as_ref()));
        name.push(format!(".layout-{}", std::process::id()));
        Self { base: out.with_file_name(name) }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.base.with_added_extension(kind)
    }
}

impl Drop for PartialDisk {
    fn drop(&mut self) {
        // The one that was renamed is no longer there.
        for kind in ["raw", "qcow2", "vhdx"] {
            let _ = std::fs::remove_file(self.path(kind));
        }
    }
}
