//! What Unix knows of a file: owner, mode, device, extended attributes, links as bytes.

use super::CaptureOptions;
use crate::tree::{FileTime, Name, Node, Reparse, UnixData, Xattr};
use crate::unix_names::{name_from_bytes, name_to_bytes, reparse_from_target, target_from_reparse};
use rustix::fs::{self as unix, AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

pub(super) fn name_from_os(name: &OsStr) -> Option<Name> {
    name_from_bytes(name.as_bytes())
}

/// The name as this system has it, or why it would not stay in its directory.
pub(super) fn name_to_os(name: &Name) -> Result<OsString, &'static str> {
    let bytes = name_to_bytes(name);
    match bytes.as_slice() {
        b"" => Err("a file without a name"),
        b"." | b".." => Err("a name that leads out of its directory"),
        bytes if bytes.contains(&b'/') => Err("a name with a slash in it"),
        bytes if bytes.contains(&0) => Err("a name with a zero in it"),
        _ => Ok(OsString::from_vec(bytes)),
    }
}

pub(super) fn device(metadata: &Metadata) -> u64 {
    metadata.dev()
}

pub(super) fn is_special(kind: FileType) -> bool {
    kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket()
}

/// Device and inode of a file with several names.
pub(super) fn shared_identity(_: &Path, metadata: &Metadata) -> io::Result<Option<(u64, u64)>> {
    Ok((metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino())))
}

pub(super) fn reparse(target: &Path) -> Option<Reparse> {
    reparse_from_target(target.as_os_str().as_bytes())
}

/// Times, and what only Unix has.
pub(super) fn describe(
    node: &mut Node,
    path: &Path,
    metadata: &Metadata,
    options: &CaptureOptions,
) -> io::Result<()> {
    node.modified = time(metadata.mtime(), metadata.mtime_nsec());
    node.created = node.modified;
    node.accessed = time(metadata.atime(), metadata.atime_nsec());
    if options.unix_data {
        let special = is_special(metadata.file_type());
        let extra = node.extra_mut();
        extra.unix = Some(UnixData {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode(),
            rdev: if special { device_number(metadata.rdev()) } else { 0 },
        });
        extra.xattrs = xattrs(path)?;
    }
    Ok(())
}

fn time(seconds: i64, nanos: i64) -> FileTime {
    FileTime::from_unix(seconds, u32::try_from(nanos).unwrap_or(0))
}

/// The 32-bit form of a device number: what `new_encode_dev` of Linux gives.
fn device_number(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

fn xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let mut names = vec![0u8; 4096];
    let len = loop {
        match rustix::fs::llistxattr(path, &mut names[..]) {
            Ok(len) => break len,
            Err(rustix::io::Errno::RANGE) => names.resize(names.len() * 4, 0),
            // A file system without attributes, or a socket.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut list = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 256];
        let mut terminated = name.to_vec();
        terminated.push(0);
        let Ok(c_name) = CStr::from_bytes_with_nul(&terminated) else { continue };
        let len = loop {
            match rustix::fs::lgetxattr(path, c_name, &mut value[..]) {
                Ok(len) => break Some(len),
                Err(rustix::io::Errno::RANGE) => value.resize(value.len() * 4, 0),
                // Taken away meanwhile, or not for us to read.
                Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => break None,
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(len) = len {
            value.truncate(len);
            list.push(Xattr { name: name.into(), value: value.into() });
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// What a path is, for those who set its metadata.
pub(super) enum Kind<'a> {
    Directory,
    File(&'a File),
    /// A link or a special file: nothing may follow it.
    Other,
}

/// What this process may do.
pub(super) struct Rights {
    is_root: bool,
}

impl Rights {
    pub(super) fn now() -> Self {
        Self { is_root: rustix::process::geteuid().is_root() }
    }
}

pub(super) fn create_file(path: &Path, _: &Node) -> io::Result<File> {
    File::create_new(path)
}

/// Makes a link, device node, pipe or socket; `false` where it could not and warned.
pub(super) fn make_special(
    rights: &Rights,
    node: &Node,
    path: &Path,
    warn: &dyn Fn(String),
) -> io::Result<bool> {
    if let Some(reparse) = node.reparse() {
        let Some(target) = target_from_reparse(reparse) else {
            warn(format!("reparse point {:#010x} has no form here", reparse.tag));
            return Ok(false);
        };
        std::os::unix::fs::symlink(OsString::from_vec(target), path)?;
        return Ok(true);
    }
    let Some(data) = node.extra.as_ref().and_then(|extra| extra.unix) else { return Ok(false) };
    let kind = unix::FileType::from_raw_mode(data.mode);
    let is_device = matches!(kind, unix::FileType::CharacterDevice | unix::FileType::BlockDevice);
    if is_device && !rights.is_root {
        warn("only root can make device nodes".into());
        return Ok(false);
    }
    let major = data.rdev >> 8 & 0xfff;
    let minor = data.rdev & 0xff | data.rdev >> 12 & 0xf_ff00;
    let mode = Mode::from_raw_mode(data.mode & 0o7777);
    unix::mknodat(CWD, path, kind, mode, unix::makedev(major, minor))?;
    Ok(true)
}

/// Owner, mode, attributes and times, in the order that lets each stay.
pub(super) fn set_metadata(
    rights: &Rights,
    node: &Node,
    path: &Path,
    kind: &Kind<'_>,
    unix_data: bool,
    warn: &dyn Fn(String),
) -> io::Result<()> {
    let extra = node.extra.as_deref().filter(|_| unix_data);
    if let Some(data) = extra.and_then(|extra| extra.unix) {
        let (uid, gid) = (Uid::from_raw(data.uid), Gid::from_raw(data.gid));
        if rights.is_root {
            match kind {
                Kind::File(file) => unix::fchown(file, Some(uid), Some(gid))?,
                _ => unix::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?,
            }
        }
    }
    for xattr in extra.iter().flat_map(|extra| &extra.xattrs) {
        let flags = unix::XattrFlags::empty();
        if let Err(error) = unix::lsetxattr(path, &*xattr.name, &xattr.value, flags) {
            let name = String::from_utf8_lossy(&xattr.name);
            warn(format!("extended attribute {name}: {}", io::Error::from(error)));
        }
    }
    if let Some(data) = extra.and_then(|extra| extra.unix) {
        let mode = Mode::from_raw_mode(data.mode & 0o7777);
        match kind {
            Kind::File(file) => unix::fchmod(file, mode)?,
            _ if node.reparse().is_some() => {}
            _ => unix::chmod(path, mode)?,
        }
    }
    let times = Timestamps {
        last_access: timespec(node.accessed),
        last_modification: timespec(node.modified),
    };
    match kind {
        Kind::File(file) => unix::futimens(file, &times)?,
        _ => unix::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?,
    }
    Ok(())
}

fn timespec(time: FileTime) -> Timespec {
    let (seconds, nanos) = time.to_unix();
    Timespec { tv_sec: seconds, tv_nsec: nanos.into() }
}
