//! What a driver can never do of a template, told before any work is begun.

use super::{Job, StageError};
use crate::template::model::{BootStep, Source};
use crate::template::text::{RuntimeName, Text};
use gilt_vm::Error as VmError;
use std::path::PathBuf;

impl Job {
    /// Fails where the driver can build no such template, on whatever host.
    pub async fn check_driver(&self) -> Result<(), StageError> {
        let machine = &self.build.spec.machine;
        let cannot = |what: &str| {
            let driver = self.driver.name();
            Err(StageError::Vm(VmError::Unsupported { driver, what: what.into() }))
        };
        if machine.boots_kernel() && !self.driver.loads_kernels() {
            return cannot(
                "start a kernel past its boot loader (`boot: kernel` in machine); use `boot: firmware`",
            );
        }
        self.driver.check(&self.spec(PathBuf::from("disk"), "guest", Vec::new()))?;
        let unreachable = match self.driver.host_side().await {
            Ok(_) => false,
            Err(VmError::Unsupported { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        if unreachable && asks_before_login(&self.build.spec.source) {
            return cannot(
                "serve `${build.http}` to a guest that has not let us in yet, and `source` asks for it \
                 there; put the files on the answer medium (`source: {answer: …}`)",
            );
        }
        if self.driver.disk_home().is_some() && machine.tpm {
            self.events.warn(format!(
                "on {} the TPM is another one after each layer: let no layer seal anything in it",
                self.driver.name()
            ));
        }
        Ok(())
    }
}

/// Whether the file server is named in what is typed, or read by an installer.
fn asks_before_login(source: &Source) -> bool {
    let asks = |text: &Text| text.mentions(RuntimeName::Http);
    let step = |step: &BootStep| {
        [Some(&step.keys), step.wait_serial.as_ref(), step.wait_screen.as_ref()]
            .into_iter()
            .flatten()
            .any(asks)
    };
    let answered = source.answer.iter().flat_map(|answer| answer.files.values()).any(asks);
    answered || source.boot_command.iter().any(asks) || source.boot_steps.iter().any(step)
}
