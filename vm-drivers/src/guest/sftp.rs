//! Files by SFTP. Requests are sent ahead of their answers, and several small files move at
//! once: a guest under emulation answers late.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use russh_sftp::{
    client::{Config, SftpSession, error::Error as SftpError},
    protocol::{FileAttributes, OpenFlags, StatusCode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Transferred;
use crate::error::{Error, Result};

const FILES_AT_ONCE: usize = 8;
const BLOCK: usize = 256 << 10;
/// Folders deeper than this are a loop.
const MAX_DEPTH: usize = 64;

pub(super) fn config() -> Config {
    Config {
        max_concurrent_reads: 32,
        max_concurrent_writes: 32,
        request_timeout_secs: 120,
        ..Default::default()
    }
}

fn failed(action: &'static str, path: &str) -> impl FnOnce(SftpError) -> Error {
    let path = path.to_owned();
    move |e| Error::GuestFile { action, path, reason: e.to_string() }
}

fn broken(action: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |e| Error::GuestFile { action, path, reason: e.to_string() }
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// Files first, then folders are known: what an upload will do.
#[derive(Default)]
struct Plan {
    folders: Vec<String>,
    files: Vec<(PathBuf, String)>,
}

fn plan_upload(local: &Path, remote: &str, depth: usize, plan: &mut Plan) -> Result<()> {
    let metadata = std::fs::metadata(local).map_err(Error::io("look at", local))?;
    if !metadata.is_dir() {
        plan.files.push((local.to_path_buf(), remote.to_owned()));
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(Error::Malformed {
            what: local.display().to_string(),
            reason: format!("folders are nested more than {MAX_DEPTH} deep"),
        });
    }
    plan.folders.push(remote.to_owned());
    let mut entries: Vec<_> = std::fs::read_dir(local)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(Error::io("read", local))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| Error::Malformed {
            what: entry.path().display().to_string(),
            reason: "its name is not UTF-8".into(),
        })?;
        plan_upload(&entry.path(), &join(remote, name), depth + 1, plan)?;
    }
    Ok(())
}

pub(super) async fn upload(
    sftp: &SftpSession,
    local: &Path,
    remote: &str,
    mode: Option<u32>,
) -> Result<Transferred> {
    let mut plan = Plan::default();
    plan_upload(local, remote, 0, &mut plan)?;
    for folder in &plan.folders {
        make_folder(sftp, folder).await?;
    }
    stream::iter(plan.files)
        .map(|(from, to)| async move { upload_file(sftp, &from, &to, mode).await })
        .buffer_unordered(FILES_AT_ONCE)
        .try_fold(Transferred::default(), |sum, bytes| async move {
            Ok(Transferred { files: sum.files + 1, bytes: sum.bytes + bytes })
        })
        .await
}

async fn make_folder(sftp: &SftpSession, folder: &str) -> Result<()> {
    match sftp.create_dir(folder).await {
        Ok(()) => Ok(()),
        // Servers tell an existing folder only as a failure.
        Err(error) => match sftp.metadata(folder).await {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(failed("create", folder)(error)),
        },
    }
}

async fn create(
    sftp: &SftpSession,
    remote: &str,
    mode: u32,
) -> Result<russh_sftp::client::fs::File> {
    let attributes = FileAttributes { permissions: Some(mode), ..FileAttributes::empty() };
    let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
    let file = sftp
        .open_with_flags_and_attributes(remote, flags, attributes.clone())
        .await
        .map_err(failed("create", remote))?;
    // The mode given when opening is for new files, and less the umask.
    file.set_metadata(attributes).await.map_err(failed("set the mode of", remote))?;
    Ok(file)
}

async fn upload_file(
    sftp: &SftpSession,
    local: &Path,
    remote: &str,
    mode: Option<u32>,
) -> Result<u64> {
    let mut from = tokio::fs::File::open(local).await.map_err(Error::io("open", local))?;
    let mode = match mode {
        Some(mode) => mode,
        None => mode_of(&from.metadata().await.map_err(Error::io("look at", local))?),
    };
    let mut to = create(sftp, remote, mode).await?;
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        let count = from.read(&mut block).await.map_err(Error::io("read", local))?;
        if count == 0 {
            break;
        }
        to.write_all(&block[..count]).await.map_err(broken("write", remote))?;
        total += count as u64;
    }
    to.close().await.map_err(broken("write", remote))?;
    Ok(total)
}

fn mode_of(metadata: &std::fs::Metadata) -> u32 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        metadata.permissions().mode() & 0o7777
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        0o644
    }
}

pub(super) async fn upload_bytes(
    sftp: &SftpSession,
    bytes: &[u8],
    remote: &str,
    mode: u32,
) -> Result<()> {
    let mut to = create(sftp, remote, mode).await?;
    to.write_all(bytes).await.map_err(broken("write", remote))?;
    to.close().await.map_err(broken("write", remote))
}

pub(super) async fn download(
    sftp: &SftpSession,
    remote: &str,
    local: &Path,
) -> Result<Transferred> {
    let metadata = sftp.metadata(remote).await.map_err(failed("look at", remote))?;
    let mut files = Vec::new();
    if metadata.is_dir() {
        let mut folders = vec![(remote.to_owned(), local.to_path_buf(), 0)];
        while let Some((from, to, depth)) = folders.pop() {
            std::fs::create_dir_all(&to).map_err(Error::io("create", &to))?;
            for entry in sftp.read_dir(&from).await.map_err(failed("read", &from))? {
                let name = entry.file_name();
                // The guest chooses the names; none may lead out of the folder.
                if name.contains(['/', '\\']) || name == ".." || name == "." || depth > MAX_DEPTH {
                    continue;
                }
                let (from, to) = (join(&from, &name), to.join(&name));
                if entry.file_type().is_dir() {
                    folders.push((from, to, depth + 1));
                } else if entry.file_type().is_file() {
                    files.push((from, to));
                }
            }
        }
    } else {
        files.push((remote.to_owned(), local.to_path_buf()));
    }
    stream::iter(files)
        .map(|(from, to)| async move { download_file(sftp, &from, &to).await })
        .buffer_unordered(FILES_AT_ONCE)
        .try_fold(Transferred::default(), |sum, bytes| async move {
            Ok(Transferred { files: sum.files + 1, bytes: sum.bytes + bytes })
        })
        .await
}

/// The file has its name only when it is whole.
async fn download_file(sftp: &SftpSession, remote: &str, local: &Path) -> Result<u64> {
    let mut from = sftp.open(remote).await.map_err(|e| match &e {
        SftpError::Status(s) if s.status_code == StatusCode::NoSuchFile => Error::GuestFile {
            action: "read",
            path: remote.into(),
            reason: "there is no such file".into(),
        },
        _ => failed("open", remote)(e),
    })?;
    let folder = local.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".download-")
        .tempfile_in(folder)
        .map_err(Error::io("write in", folder))?;
    let handle = temporary.reopen().map_err(Error::io("write in", folder))?;
    let mut to = tokio::fs::File::from_std(handle);
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        let count = from.read(&mut block).await.map_err(broken("read", remote))?;
        if count == 0 {
            break;
        }
        to.write_all(&block[..count]).await.map_err(Error::io("write", local))?;
        total += count as u64;
    }
    to.flush().await.map_err(Error::io("write", local))?;
    temporary.persist(local).map_err(|e| Error::io("rename", local)(e.error))?;
    Ok(total)
}
