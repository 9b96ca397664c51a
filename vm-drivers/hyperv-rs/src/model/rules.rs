//! What each call needs of its machine.

use crate::cmdlet::{Cmdlet, Generation};

/// The power state a call is allowed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Any,
    Off,
    NotRunning,
    Running,
}

/// Generation (`None`: both) and state.
pub(super) fn rule(cmdlet: &Cmdlet) -> (Option<Generation>, Needs) {
    match cmdlet {
        Cmdlet::SetProcessor(_) | Cmdlet::SetMemory(_) | Cmdlet::SetComPort(_) => {
            (None, Needs::Off)
        }
        Cmdlet::SetVm(set) if set.processor_count.is_some() || set.static_memory => {
            (None, Needs::Off)
        }
        Cmdlet::SetFirmware(_) | Cmdlet::SetKeyProtector(_) | Cmdlet::EnableTpm(_) => {
            (Some(Generation::Two), Needs::Off)
        }
        Cmdlet::GetFirmware(_) => (Some(Generation::Two), Needs::Any),
        Cmdlet::SetBios(_) => (Some(Generation::One), Needs::Off),
        Cmdlet::SetFloppy(_) => (Some(Generation::One), Needs::Any),
        Cmdlet::RemoveVm(_) | Cmdlet::StartVm(_) | Cmdlet::RestoreSnapshot(_) => {
            (None, Needs::NotRunning)
        }
        Cmdlet::CopyFile(_) | Cmdlet::RestartVm(_) => (None, Needs::Running),
        _ => (None, Needs::Any),
    }
}
