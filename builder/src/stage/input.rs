//! Inputs: where their bytes are on this host, fetched where need be, and served to the guest.

use super::{Job, StageError};
use crate::event::Event;
use crate::fetch::fetch;
use crate::template::model::{FileKind, FileRef, Location};
use std::ops::ControlFlow;
use std::path::PathBuf;

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
            let folder = job.home.inputs();
            let kept = folder.join(digest.to_string());
            if kept.exists() {
                return Ok(kept);
            }
            let (url, events, cancel) = (url.clone(), job.events.clone(), job.cancel.clone());
            job.blocking(move || {
                fetch(&url, &folder, Some(digest), &mut |done, total| {
                    events.emit(Event::Progress { what: format!("fetching {url}"), done, total });
                    if cancel.is_cancelled() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                Ok(kept)
            })
            .await
        }
    }
}
