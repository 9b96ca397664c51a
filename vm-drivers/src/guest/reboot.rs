//! Rebooting a guest, with proof: the kernel's boot id after is another than before.

use std::time::Duration;

use tokio::time::Instant;

use super::{Communicator, Connector, GuestCommand, quiet};
use crate::{
    driver::{Vm, VmEvent},
    error::{Error, Result},
};

/// Linux makes a new one at each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const RESET_LIMIT: Duration = Duration::from_secs(90);
/// A guest that resets without a word leaves its connections open: no answer is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(300);

/// The id of the guest's present boot.
pub async fn boot_id(way_in: &dyn Communicator) -> Result<String> {
    let command = GuestCommand::new(format!("cat {BOOT_ID}")).limit(Duration::from_secs(20));
    let outcome = way_in.exec(&command, &mut quiet()).await?;
    let id = outcome.stdout_text().trim().to_owned();
    if outcome.succeeded() && id.len() == 36 {
        return Ok(id);
    }
    Err(Error::Ssh {
        target: way_in.target(),
        reason: format!("no boot id: {} {}", outcome.status, outcome.stderr_text().trim_end()),
    })
}

/// Runs `reboot_line`, then connects until the guest has provably booted anew.
pub async fn restart(
    way_in: Box<dyn Communicator>,
    connector: &dyn Connector,
    vm: &dyn Vm,
    reboot_line: &str,
    limit: Duration,
) -> Result<Box<dyn Communicator>> {
    let deadline = Instant::now() + limit;
    let before = boot_id(&*way_in).await?;
    let mut events = vm.events();
    // The guest may close the connection before the command's status comes; only the new boot
    // tells whether it worked.
    let command = GuestCommand::new(reboot_line).limit(limit.min(Duration::from_secs(60)));
    let reply = way_in.exec(&command, &mut quiet()).await;
    if let Ok(outcome) = &reply
        && !outcome.succeeded()
        && way_in.is_open()
    {
        return Err(Error::Ssh {
            target: way_in.target(),
            reason: format!(
                "`{reboot_line}` ended with {}: {}",
                outcome.status,
                outcome.stderr_text().trim_end()
            ),
        });
    }
    if let Err(error @ Error::Ended { .. }) = reply {
        return Err(error);
    }
    drop(way_in);
    // A connection made while the guest goes down is lost without a word. A guest that boots
    // anew without a reset (kexec) is waited for in vain here, and found below.
    let reset = async {
        while !matches!(events.recv().await, Ok(VmEvent::Reset { .. } | VmEvent::Ended(_)) | Err(_))
        {
        }
    };
    if vm.tells_resets() {
        let _ = tokio::time::timeout(limit.min(RESET_LIMIT), reset).await;
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let way_in = connector.connect(vm, left).await?;
        match tokio::time::timeout(ANSWER_LIMIT, boot_id(&*way_in)).await {
            Ok(Ok(now)) if now != before => return Ok(way_in),
            Ok(Err(error @ Error::Ended { .. })) => return Err(error),
            // Still the old boot on its way down, or one that went down under the question.
            Ok(_) | Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(Error::TimedOut {
                subject: "the guest to boot anew".into(),
                after: limit,
                last_seen: "it still answers from the boot before".into(),
                serial_tail: vm.serial().tail(),
            });
        }
        tokio::time::sleep(RETRY).await;
    }
}
