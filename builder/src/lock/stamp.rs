//! What tells that a file is still the one it was, without reading it.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// What changes when a file does. The time of the change itself is the part nobody sets back: a
/// file's other times and its size may be what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    bytes: u64,
    /// Both in the file system's own unit and epoch.
    modified: i128,
    changed: i128,
    file_number: u64,
    device: u64,
}

impl Stamp {
    /// `None` where the file system does not tell when a file was changed (FAT).
    #[cfg(unix)]
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        use std::os::unix::fs::MetadataExt;
        let about = std::fs::metadata(path)?;
        let nanos = |seconds, nanos| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Ok(Some(Self {
            bytes: about.len(),
            modified: nanos(about.mtime(), about.mtime_nsec()),
            changed: nanos(about.ctime(), about.ctime_nsec()),
            file_number: about.ino(),
            device: about.dev(),
        }))
    }

    #[cfg(windows)]
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let handle = winapi_util::Handle::from_path(path)?;
        let about = winapi_util::file::information(&handle)?;
        let changed = change_time(&handle)?;
        Ok((changed != 0).then(|| Self {
            bytes: about.file_size(),
            modified: about.last_write_time().map_or(0, i128::from),
            changed: changed.into(),
            file_number: about.file_index(),
            device: about.volume_serial_number(),
        }))
    }
}

/// `ChangeTime` of `FILE_BASIC_INFO`, which std keeps unstable (`windows_change_time`).
#[cfg(windows)]
#[expect(unsafe_code, reason = "no library has a safe call for it")]
fn change_time(file: &impl std::os::windows::io::AsRawHandle) -> io::Result<i64> {
    use windows_sys::Win32::Storage::FileSystem::{
        FILE_BASIC_INFO, FileBasicInfo, GetFileInformationByHandleEx,
    };
    let mut info = FILE_BASIC_INFO::default();
    let size = size_of::<FILE_BASIC_INFO>() as u32;
    // SAFETY: the handle is open while `file` is borrowed, and the kernel writes at most `size`
    // bytes of a plain struct that lives past the call.
    let done = unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileBasicInfo,
            (&raw mut info).cast(),
            size,
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(info.ChangeTime) }
}
