//! Logs read from the guest's disk by the host, after the machine is off.

use crate::event::Events;
use gilt_capture::{FoundVolume, PartitionChoice};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Folders whose files are copied, with all below them.
const FOLDERS: &[&str] = &["var/log", "var/crash"];
/// Of one file at most this much, from its end.
const FILE_BYTES: u64 = 2 << 20;
/// Of all files together.
const TOTAL_BYTES: u64 = 64 << 20;

/// Copies the guest's logs from `disk` to `folder`, scrubbed. A disk without a system on it has
/// none, which is no error.
pub fn copy_guest_logs(disk: &Path, folder: &Path, events: &Events) -> io::Result<()> {
    let image = gilt_disk::open(disk).map_err(io::Error::other)?;
    let Ok(found) = gilt_capture::find_volume(&image, PartitionChoice::Auto) else {
        return Ok(());
    };
    let mut budget = TOTAL_BYTES;
    for root in FOLDERS {
        copy(&found, root, &folder.join(root.replace('/', "-")), events, &mut budget)?;
    }
    Ok(())
}

fn copy(
    found: &FoundVolume,
    from: &str,
    to: &Path,
    events: &Events,
    budget: &mut u64,
) -> io::Result<()> {
    for (name, entry) in found.view().list(from) {
        let path = format!("{from}/{name}");
        // The journal is binary and large; the serial log has what it would say of a boot.
        if entry.node.is_directory() {
            if name != "journal" {
                copy(found, &path, &to.join(&name), events, budget)?;
            }
            continue;
        }
        let Some(stream) = entry.node.streams.iter().find(|stream| stream.name.is_none()) else {
            continue;
        };
        if stream.len_bytes == 0 || *budget == 0 || entry.node.reparse().is_some() {
            continue;
        }
        let mut reader = found.reader.contents().open(stream.content)?;
        let skip = stream.len_bytes.saturating_sub(FILE_BYTES);
        io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
        let mut bytes = Vec::new();
        reader.take(FILE_BYTES.min(*budget)).read_to_end(&mut bytes)?;
        *budget -= bytes.len() as u64;
        fs::create_dir_all(to)?;
        fs::write(to.join(&name), events.scrub(&String::from_utf8_lossy(&bytes)))?;
    }
    Ok(())
}
