//! A terminal: finished lines scroll, the last line shows what runs, since when, and how long it
//! took last time.

use super::lines::line;
use super::{Event, Sink, Stamped};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

pub struct TerminalSink {
    bar: ProgressBar,
    verbose: bool,
}

impl TerminalSink {
    pub fn new(verbose: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, verbose }
    }

    /// For a matrix: all builds share one bar area.
    pub fn within(all: &indicatif::MultiProgress, verbose: bool) -> Self {
        let sink = Self::new(verbose);
        Self { bar: all.add(sink.bar.clone()), verbose }
    }
}

impl Sink for TerminalSink {
    fn take(&self, event: &Stamped) {
        let build = &event.build;
        match &event.event {
            Event::StageStarted { .. } | Event::LayerStarted { .. } => {
                self.bar.reset_elapsed();
                if let Some(text) = line(&event.event, true) {
                    self.bar.set_message(format!("{build}: {text}"));
                }
            }
            Event::StepStarted { layer, step } => {
                self.bar.set_message(format!("{build}: {layer}: {step}"));
            }
            Event::Output { line, .. } if !self.verbose => {
                let shown: String = line.chars().take(100).collect();
                self.bar.set_message(format!("{build}: {shown}"));
            }
            Event::Progress { what, done, total } => {
                if let Some(percent) = (done * 100).checked_div(*total) {
                    self.bar.set_message(format!("{build}: {what} {percent} %"));
                }
            }
            other => {
                if let Some(text) = line(other, self.verbose) {
                    self.bar.println(format!("{:>7.1}s {build}: {text}", event.elapsed_seconds));
                }
            }
        }
        if matches!(event.event, Event::BuildFinished { .. } | Event::BuildFailed { .. }) {
            self.bar.finish_and_clear();
        }
    }
}

impl Drop for TerminalSink {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
