//! What happens during a build, as values. The pipeline only emits; sinks print.
//!
//! The JSON form (one object per line, `gilt build --json`) is documented in docs/events.md; a
//! field is only ever added. Every text has passed the build's [`Scrub`] before a sink sees it.

mod json;
mod lines;
mod terminal;

use serde::Serialize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub use json::JsonSink;
pub use lines::LineSink;
pub use terminal::TerminalSink;

/// A part of the pipeline, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Prepare,
    Install,
    Layers,
    Generalize,
    Capture,
    Test,
    Publish,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Install => "install",
            Self::Layers => "layers",
            Self::Generalize => "generalize",
            Self::Capture => "capture",
            Self::Test => "test",
            Self::Publish => "publish",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Stdout,
    Stderr,
    Serial,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    BuildStarted {
        image: String,
        template: String,
        layers: Vec<String>,
        expected_seconds: Option<f64>,
    },
    StageStarted {
        stage: Stage,
        expected_seconds: Option<f64>,
    },
    StageFinished {
        stage: Stage,
        seconds: f64,
    },
    /// The stage's result of an earlier build is used.
    StageReused {
        stage: Stage,
    },
    LayerReused {
        layer: String,
        key: String,
    },
    LayerStarted {
        layer: String,
        key: String,
        why: String,
        expected_seconds: Option<f64>,
    },
    LayerFinished {
        layer: String,
        seconds: f64,
        checkpoint_bytes: u64,
    },
    StepStarted {
        layer: String,
        step: String,
    },
    /// One line the guest wrote.
    Output {
        stream: Stream,
        line: String,
    },
    Progress {
        what: String,
        done: u64,
        total: u64,
    },
    Note {
        text: String,
    },
    Warning {
        text: String,
    },
    BuildFinished {
        image: String,
        /// `None` where nothing was published.
        version: Option<String>,
        wim: Option<String>,
        seconds: f64,
        /// True where an earlier build had made all of it.
        unchanged: bool,
    },
    BuildFailed {
        stage: Stage,
        diagnosis: String,
        exit_code: u8,
        evidence: Option<String>,
    },
}

/// An event with when and whose.
#[derive(Clone, Debug, Serialize)]
pub struct Stamped {
    /// RFC 3339, UTC.
    pub time: String,
    /// Seconds since the build began.
    pub elapsed_seconds: f64,
    /// The build's name: the image, with its matrix values.
    pub build: String,
    #[serde(flatten)]
    pub event: Event,
}

/// Where events go. Called from any thread; must not block for long.
pub trait Sink: Send + Sync {
    fn take(&self, event: &Stamped);
}

/// Replaces secrets in a text. The identity where a build has none.
pub type Scrub = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A build's handle to its sinks.
#[derive(Clone)]
pub struct Events {
    build: String,
    started: Instant,
    sinks: Arc<Mutex<Vec<Arc<dyn Sink>>>>,
    scrub: Scrub,
}

impl Events {
    pub fn new(build: impl Into<String>, sinks: Vec<Arc<dyn Sink>>, scrub: Scrub) -> Self {
        let sinks = Arc::new(Mutex::new(sinks));
        Self { build: build.into(), started: Instant::now(), sinks, scrub }
    }

    pub fn emit(&self, event: Event) {
        let stamped = Stamped {
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            build: self.build.clone(),
            event: self.clean(event),
        };
        let sinks = self.sinks.lock().unwrap_or_else(|poison| poison.into_inner()).clone();
        for sink in sinks {
            sink.take(&stamped);
        }
    }

    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { text: text.into() });
    }

    pub fn output(&self, stream: Stream, line: impl Into<String>) {
        self.emit(Event::Output { stream, line: line.into() });
    }

    /// From now on `sink` sees events too.
    pub fn also(&self, sink: Arc<dyn Sink>) {
        self.sinks.lock().unwrap_or_else(|poison| poison.into_inner()).push(sink);
    }

    pub fn scrub(&self, text: &str) -> String {
        (self.scrub)(text)
    }

    pub fn elapsed_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Free texts are scrubbed; names and keys cannot hold a secret.
    fn clean(&self, mut event: Event) -> Event {
        match &mut event {
            Event::Output { line: text, .. }
            | Event::Note { text }
            | Event::Warning { text }
            | Event::StepStarted { step: text, .. }
            | Event::LayerStarted { why: text, .. }
            | Event::BuildFailed { diagnosis: text, .. } => *text = (self.scrub)(text),
            _ => {}
        }
        event
    }
}

/// No secrets to hide.
pub fn nothing_secret() -> Scrub {
    Arc::new(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Mutex<Vec<String>>);

    impl Sink for Kept {
        fn take(&self, event: &Stamped) {
            self.0.lock().unwrap().push(serde_json::to_string(event).unwrap());
        }
    }

    #[test]
    fn no_sink_sees_a_secret() {
        let kept = Arc::new(Kept(Mutex::default()));
        let scrub: Scrub = Arc::new(|text: &str| text.replace("hunter2", "***"));
        let events = Events::new("image", vec![kept.clone()], scrub);
        events.output(Stream::Stdout, "password is hunter2");
        events.emit(Event::BuildFailed {
            stage: Stage::Layers,
            diagnosis: "login with hunter2 failed".into(),
            exit_code: 4,
            evidence: None,
        });
        let lines = kept.0.lock().unwrap();
        assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
        assert!(lines[0].contains(r#""event":"output""#), "{lines:?}");
    }
}
