//! Publish: the tested image, its inventory and its log become a version in the store.

use super::test::Tested;
use super::{Job, StageError};
use crate::pipeline::Target;
use crate::plan::Plan;
use gilt_capture::{Inventory, Kind};
use gilt_store::{
    Artifact, Builder, Input, LayerKey, ManifestFields, OsFacts, Package, PublishRequest, Source,
    Store, Tests, Watch,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A version in the store.
pub struct Published {
    /// `image@N`.
    pub version: String,
}

/// The keys of what comes after the layers.
pub struct FinalKeys {
    pub generalized: String,
    pub captured: String,
    pub tested: String,
}

impl FinalKeys {
    pub fn of(build: &crate::plan::Build) -> Self {
        Self {
            generalized: build.generalize.key.to_string(),
            captured: build.capture.key.to_string(),
            tested: build.tests.key.to_string(),
        }
    }
}

/// What a finished build published, so that the next one of the same inputs does nothing.
#[derive(Serialize, Deserialize)]
struct Result_ {
    store: String,
    image: String,
    version: u64,
}

fn result_path(job: &Job, keys: &FinalKeys) -> PathBuf {
    job.home.results().join(format!("{}.json", keys.tested))
}

fn image_name(job: &Job) -> String {
    let publish = job.build.spec.publish.as_ref();
    publish.and_then(|p| p.image.clone()).unwrap_or_else(|| job.build.spec.name.clone())
}

async fn open(job: &Job, target: &Target) -> Result<Store, StageError> {
    let publish = job.build.spec.publish.as_ref();
    let url = target
        .store
        .clone()
        .or_else(|| publish.and_then(|p| p.store.clone()))
        .or_else(crate::image_store::default_url)
        .ok_or_else(|| StageError::Input("no store is named; see --store".into()))?;
    Store::open(&url, crate::image_store::options()).await.map_err(store_error)
}

fn store_error(error: gilt_store::Error) -> StageError {
    match error {
        gilt_store::Error::Cancelled => StageError::Cancelled,
        other => StageError::Store(other.to_string()),
    }
}

/// The version an earlier build of the very same inputs published, if the store still has it and
/// it is good.
pub async fn already_published(
    job: &Job,
    target: &Target,
    keys: &FinalKeys,
) -> Result<Option<String>, StageError> {
    let Ok(bytes) = std::fs::read(result_path(job, keys)) else { return Ok(None) };
    let Ok(result) = serde_json::from_slice::<Result_>(&bytes) else { return Ok(None) };
    let store = open(job, target).await?;
    if result.store != store.id() || result.image != image_name(job) {
        return Ok(None);
    }
    let life = store.life(&result.image, result.version).await;
    let good = life.is_ok_and(|life| life.state.is_good());
    let there = store.manifest(&result.image, result.version).await.is_ok();
    Ok((good && there).then(|| format!("{}@{}", result.image, result.version)))
}

pub async fn run(
    job: &Job,
    target: &Target,
    plan: &Plan,
    tested: Tested,
    keys: &FinalKeys,
) -> Result<Published, StageError> {
    let store = open(job, target).await?;
    let wim = tested.captured.wim.clone();
    let parts = {
        let wim = wim.clone();
        job.blocking(move || {
            crate::image_store::segments(&wim)
                .map_err(|error| StageError::Imaging(error.to_string()))
        })
        .await?
    };
    let image = image_name(job);
    let manifest = manifest(job, target, plan, &tested);
    let mut artifacts = Vec::new();
    if let Some(inventory) = &tested.captured.inventory {
        let sbom = inventory.to_cyclonedx(&image, &job.id, Some(&crate::now()));
        artifacts.push(Artifact {
            role: "sbom".into(),
            name: "sbom.cdx.json".into(),
            media_type: "application/vnd.cyclonedx+json".into(),
            source: Source::Bytes(sbom.to_string().into_bytes().into()),
        });
    }
    for (name, media_type) in
        [("events.jsonl", "application/x-ndjson"), ("output.log", "text/plain")]
    {
        // A copy: the recording goes on while it is read.
        let bytes = std::fs::read(job.run.file(name))
            .map_err(StageError::io(format!("read the build's {name}")))?;
        artifacts.push(Artifact {
            role: "log".into(),
            name: name.into(),
            media_type: media_type.into(),
            source: Source::Bytes(bytes.into()),
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let request = PublishRequest {
        image: image.clone(),
        file_name: "install.wim".into(),
        media_type: "application/x-ms-wim".into(),
        file: Source::Path(wim),
        segments: parts,
        manifest,
        artifacts,
        by: None,
        again: target.force,
        watch: Watch { progress: None, cancel: Some(stop.clone()) },
    };
    let published = tokio::select! {
        biased;
        () = job.cancel.cancelled() => {
            stop.store(true, Ordering::Relaxed);
            return Err(StageError::Cancelled);
        }
        published = store.publish(request) => published.map_err(store_error)?,
    };
    job.events.note(format!(
        "published {}@{}: the store grew by {:.1} MB, {:.1} MB were there already",
        published.image,
        published.version,
        published.bytes_new as f64 / 1e6,
        published.bytes_shared as f64 / 1e6
    ));
    if let Some(channel) = job.build.spec.publish.as_ref().and_then(|p| p.channel.clone()) {
        assign(job, &store, &published, channel).await?;
    }
    let result = Result_ { store: store.id().to_owned(), image, version: published.version };
    let bytes =
        serde_json::to_vec(&result).map_err(|error| StageError::Store(error.to_string()))?;
    crate::home::write_atomically(&result_path(job, keys), &bytes)
        .map_err(StageError::io("remember what was published"))?;
    Ok(Published { version: format!("{}@{}", published.image, published.version) })
}

/// The template's channel moves to the new version, through the same gates as by hand.
async fn assign(
    job: &Job,
    store: &Store,
    published: &gilt_store::Published,
    channel: String,
) -> Result<(), StageError> {
    let note = job.build.spec.publish.as_ref().and_then(|p| p.note.clone());
    let request = gilt_store::PromoteRequest {
        image: published.image.clone(),
        version: Some(published.version),
        from: None,
        to: channel.clone(),
        by: None,
        why: note.unwrap_or_else(|| "built and tested".into()),
        force: false,
    };
    store.promote(request).await.map_err(store_error)?;
    job.events.note(format!("{} is now {}@{}", channel, published.image, published.version));
    Ok(())
}

fn manifest(job: &Job, target: &Target, plan: &Plan, tested: &Tested) -> ManifestFields {
    let spec = &job.build.spec;
    let digest = |d: &crate::content_hash::Digest| gilt_store::Digest(d.0);
    let inputs = job
        .build
        .files()
        .into_iter()
        .map(|file| Input {
            name: file.name.clone(),
            digest: digest(&file.digest),
            size: file.file.path().and_then(|p| p.metadata().ok()).map_or(0, |meta| meta.len()),
        })
        .collect();
    let os = tested.captured.inventory.as_ref().map(os_facts).unwrap_or_default();
    ManifestFields {
        description: spec.description.clone().unwrap_or_default(),
        parents: Vec::new(),
        template_digest: std::fs::read(&target.template)
            .ok()
            .map(|bytes| digest(&crate::content_hash::Digest::of(&bytes))),
        layers: plan
            .steps
            .iter()
            .map(|step| LayerKey { name: step.name.clone(), key: step.key.to_string() })
            .collect(),
        inputs,
        builder: Builder { id: "gilt".into(), version: env!("CARGO_PKG_VERSION").into() },
        os,
        tests: Some(Tests { passed: tested.passed, failed: 0, skipped: 0 }),
        started: None,
    }
}

/// What a version says of its system, from the inventory of the captured disk.
fn os_facts(inventory: &Inventory) -> OsFacts {
    let mut facts = OsFacts {
        name: inventory.system.name.clone(),
        edition: inventory.system.id.clone(),
        build: inventory.system.version.clone(),
        architecture: inventory.system.architecture.clone(),
        ..OsFacts::default()
    };
    for package in &inventory.packages {
        match package.kind {
            Kind::Update => facts.updates.push(format!("{} {}", package.name, package.version)),
            Kind::Package | Kind::App | Kind::Driver | Kind::Program => {
                let (name, version) = (package.name.clone(), package.version.clone());
                facts.packages.push(Package { name, version });
            }
        }
    }
    if let Some(windows) = &inventory.windows {
        let release = &windows.release;
        facts.edition = release.edition.clone().unwrap_or_default();
        facts.languages = release.languages.clone();
        let texts = [
            ("display_version", &release.display_version),
            ("installation_type", &release.installation_type),
            ("default_language", &release.default_language),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                facts.more.insert(name.into(), text.clone().into());
            }
        }
        let features: Vec<&str> = windows.enabled_features().collect();
        facts.more.insert("features".into(), features.into());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use gilt_capture::windows::{CbsState, Feature, Release, WindowsInventory};
    use gilt_capture::{OperatingSystem, Package as Installed};

    #[test]
    fn the_version_of_a_windows_says_edition_languages_updates_and_features() {
        let package = |kind, name: &str, version: &str| Installed {
            kind,
            name: name.into(),
            version: version.into(),
            architecture: String::new(),
            source: None,
            supplier: None,
        };
        let feature = |name: &str, state| Feature { name: name.into(), state };
        let windows = WindowsInventory {
            release: Release {
                edition: Some("ServerStandard".into()),
                languages: vec!["en-US".into(), "de-DE".into()],
                display_version: Some("24H2".into()),
                ..Release::default()
            },
            features: vec![
                feature("NetFx4", CbsState::Installed),
                feature("TelnetClient", CbsState::Staged),
            ],
            ..WindowsInventory::default()
        };
        let facts = os_facts(&Inventory {
            system: OperatingSystem {
                id: "windows".into(),
                version: "26100.2314".into(),
                name: "Windows Server 2025 Standard".into(),
                architecture: "amd64".into(),
            },
            packages: vec![
                package(Kind::Update, "KB5044284", "26100.2033.1.3"),
                package(Kind::App, "Microsoft.WindowsTerminal", "3001.18"),
                package(Kind::Driver, "Net driver of Red Hat, Inc.", "100.95"),
            ],
            kernels: Vec::new(),
            windows: Some(Box::new(windows)),
        });
        assert_eq!(
            (facts.edition.as_str(), facts.build.as_str()),
            ("ServerStandard", "26100.2314")
        );
        assert_eq!(facts.languages, ["en-US", "de-DE"]);
        assert_eq!(facts.updates, ["KB5044284 26100.2033.1.3"]);
        assert_eq!(facts.packages.len(), 2);
        assert_eq!(facts.more["features"], serde_json::json!(["NetFx4"]));
        assert_eq!(facts.more["display_version"], "24H2");
    }
}
