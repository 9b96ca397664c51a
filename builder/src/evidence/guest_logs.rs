//! Logs read from the guest's disk by the host, after the machine is off.

use crate::event::Events;
use gilt_capture::FoundVolume;
use gilt_wim::tree::Node;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Folders whose files are copied, with all below them.
const FOLDERS: &[&str] = &["var/log", "var/crash"];
/// What is told of a Windows: logs of Setup, servicing and Sysprep, first those that name causes.
const CAUSES: &[&str] = &["setuperr.log", "setupact.log"];
/// Of one file at most this much, from its end.
const FILE_BYTES: u64 = 2 << 20;
/// Of all files together.
const TOTAL_BYTES: u64 = 64 << 20;

/// Copies the guest's logs from `disk` to `folder`, scrubbed. A disk without a system on it has
/// none, which is no error.
pub fn copy_guest_logs(disk: &Path, folder: &Path, events: &Events) -> io::Result<()> {
    let image = gilt_disk::open(disk).map_err(io::Error::other)?;
    // The machine was cut off in the middle of its work.
    let Ok(found) = gilt_capture::find_unclean_volume(&image) else {
        return Ok(());
    };
    let mut budget = TOTAL_BYTES;
    for root in FOLDERS {
        copy(&found, root, &folder.join(root.replace('/', "-")), events, &mut budget)?;
    }
    for root in gilt_windows::diagnosis::LOGS {
        let Some(root) = root.strip_suffix('/') else {
            one_file(&found, root, folder, events, &mut budget)?;
            continue;
        };
        copy(&found, root, &folder.join(root.replace('/', "-")), events, &mut budget)?;
    }
    Ok(())
}

fn one_file(
    found: &FoundVolume,
    path: &str,
    folder: &Path,
    events: &Events,
    budget: &mut u64,
) -> io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let entries = found.view().list(parent);
    let Some((_, entry)) = entries.into_iter().find(|(of, _)| of.eq_ignore_ascii_case(name)) else {
        return Ok(());
    };
    save(found, entry.node, &folder.join(path.replace('/', "-")), events, budget)
}

/// One line of cause and cure from the logs of a Windows that were copied to `folder`.
pub fn windows_cause(folder: &Path) -> Option<gilt_windows::diagnosis::Finding> {
    let mut places: Vec<_> = gilt_windows::diagnosis::LOGS
        .iter()
        .filter_map(|root| root.strip_suffix('/'))
        .map(|root| folder.join(root.replace('/', "-")))
        .collect();
    places.dedup();
    CAUSES.iter().find_map(|name| {
        places.iter().find_map(|place| {
            let text = fs::read_to_string(place.join(name)).ok()?;
            gilt_windows::diagnosis::classify(&text)
        })
    })
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
        save(found, entry.node, &to.join(&name), events, budget)?;
    }
    Ok(())
}

/// The end of one file.
fn save(
    found: &FoundVolume,
    node: &Node,
    to: &Path,
    events: &Events,
    budget: &mut u64,
) -> io::Result<()> {
    let Some(stream) = node.streams.iter().find(|stream| stream.name.is_none()) else {
        return Ok(());
    };
    if stream.len_bytes == 0 || *budget == 0 || node.reparse().is_some() {
        return Ok(());
    }
    let mut reader = found.reader.contents().open(stream.content)?;
    let skip = stream.len_bytes.saturating_sub(FILE_BYTES);
    io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES.min(*budget)).read_to_end(&mut bytes)?;
    *budget -= bytes.len() as u64;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(to, events.scrub(&gilt_windows::drivers::decode(&bytes)))
}
