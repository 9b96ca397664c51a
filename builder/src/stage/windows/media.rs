//! Install media and collections of drivers, read on the host.

use super::super::StageError;
use crate::event::Events;
use gilt_windows::answer::ImageChoice;
use gilt_windows::iso::{NoPrompt, Udf, UdfError, no_prompt};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Drivers are a few MiB each.
const MAX_FILE_BYTES: u64 = 128 << 20;
const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 12;

fn open(path: &Path) -> Result<File, StageError> {
    File::open(path).map_err(StageError::io(format!("open {}", path.display())))
}

fn damaged(path: &Path) -> impl Fn(UdfError) -> StageError {
    let path = path.display().to_string();
    move |error| StageError::Input(format!("{path}: {error}"))
}

/// An image of `install.wim`, as far as a choice of drivers needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub index: u32,
    pub name: String,
    pub build: u32,
    pub is_server: bool,
}

/// One file on the medium, for the WIM engine.
struct WimOnDisc {
    udf: Mutex<Udf<File>>,
    file: gilt_windows::iso::UdfFile,
}

impl gilt_wim::ReadAt for WimOnDisc {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.file.len_bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let mut udf = self.udf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = udf.reader(&self.file);
        reader.seek(SeekFrom::Start(offset))?;
        reader.read(buffer)
    }
}

/// The images of a Windows medium; `None` where it is none that gilt can read.
fn images(iso: &Path) -> Result<Option<Vec<Image>>, StageError> {
    let mut udf = match Udf::open(open(iso)?) {
        Ok(udf) => udf,
        Err(UdfError::NotUdf) => return Ok(None),
        Err(error) => return Err(damaged(iso)(error)),
    };
    for name in ["sources/install.wim", "sources/install.esd"] {
        let Some(file) = udf.find(name).map_err(damaged(iso))? else { continue };
        let wim = WimOnDisc { udf: Mutex::new(udf), file };
        let wim = gilt_wim::Wim::from_reader(Arc::new(wim))
            .map_err(|error| StageError::Input(format!("{}: {name}: {error}", iso.display())))?;
        let images = wim.images();
        return Ok(Some(
            images.iter().zip(1u32..).map(|(info, index)| describe(info, index)).collect(),
        ));
    }
    Ok(None)
}

fn describe(info: &gilt_wim::ImageInfo, index: u32) -> Image {
    let windows = info.windows().unwrap_or_default();
    Image {
        index,
        name: info.name().unwrap_or_default().to_owned(),
        build: windows.version_build.unwrap_or(0),
        is_server: windows.installation_type.is_some_and(|kind| kind.starts_with("Server")),
    }
}

/// The chosen image, if the medium can be read.
pub fn image(iso: &Path, choice: &ImageChoice) -> Result<Option<Image>, StageError> {
    let Some(images) = images(iso)? else { return Ok(None) };
    Ok(match choice {
        ImageChoice::Index(index) => images.into_iter().find(|image| image.index == *index),
        ImageChoice::Name(name) => images.into_iter().find(|image| image.name == *name),
        ImageChoice::ByKey => images.into_iter().next(),
    })
}

/// Whether the medium holds what is asked for. Setup would stop at a question nobody answers.
pub fn check(iso: &Path, choice: &ImageChoice, events: &Events) -> Result<(), StageError> {
    let Some(images) = images(iso)? else {
        events.note("the install medium has no UDF file system; its images are not checked");
        return Ok(());
    };
    let fits = match choice {
        ImageChoice::Index(index) => images.iter().any(|image| image.index == *index),
        ImageChoice::Name(name) => images.iter().any(|image| image.name == *name),
        ImageChoice::ByKey => true,
    };
    if fits {
        return Ok(());
    }
    let list: Vec<String> =
        images.iter().map(|image| format!("{} {:?}", image.index, image.name)).collect();
    Err(StageError::Input(format!(
        "{} has no such image; it has {}",
        iso.display(),
        list.join(", ")
    )))
}

/// A copy that asks no question, kept by the medium's digest; the medium itself where it asks none
/// or cannot be changed.
pub fn silent_copy(
    iso: &Path,
    inputs: &Path,
    digest: &str,
    events: &Events,
) -> Result<PathBuf, StageError> {
    let kept = inputs.join(format!("{digest}-no-prompt"));
    if kept.exists() {
        return Ok(kept);
    }
    let (offset, bytes) = match no_prompt(open(iso)?) {
        Ok(NoPrompt::Already) => return Ok(iso.to_path_buf()),
        Ok(NoPrompt::Patch { offset, bytes }) => (offset, bytes),
        Err(error) => {
            events.note(format!("the install medium stays as it is: {error}"));
            return Ok(iso.to_path_buf());
        }
    };
    events.note("making a copy of the install medium that starts without a key press");
    let failed = || StageError::io(format!("write {}", kept.display()));
    let mut copy = tempfile::NamedTempFile::new_in(inputs).map_err(failed())?;
    let mut from = open(iso)?;
    // Shares its blocks where the file system can.
    std::io::copy(&mut from, copy.as_file_mut()).map_err(failed())?;
    copy.seek(SeekFrom::Start(offset)).map_err(failed())?;
    copy.write_all(&bytes).map_err(failed())?;
    copy.as_file().sync_all().map_err(failed())?;
    copy.persist(&kept).map_err(|error| failed()(error.error))?;
    Ok(kept)
}

/// Drivers on a disc or in a folder.
pub enum Collection {
    Disc(Udf<File>, PathBuf),
    Folder(PathBuf),
}

/// Path with `/`, bytes.
type Files = Vec<(String, Vec<u8>)>;

impl Collection {
    pub fn open(path: &Path) -> Result<Self, StageError> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        match Udf::open(open(path)?) {
            Ok(udf) => Ok(Self::Disc(udf, path.to_path_buf())),
            Err(UdfError::NotUdf) => Err(StageError::Input(format!(
                "{}: no UDF file system; unpack it (7z x) and give the folder with `kind: dir`",
                path.display()
            ))),
            Err(error) => Err(damaged(path)(error)),
        }
    }

    /// Files whose names end so.
    pub fn find(&mut self, end: &str) -> Result<Files, StageError> {
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), 0)];
        let mut seen = 0;
        while let Some((folder, depth)) = folders.pop() {
            for (name, is_folder) in self.names(&folder)? {
                seen += 1;
                if seen > MAX_FILES {
                    return Err(StageError::Input("too many files for a driver collection".into()));
                }
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if is_folder {
                    if depth < MAX_DEPTH {
                        folders.push((path, depth + 1));
                    }
                } else if path.to_ascii_lowercase().ends_with(end) {
                    let bytes = self.read(&path)?;
                    found.push((path, bytes));
                }
            }
        }
        Ok(found)
    }

    /// The files right in a folder, by their names.
    pub fn folder(&mut self, folder: &str) -> Result<Files, StageError> {
        let names = self.names(folder)?;
        let files = names.into_iter().filter(|(_, is_folder)| !is_folder);
        files
            .map(|(name, _)| {
                let path =
                    if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                Ok((name, self.read(&path)?))
            })
            .collect()
    }

    fn names(&mut self, folder: &str) -> Result<Vec<(String, bool)>, StageError> {
        match self {
            Self::Disc(udf, path) => {
                let entries = udf.list(folder).map_err(damaged(path))?.unwrap_or_default();
                Ok(entries.into_iter().map(|entry| (entry.name, entry.is_folder)).collect())
            }
            Self::Folder(root) => {
                let at = root.join(folder);
                let failed = || StageError::io(format!("read {}", at.display()));
                let mut names = Vec::new();
                for entry in std::fs::read_dir(&at).map_err(failed())? {
                    let entry = entry.map_err(failed())?;
                    names.push((
                        entry.file_name().to_string_lossy().into_owned(),
                        entry.path().is_dir(),
                    ));
                }
                names.sort();
                Ok(names)
            }
        }
    }

    fn read(&mut self, file: &str) -> Result<Vec<u8>, StageError> {
        match self {
            Self::Disc(udf, path) => {
                let found = udf.find(file).map_err(damaged(path))?;
                let found = found.ok_or_else(|| StageError::Input(format!("{file} is gone")))?;
                udf.read(&found, MAX_FILE_BYTES).map_err(damaged(path))
            }
            Self::Folder(root) => {
                let path = root.join(file);
                std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))
            }
        }
    }
}
