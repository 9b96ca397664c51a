//! The pipeline, one file per stage. Each stage takes the value the one before it made, so a
//! skipped or repeated stage does not compile:
//!
//! ```text
//! install ─▶ Machine ─ layer ─▶ Machine ─ generalize ─▶ Generalized ─ capture ─▶ Captured
//!            (on)                (on)                    (off, proven)            (a WIM)
//!   Captured ─ test ─▶ Tested ─ publish ─▶ Published
//! ```

mod boot_loader;
pub mod capture;
mod driver;
pub mod error;
pub mod generalize;
pub mod guest;
pub mod input;
pub mod install;
pub mod layers;
pub mod machine;
pub mod provision;
pub mod publish;
pub mod test;
pub mod windows;

use crate::checkpoint::{Checkpoints, History};
use crate::event::{Event, Events, Stage};
use crate::home::{Home, RunDir};
use crate::plan::Build;
use gilt_vm::{Vm, VmDriver};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long cancelled work on the host may take to notice.
const SETTLE: Duration = Duration::from_secs(30);

pub use error::StageError;

/// What every stage of one build is given.
pub struct Job {
    pub build: Build,
    pub id: String,
    pub home: Home,
    pub checkpoints: Checkpoints,
    pub events: Events,
    pub cancel: CancellationToken,
    pub run: RunDir,
    pub driver: Arc<dyn VmDriver>,
    pub options: Options,
    /// Numbers the overlays of this build.
    overlay_count: AtomicU32,
    /// The machine that runs now; what a failure is photographed on.
    live: Mutex<Option<Arc<dyn Vm>>>,
    current: Mutex<Stage>,
    keep: AtomicBool,
    workers: TaskTracker,
}

/// How to build, as opposed to what: none of it is part of a key.
#[derive(Clone, Debug)]
pub struct Options {
    /// Show the guest's screen over VNC.
    pub vnc: bool,
    /// Keep the guest's memory with each checkpoint.
    pub keep_memory: bool,
    /// What a breakpoint or a failed layer does.
    pub on_error: OnError,
    /// Worker threads for imaging.
    pub threads: usize,
    /// Port of 127.0.0.1 that leads to the guest's SSH; a free one where not given.
    pub ssh_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Remove everything but the evidence
    Cleanup,
    /// Leave disks and files where they are, and say where
    Abort,
    /// Ask: clean up, abort, or run the layer again
    Ask,
}

impl Job {
    #[expect(clippy::too_many_arguments, reason = "the one place that makes a Job")]
    pub fn new(
        build: Build,
        id: String,
        home: Home,
        events: Events,
        cancel: CancellationToken,
        run: RunDir,
        driver: Arc<dyn VmDriver>,
        options: Options,
    ) -> Self {
        Self {
            build,
            id,
            checkpoints: Checkpoints::of(&home, driver.as_ref()),
            home,
            events,
            cancel,
            run,
            driver,
            options,
            overlay_count: AtomicU32::new(0),
            live: Mutex::new(None),
            current: Mutex::new(Stage::Prepare),
            keep: AtomicBool::new(false),
            workers: TaskTracker::new(),
        }
    }

    /// Notes the machine that runs now.
    pub fn watch(&self, vm: Box<dyn Vm>) -> Arc<dyn Vm> {
        let vm: Arc<dyn Vm> = Arc::from(vm);
        tokio::spawn(photograph(Arc::downgrade(&vm), self.run.path().to_path_buf()));
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(vm.clone());
        vm
    }

    pub fn take_live(&self) -> Option<Arc<dyn Vm>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn current_stage(&self) -> Stage {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no work of this build runs beside the runtime any more, and removes what it had
    /// begun. Work that watches `cancel` ends soon after it.
    pub async fn settle(&self) {
        self.workers.close();
        if tokio::time::timeout(SETTLE, self.workers.wait()).await.is_err() {
            self.events
                .warn("work on the host does not end; its files are swept by the next build");
            return;
        }
        if let Err(error) = self.home.remove_staging(&self.id) {
            self.events.warn(format!("half-made files could not be removed: {error}"));
        }
    }

    /// The person at the terminal wants disks and files left where they are.
    pub fn keep_everything(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    pub fn keeps_everything(&self) -> bool {
        self.options.on_error == OnError::Abort || self.keep.load(Ordering::Relaxed)
    }

    /// Where `file: {direction: download}` puts things.
    pub fn output_folder(&self) -> PathBuf {
        self.home.root().join("output").join(format!("{}-{}", self.build.spec.name, self.id))
    }

    /// Changes what is remembered of this image.
    pub fn remember(&self, change: impl FnOnce(&mut History)) -> Result<(), StageError> {
        History::change(&self.home, &self.build.spec.name, change)
            .map_err(StageError::io("remember this build"))
    }

    /// Runs one stage: events around it, its duration, and an end as soon as it is cancelled.
    pub async fn stage<T>(
        &self,
        stage: Stage,
        expected_seconds: Option<f64>,
        work: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        self.events.emit(Event::StageStarted { stage, expected_seconds });
        let started = Instant::now();
        let done = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(StageError::Cancelled),
            done = work => done,
        }?;
        let seconds = started.elapsed().as_secs_f64();
        self.events.emit(Event::StageFinished { stage, seconds });
        self.remember(|history| {
            history.stages.insert(stage.name().to_owned(), seconds);
        })?;
        Ok(done)
    }

    /// Runs work beside the build that must come to its end, whatever becomes of the build.
    pub fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.workers.spawn(work)
    }

    /// Runs work of the CPU or the disk beside the runtime. It must watch `cancel` itself.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
    ) -> Result<T, StageError> {
        match self.workers.spawn_blocking(work).await {
            Ok(done) => done,
            Err(panic) => Err(StageError::Imaging(format!("a worker died: {panic}"))),
        }
    }
}

/// The last pictures of a screen before a failure show how it came to it.
const PICTURE_EVERY: Duration = Duration::from_secs(15);
const PICTURES_KEPT: u32 = 3;

/// Photographs a machine from time to time, as long as it is there.
async fn photograph(vm: Weak<dyn Vm>, folder: PathBuf) {
    for number in 0.. {
        tokio::time::sleep(PICTURE_EVERY).await;
        let Some(vm) = vm.upgrade() else { return };
        if vm.exit_watch().ended().is_some() {
            return;
        }
        // A machine without a display, or one that is busy, has no picture this time.
        if let Ok(screen) = vm.screenshot().await {
            let name = format!("screen-{}.png", number % PICTURES_KEPT);
            let _ = screen.write_png(&folder.join(name));
        }
    }
}
