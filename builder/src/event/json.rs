//! One JSON object a line.

use super::{Sink, Stamped};
use std::io::Write;
use std::sync::Mutex;

pub struct JsonSink<W: Write + Send> {
    out: Mutex<W>,
}

impl<W: Write + Send> JsonSink<W> {
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<W: Write + Send> Sink for JsonSink<W> {
    fn take(&self, event: &Stamped) {
        let mut out = self.out.lock().unwrap_or_else(|poison| poison.into_inner());
        // A reader that went away must not end the build; the evidence has its own copy.
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(out, "{line}");
            let _ = out.flush();
        }
    }
}
