//! Logs read from the guest's disk by the host, after the machine is off.

use crate::event::Events;
use gilt_capture::{FileSystem, FoundVolume, PartitionChoice};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Folders of a Linux whose files are copied, with all below them.
const LINUX: &[&str] = &["var/log", "var/crash"];
/// The same of a Windows: Setup, in the order it writes them; servicing; Sysprep; gilt's own.
const WINDOWS: &[&str] = &[
    "$WINDOWS.~BT/Sources/Panther",
    "Windows/Panther",
    "Windows/Logs/CBS",
    "Windows/Logs/DISM",
    "Windows/Logs/WindowsUpdate",
    "Windows/System32/Sysprep/Panther",
    "ProgramData/ssh/logs",
    "ProgramData/gilt",
];
/// Single files of a Windows.
const WINDOWS_FILES: &[&str] = &[
    "Windows/SoftwareDistribution/ReportingEvents.log",
    "Windows/INF/setupapi.dev.log",
    "Windows/INF/setupapi.setup.log",
    "Windows/Setup/State/State.ini",
];
/// Of a Windows only what is text and no answer file: these hold passwords.
const WINDOWS_ENDINGS: &[&str] = &[".log", ".txt", ".ini"];
/// Of one file at most this much, from its end.
const FILE_BYTES: u64 = 2 << 20;
/// Of all files together.
const TOTAL_BYTES: u64 = 64 << 20;
/// Hostile disks have folders in folders without end.
const MAX_DEPTH: usize = 16;

/// Copies the guest's logs from `disk` to `folder`, scrubbed. A disk without a system on it has
/// none, which is no error. A guest that was cut off left its volume as it was just then; what can be
/// read of that is taken.
pub fn copy_guest_logs(disk: &Path, folder: &Path, events: &Events) -> io::Result<()> {
    let image = gilt_disk::open(disk).map_err(io::Error::other)?;
    let Ok(found) = gilt_capture::find_volume_as_it_lies(&image, PartitionChoice::Auto) else {
        return Ok(());
    };
    let is_windows = found.reader.file_system() == FileSystem::Ntfs;
    let mut logs = Logs { found: &found, events, budget: TOTAL_BYTES, is_windows };
    for &root in if is_windows { WINDOWS } else { LINUX } {
        logs.folder(root, &folder.join(root.replace('/', "-")), 0)?;
    }
    if is_windows {
        for &path in WINDOWS_FILES {
            let (from, name) = path.rsplit_once('/').unwrap_or(("", path));
            logs.files(from, &folder.join(from.replace('/', "-")), |have| {
                have.eq_ignore_ascii_case(name)
            })?;
        }
    }
    Ok(())
}

struct Logs<'a> {
    found: &'a FoundVolume,
    events: &'a Events,
    /// Bytes that may still be copied.
    budget: u64,
    is_windows: bool,
}

impl Logs<'_> {
    fn folder(&mut self, from: &str, to: &Path, depth: usize) -> io::Result<()> {
        let is_windows = self.is_windows;
        self.files(from, to, |name| {
            let lower = name.to_ascii_lowercase();
            !is_windows || WINDOWS_ENDINGS.iter().any(|ending| lower.ends_with(ending))
        })?;
        for (name, entry) in self.found.view().list(from) {
            // The journal is binary and large; the serial log has what it would say of a boot.
            if entry.node.is_directory() && name != "journal" && depth < MAX_DEPTH {
                self.folder(&format!("{from}/{name}"), &to.join(&name), depth + 1)?;
            }
        }
        Ok(())
    }

    fn files(&mut self, from: &str, to: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for (name, entry) in self.found.view().list(from) {
            if entry.node.is_directory() || !wanted(&name) {
                continue;
            }
            let streams = &entry.node.streams;
            let Some(stream) = streams.iter().find(|stream| stream.name.is_none()) else {
                continue;
            };
            if stream.len_bytes == 0 || self.budget == 0 || entry.node.reparse().is_some() {
                continue;
            }
            // A file that was being written may lie there half: the others still tell.
            let Ok(bytes) = self.tail(stream.content, stream.len_bytes) else { continue };
            self.budget = self.budget.saturating_sub(bytes.len() as u64);
            fs::create_dir_all(to)?;
            fs::write(to.join(&name), self.events.scrub(&text(&bytes)))?;
        }
        Ok(())
    }

    fn tail(&self, content: gilt_wim::tree::ContentId, len_bytes: u64) -> io::Result<Vec<u8>> {
        let mut reader = self.found.reader.contents().open(content)?;
        let skip = len_bytes.saturating_sub(FILE_BYTES);
        io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
        let mut bytes = Vec::new();
        reader.take(FILE_BYTES.min(self.budget)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Windows writes some logs with two bytes a character.
fn text(bytes: &[u8]) -> String {
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => gilt_wim::xml::decode_text(bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
