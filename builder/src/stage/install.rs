//! The base: an installer run to its end on an empty disk, or a disk that is there already.

use super::guest::{Access, Guest, Served};
use super::layers::{self, Start};
use super::machine::Machine;
use super::windows::install as windows;
use super::{Job, StageError};
use crate::event::{Event, Stage};
use crate::plan::Plan;
use crate::template::model as template;
use gilt_vm::boot_command::{self, BootStep, BootTyper, Wait, WaitOn};
use gilt_vm::media::AnswerMedium;
use gilt_vm::serial::SerialPattern;
use gilt_vm::{DiskFormat, StartFrom, Vm};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A screen that stands this long is still.
const STILL: Duration = Duration::from_secs(2);
/// Of 64 places of a screen's hash; a cursor changes one or two.
const SAME_SCREEN: u32 = 4;

/// A machine to lay layers on: resumed from the newest checkpoint that fits, or installed.
pub async fn begin(
    job: &Job,
    plan: &Plan,
    start: &Start,
    expected: &impl Fn(Stage) -> Option<f64>,
) -> Result<Machine, StageError> {
    if start.first > 0 {
        job.events.emit(Event::StageReused { stage: Stage::Install });
        layers::announce_reused(job, plan, start.first);
        let step = &plan.steps[start.first - 1];
        let checkpoint = job.checkpoints.find(&step.key.to_string()).ok_or_else(|| {
            StageError::Input(format!("the checkpoint of layer {} is gone", step.name))
        })?;
        return job.stage(Stage::Prepare, None, job.resume(&checkpoint)).await;
    }
    job.stage(Stage::Install, expected(Stage::Install), install(job, plan)).await
}

async fn install(job: &Job, plan: &Plan) -> Result<Machine, StageError> {
    let step = &plan.steps[0];
    let key = step.key.to_string();
    let lock = layers::lock(job, &key).await?;
    if layers::may_reuse(step)
        && let Some(made) = job.checkpoints.find(&key)
    {
        job.events.emit(Event::LayerReused { layer: step.name.clone(), key });
        return job.resume(&made).await;
    }
    job.events.emit(Event::LayerStarted {
        layer: step.name.clone(),
        key: key.clone(),
        why: step.why(),
        expected_seconds: step.last_seconds,
    });
    let started = Instant::now();
    let mut machine = match &job.build.spec.source.start {
        template::Start::Iso(medium) => from_medium(job, &medium.0).await?,
        template::Start::Disk(medium) => from_disk(job, &medium.0).await?,
    };
    let seconds = started.elapsed().as_secs_f64();
    machine.save(job, layers::done(job, step, seconds, lock)).await?;
    Ok(machine)
}

async fn from_medium(job: &Job, medium: &template::FileRef) -> Result<Machine, StageError> {
    let iso = super::input::local_path(job, medium).await?;
    let access = Access::new_for(job)?;
    let served = Served::start(job).await?;
    let setup = windows_setup(job);
    let (iso, answer) = match &setup {
        Some(setup) => {
            let answer = windows::answer_medium(job, &access, &served, setup, &iso).await?;
            (windows::install_medium(job, setup, iso).await?, Some(answer))
        }
        None => (iso, answer_medium(job, &access, &served).await?),
    };
    let disk = first_disk(job);
    let size = job.build.spec.machine.disk.bytes();
    job.driver.create_disk(&disk, job.driver.disk_format(), size).await?;
    let spec = job.spec(disk, "guest", served.reached_ports());
    let spec = job.with_cdroms(spec, [Some(iso), answer]);
    let vm = job.driver.start(&spec, job.run.path(), StartFrom::PowerOn).await?;
    let vm = job.watch(vm);
    let deadline = Instant::now() + job.build.spec.source.install_timeout;
    type_boot_steps(job, vm.as_ref(), &access, &served).await?;
    let left = deadline.saturating_duration_since(Instant::now());
    let guest = if setup.is_some() {
        let mut guest = windows::first_login(job, vm.as_ref(), &access, served, left).await?;
        // The password Setup was told is worth nothing from now on.
        guest.renew_access(job).await?;
        guest
    } else {
        Guest::connect(job, vm.as_ref(), &access, served, left).await?
    };
    // The drives stay, empty: a saved state of this machine then fits every later start of it.
    for drive in 0..spec.cdroms.len() {
        vm.change_medium(drive, None).await?;
    }
    Ok(Machine::new(vm, guest))
}

/// How Setup is answered; for a Linux guest there is none.
fn windows_setup(job: &Job) -> Option<template::WindowsSetup> {
    let spec = &job.build.spec;
    (spec.guest == template::Guest::Windows)
        .then(|| spec.source.windows.clone().unwrap_or_else(template::WindowsSetup::plain))
}

async fn from_disk(job: &Job, medium: &template::FileRef) -> Result<Machine, StageError> {
    let base = super::input::local_path(job, medium).await?;
    let access = Access::new_for(job)?;
    let served = Served::start(job).await?;
    let answer = answer_medium(job, &access, &served).await?;
    let disk = first_disk(job);
    // Its digest is part of the key: another disk at this path is another checkpoint.
    let (base, format) = base_disk(job, absolute(&base)?).await?;
    job.driver.create_overlay(&base, format, &disk).await?;
    let spec = job.spec(disk, "guest", served.reached_ports());
    let mut spec = job.with_cdroms(spec, [None, answer]);
    job.boot_kernel_of_disk(&mut spec).await?;
    let vm = job.driver.start(&spec, job.run.path(), StartFrom::PowerOn).await?;
    let vm = job.watch(vm);
    type_boot_steps(job, vm.as_ref(), &access, &served).await?;
    let patience = job.build.spec.communicator.timeout;
    let mut guest = Guest::connect(job, vm.as_ref(), &access, served, patience).await?;
    if job.build.spec.guest == template::Guest::Windows {
        guest.renew_access(job).await?;
    }
    for drive in 0..spec.cdroms.len() {
        vm.change_medium(drive, None).await?;
    }
    Ok(Machine::new(vm, guest))
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, StageError> {
    std::fs::canonicalize(path).map_err(StageError::io(format!("find {}", path.display())))
}

fn first_disk(job: &Job) -> PathBuf {
    job.run.file(&format!("overlay-first.{}", job.driver.disk_format().qemu_name()))
}

/// The disk to begin from, as one the driver takes: the one given, or a VHDX made of it.
async fn base_disk(job: &Job, base: PathBuf) -> Result<(PathBuf, DiskFormat), StageError> {
    use gilt_disk::Format;
    let wants_vhdx = job.driver.disk_format() == DiskFormat::Vhdx;
    let (events, made) = (job.events.clone(), job.run.file("base.vhdx"));
    job.blocking(move || {
        let imaging = |error: gilt_disk::DiskError| StageError::Imaging(error.to_string());
        let disk = gilt_disk::open(&base).map_err(imaging)?;
        let formats: Vec<Format> = disk.layers().iter().map(|layer| layer.format).collect();
        match formats[..] {
            [Format::Vhdx] if wants_vhdx => Ok((base, DiskFormat::Vhdx)),
            _ if wants_vhdx => {
                events.note(format!("making a VHDX of {}", base.display()));
                gilt_disk::write_vhdx(&*disk.reader(), &made).map_err(imaging)?;
                Ok((made, DiskFormat::Vhdx))
            }
            [Format::Raw, ..] => Ok((base, DiskFormat::Raw)),
            [Format::Qcow2, ..] => Ok((base, DiskFormat::Qcow2)),
            _ => Err(StageError::Input(format!(
                "{}: not a qcow2 or raw disk; qemu-img convert -O qcow2 makes one of it",
                base.display()
            ))),
        }
    })
    .await
}

/// The second medium, with the answers of the template filled in.
async fn answer_medium(
    job: &Job,
    access: &Access,
    served: &Served,
) -> Result<Option<PathBuf>, StageError> {
    let Some(answer) = &job.build.spec.source.answer else { return Ok(None) };
    let values = access.values(job, &served.base);
    let mut medium = AnswerMedium::new(&answer.label)?;
    for (name, text) in &answer.files {
        medium = medium.file(name.clone(), text.expand(&values).into_bytes());
    }
    for (name, file) in &answer.file_paths {
        let path = super::input::local_path(job, file).await?;
        let bytes =
            std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))?;
        medium = medium.file(name.clone(), bytes);
    }
    let path = job.run.file("answer.iso");
    medium.write(&path)?;
    Ok(Some(path))
}

async fn type_boot_steps(
    job: &Job,
    vm: &dyn Vm,
    access: &Access,
    served: &Served,
) -> Result<(), StageError> {
    let source = &job.build.spec.source;
    let values = access.values(job, &served.base);
    let mut typer = BootTyper::new(vm);
    for step in &source.boot_steps {
        if let Some(text) = &step.description {
            job.events.note(format!("boot: {text}"));
        }
        if let Some(time) = step.wait {
            typer.play(&[BootStep::Pause(time)]).await?;
        }
        if let Some(text) = &step.wait_serial {
            let pattern = SerialPattern::parse(&text.expand(&values))?;
            typer.wait(&Wait { on: WaitOn::Serial(pattern), limit: step.timeout }).await?;
        }
        if let Some(text) = &step.wait_screen {
            let on = screen_wait(&text.expand(&values))?;
            typer.wait(&Wait { on, limit: step.timeout }).await?;
        }
        typer.play(&boot_command::parse(&step.keys.expand(&values))?).await?;
    }
    if !source.boot_command.is_empty() {
        job.events.note("boot: typing the boot command");
        typer.play(&[BootStep::Pause(source.boot_wait)]).await?;
        for line in &source.boot_command {
            typer.play(&boot_command::parse(&line.expand(&values))?).await?;
        }
    }
    Ok(())
}

/// `hash:0123456789abcdef`, or `still`.
fn screen_wait(text: &str) -> Result<WaitOn, StageError> {
    match text.strip_prefix("hash:") {
        Some(hash) => Ok(WaitOn::ScreenHash { hash: hash.parse()?, max_distance: SAME_SCREEN }),
        None if text == "still" => Ok(WaitOn::ScreenStable { still_for: STILL }),
        None => Err(StageError::Input(format!(
            "wait_screen: {text:?} is neither `still` nor `hash:` with 16 hexadecimal digits"
        ))),
    }
}
