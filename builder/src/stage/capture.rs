//! Capture: the generalized disk becomes a WIM, read by the host from the powered-off image.

use super::generalize::Generalized;
use super::{Job, StageError};
use crate::event::{Event, Events};
use crate::template::model::{Compression, CompressionLevel, Guest};
use gilt_capture::{
    CaptureError, CaptureOptions, CaptureRequest, ExcludeRules, FoundVolume, Inventory,
    PartitionChoice,
};
use gilt_wim::{ImageInfo, Progress, WriteOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const WIM: &str = "image.wim";
const INVENTORY: &str = "inventory.json";
/// Progress is told this often.
const TICK: Duration = Duration::from_millis(500);

/// A WIM of a generalized disk.
pub struct Captured {
    pub wim: PathBuf,
    /// What is installed; `None` where the system is not one we can read that of.
    pub inventory: Option<Inventory>,
}

/// The result of an earlier build, if it is still there.
pub fn kept(job: &Job, key: &str) -> Option<Captured> {
    let folder = job.home.captures().join(key);
    let inventory = std::fs::read(folder.join(INVENTORY)).ok()?;
    let inventory = serde_json::from_slice(&inventory).ok()?;
    let wim = folder.join(WIM);
    wim.is_file().then_some(Captured { wim, inventory })
}

pub async fn run(job: &Job, generalized: &Generalized, key: &str) -> Result<Captured, StageError> {
    let spec = &job.build.spec;
    let staging = job
        .home
        .staging_dir(&job.id, key)
        .map_err(StageError::io("make a folder for the capture"))?;
    let mut rules = match spec.guest {
        Guest::Linux => ExcludeRules::linux_default(),
        Guest::Windows => ExcludeRules::windows_default(),
    };
    for rule in &spec.capture.exclude {
        rules.exclude(rule).map_err(imaging_error)?;
    }
    let mut info = ImageInfo::default();
    let values = generalized_values(job);
    let name = spec.capture.name.as_ref().map(|text| text.expand(&values));
    info.set_name(name.as_deref().unwrap_or(&spec.name));
    let description = spec.capture.description.as_ref().map(|text| text.expand(&values));
    if let Some(text) = description.or_else(|| spec.description.clone()) {
        info.set_description(&text);
    }
    let write = WriteOptions {
        compression: match spec.capture.compress {
            Compression::None => gilt_wim::Compression::None,
            Compression::Xpress => gilt_wim::Compression::Xpress,
            Compression::Lzx => gilt_wim::Compression::Lzx,
            Compression::Lzms => gilt_wim::Compression::Lzms,
        },
        level: match spec.capture.level {
            CompressionLevel::Fast => gilt_wim::Level::Fast,
            CompressionLevel::Normal => gilt_wim::Level::Default,
            CompressionLevel::Max => gilt_wim::Level::Max,
        },
        integrity: spec.capture.integrity,
        threads: job.options.threads,
        ..WriteOptions::default()
    };
    let previous = previous(job);
    let disk = generalized.disk().to_path_buf();
    let out = staging.join(WIM);
    let (events, cancel) = (job.events.clone(), job.cancel.clone());
    let home = job.home.clone();
    let target = job.home.captures().join(key);
    let inventory = job
        .blocking(move || {
            let ticks = Ticks::new(events.clone(), cancel, "capture");
            let name = info.name().unwrap_or_default().to_owned();
            let mut request = CaptureRequest::new(&disk, &out, &name, &ticks);
            request.exclude = Some(rules);
            request.info = info;
            request.write = write;
            let options =
                CaptureOptions { previous, write_index: true, ..CaptureOptions::default() };
            let captured = gilt_capture::capture_with(&request, &options).map_err(imaging_error)?;
            events.note(format!(
                "captured {:.1} MB of files into {:.1} MB, {:.1} MB of it taken over as it was",
                captured.written.total_bytes as f64 / 1e6,
                captured.written.file_bytes as f64 / 1e6,
                captured.written.lent_bytes as f64 / 1e6,
            ));
            let text = serde_json::to_vec(&captured.inventory)
                .map_err(|error| StageError::Imaging(error.to_string()))?;
            std::fs::write(staging.join(INVENTORY), text)
                .and_then(|()| home.publish_dir(&staging, &target))
                .map_err(StageError::io("keep the captured image"))?;
            Ok(captured.inventory)
        })
        .await?;
    job.remember(|history| history.last_capture = Some(key.to_owned()))?;
    Ok(Captured { wim: job.home.captures().join(key).join(WIM), inventory })
}

/// `${build.…}` outside a guest: only the image's name makes sense there.
fn generalized_values(job: &Job) -> crate::template::RuntimeValues {
    crate::template::RuntimeValues {
        ssh_public_key: String::new(),
        http: String::new(),
        name: job.build.spec.name.clone(),
        id: String::new(),
        username: job.build.spec.communicator.username.clone(),
        password: String::new(),
    }
}

/// The image's last capture: what did not change since is not read, and what is the same is not
/// compressed again.
fn previous(job: &Job) -> Option<PathBuf> {
    let history = crate::checkpoint::History::load(&job.home, &job.build.spec.name);
    let wim = job.home.captures().join(history.last_capture?).join(WIM);
    wim.is_file().then_some(wim)
}

/// The volume with the guest's system, on a machine that is off.
pub fn open_volume(disk: &Path) -> Result<FoundVolume, StageError> {
    let disk = gilt_disk::open(disk).map_err(|error| StageError::Imaging(error.to_string()))?;
    gilt_capture::find_volume(&disk, PartitionChoice::Auto).map_err(imaging_error)
}

pub fn imaging_error(error: CaptureError) -> StageError {
    match error {
        CaptureError::Wim(gilt_wim::Error::Cancelled) => StageError::Cancelled,
        CaptureError::Io { path, source } => {
            StageError::Io { action: format!("use {}", path.display()), source }
        }
        other => StageError::Imaging(other.to_string()),
    }
}

/// Turns the progress of imaging into events.
pub struct Ticks {
    events: Events,
    cancel: CancellationToken,
    what: &'static str,
    done: AtomicU64,
    total: AtomicU64,
    last: Mutex<Instant>,
}

impl Ticks {
    pub fn new(events: Events, cancel: CancellationToken, what: &'static str) -> Self {
        Self {
            events,
            cancel,
            what,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
        }
    }
}

impl Progress for Ticks {
    fn total_bytes(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn advance_bytes(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.elapsed() >= TICK {
            *last = Instant::now();
            let total = self.total.load(Ordering::Relaxed);
            self.events.emit(Event::Progress { what: self.what.to_owned(), done, total });
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
