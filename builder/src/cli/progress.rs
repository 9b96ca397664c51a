//! Progress of long work: a bar on a terminal after 250 ms, a line now and then elsewhere,
//! JSON lines with `--json`. All of it on stderr.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often work that has no terminal says where it is.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Work shorter than this shows nothing on a terminal.
const QUIET: Duration = Duration::from_millis(250);

pub struct Progress {
    label: String,
    total: u64,
    done: AtomicU64,
    started: Instant,
    sink: Sink,
}

enum Sink {
    Bar { bar: indicatif::ProgressBar, shown: Mutex<bool> },
    Lines { json: bool, last: Mutex<Instant> },
}

impl Progress {
    pub fn start(label: &str, total: u64, json: bool) -> Self {
        let sink = if !json && std::io::stderr().is_terminal() {
            let bar = indicatif::ProgressBar::hidden();
            bar.set_length(total);
            Sink::Bar { bar, shown: Mutex::new(false) }
        } else {
            Sink::Lines { json, last: Mutex::new(Instant::now()) }
        };
        Self {
            label: label.to_owned(),
            total,
            done: AtomicU64::new(0),
            started: Instant::now(),
            sink,
        }
    }

    /// `units` more are done. Cheap enough to call for every chunk, from any thread.
    pub fn add(&self, units: u64) {
        let done = self.done.fetch_add(units, Ordering::Relaxed) + units;
        match &self.sink {
            Sink::Bar { bar, shown } => {
                if self.started.elapsed() < QUIET {
                    return;
                }
                let mut shown = shown.lock().unwrap_or_else(|poison| poison.into_inner());
                if !*shown {
                    *shown = true;
                    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
                    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
                        bar.set_style(style);
                    }
                    bar.set_message(self.label.clone());
                    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                }
                bar.set_position(done);
            }
            Sink::Lines { json, last } => {
                let Ok(mut last) = last.try_lock() else { return };
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    self.line(*json, done);
                }
            }
        }
    }

    fn line(&self, json: bool, done: u64) {
        let seconds = self.started.elapsed().as_secs_f64();
        if json {
            let line = serde_json::json!({
                "event": "progress", "what": self.label, "done": done, "total": self.total,
                "elapsed_seconds": seconds,
            });
            eprintln!("{line}");
        } else if let Some(percent) = (done * 100).checked_div(self.total) {
            eprintln!("{}: {percent} % after {seconds:.0} s", self.label);
        } else {
            eprintln!("{}: {done} after {seconds:.0} s", self.label);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Sink::Bar { bar, .. } = &self.sink {
            bar.finish_and_clear();
        }
    }
}
