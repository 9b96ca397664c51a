//! Opens an image of any known format, with all images below it.

use crate::block::BlockRead;
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use crate::qcow2::{self, Qcow2};
use crate::raw::Raw;
use crate::vhd::{self, Vhd};
use crate::vhdx::{self, Vhdx};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest chain followed. QEMU has no limit of its own; no honest chain comes near.
const MAX_LAYERS: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
    /// Also AVHDX.
    Vhdx,
    Vhd,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "VHDX",
            Self::Vhd => "VHD",
        }
    }

    /// By the name QEMU uses.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "raw" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            "vhdx" => Some(Self::Vhdx),
            "vpc" => Some(Self::Vhd),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Else told by the contents.
    pub format: Option<Format>,
    /// A disk state kept inside a qcow2 image, by name or id.
    pub snapshot: Option<String>,
    /// Read although a machine may be writing: for diagnosis, never for capture.
    pub allow_in_use: bool,
}

/// An open image and all layers below it.
pub struct Disk {
    reader: Arc<dyn BlockRead>,
    layers: Vec<LayerInfo>,
    files: Vec<Arc<ImageFile>>,
}

/// What an image is, top layer first.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    pub path: PathBuf,
    pub format: Format,
    /// Size of the disk as this layer shows it.
    pub disk_bytes: u64,
    /// Size of the file.
    pub file_bytes: u64,
    /// `None` for formats without clusters.
    pub cluster_bytes: Option<u64>,
    /// What else is worth knowing: `zstd`, `extended L2`, `snapshots: a, b`.
    pub notes: Vec<String>,
}

impl Disk {
    pub fn reader(&self) -> Arc<dyn BlockRead> {
        self.reader.clone()
    }

    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// Every file the disk is made of.
    pub fn files(&self) -> &[Arc<ImageFile>] {
        &self.files
    }

    /// The first file that is no longer what was opened.
    pub fn changed_file(&self) -> Result<Option<PathBuf>> {
        for file in &self.files {
            if !file.is_unchanged()? {
                return Ok(Some(file.path().to_owned()));
            }
        }
        Ok(None)
    }
}

/// Opens the image at `path`, whatever its format, with its backing images.
pub fn open(path: impl AsRef<Path>) -> Result<Disk> {
    open_with(path, &OpenOptions::default())
}

pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Disk> {
    let mut chain = Chain { allow_in_use: options.allow_in_use, layers: vec![], files: vec![] };
    let reader = chain.open(path.as_ref(), options.format, options.snapshot.as_deref())?;
    Ok(Disk { reader, layers: chain.layers, files: chain.files })
}

/// The format of an image by its contents; what has no magic is raw.
pub fn detect(file: &ImageFile) -> Result<Format> {
    let mut head = [0; 8];
    file.read_padded_at(0, &mut head).map_err(DiskError::io(file.path()))?;
    Ok(if head.starts_with(&qcow2::MAGIC) {
        Format::Qcow2
    } else if head == *vhdx::MAGIC {
        Format::Vhdx
    } else if vhd::footer_of(file)?.is_some() {
        Format::Vhd
    } else {
        Format::Raw
    })
}

struct Chain {
    allow_in_use: bool,
    layers: Vec<LayerInfo>,
    files: Vec<Arc<ImageFile>>,
}

impl Chain {
    fn file(&mut self, path: &Path) -> Result<Arc<ImageFile>> {
        let file = Arc::new(ImageFile::open(path, self.allow_in_use)?);
        self.files.push(file.clone());
        Ok(file)
    }

    fn open(
        &mut self,
        path: &Path,
        format: Option<Format>,
        snapshot: Option<&str>,
    ) -> Result<Arc<dyn BlockRead>> {
        let (file, format) = self.enter(path, format)?;
        if snapshot.is_some() && format != Format::Qcow2 {
            return Err(DiskError::Unsupported {
                image: path.display().to_string(),
                what: format!("a {} image has no snapshots inside", format.name()),
            });
        }
        match format {
            Format::Raw => {
                self.layers.push(LayerInfo {
                    path: path.into(),
                    format,
                    disk_bytes: file.len_bytes(),
                    file_bytes: file.len_bytes(),
                    cluster_bytes: None,
                    notes: vec![],
                });
                Ok(Arc::new(Raw::new(file)))
            }
            Format::Qcow2 => self.open_qcow2(path, file, snapshot),
            Format::Vhdx => Ok(self.open_vhdx(path, file)?),
            Format::Vhd => Ok(self.open_vhd(path, file)?.0),
        }
    }

    /// Opens the next file of the chain.
    fn enter(&mut self, path: &Path, format: Option<Format>) -> Result<(Arc<ImageFile>, Format)> {
        if self.layers.len() >= MAX_LAYERS {
            let what = format!("backing chain has more than {MAX_LAYERS} images");
            return Err(DiskError::Chain { path: path.into(), what });
        }
        let file = ImageFile::open(path, self.allow_in_use)?;
        let same = |other: &Arc<ImageFile>| is_same_file(other, &file);
        if self.files.iter().any(same) {
            let what = "backing chain comes back to an image it has already".into();
            return Err(DiskError::Chain { path: path.into(), what });
        }
        let file = Arc::new(file);
        self.files.push(file.clone());
        let format = match format {
            Some(format) => format,
            None => detect(&file)?,
        };
        Ok((file, format))
    }

    /// The first of `names` that leads to a file of `format`, beside `child` if it is not absolute.
    /// Names of Windows are tried as they are, and by their last part.
    fn enter_parent(
        &mut self,
        child: &Path,
        names: &[&str],
        format: Format,
    ) -> Result<(PathBuf, Arc<ImageFile>)> {
        let mut tried = Vec::new();
        for name in names {
            let plain = name.replace('\\', "/");
            let last = plain.rsplit('/').next().unwrap_or_default();
            for path in [beside(child, &plain), beside(child, last)] {
                if tried.contains(&path) {
                    continue;
                }
                if !path.is_file() {
                    tried.push(path);
                    continue;
                }
                let (file, found) = self.enter(&path, None)?;
                if found != format {
                    return Err(DiskError::Chain {
                        path,
                        what: format!("is {}, its child needs {}", found.name(), format.name()),
                    });
                }
                return Ok((path, file));
            }
        }
        let tried: Vec<_> = tried.iter().map(|path| path.display().to_string()).collect();
        Err(DiskError::Chain {
            path: child.into(),
            what: format!("its parent is not there (looked for {})", tried.join(", ")),
        })
    }

    fn open_vhdx(&mut self, path: &Path, file: Arc<ImageFile>) -> Result<Arc<Vhdx>> {
        let header = vhdx::Header::read(&file)?;
        self.layers.push(LayerInfo {
            path: path.into(),
            format: Format::Vhdx,
            disk_bytes: header.disk_bytes,
            file_bytes: file.len_bytes(),
            cluster_bytes: Some(header.block_bytes),
            notes: header.notes(),
        });
        let parent: Option<Arc<dyn BlockRead>> = match &header.parent {
            None => None,
            Some(locator) => {
                let (at, below) = self.enter_parent(path, &locator.paths(), Format::Vhdx)?;
                let parent = self.open_vhdx(&at, below)?;
                if !locator.accepts(parent.header().data_write) {
                    return Err(DiskError::Chain {
                        path: at,
                        what: format!(
                            "is not the parent {} was made over, or was changed since",
                            path.display()
                        ),
                    });
                }
                if parent.header().sector_bytes != header.sector_bytes {
                    let what = "has other sectors than its child".into();
                    return Err(DiskError::Chain { path: at, what });
                }
                Some(parent)
            }
        };
        Ok(Arc::new(Vhdx::new(header, file, parent)?))
    }

    fn open_vhd(&mut self, path: &Path, file: Arc<ImageFile>) -> Result<(Arc<Vhd>, [u8; 16])> {
        let header = vhd::VhdHeader::read(&file)?;
        let id = header.id;
        self.layers.push(LayerInfo {
            path: path.into(),
            format: Format::Vhd,
            disk_bytes: header.disk_bytes,
            file_bytes: file.len_bytes(),
            cluster_bytes: header.block_bytes(),
            notes: if header.is_fixed() { vec!["fixed".into()] } else { vec![] },
        });
        let parent: Option<Arc<dyn BlockRead>> = match &header.parent {
            None => None,
            Some(wanted) => {
                let names: Vec<&str> = wanted.paths.iter().map(String::as_str).collect();
                let (at, below) = self.enter_parent(path, &names, Format::Vhd)?;
                let (parent, id) = self.open_vhd(&at, below)?;
                if id != wanted.id {
                    let what = format!("is not the parent {} was made over", path.display());
                    return Err(DiskError::Chain { path: at, what });
                }
                Some(parent)
            }
        };
        Ok((Arc::new(Vhd::new(header, file, parent)), id))
    }

    fn open_qcow2(
        &mut self,
        path: &Path,
        file: Arc<ImageFile>,
        snapshot: Option<&str>,
    ) -> Result<Arc<dyn BlockRead>> {
        let header = qcow2::Header::read(&file)?;
        let index = self.layers.len();
        self.layers.push(LayerInfo {
            path: path.into(),
            format: Format::Qcow2,
            disk_bytes: header.disk_bytes,
            file_bytes: file.len_bytes(),
            cluster_bytes: Some(header.cluster_bytes()),
            notes: header.notes(),
        });
        let data = match &header.data_file {
            Some(name) => {
                let named = beside(path, &file_name_of(path, name)?);
                let open = self.file(&named);
                Some(open.map_err(|source| DiskError::Backing {
                    child: path.into(),
                    source: Box::new(source),
                })?)
            }
            None => None,
        };
        let backing = match &header.backing_name {
            Some(name) => {
                let named = beside(path, &file_name_of(path, name)?);
                let format = match header.backing_format.as_deref() {
                    None => None,
                    Some(name) => Some(Format::from_name(name).ok_or_else(|| {
                        let what = format!("backing format {name:?} is not known");
                        DiskError::Unsupported { image: path.display().to_string(), what }
                    })?),
                };
                let below = self.open(&named, format, None).map_err(|source| match source {
                    // Loops and depth name their own place.
                    chain @ DiskError::Chain { .. } => chain,
                    busy @ DiskError::InUse { .. } => busy,
                    source => DiskError::Backing { child: path.into(), source: Box::new(source) },
                })?;
                Some(below)
            }
            None => None,
        };
        let disk = Qcow2::new(header, file, data, backing, snapshot)?;
        self.layers[index].disk_bytes = disk.len_bytes();
        Ok(Arc::new(disk))
    }
}

fn is_same_file(a: &ImageFile, b: &ImageFile) -> bool {
    let (left, right) = (a.stamp(), b.stamp());
    if left.inode != 0 {
        return (left.device, left.inode) == (right.device, right.inode);
    }
    match (a.path().canonicalize(), b.path().canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

/// A name found in an image: relative to that image's folder unless absolute.
fn beside(image: &Path, name: &str) -> PathBuf {
    match image.parent() {
        Some(folder) => folder.join(name),
        None => PathBuf::from(name),
    }
}

/// The file behind QEMU's ways to write a backing name: a path, `file:path`, or `json:{..}`.
fn file_name_of(image: &Path, name: &str) -> Result<String> {
    let unsupported = || DiskError::Unsupported {
        image: image.display().to_string(),
        what: format!("backing image {name:?} is not a file on this host"),
    };
    if let Some(json) = name.strip_prefix("json:") {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|_| unsupported())?;
        let file_name = value.pointer("/file/filename").or_else(|| {
            let driver = value.get("driver").and_then(|driver| driver.as_str());
            value
                .get("file.filename")
                .or_else(|| value.get("filename").filter(|_| matches!(driver, None | Some("file"))))
        });
        return file_name.and_then(|text| text.as_str()).map(str::to_owned).ok_or_else(unsupported);
    }
    if let Some(path) = name.strip_prefix("file:") {
        return Ok(path.strip_prefix("//").unwrap_or(path).to_owned());
    }
    // `nbd:..`, `https://..`: a protocol, as QEMU reads it; a slash before the colon makes a path.
    match name.find(':') {
        Some(colon) if colon > 1 && !name[..colon].contains('/') => Err(unsupported()),
        _ => Ok(name.to_owned()),
    }
}
