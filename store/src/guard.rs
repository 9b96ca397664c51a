//! Keeps publishing and gc out of each other's way, without a lock.
//!
//! ```text
//! pins/<id>.json     a publisher writes it before it reads `trash/`, and removes it when its
//!                    manifest is written. It is also what shows a version that is being built.
//! trash/<id>.json    gc lists packs nothing refers to; after the grace time, and only when no
//!                    pin older than this list is left, it looks again and deletes them
//! ```
//! A publisher never relies on a pack in `trash/`; it stores those blobs again. So either gc sees
//! the publisher's pin and waits, or the publisher sees gc's list and stays away.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Created};
use crate::digest::Digest;
use crate::error::{Error, Result};

pub(crate) const PINS: &str = "pins";
pub(crate) const TRASH: &str = "trash";

/// A publisher that took longer must not rely on what it saw at its start. A pin older than this
/// is what a crash left.
pub(crate) const PIN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Clocks of one backend agree this well: S3 keeps whole seconds.
pub(crate) const CLOCK_STEP: Duration = Duration::from_secs(2);

/// A publish under way, or cut off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    pub image: String,
    pub by: String,
    pub at: jiff::Timestamp,
    pub host: String,
    pub pid: u32,
    /// When that host started, so that a reused process number is not taken for the publisher.
    pub boot: String,
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .or_else(|_| std::env::var("COMPUTERNAME"))
        .unwrap_or_else(|_| "unknown".into())
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// `user@host`
pub(crate) fn whoami() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME"));
    format!("{}@{}", user.unwrap_or_else(|_| "unknown".into()), host())
}

impl Pin {
    /// True if this host can tell that the publisher is no more.
    pub(crate) fn is_dead(&self) -> bool {
        !self.boot.is_empty()
            && self.host == host()
            && (self.boot != boot()
                || !std::path::Path::new(&format!("/proc/{}", self.pid)).exists())
    }
}

/// A pin that is ours; removed at the end.
pub(crate) struct Pinned {
    backend: Backend,
    key: String,
    started: std::time::Instant,
}

impl Pinned {
    pub async fn new(
        backend: &Backend,
        image: &str,
        by: &str,
        at: jiff::Timestamp,
    ) -> Result<Self> {
        let key = format!("{PINS}/{}.json", uuid::Uuid::new_v4().simple());
        let pin = Pin {
            image: image.to_owned(),
            by: by.to_owned(),
            at,
            host: host(),
            pid: std::process::id(),
            boot: boot(),
        };
        let text = serde_json::to_vec(&pin).map_err(|e| Error::invalid("pin", e.to_string()))?;
        if backend.create(&key, text.into()).await? == Created::Exists {
            return Err(Error::Raced { what: key, attempts: 1 });
        }
        Ok(Self { backend: backend.clone(), key, started: std::time::Instant::now() })
    }

    /// Refuses to go on after half the time a pin lives.
    pub fn check(&self) -> Result<()> {
        if self.started.elapsed() > PIN_LIFE / 2 {
            return Err(Error::refused("publishing", "it took more than 12 hours; run it again"));
        }
        Ok(())
    }

    pub async fn release(self) -> Result<()> {
        self.backend.delete(&self.key).await
    }
}

/// Pins with the time the backend gave them.
pub(crate) async fn pins(backend: &Backend) -> Result<Vec<(String, jiff::Timestamp, Pin)>> {
    let mut pins = Vec::new();
    for object in backend.list(PINS).await? {
        let bytes = match backend.get(&object.key).await {
            Err(error) if error.is_not_found() => continue,
            other => other?,
        };
        let pin = serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(&object.key, error.to_string()))?;
        pins.push((object.key, object.modified, pin));
    }
    Ok(pins)
}

/// Packs that gc means to delete.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trash {
    pub at: jiff::Timestamp,
    pub packs: Vec<Digest>,
}

pub(crate) async fn trash(backend: &Backend) -> Result<Vec<(String, jiff::Timestamp, Trash)>> {
    let mut lists = Vec::new();
    for object in backend.list(TRASH).await? {
        let bytes = match backend.get(&object.key).await {
            Err(error) if error.is_not_found() => continue,
            other => other?,
        };
        let trash = serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(&object.key, error.to_string()))?;
        lists.push((object.key, object.modified, trash));
    }
    Ok(lists)
}

pub(crate) async fn trashed(backend: &Backend) -> Result<HashSet<Digest>> {
    let lists = trash(backend).await?;
    Ok(lists.into_iter().flat_map(|(_, _, trash)| trash.packs).collect())
}
