//! Ctrl-C and SIGTERM turn into a flag the engine looks at, so that temporary files go away.

use crate::cli::{Context, Progress};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

static CANCELLED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

/// Progress of one command, on the terminal, stoppable.
pub struct Watched<'a> {
    context: &'a Context,
    label: &'static str,
    progress: OnceLock<Progress>,
}

impl<'a> Watched<'a> {
    pub fn new(context: &'a Context, label: &'static str) -> Self {
        WATCH.call_once(|| {
            // Without the watch Ctrl-C ends the process at once and may leave a temporary file.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                std::thread::spawn(move || {
                    runtime.block_on(wait());
                    CANCELLED.store(true, Ordering::Relaxed);
                });
            }
        });
        Self { context, label, progress: OnceLock::new() }
    }
}

#[cfg(unix)]
async fn wait() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn wait() {
    let _ = tokio::signal::ctrl_c().await;
}

impl gilt_wim::Progress for Watched<'_> {
    fn total_bytes(&self, bytes: u64) {
        self.progress.get_or_init(|| self.context.progress(self.label, bytes));
    }

    fn advance_bytes(&self, bytes: u64) {
        if let Some(progress) = self.progress.get() {
            progress.add(bytes);
        }
    }

    fn is_cancelled(&self) -> bool {
        CANCELLED.load(Ordering::Relaxed)
    }
}
