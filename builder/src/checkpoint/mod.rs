//! Checkpoints: a saved disk (and, where it pays, saved memory) after each layer.
//!
//! ```text
//! <home>/checkpoints/<key>/
//!   checkpoint.json    the record below; written last, so a folder with it is whole
//!   disk.qcow2         overlay over ../<parent>/disk.qcow2 (the install layer's stands alone)
//!   memory.state       the running guest, with memory.state.json (what it fits)    optional
//!   uefi-vars.fd       the firmware's variables                                    optional
//!   tpm/               the TPM's state                                             optional
//!   access.key         the private key that opens the guest, readable by its owner only;
//!                      none after generalizing, when no key opens it any more
//! ```
//! A checkpoint is filled in a staging folder and appears by rename, so a killed build leaves no
//! half of one. Nothing changes a checkpoint once it is there; overlays rely on it.
//!
//! Where a driver's disks stay elsewhere ([`VmDriver::disk_home`]), its checkpoints are of that place
//! alone: they lie below `<home>/checkpoints/at-<place>/`, and `disk` only stands for the disk there.

use crate::home::{Home, write_atomically};
use crate::plan::{CheckpointIndex, CheckpointInfo, LayerInputsRecord, LayerKey};
use gilt_vm::VmDriver;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Raised when the meaning of a field changes; other formats are not reused.
const FORMAT: u32 = 1;

const DISK: &str = "disk.qcow2";
/// Stands for a disk elsewhere.
const DISK_ELSEWHERE: &str = "disk";
/// Begins the folder of a place; no key begins so.
const PLACE: &str = "at-";
pub const MEMORY: &str = "memory.state";
pub const UEFI_VARIABLES: &str = "uefi-vars.fd";
pub const TPM: &str = "tpm";
pub const ACCESS_KEY: &str = "access.key";
const RECORD: &str = "checkpoint.json";

/// What a checkpoint is and how it came to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub key: String,
    /// Key of the checkpoint its disk lies over.
    pub parent: Option<String>,
    pub image: String,
    pub layer: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// How long the layer took.
    pub seconds: f64,
    /// The account whose key `access.key` is.
    pub username: String,
    /// The matching public key, to be proved gone from images.
    pub public_key: String,
    /// The key was made by gilt, and each later build replaces it.
    pub key_is_ours: bool,
}

/// A checkpoint that is whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub record: Record,
    folder: PathBuf,
    disk: &'static str,
}

impl Checkpoint {
    pub fn disk(&self) -> PathBuf {
        self.folder.join(self.disk)
    }

    pub fn memory(&self) -> Option<PathBuf> {
        Some(self.folder.join(MEMORY)).filter(|path| path.exists())
    }

    pub fn uefi_variables(&self) -> Option<PathBuf> {
        Some(self.folder.join(UEFI_VARIABLES)).filter(|path| path.exists())
    }

    pub fn tpm(&self) -> Option<PathBuf> {
        Some(self.folder.join(TPM)).filter(|path| path.exists())
    }

    pub fn access_key(&self) -> PathBuf {
        self.folder.join(ACCESS_KEY)
    }

    /// Removes it; first the record, so that half a removal is no checkpoint.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.folder.join(RECORD))?;
        fs::remove_dir_all(&self.folder)
    }

    /// Bytes on the host's disk.
    pub fn bytes(&self) -> u64 {
        folder_bytes(&self.folder)
    }
}

/// The checkpoints of a home whose disks are in one place.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    home: Home,
    /// Holds a folder for each.
    root: PathBuf,
    disk: &'static str,
}

impl Checkpoints {
    /// Those whose disks are files here.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone(), root: home.checkpoints(), disk: DISK }
    }

    /// Those a driver can go on with.
    pub fn of(home: &Home, driver: &dyn VmDriver) -> Self {
        match driver.disk_home() {
            None => Self::new(home),
            Some(place) => Self::at(home, &place),
        }
    }

    fn at(home: &Home, place: &str) -> Self {
        // Two places of one name would have to differ by what a host name cannot hold.
        let safe: String = place
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' })
            .collect();
        let root = home.checkpoints().join(format!("{PLACE}{safe}"));
        Self { home: home.clone(), root, disk: DISK_ELSEWHERE }
    }

    /// Those of every place.
    pub fn everywhere(home: &Home) -> io::Result<Vec<Self>> {
        let mut all = vec![Self::new(home)];
        for entry in fs::read_dir(home.checkpoints())? {
            if let Some(place) = entry?.file_name().to_str().and_then(|n| n.strip_prefix(PLACE)) {
                all.push(Self::at(home, place));
            }
        }
        Ok(all)
    }

    pub fn folder(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// The disk of checkpoint `key`, whether it exists yet or not: what an overlay names as base.
    pub fn disk_path(&self, key: &str) -> PathBuf {
        self.folder(key).join(self.disk)
    }

    /// What the disk of a checkpoint is called in its folder.
    pub fn disk_name(&self) -> &'static str {
        self.disk
    }

    /// The checkpoint, where it and all it lies over are whole.
    pub fn find(&self, key: &str) -> Option<Checkpoint> {
        let found = self.read(key)?;
        let mut seen = BTreeSet::new();
        let mut parent = found.record.parent.clone();
        while let Some(key) = parent {
            if !seen.insert(key.clone()) {
                return None;
            }
            parent = self.read(&key)?.record.parent;
        }
        Some(found)
    }

    fn read(&self, key: &str) -> Option<Checkpoint> {
        let folder = self.folder(key);
        let bytes = fs::read(folder.join(RECORD)).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        let whole = record.format == FORMAT && record.key == key && folder.join(self.disk).exists();
        whole.then_some(Checkpoint { record, folder, disk: self.disk })
    }

    /// Writes the record into the filled staging folder and publishes it.
    pub fn publish(&self, staging: &Path, mut record: Record) -> io::Result<Checkpoint> {
        record.format = FORMAT;
        let key = record.key.clone();
        let access_key = staging.join(ACCESS_KEY);
        if access_key.exists() {
            restrict(&access_key)?;
        }
        fs::write(staging.join(RECORD), serde_json::to_vec_pretty(&record)?)?;
        let target = self.folder(&key);
        if target.exists() && self.read(&key).is_none() {
            // Damaged by hand, or of another format: it is in nobody's use.
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir_all(&self.root)?;
        self.home.publish_dir(staging, &target)?;
        self.read(&key).ok_or_else(|| io::Error::other("a new checkpoint cannot be read back"))
    }

    pub fn all(&self) -> io::Result<Vec<Checkpoint>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            if let Some(key) = entry?.file_name().to_str()
                && let Some(found) = self.read(key)
            {
                all.push(found);
            }
        }
        all.sort_by(|a, b| a.record.created.cmp(&b.record.created));
        Ok(all)
    }

    /// What `prune` would remove: checkpoints that are not in `keep` and that nothing kept lies
    /// over, older than `older_than` (RFC 3339) where given; children before parents.
    pub fn plan_prune(
        &self,
        keep: &BTreeSet<String>,
        older_than: Option<&str>,
    ) -> io::Result<Vec<Checkpoint>> {
        let all = self.all()?;
        let parents: BTreeMap<&str, Option<&str>> =
            all.iter().map(|c| (c.record.key.as_str(), c.record.parent.as_deref())).collect();
        let mut needed = BTreeSet::new();
        for found in &all {
            let young = older_than.is_some_and(|limit| found.record.created.as_str() >= limit);
            if young || keep.contains(&found.record.key) {
                let mut key = Some(found.record.key.as_str());
                while let Some(name) = key
                    && needed.insert(name.to_owned())
                {
                    key = parents.get(name).copied().flatten();
                }
            }
        }
        // Sorted by time, and a parent is always older than its children.
        Ok(all.into_iter().rev().filter(|c| !needed.contains(&c.record.key)).collect())
    }
}

/// What is remembered of an image's layers between builds: for expectations and for `why`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    pub layers: BTreeMap<String, LayerHistory>,
    /// Seconds each stage took last time it ran.
    #[serde(default)]
    pub stages: BTreeMap<String, f64>,
    /// The compressed disk contents of the last capture, for seeding the next one.
    #[serde(default)]
    pub last_capture: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerHistory {
    pub seconds: f64,
    pub made_of: LayerInputsRecord,
}

/// What `plan` asks of earlier builds.
pub struct Index<'a> {
    pub checkpoints: &'a Checkpoints,
    pub home: &'a Home,
}

impl CheckpointIndex for Index<'_> {
    fn find(&self, key: &LayerKey) -> Option<CheckpointInfo> {
        let found = self.checkpoints.find(&key.to_string())?;
        let created: jiff::Timestamp = found.record.created.parse().ok()?;
        Some(CheckpointInfo {
            created: created.into(),
            seconds: found.record.seconds,
            bytes: found.bytes(),
        })
    }

    fn last_for(&self, image: &str, layer: &str) -> Option<LayerInputsRecord> {
        History::load(self.home, image).layers.remove(layer).map(|last| last.made_of)
    }

    fn last_duration(&self, image: &str, layer: &str) -> Option<Duration> {
        let last = History::load(self.home, image).layers.remove(layer)?;
        Duration::try_from_secs_f64(last.seconds).ok()
    }
}

impl History {
    /// How long a build from nothing took, stage by stage.
    pub fn expected_seconds(&self) -> Option<f64> {
        (!self.stages.is_empty()).then(|| self.stages.values().sum())
    }

    fn path(home: &Home, image: &str) -> PathBuf {
        let safe: String = image
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        home.history().join(format!("{safe}.json"))
    }

    /// Empty where there is none or it cannot be read: history only informs.
    pub fn load(home: &Home, image: &str) -> Self {
        fs::read(Self::path(home, image))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Changes what is remembered of an image. A layer may be remembered while a stage is.
    pub fn change(home: &Home, image: &str, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = Self::load(home, image);
        change(&mut history);
        write_atomically(&Self::path(home, image), &serde_json::to_vec_pretty(&history)?)
    }
}

/// Readable by its owner only.
pub fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    // On Windows the home lies in the user's profile, which others cannot read.
    File::open(path).map(drop)
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => allocated_bytes(&meta),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(unix)]
fn allocated_bytes(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}

#[cfg(not(unix))]
fn allocated_bytes(meta: &fs::Metadata) -> u64 {
    meta.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, parent: Option<&str>, created: &str) -> Record {
        Record {
            format: FORMAT,
            key: key.into(),
            parent: parent.map(Into::into),
            image: "image".into(),
            layer: key.into(),
            created: created.into(),
            seconds: 1.0,
            username: "gilt-build".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            key_is_ours: true,
        }
    }

    fn put(checkpoints: &Checkpoints, record: Record) -> Checkpoint {
        let staging = checkpoints.home.staging_dir("run", &record.key).unwrap();
        fs::write(staging.join(checkpoints.disk_name()), b"disk").unwrap();
        fs::write(staging.join(ACCESS_KEY), b"key").unwrap();
        checkpoints.publish(&staging, record).unwrap()
    }

    fn chain() -> (tempfile::TempDir, Checkpoints) {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(&Home::open(dir.path()).unwrap());
        put(&checkpoints, record("a", None, "2026-01-01T00:00:00Z"));
        put(&checkpoints, record("b", Some("a"), "2026-01-02T00:00:00Z"));
        put(&checkpoints, record("c", Some("b"), "2026-01-03T00:00:00Z"));
        (dir, checkpoints)
    }

    #[test]
    fn a_checkpoint_whose_parent_is_gone_is_not_found() {
        let (_dir, checkpoints) = chain();
        assert!(checkpoints.find("c").is_some());
        let a = checkpoints.find("a").unwrap();
        a.remove().unwrap();
        assert!(checkpoints.find("c").is_none());
    }

    #[test]
    fn checkpoints_of_one_place_are_not_those_of_another() {
        let (_dir, here) = chain();
        let home = here.home.clone();
        let one = Checkpoints::at(&home, "hyperv:hv1:22");
        let two = Checkpoints::at(&home, "hyperv:hv2:22");
        put(&one, record("a", None, "2026-01-05T00:00:00Z"));
        put(&one, record("d", Some("a"), "2026-01-06T00:00:00Z"));
        assert!(one.find("d").is_some() && one.find("b").is_none());
        assert!(two.find("a").is_none() && here.find("d").is_none());
        assert_ne!(one.disk_path("a"), here.disk_path("a"));

        // A prune comes to all of them.
        let everywhere = Checkpoints::everywhere(&home).unwrap();
        let all = everywhere.iter().flat_map(|some| some.all().unwrap());
        let mut keys: Vec<_> = all.map(|found| found.record.key).collect();
        keys.sort();
        assert_eq!(keys, ["a", "a", "b", "c", "d"]);
    }

    #[test]
    fn a_folder_without_its_record_is_no_checkpoint_and_can_be_made_again() {
        let (_dir, checkpoints) = chain();
        fs::remove_file(checkpoints.folder("b").join(RECORD)).unwrap();
        assert!(checkpoints.find("b").is_none());
        put(&checkpoints, record("b", Some("a"), "2026-01-04T00:00:00Z"));
        assert!(checkpoints.find("b").is_some());
    }

    #[test]
    fn prune_keeps_what_a_kept_checkpoint_lies_over() {
        let (_dir, checkpoints) = chain();
        let names = |keep: &[&str], older| -> Vec<String> {
            let keep = keep.iter().map(|k| (*k).to_owned()).collect();
            let plan = checkpoints.plan_prune(&keep, older).unwrap();
            plan.into_iter().map(|c| c.record.key).collect()
        };
        assert_eq!(names(&["b"], None), ["c"]);
        assert_eq!(names(&[], None), ["c", "b", "a"]);
        assert_eq!(names(&[], Some("2026-01-03T00:00:00Z")), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_the_access_key() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, checkpoints) = chain();
        let key = checkpoints.find("a").unwrap().access_key();
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
