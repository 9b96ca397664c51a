//! The pipeline, one file per stage. Each stage takes the value the one before it made, so a
//! skipped or repeated stage does not compile:
//!
//! ```text
//! install ─▶ Machine ─ layer ─▶ Machine ─ generalize ─▶ Generalized ─ capture ─▶ Captured
//!            (on)                (on)                    (off, proven)            (a WIM)
//!   Captured ─ test ─▶ Tested ─ publish ─▶ Published
//! ```

pub mod capture;
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

use crate::checkpoint::Checkpoints;
use crate::event::{Event, Events, Stage};
use crate::home::{Home, RunDir};
use gilt_vm::VmDriver;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

pub use error::StageError;

/// What every stage of one build is given.
pub struct Job {
    pub build: crate::template::Build,
    pub id: String,
    pub home: Home,
    pub checkpoints: Checkpoints,
    pub events: Events,
    pub cancel: CancellationToken,
    pub run: RunDir,
    pub driver: Arc<dyn VmDriver>,
    pub options: Options,
    /// Numbers the overlays of this build.
    overlay_count: std::sync::atomic::AtomicU32,
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
    /// Runs one stage: events around it, its duration, and an end as soon as it is cancelled.
    pub async fn stage<T>(
        &self,
        stage: Stage,
        expected_seconds: Option<f64>,
        work: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        self.events.emit(Event::StageStarted { stage, expected_seconds });
        let started = Instant::now();
        let done = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(StageError::Cancelled),
            done = work => done,
        }?;
        let seconds = started.elapsed().as_secs_f64();
        self.events.emit(Event::StageFinished { stage, seconds });
        Ok(done)
    }

    /// Runs work of the CPU or the disk beside the runtime. It must watch `cancel` itself.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
    ) -> Result<T, StageError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(panic) => Err(StageError::Imaging(format!("a worker died: {panic}"))),
        }
    }
}
