//! What Windows knows of a file: attributes, three times, links to files and to directories.
//!
//! Security descriptors and named streams need calls without a safe wrapper and are not kept here; a
//! WIM taken from a disk image has them.

use super::CaptureOptions;
use crate::tree::{FileTime, Name, Node, Reparse, attribute, reparse_tag};
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, FileType, Metadata, OpenOptions};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::fs::{FileTimesExt, MetadataExt, OpenOptionsExt, symlink_dir, symlink_file};
use std::path::{Component, Path, Prefix};
use std::time::{Duration, SystemTime};

/// Attributes that are a file's own; the others tell how the volume stores it.
const KEPT: u32 = attribute::READONLY
    | attribute::HIDDEN
    | attribute::SYSTEM
    | attribute::ARCHIVE
    | attribute::NOT_CONTENT_INDEXED;
/// `FILE_WRITE_ATTRIBUTES`.
const WRITE_ATTRIBUTES: u32 = 0x100;
/// `FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT`: a directory or a link itself.
const ITSELF: u32 = 0x0200_0000 | 0x0020_0000;
/// `ERROR_PRIVILEGE_NOT_HELD`.
const NO_PRIVILEGE: i32 = 1314;

pub(super) fn name_from_os(name: &OsStr) -> Option<Name> {
    Some(Name(name.encode_wide().collect()))
}

/// The name as this system has it, or why it would not stay in its directory. Paths are in the
/// `\\?\` form, so that blanks and dots at the end and names of devices are plain names.
pub(super) fn name_to_os(name: &Name) -> Result<OsString, &'static str> {
    let has = |c: char| name.0.contains(&(c as u16));
    match &*name.0 {
        [] => Err("a file without a name"),
        [0x2e] | [0x2e, 0x2e] => Err("a name that leads out of its directory"),
        _ if has('/') || has('\\') => Err("a name with a slash in it"),
        _ if has(':') => Err("a name with a colon, which is a stream on Windows"),
        units if units.iter().any(|unit| *unit < 0x20) => Err("a name with a control character"),
        units => Ok(OsString::from_wide(units)),
    }
}

/// Mount points are links on Windows, which are never entered.
pub(super) fn device(_: &Metadata) -> u64 {
    0
}

pub(super) fn is_special(_: FileType) -> bool {
    false
}

/// Volume and index of a file with several names.
pub(super) fn shared_identity(path: &Path, _: &Metadata) -> io::Result<Option<(u64, u64)>> {
    let handle = winapi_util::Handle::from_path(path)?;
    let about = winapi_util::file::information(&handle)?;
    let identity = (about.volume_serial_number(), about.file_index());
    Ok((about.number_of_links() > 1).then_some(identity))
}

/// A symbolic link. A junction reads as one too.
pub(super) fn reparse(target: &Path) -> Option<Reparse> {
    let print: Vec<u16> = target.as_os_str().encode_wide().collect();
    let absolute = target.is_absolute();
    let unc = matches!(target.components().next(), Some(Component::Prefix(prefix))
        if matches!(prefix.kind(), Prefix::UNC(..)));
    let mut substitute: Vec<u16> = Vec::new();
    let rest = match (absolute, unc) {
        (true, true) => {
            substitute.extend(r"\??\UNC".encode_utf16());
            &print[1..]
        }
        (true, false) => {
            substitute.extend(r"\??\".encode_utf16());
            &print[..]
        }
        _ => &print[..],
    };
    substitute.extend_from_slice(rest);
    let substitute_bytes = u16::try_from(substitute.len() * 2).ok()?;
    let print_bytes = u16::try_from(print.len() * 2).ok()?;
    let mut data = Vec::new();
    for field in [0, substitute_bytes, substitute_bytes + 2, print_bytes] {
        data.extend_from_slice(&field.to_le_bytes());
    }
    data.extend_from_slice(&u32::from(!absolute).to_le_bytes());
    for name in [&substitute, &print] {
        data.extend(name.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    }
    Some(Reparse { tag: reparse_tag::SYMLINK, flags: 1, data: data.into() })
}

/// Where a link or junction leads, as Windows writes it.
fn link_target(reparse: &Reparse) -> Option<OsString> {
    let data = &reparse.data;
    let u16_at = |at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
    let names_at = match reparse.tag {
        reparse_tag::SYMLINK => 12,
        reparse_tag::MOUNT_POINT => 8,
        _ => return None,
    };
    let start = names_at + usize::from(u16_at(0)?);
    let bytes = data.get(start..start + usize::from(u16_at(2)?))?;
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let prefix: Vec<u16> = r"\??\".encode_utf16().collect();
    let unc: Vec<u16> = r"UNC\".encode_utf16().collect();
    let target = match units.strip_prefix(prefix.as_slice()) {
        Some(rest) => match rest.strip_prefix(unc.as_slice()) {
            Some(share) => r"\\".encode_utf16().chain(share.iter().copied()).collect(),
            None => rest.to_vec(),
        },
        None => units,
    };
    (!target.is_empty()).then(|| OsString::from_wide(&target))
}

/// Times and attributes.
pub(super) fn describe(
    node: &mut Node,
    _: &Path,
    metadata: &Metadata,
    _: &CaptureOptions,
) -> io::Result<()> {
    node.created = FileTime(metadata.creation_time());
    node.accessed = FileTime(metadata.last_access_time());
    node.modified = FileTime(metadata.last_write_time());
    let own = metadata.file_attributes() & KEPT;
    if own != 0 {
        node.attributes = node.attributes & !attribute::NORMAL | own;
    }
    Ok(())
}

/// What a path is, for those who set its metadata.
pub(super) enum Kind<'a> {
    Directory,
    File(&'a File),
    /// A link: nothing may follow it.
    Other,
}

/// Nothing here depends on who runs it.
pub(super) struct Rights;

impl Rights {
    pub(super) fn now() -> Self {
        Self
    }
}

/// A new file with its attributes, but for read-only, which comes when it is written.
pub(super) fn create_file(path: &Path, node: &Node) -> io::Result<File> {
    let attributes = node.attributes & KEPT & !attribute::READONLY;
    OpenOptions::new().write(true).create_new(true).attributes(attributes).open(path)
}

/// Makes a link; `false` where it could not and warned.
pub(super) fn make_special(
    _: &Rights,
    node: &Node,
    path: &Path,
    warn: &dyn Fn(String),
) -> io::Result<bool> {
    let Some(reparse) = node.reparse() else {
        warn("device nodes, pipes and sockets of Unix have no form on Windows".into());
        return Ok(false);
    };
    let Some(target) = link_target(reparse) else {
        warn(format!("reparse point {:#010x} has no form here", reparse.tag));
        return Ok(false);
    };
    let made =
        if node.is_directory() { symlink_dir(target, path) } else { symlink_file(target, path) };
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(NO_PRIVILEGE) => {
            warn("a symbolic link needs an elevated administrator or developer mode".into());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Times, and read-only.
pub(super) fn set_metadata(
    _: &Rights,
    node: &Node,
    path: &Path,
    kind: &Kind<'_>,
    _unix_data: bool,
    warn: &dyn Fn(String),
) -> io::Result<()> {
    let mut times = FileTimes::new();
    if let Some(time) = system_time(node.created) {
        times = times.set_created(time);
    }
    if let Some(time) = system_time(node.accessed) {
        times = times.set_accessed(time);
    }
    if let Some(time) = system_time(node.modified) {
        times = times.set_modified(time);
    }
    let read_only = node.attributes & attribute::READONLY != 0;
    match kind {
        Kind::File(file) => {
            file.set_times(times)?;
            if read_only {
                let mut permissions = file.metadata()?.permissions();
                permissions.set_readonly(true);
                file.set_permissions(permissions)?;
            }
        }
        Kind::Directory | Kind::Other => {
            let lost = attribute::HIDDEN | attribute::SYSTEM;
            if node.attributes & lost != 0 {
                warn("hidden and system are kept for files only".into());
            }
            OpenOptions::new()
                .access_mode(WRITE_ATTRIBUTES)
                .custom_flags(ITSELF)
                .open(path)?
                .set_times(times)?;
        }
    }
    Ok(())
}

/// `None` for zero, which Windows takes for "as it is".
fn system_time(time: FileTime) -> Option<SystemTime> {
    let (seconds, nanos) = time.to_unix();
    if time.0 == 0 {
        return None;
    }
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    at?.checked_add(Duration::from_nanos(nanos.into()))
}
