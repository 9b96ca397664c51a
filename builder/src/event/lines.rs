//! Plain lines for CI logs: what stage, how long, what the guest said.

use super::{Event, Sink, Stamped, Stream};
use std::io::Write;
use std::sync::Mutex;

pub struct LineSink<W: Write + Send> {
    out: Mutex<W>,
    /// Also what the guest prints.
    pub verbose: bool,
}

impl<W: Write + Send> LineSink<W> {
    pub fn new(out: W, verbose: bool) -> Self {
        Self { out: Mutex::new(out), verbose }
    }
}

impl<W: Write + Send> Sink for LineSink<W> {
    fn take(&self, event: &Stamped) {
        if let Some(text) = line(&event.event, self.verbose) {
            let mut out = self.out.lock().unwrap_or_else(|poison| poison.into_inner());
            let _ = writeln!(out, "{:>7.1}s {}: {text}", event.elapsed_seconds, event.build);
            let _ = out.flush();
        }
    }
}

fn expected(seconds: Option<f64>) -> String {
    seconds.map(|s| format!(" (last time {s:.0} s)")).unwrap_or_default()
}

/// What a person reads of an event; `None` for what only machines want.
pub(super) fn line(event: &Event, verbose: bool) -> Option<String> {
    Some(match event {
        Event::BuildStarted { template, layers, expected_seconds, .. } => {
            format!("building {template}: {}{}", layers.join(" > "), expected(*expected_seconds))
        }
        Event::StageStarted { stage, expected_seconds } => {
            format!("{}{}", stage.name(), expected(*expected_seconds))
        }
        Event::StageFinished { stage, seconds } => {
            format!("{} done in {seconds:.1} s", stage.name())
        }
        Event::StageReused { stage } => format!("{} reused", stage.name()),
        Event::LayerReused { layer, key } => {
            format!("layer {layer} reused ({})", key.get(..12).unwrap_or(key))
        }
        Event::LayerStarted { layer, why, expected_seconds, .. } => {
            format!("layer {layer}: {why}{}", expected(*expected_seconds))
        }
        Event::LayerFinished { layer, seconds, checkpoint_bytes } => format!(
            "layer {layer} done in {seconds:.1} s, checkpoint {:.1} MB",
            *checkpoint_bytes as f64 / 1e6
        ),
        Event::StepStarted { layer, step } => format!("layer {layer}: {step}"),
        Event::Output { stream, line } => match (verbose, stream) {
            (true, Stream::Stderr) => format!("  ! {line}"),
            (true, _) => format!("  | {line}"),
            (false, _) => return None,
        },
        Event::Progress { what, done, total } => match (done * 100).checked_div(*total) {
            Some(percent) if verbose => format!("{what}: {percent} %"),
            _ => return None,
        },
        Event::Note { text } => text.clone(),
        Event::Warning { text } => format!("warning: {text}"),
        Event::BuildFinished { version, seconds, unchanged, .. } => {
            let what = version.as_deref().unwrap_or("not published");
            let how = if *unchanged { "nothing changed" } else { "done" };
            format!("{how}: {what} in {seconds:.1} s")
        }
        Event::BuildFailed { stage, diagnosis, .. } => {
            format!("failed in {}: {diagnosis}", stage.name())
        }
    })
}
