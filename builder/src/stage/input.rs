//! Inputs: where their bytes are on this host, fetched where need be, and served to the guest.

use super::{Job, StageError};
use crate::event::Event;
use crate::template::model::{FileKind, FileRef, Location};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may stay silent before a download is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 1 << 20;

/// The file or folder on this host; an address is fetched once and kept by its digest.
pub async fn local_path(job: &Job, file: &FileRef) -> Result<PathBuf, StageError> {
    match &file.location {
        Location::Path(path) => {
            let kind_fits = match file.kind {
                FileKind::File => path.is_file(),
                FileKind::Dir => path.is_dir(),
            };
            if kind_fits {
                Ok(path.clone())
            } else {
                let kind = match file.kind {
                    FileKind::File => "file",
                    FileKind::Dir => "folder",
                };
                Err(StageError::Input(format!("there is no {kind} {}", path.display())))
            }
        }
        Location::Url(url) => {
            let Some(digest) = file.sha256 else {
                return Err(StageError::Input(format!(
                    "{url} has no sha256; write it beside the address or run `gilt lock`"
                )));
            };
            let digest = digest.to_string();
            let kept = job.home.inputs().join(&digest);
            if kept.exists() {
                return Ok(kept);
            }
            let (url, events, cancel) = (url.clone(), job.events.clone(), job.cancel.clone());
            job.blocking(move || {
                fetch(&url, &digest, &kept, &mut |done, total| {
                    events.emit(Event::Progress { what: format!("fetching {url}"), done, total });
                    if cancel.is_cancelled() { Err(StageError::Cancelled) } else { Ok(()) }
                })?;
                Ok(kept)
            })
            .await
        }
    }
}

/// Fetches `url` to `to`, which appears only when its SHA-256 is `digest` (hex).
fn fetch(
    url: &str,
    digest: &str,
    to: &Path,
    tick: &mut dyn FnMut(u64, u64) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let failed = |what: String| StageError::Input(format!("cannot fetch {url}: {what}"));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    let total = response.body().content_length().unwrap_or(0);
    let mut body = response.into_body().into_reader();
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .map_err(StageError::io(format!("write in {}", folder.display())))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    loop {
        let got = body.read(&mut piece).map_err(|error| failed(error.to_string()))?;
        if got == 0 {
            break;
        }
        hasher.update(&piece[..got]);
        file.write_all(&piece[..got]).map_err(StageError::io(format!("write {}", to.display())))?;
        done += got as u64;
        tick(done, total)?;
    }
    let found = crate::hex(&hasher.finalize());
    if found != digest {
        return Err(StageError::Input(format!(
            "{url} is not what the template says: sha256 {found}, expected {digest}"
        )));
    }
    file.as_file().sync_all().map_err(StageError::io("write a download"))?;
    file.persist(to).map_err(|error| StageError::Io {
        action: format!("write {}", to.display()),
        source: error.error,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with `body`.
    fn serve(body: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        });
        format!("http://{address}/file")
    }

    #[test]
    fn a_download_with_another_digest_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("kept");
        let url = serve(b"hello");
        let error = fetch(&url, &"0".repeat(64), &to, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("2cf24dba5fb0a30e26e83b2ac5b9e29e"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_download_with_the_right_digest_appears() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("kept");
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        fetch(&serve(b"hello"), digest, &to, &mut |_, _| Ok(())).unwrap();
        assert_eq!(std::fs::read(to).unwrap(), b"hello");
    }
}
