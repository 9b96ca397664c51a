//! What every driver's watcher tells of a machine: what happens, and at the last how it ended.

use tokio::sync::{broadcast, watch};

use crate::driver::{ExitReason, VmEvent};

/// As many events as a listener may fall behind.
const EVENTS_KEPT: usize = 256;

#[derive(Debug)]
pub(crate) struct Ending {
    exit: watch::Sender<Option<ExitReason>>,
    events: broadcast::Sender<VmEvent>,
}

impl Ending {
    /// `exit` is the sender of [`ExitWatch::channel`](crate::ExitWatch::channel).
    pub fn new(exit: watch::Sender<Option<ExitReason>>) -> Self {
        Self { exit, events: broadcast::channel(EVENTS_KEPT).0 }
    }

    /// The first reason stands: what follows a panic is only its consequence.
    pub fn end(&self, reason: ExitReason) {
        let first = self.exit.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(reason.clone());
            }
            first
        });
        if first {
            self.tell(VmEvent::Ended(reason));
        }
    }

    /// Nobody needs to be listening.
    pub fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event);
    }

    pub fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}
