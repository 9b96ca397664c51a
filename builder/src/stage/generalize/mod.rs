//! Generalize: take out what belongs to one machine and to the build, power off, and prove it
//! from the disk.

pub mod proof;

use super::guest::Command;
use super::machine::Machine;
use super::windows;
use super::{Job, StageError};
use crate::checkpoint::Record;
use crate::template::model::Guest as GuestKind;
use gilt_vm::ExitReason;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LINUX: &str = include_str!("linux.sh");

/// What gilt itself runs in the guest; part of the generalized disk's key.
pub fn script(guest: GuestKind) -> String {
    match guest {
        GuestKind::Linux => LINUX.to_owned(),
        GuestKind::Windows => windows::generalize::scripts(),
    }
}

/// A powered-off disk that was proven to hold nothing of the build. Only this stage makes one.
pub struct Generalized {
    /// A file here, also where machines run on disks elsewhere.
    disk: PathBuf,
    /// What was proven gone; the test of the captured image looks for it again.
    public_keys: Vec<String>,
}

impl Generalized {
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The keys that were proven gone.
    pub fn public_keys(&self) -> &[String] {
        &self.public_keys
    }
}

/// The result of an earlier build, if it is still there.
pub async fn kept(job: &Job, key: &str) -> Result<Option<Generalized>, StageError> {
    let Some(found) = job.checkpoints.find(key) else { return Ok(None) };
    let disk = job.bytes_of(&found.disk()).await?;
    Ok(Some(Generalized { disk, public_keys: vec![found.record.public_key.clone()] }))
}

pub async fn run(job: &Job, machine: Machine, key: &str) -> Result<Generalized, StageError> {
    let mut machine = machine.awake(job).await?;
    let started = std::time::Instant::now();
    let options = &job.build.spec.generalize;
    let keep: Vec<String> = options.keep.iter().map(|trace| trace.as_str().to_owned()).collect();
    // The account that goes; Windows generalizes under another one.
    let build_user = machine.guest.access.username.clone();
    match job.build.spec.guest {
        GuestKind::Linux => linux(job, &mut machine, &keep).await?,
        GuestKind::Windows => windows::generalize::run(job, &mut machine).await?,
    }
    let reason =
        machine.vm.exit_watch().wait_at_most(options.shutdown_timeout, machine.vm.serial()).await?;
    if reason != ExitReason::PoweredOff {
        return Err(StageError::Guest(format!("generalize did not end in a power-off: {reason}")));
    }
    // It is off; what a driver has of it elsewhere comes here now.
    machine.vm.power_off().await?;
    // The generalized disk lies over the last layer's.
    machine.saved().await?;
    let disk = machine.disk();
    let access = machine.guest.access.clone();
    let access_ours = access.is_ours();
    let host_url = machine.guest.served.trace();
    let parent = machine.parent.clone();
    drop(machine);
    job.take_live();

    let public_keys = vec![access.public_key.clone()];
    let flat = job.bytes_of(&disk).await?;
    match job.build.spec.guest {
        GuestKind::Linux => {
            prove(job, flat.clone(), build_user, public_keys.clone(), host_url, keep).await?
        }
        GuestKind::Windows => {
            prove_windows(job, flat.clone(), build_user, public_keys.clone()).await?
        }
    }

    let staging = job
        .home
        .staging_dir(&job.id, key)
        .map_err(StageError::io("make a folder for the generalized disk"))?;
    std::fs::rename(&disk, staging.join(job.checkpoints.disk_name()))
        .map_err(StageError::io("keep the generalized disk"))?;
    let record = Record {
        format: 0,
        key: key.to_owned(),
        parent,
        image: job.build.spec.name.clone(),
        layer: "generalize".to_owned(),
        created: crate::now(),
        seconds: started.elapsed().as_secs_f64(),
        username: access.username,
        public_key: access.public_key,
        key_is_ours: access_ours,
    };
    let checkpoints = job.checkpoints.clone();
    let saved = job
        .blocking(move || {
            checkpoints
                .publish(&staging, record)
                .map_err(StageError::io("keep the generalized disk"))
        })
        .await?;
    let disk = if flat == disk { saved.disk() } else { flat };
    Ok(Generalized { disk, public_keys })
}

async fn linux(job: &Job, machine: &mut Machine, keep: &[String]) -> Result<(), StageError> {
    let access = &machine.guest.access;
    let key = access.public_key.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let command = Command {
        what: "generalize".to_owned(),
        script: LINUX.as_bytes().to_vec(),
        interpreter: None,
        arguments: Vec::new(),
        environment: BTreeMap::from([
            ("BUILD_USER".to_owned(), access.username.clone()),
            ("BUILD_KEYS".to_owned(), key),
            ("BUILD_DNS".to_owned(), proof::BUILD_DNS.to_owned()),
            ("KEEP".to_owned(), keep.join(" ")),
        ]),
        user: "root".to_owned(),
        timeout: job.build.spec.generalize.timeout,
    };
    match machine.guest.run_script(job, &command).await {
        Ok(done) if done.code == 0 => Ok(()),
        Ok(done) => {
            Err(StageError::Command { what: command.what, code: done.code, tail: done.tail })
        }
        // The last thing the script does is to switch the machine off under us.
        Err(StageError::Vm(
            gilt_vm::Error::ConnectionLost { .. }
            | gilt_vm::Error::Ended { reason: ExitReason::PoweredOff, .. },
        )) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn prove_windows(
    job: &Job,
    disk: PathBuf,
    build_user: String,
    public_keys: Vec<String>,
) -> Result<(), StageError> {
    let secrets =
        job.build.spec.secrets.values().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
    let proof = job
        .blocking(move || {
            let volume = super::capture::open_volume(&disk)?;
            let traces = windows::proof::Traces {
                build_user: &build_user,
                public_keys: &public_keys,
                secrets: &secrets,
            };
            windows::proof::prove(&volume, &traces)
                .map_err(StageError::io("read the generalized disk"))
        })
        .await?;
    for warning in &proof.warnings {
        job.events.warn(format!("generalize: {warning}"));
    }
    if let Some(first) = proof.refuted.first() {
        for claim in &proof.refuted {
            job.events.warn(format!("not generalized: {claim}"));
        }
        return Err(StageError::Guest(format!(
            "the disk does not prove that Windows was generalized: {first}"
        )));
    }
    leftovers(job, &proof.left)
}

async fn prove(
    job: &Job,
    disk: PathBuf,
    build_user: String,
    public_keys: Vec<String>,
    host_url: String,
    keep: Vec<String>,
) -> Result<(), StageError> {
    let secrets =
        job.build.spec.secrets.values().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
    let left = job
        .blocking(move || {
            let volume = super::capture::open_volume(&disk)?;
            let traces = proof::Traces {
                build_user: &build_user,
                public_keys: &public_keys,
                secrets: &secrets,
                host_url: &host_url,
                keep: &keep,
            };
            proof::prove(&volume.tree, volume.reader.contents(), &traces)
                .map_err(StageError::io("read the generalized disk"))
        })
        .await?;
    leftovers(job, &left)
}

fn leftovers(job: &Job, left: &[proof::Leftover]) -> Result<(), StageError> {
    let Some(first) = left.first() else { return Ok(()) };
    for leftover in left {
        job.events.warn(format!("left in the image: {} ({})", leftover.path, leftover.what));
    }
    Err(StageError::Leftovers { count: left.len(), first: first.clone() })
}
