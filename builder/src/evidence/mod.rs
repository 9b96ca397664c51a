//! What is kept of a failed build, and one line of diagnosis.
//!
//! ```text
//! <home>/evidence/<build>-<id>/
//!   diagnosis.txt       one line, then the chain of errors
//!   events.jsonl        everything that happened, in the form of docs/events.md
//!   output.log          what the guest's commands printed
//!   serial.log          the guest's serial line, scrubbed
//!   screen-*.png        the last pictures of the screen
//!   guest/…             logs read from the guest's disk by the host
//! ```

mod diagnosis;
mod guest_logs;
mod windows;

use crate::event::{Event, Events, Sink, Stamped};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use diagnosis::{Clue, diagnose};
pub use guest_logs::copy_guest_logs;

/// Of a serial log, at most this much is kept: its end tells why.
const SERIAL_TAIL_BYTES: u64 = 4 << 20;

/// Records a build from its first event, so that nothing is missing when it fails. The recording
/// goes with the run's folder where the build succeeds.
pub struct Recorder {
    events: Mutex<File>,
    output: Mutex<File>,
}

impl Recorder {
    pub fn new(run_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            events: Mutex::new(File::create(run_dir.join("events.jsonl"))?),
            output: Mutex::new(File::create(run_dir.join("output.log"))?),
        })
    }
}

impl Sink for Recorder {
    fn take(&self, event: &Stamped) {
        let locked = |file: &Mutex<File>, line: &str| {
            let mut file = file.lock().unwrap_or_else(|poison| poison.into_inner());
            // A full disk is reported by whatever fails next; the recorder must not add to it.
            let _ = writeln!(file, "{line}");
        };
        if let Ok(line) = serde_json::to_string(event) {
            locked(&self.events, &line);
        }
        if let Event::Output { line, .. } = &event.event {
            locked(&self.output, line);
        }
    }
}

/// What a failed build leaves for [`collect`].
pub struct Remains<'a> {
    pub run_dir: &'a Path,
    pub build: &'a str,
    pub id: &'a str,
    /// The disk the guest wrote last, with the machine off; logs are read from it.
    pub disk: Option<&'a Path>,
    /// Words for the first line.
    pub diagnosis: &'a str,
    /// The errors, outermost first.
    pub causes: &'a [String],
}

/// Gathers the evidence of a failure under `evidence_root` and returns its folder. Collecting is
/// best effort: what cannot be had is named in the bundle, and never hides the failure itself.
pub fn collect(
    evidence_root: &Path,
    remains: &Remains<'_>,
    events: &Events,
) -> io::Result<PathBuf> {
    let folder = evidence_root.join(format!("{}-{}", remains.build, remains.id));
    fs::create_dir_all(&folder)?;
    let mut missing = Vec::new();

    let mut text = events.scrub(remains.diagnosis);
    text.push('\n');
    for cause in remains.causes {
        text.push_str(&format!("  {}\n", events.scrub(cause)));
    }
    fs::write(folder.join("diagnosis.txt"), text)?;

    for entry in fs::read_dir(remains.run_dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let copied = if name.ends_with(".jsonl") || name.ends_with(".png") || name == "output.log" {
            fs::copy(&path, folder.join(name)).map(drop)
        } else if name.ends_with("serial.log") || name.ends_with(".stderr") {
            tail(&path, SERIAL_TAIL_BYTES)
                .and_then(|bytes| fs::write(folder.join(name), scrub_bytes(&bytes, events)))
        } else {
            Ok(())
        };
        if let Err(error) = copied {
            missing.push(format!("{name}: {error}"));
        }
    }
    if let Some(disk) = remains.disk
        && let Err(error) = copy_guest_logs(disk, &folder.join("guest"), events)
    {
        missing.push(format!("logs on the guest's disk: {error}"));
    }
    if let Some(finding) = windows::cause(&folder.join("guest")) {
        let line = format!("on the disk: {}; {} ({})\n", finding.cause, finding.cure, finding.line);
        let mut text = fs::read_to_string(folder.join("diagnosis.txt"))?;
        text.push_str(&events.scrub(&line));
        fs::write(folder.join("diagnosis.txt"), text)?;
    }
    if !missing.is_empty() {
        fs::write(folder.join("not-collected.txt"), missing.join("\n") + "\n")?;
    }
    Ok(folder)
}

fn scrub_bytes(bytes: &[u8], events: &Events) -> Vec<u8> {
    events.scrub(&String::from_utf8_lossy(bytes)).into_bytes()
}

/// The last `limit` bytes of a file.
pub fn tail(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
