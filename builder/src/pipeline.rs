//! One build from plan to published version, and several of a matrix side by side.

use crate::checkpoint::History;
use crate::cli::Exit;
use crate::event::{Event, Events, Stage};
use crate::evidence::{self, Recorder, Remains};
use crate::home::Home;
use crate::plan::{Build, Plan, PlanOptions};
use crate::stage::machine::OVERHEAD_BYTES;
use crate::stage::{Job, Options, StageError};
use crate::stage::{capture, generalize, install, layers, publish, test};

use gilt_vm::VmDriver;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What all builds of one command share.
pub struct Host {
    pub home: Home,
    pub driver: Arc<dyn VmDriver>,
    pub options: Options,
    pub cancel: CancellationToken,
}

/// How far to go, and where the result goes.
#[derive(Clone, Debug)]
pub struct Target {
    pub publish: bool,
    /// Folder or address of the store; overrides the template's.
    pub store: Option<String>,
    /// Use no checkpoint of an earlier build.
    pub force: bool,
    /// Stop after this layer's checkpoint.
    pub until: Option<String>,
    /// Test the captured image.
    pub test: bool,
    /// The template's file.
    pub template: PathBuf,
}

/// What a finished build leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `image@N`, where it was published.
    pub version: Option<String>,
    pub wim: Option<PathBuf>,
}

/// What a failed build leaves.
#[derive(Debug)]
pub struct Failed {
    pub exit: Exit,
    pub diagnosis: String,
    pub hint: Option<String>,
    pub evidence: Option<PathBuf>,
    pub kept: Option<PathBuf>,
}

impl From<StageError> for Failed {
    fn from(error: StageError) -> Self {
        Self {
            exit: error.exit(),
            diagnosis: error.to_string(),
            hint: error.hint(),
            evidence: None,
            kept: None,
        }
    }
}

/// The driver `NAME` or `NAME:ADDRESS` stands for.
pub fn driver(text: &str) -> Result<Arc<dyn VmDriver>, crate::cli::Failure> {
    let cache = Home::default_root().unwrap_or_else(std::env::temp_dir);
    gilt_vm::drivers::open(text, cache).map_err(|error| {
        crate::cli::Failure::usage(error)
            .hint(format!("this build of gilt has: {}", gilt_vm::drivers::choices()))
    })
}

/// Builds all images, as many at once as this host's memory and cores bear.
pub async fn run_all(
    host: &Host,
    target: &Target,
    builds: Vec<(Build, Events)>,
    at_once: Option<usize>,
) -> Vec<(String, Result<Outcome, Failed>)> {
    let largest =
        builds.iter().map(|(build, _)| build.spec.machine.memory.bytes()).max().unwrap_or(0);
    let cpus = builds.iter().map(|(build, _)| build.spec.machine.cpus as usize).max().unwrap_or(1);
    let slots = at_once.unwrap_or_else(|| bearable(largest + OVERHEAD_BYTES, cpus)).max(1);
    let slots = Arc::new(Semaphore::new(slots));
    let work = builds.into_iter().map(|(build, events)| {
        let slots = slots.clone();
        async move {
            let name = build.spec.name.clone();
            let Ok(_slot) = slots.acquire().await else {
                return (name, Err(StageError::Cancelled.into()));
            };
            (name, run(host, target, build, events).await)
        }
    });
    futures::future::join_all(work).await
}

/// How many machines of that size this host bears at once: all its cores, and four fifths of the
/// memory that is free now.
fn bearable(machine_bytes: u64, machine_cpus: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_cores = (cores / machine_cpus.max(1)).max(1);
    match free_memory_bytes() {
        Some(free) => {
            by_cores.min(usize::try_from(free / 5 * 4 / machine_bytes.max(1)).unwrap_or(1))
        }
        None => by_cores,
    }
}

fn free_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// One build with all that surrounds it: its folder, its recording, the evidence of its failure.
async fn run(
    host: &Host,
    target: &Target,
    build: Build,
    events: Events,
) -> Result<Outcome, Failed> {
    let job = job(host, build, events).map_err(Failed::from)?;
    let started = Instant::now();
    let done = tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(StageError::Cancelled),
        done = stages(&job, target) => done,
    };
    match done {
        Ok((outcome, unchanged)) => {
            job.settle().await;
            job.events.emit(Event::BuildFinished {
                image: job.build.spec.name.clone(),
                version: outcome.version.clone(),
                wim: outcome.wim.as_ref().map(|wim| wim.display().to_string()),
                seconds: started.elapsed().as_secs_f64(),
                unchanged,
            });
            Ok(outcome)
        }
        Err(error) => Err(fail(job, error).await),
    }
}

fn job(host: &Host, build: Build, events: Events) -> Result<Job, StageError> {
    let id = crate::new_id();
    let run = host.home.new_run(&id).map_err(StageError::io("make a folder for this build"))?;
    let recorder = Recorder::new(run.path()).map_err(StageError::io("record this build"))?;
    events.also(Arc::new(recorder));
    Ok(Job::new(
        build,
        id,
        host.home.clone(),
        events,
        host.cancel.child_token(),
        run,
        host.driver.clone(),
        host.options.clone(),
    ))
}

async fn stages(job: &Job, target: &Target) -> Result<(Outcome, bool), StageError> {
    let history = History::load(&job.home, &job.build.spec.name);
    let checkpoints = job.checkpoints.clone();
    let index = crate::checkpoint::Index { checkpoints: &checkpoints, home: &job.home };
    let plan_options = PlanOptions {
        force_from: target.force.then(|| crate::plan::INSTALL.to_owned()),
        now: None,
    };
    let plan: Plan = crate::plan::plan(&job.build, &index, &plan_options);
    let expected = |stage: Stage| history.stages.get(stage.name()).copied();
    job.events.emit(Event::BuildStarted {
        image: job.build.spec.name.clone(),
        template: target.template.display().to_string(),
        layers: plan.steps.iter().map(|layer| layer.name.clone()).collect(),
        expected_seconds: history.expected_seconds(),
    });
    let keys = publish::FinalKeys::of(&job.build);

    if !target.force
        && target.until.is_none()
        && target.publish
        && let Some(version) = publish::already_published(job, target, &keys).await?
    {
        let wim = capture::kept(job, &keys.captured).map(|captured| captured.wim);
        return Ok((Outcome { version: Some(version), wim }, true));
    }

    let kept = (!target.force && target.until.is_none())
        .then(|| capture::kept(job, &keys.captured))
        .flatten();
    let captured = match kept {
        Some(captured) => {
            for stage in [Stage::Install, Stage::Layers, Stage::Generalize, Stage::Capture] {
                job.events.emit(Event::StageReused { stage });
            }
            captured
        }
        None => {
            job.check_driver().await?;
            let known = match !target.force && target.until.is_none() {
                true => generalize::kept(job, &keys.generalized).await?,
                false => None,
            };
            let generalized = match known {
                Some(generalized) => {
                    for stage in [Stage::Install, Stage::Layers, Stage::Generalize] {
                        job.events.emit(Event::StageReused { stage });
                    }
                    generalized
                }
                None => {
                    let start = layers::start(&plan, target)?;
                    let machine = install::begin(job, &plan, &start, &expected).await?;
                    let mut machine = job
                        .stage(
                            Stage::Layers,
                            expected(Stage::Layers),
                            layers::run(job, &plan, &start, machine),
                        )
                        .await?;
                    if target.until.is_some() {
                        machine.saved().await?;
                        machine.vm.power_off().await?;
                        return Ok((Outcome { version: None, wim: None }, false));
                    }
                    job.stage(
                        Stage::Generalize,
                        expected(Stage::Generalize),
                        generalize::run(job, machine, &keys.generalized),
                    )
                    .await?
                }
            };
            job.stage(
                Stage::Capture,
                expected(Stage::Capture),
                capture::run(job, &generalized, &keys.captured),
            )
            .await?
        }
    };
    if !target.test {
        return Ok((Outcome { version: None, wim: Some(captured.wim) }, false));
    }
    let tested = job.stage(Stage::Test, expected(Stage::Test), test::run(job, captured)).await?;
    let wim = tested.captured.wim.clone();
    if !target.publish {
        return Ok((Outcome { version: None, wim: Some(wim) }, false));
    }
    let published = job
        .stage(
            Stage::Publish,
            expected(Stage::Publish),
            publish::run(job, target, &plan, tested, &keys),
        )
        .await?;
    Ok((Outcome { version: Some(published.version), wim: Some(wim) }, false))
}

/// Gathers what a failure leaves while it is still there, then removes the rest.
async fn fail(mut job: Job, error: StageError) -> Failed {
    // Work beside the runtime is told to end, too.
    job.cancel.cancel();
    let stage = job.current_stage();
    let live = job.take_live();
    let mut disk = None;
    let mut serial = String::new();
    if let Some(vm) = live {
        serial = vm.serial().tail();
        if !matches!(error, StageError::Cancelled) {
            let picture = job.run.file("screen-last.png");
            // A dead machine shows nothing; a hung one must not hold up its own obituary.
            let patience = std::time::Duration::from_secs(10);
            if let Ok(Ok(screen)) = tokio::time::timeout(patience, vm.screenshot()).await {
                let _ = screen.write_png(&picture);
            }
        }
        // Logs are read from a disk that is here.
        disk = vm.disks().into_iter().next().filter(|_| job.driver.disk_home().is_none());
        if let Err(error) = vm.power_off().await {
            job.events.warn(format!("the machine could not be switched off: {error}"));
        }
    }
    job.settle().await;
    let exit = error.exit();
    let diagnosis = job.events.scrub(&error.diagnosis(&serial));
    let evidence = if matches!(error, StageError::Cancelled) {
        None
    } else {
        job.events.emit(Event::BuildFailed {
            stage,
            diagnosis: diagnosis.clone(),
            exit_code: exit as u8,
            evidence: Some(job.home.evidence().display().to_string()),
        });
        let causes = causes(&error);
        let remains = Remains {
            run_dir: job.run.path(),
            build: &job.build.spec.name,
            id: &job.id,
            disk: disk.as_deref(),
            diagnosis: &diagnosis,
            causes: &causes,
        };
        keep_evidence(&job, &remains)
    };
    let kept = job.keeps_everything().then(|| {
        job.run.keep();
        job.run.path().to_path_buf()
    });
    Failed { exit, diagnosis, hint: error.hint(), evidence, kept }
}

/// In the home; where that is full, in the folder for temporary files.
fn keep_evidence(job: &Job, remains: &Remains<'_>) -> Option<PathBuf> {
    let elsewhere = std::env::temp_dir().join("gilt-evidence");
    let mut failures = Vec::new();
    for root in [job.home.evidence(), elsewhere] {
        match evidence::collect(&root, remains, &job.events) {
            Ok(folder) => return Some(folder),
            Err(error) => failures.push(format!("{}: {error}", root.display())),
        }
    }
    job.events.warn(format!("no evidence could be kept: {}", failures.join("; ")));
    None
}

fn causes(error: &StageError) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes
}

/// A throw-away copy after a layer, with a shell (or one command) in it. Its exit code.
pub async fn shell(
    host: &Host,
    build: Build,
    events: Events,
    layer: Option<&str>,
    command: Option<&str>,
) -> Result<i32, StageError> {
    let job = job(host, build, events)?;
    let checkpoints = job.checkpoints.clone();
    let index = crate::checkpoint::Index { checkpoints: &checkpoints, home: &job.home };
    let plan = crate::plan::plan(&job.build, &index, &PlanOptions::default());
    let wanted = match layer {
        Some(name) => plan.steps.iter().find(|l| l.name == name).ok_or_else(|| {
            let names: Vec<_> = plan.steps.iter().map(|l| l.name.as_str()).collect();
            StageError::Input(format!(
                "there is no layer {name:?}; there are: {}",
                names.join(", ")
            ))
        })?,
        None => plan
            .steps
            .last()
            .ok_or_else(|| StageError::Input("the template has no layer".into()))?,
    };
    let key = wanted.key.to_string();
    job.check_driver().await?;
    let checkpoint = checkpoints.find(&key).ok_or_else(|| {
        StageError::Input(format!(
            "layer {} has no checkpoint; build it first: gilt build --until {}",
            wanted.name, wanted.name
        ))
    })?;
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(StageError::Cancelled),
        code = async {
            let machine = job.resume(&checkpoint).await?;
            let code = machine.guest.shell(&job, command).await?;
            machine.vm.power_off().await?;
            Ok(code)
        } => code,
    }
}
