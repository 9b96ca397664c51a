//! Fetching an input of which nothing is known yet, to learn its digest.

use super::InputError;
use crate::content_hash::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// How long a server may stay silent before the download is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fetches `url` to a file of `folder` that is named by its digest.
pub fn fetch(url: &str, folder: &Path) -> Result<Digest, InputError> {
    let failed = |why: String| InputError::Fetch { url: url.to_owned(), why };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    let mut body = response.into_body().into_reader();
    let io = |error: std::io::Error| failed(error.to_string());
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let mut sha = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        let got = body.read(&mut piece).map_err(io)?;
        if got == 0 {
            break;
        }
        sha.update(&piece[..got]);
        file.write_all(&piece[..got]).map_err(io)?;
    }
    file.as_file().sync_all().map_err(io)?;
    let digest = Digest(sha.finalize().into());
    file.persist(folder.join(digest.to_string())).map_err(|error| io(error.error))?;
    Ok(digest)
}
