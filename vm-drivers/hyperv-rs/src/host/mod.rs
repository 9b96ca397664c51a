//! What a driver does with a host, as operations: a script, and how its answer is read.
//!
//! An operation is run by whoever has a PowerShell: `operation.script()` goes out, `operation.read(answer)`
//! comes back. Every operation about a machine proves first that the machine is ours.

mod create;
mod disk;
mod machine;
mod network;
mod wait;

pub use create::{CreateMachine, DiskSpec, DvdSpec, FirmwareSpec};
pub use disk::*;
pub use machine::*;
pub use network::*;
pub use wait::{MergeState, MergeWatch, Verdict};

use crate::{
    error::{Error, Result},
    reply::Results,
    script::{Answer, Script},
};

type Read<T> = Box<dyn FnOnce(&mut Results) -> Result<T> + Send>;

/// A script whose answer is a `T`.
pub struct Operation<T> {
    name: &'static str,
    script: Script,
    read: Read<T>,
}

impl<T> std::fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation").field("name", &self.name).field("script", &self.script).finish()
    }
}

impl<T> Operation<T> {
    fn new(
        name: &'static str,
        script: Script,
        read: impl FnOnce(&mut Results) -> Result<T> + Send + 'static,
    ) -> Self {
        Self { name, script, read: Box::new(read) }
    }

    /// Words for a log and for errors.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Reads the host's answer to the script.
    pub fn read(self, answer: Answer) -> Result<T> {
        if let Some(failure) = answer.failure {
            return Err(Error::Refused { operation: self.name.into(), failure });
        }
        let (expected, found) = (self.script.results(), answer.results.len());
        if expected != found {
            let reason = format!("{found} results instead of {expected}");
            return Err(Error::Answer { operation: self.name.into(), reason });
        }
        (self.read)(&mut Results::new(self.name, answer.results))
    }
}

/// An operation that answers nothing.
fn quiet(name: &'static str, script: Script) -> Operation<()> {
    Operation::new(name, script, |_| Ok(()))
}
