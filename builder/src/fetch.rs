//! Fetching an input over HTTP: once, kept in a folder by its digest.

use crate::content_hash::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may stay silent before a download is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 1 << 20;

/// Why nothing was fetched. Nothing of it is left in the folder.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot fetch {url}: {why}")]
    Failed { url: String, why: String },
    #[error("{url} is not what the template says: sha256 {found}, expected {expected}")]
    OtherDigest { url: String, found: Digest, expected: Digest },
    #[error("cannot write in {folder}")]
    Write { folder: PathBuf, source: io::Error },
    #[error("cancelled")]
    Cancelled,
}

/// Fetches `url` to a file of `folder` that is named by its digest, and appears only when it is
/// whole and `expected`, where that is known. `tick` is told the bytes that are there and their
/// total (0 = unknown), and may break it off.
pub fn fetch(
    url: &str,
    folder: &Path,
    expected: Option<Digest>,
    tick: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Digest, FetchError> {
    let failed = |why: String| FetchError::Failed { url: url.to_owned(), why };
    let unwritten = |source| FetchError::Write { folder: folder.to_owned(), source };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    let total = response.body().content_length().unwrap_or(0);
    let mut body = response.into_body().into_reader();
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(unwritten)?;
    let mut sha = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    loop {
        let got = body.read(&mut piece).map_err(|error| failed(error.to_string()))?;
        if got == 0 {
            break;
        }
        sha.update(&piece[..got]);
        file.write_all(&piece[..got]).map_err(unwritten)?;
        done += got as u64;
        if tick(done, total).is_break() {
            return Err(FetchError::Cancelled);
        }
    }
    let found = Digest(sha.finalize().into());
    if let Some(expected) = expected
        && found != expected
    {
        return Err(FetchError::OtherDigest { url: url.to_owned(), found, expected });
    }
    file.as_file().sync_all().map_err(unwritten)?;
    file.persist(folder.join(found.to_string())).map_err(|error| unwritten(error.error))?;
    Ok(found)
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

    fn go_on(_done: u64, _total: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_download_with_another_digest_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let expected = Some(Digest([0; 32]));
        let error = fetch(&serve(b"hello"), dir.path(), expected, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("2cf24dba5fb0a30e26e83b2ac5b9e29e"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_download_appears_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let known = Digest::of(b"hello");
        for expected in [None, Some(known)] {
            let found = fetch(&serve(b"hello"), dir.path(), expected, &mut go_on).unwrap();
            assert_eq!(found, known);
            assert_eq!(std::fs::read(dir.path().join(found.to_string())).unwrap(), b"hello");
        }
    }

    #[test]
    fn a_download_that_is_broken_off_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let stop = &mut |_, _| ControlFlow::Break(());
        let error = fetch(&serve(b"hello"), dir.path(), None, stop).unwrap_err();
        assert!(matches!(error, FetchError::Cancelled), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
