//! What a host can refuse, told by ids and codes: the messages are in the host's language.

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate or of the host it drives.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name or path that no cmdlet may get.
    #[error("{what} {value:?} cannot be used: {reason}")]
    BadName { what: &'static str, value: String, reason: String },

    /// A machine, disk or call as described cannot exist.
    #[error("{what}: {reason}")]
    Invalid { what: &'static str, reason: String },

    /// The script does not fit where it should go.
    #[error("the script is {length} characters long, {limit} is the limit of {form}")]
    TooLong { form: &'static str, length: usize, limit: usize },

    /// The host refused.
    #[error("{operation}: {failure} ({})", failure.refusal().cure())]
    Refused { operation: String, failure: Failure },

    /// The host's answer is not one of ours, or not in the shape it must have.
    #[error("{operation}: unexpected answer of the host: {reason}")]
    Answer { operation: String, reason: String },

    /// Something was waited for and did not come.
    #[error("timed out after {after_ms} ms waiting for {subject}; last seen: {last_seen}")]
    TimedOut { subject: String, after_ms: u64, last_seen: String },
}

/// An error record of PowerShell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `CategoryInfo.Category`, an English word everywhere.
    pub category: String,
    /// `FullyQualifiedErrorId`, such as `AccessDenied,Microsoft.HyperV.PowerShell.Commands.StartVM`.
    pub id: String,
    /// `Exception.HResult` of the innermost exception.
    pub hresult: i32,
    /// In the host's language.
    pub message: String,
    /// Which step of the script failed, from 0.
    pub step: usize,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = self.message.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{message} [{}, {:#010x}, step {}]", self.id, self.hresult, self.step)
    }
}

/// Refusals a caller acts upon differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    RightsMissing,
    ModuleAbsent,
    HypervisorAbsent,
    NotOurs,
    NameTaken,
    NotFound,
    WrongState,
    InUse,
    FileAccess,
    ShareAccess,
    ParentMismatch,
    KeyProtector,
    DiskFull,
    MemoryShort,
    BadArgument,
    Other,
}

impl Refusal {
    /// What to do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::RightsMissing => {
                "add the account to the group with the SID S-1-5-32-578 (Hyper-V Administrators) and \
                 sign in again, or use an elevated administrator"
            }
            Self::ModuleAbsent => {
                "the Hyper-V PowerShell module is missing: Enable-WindowsOptionalFeature -Online \
                 -FeatureName Microsoft-Hyper-V -All, on servers Install-WindowsFeature Hyper-V \
                 -IncludeManagementTools"
            }
            Self::HypervisorAbsent => {
                "the hypervisor is not running: enable virtualization in the firmware, \
                 bcdedit /set hypervisorlaunchtype auto, restart the host"
            }
            Self::NotOurs => "gilt touches only what it made; remove or rename it by hand",
            Self::NameTaken => "remove the old one or choose another name",
            Self::NotFound => "it was removed or never made; look at the name and the host",
            Self::WrongState => "switch the machine off, or wait for its running operation",
            Self::InUse => "another machine or a mount holds the file: close it first",
            Self::FileAccess => {
                "the host's virtual machine service may not open the file: keep it on a local disk \
                 where SYSTEM and the SID S-1-5-83-0 (Virtual Machines) may read it"
            }
            Self::ShareAccess => {
                "a remote session has no credentials for a second hop: copy the file to a local disk of \
                 the host, or let the host's computer account read the share"
            }
            Self::ParentMismatch => {
                "the parent was changed, moved or lost after the differencing disk was made: make it anew"
            }
            Self::KeyProtector => {
                "the vTPM is bound to the host that made it: set a key protector before enabling it, and \
                 do not move such a machine without the host's guardian certificates"
            }
            Self::DiskFull => "free space on the host's volume",
            Self::MemoryShort => "stop other machines or give this one less memory",
            Self::BadArgument => "the host knows another version of Hyper-V; see the message",
            Self::Other => "see the message",
        }
    }
}

/// Ids of the errors our own scripts throw.
pub(crate) const NOT_OURS: &str = "GiltNotOurs";
pub(crate) const NAME_TAKEN: &str = "GiltNameTaken";
pub(crate) const WMI_FAILED: &str = "GiltWmiFailed";
pub(crate) const NOT_FOUND: &str = "GiltNotFound";

impl Failure {
    /// Sorts the record by id and by every code in it. Codes in the text, like `(0x80070005)`, stay
    /// the same in every language; the exception's own code is often only the general one.
    pub fn refusal(&self) -> Refusal {
        let id = self.id.split(',').next().unwrap_or_default();
        match id {
            NOT_OURS => return Refusal::NotOurs,
            NAME_TAKEN => return Refusal::NameTaken,
            NOT_FOUND => return Refusal::NotFound,
            "CommandNotFoundException"
            | "CouldNotAutoLoadModule"
            | "CouldNotAutoloadMatchingModule" => {
                return Refusal::ModuleAbsent;
            }
            "AccessDenied" => return Refusal::RightsMissing,
            _ => {}
        }
        for code in self.codes() {
            let refusal = match code {
                0x8007_0005 if self.message.contains(r"\\") => Refusal::ShareAccess,
                0x8007_0005 => Refusal::FileAccess,
                0x8007_0020 | 0x8007_0021 => Refusal::InUse,
                0x8007_0050 | 0x8007_00b7 => Refusal::NameTaken,
                0x8007_0002 | 0x8007_0003 => Refusal::NotFound,
                0x8007_0070 | 0x8007_0027 => Refusal::DiskFull,
                0x8007_000e | 0x8007_05aa => Refusal::MemoryShort,
                0xc035_1000 => Refusal::HypervisorAbsent,
                0xc03a_000d..=0xc03a_000f => Refusal::ParentMismatch,
                0x8029_0304 | 0xc0f8_0005 => Refusal::KeyProtector,
                _ => continue,
            };
            return refusal;
        }
        match (id, self.category.as_str()) {
            ("InvalidState", _) => Refusal::WrongState,
            ("ObjectNotFound", _) | (_, "ObjectNotFound") => Refusal::NotFound,
            ("ObjectInUse", _) | (_, "ResourceBusy") => Refusal::InUse,
            ("ObjectExists", _) | (_, "ResourceExists") => Refusal::NameTaken,
            (_, "PermissionDenied" | "SecurityError") => Refusal::RightsMissing,
            ("InvalidParameter" | "NamedParameterNotFound", _) => Refusal::BadArgument,
            _ => Refusal::Other,
        }
    }

    fn codes(&self) -> Vec<u32> {
        let mut codes = Vec::new();
        let mut rest = self.message.as_str();
        while let Some(at) = rest.find("0x") {
            rest = &rest[at + 2..];
            let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
            if digits == 8
                && let Ok(code) = u32::from_str_radix(&rest[..8], 16)
            {
                codes.push(code);
            }
        }
        codes.push(self.hresult as u32);
        codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(id: &str, message: &str) -> Failure {
        Failure {
            category: "NotSpecified".into(),
            id: format!("{id},Microsoft.HyperV.PowerShell.Commands.X"),
            hresult: 0x8013_1501_u32 as i32,
            message: message.into(),
            step: 0,
        }
    }

    #[test]
    fn the_code_in_a_german_message_tells_the_refusal() {
        let share = failure(
            "OperationFailed",
            r"Fehler: „\\nas\iso\w.iso“: Zugriff verweigert (0x80070005).",
        );
        assert_eq!(share.refusal(), Refusal::ShareAccess);
        let local =
            failure("OperationFailed", r"„C:\w.iso“: Allgemeiner Zugriffsfehler (0x80070005).");
        assert_eq!(local.refusal(), Refusal::FileAccess);
        assert_eq!(failure("OperationFailed", "voll (0x80070070)").refusal(), Refusal::DiskFull);
    }

    #[test]
    fn missing_rights_name_the_group_by_its_sid() {
        let refusal =
            failure("AccessDenied", "Sie besitzen nicht die erforderlichen Rechte").refusal();
        assert_eq!(refusal, Refusal::RightsMissing);
        assert!(refusal.cure().contains("S-1-5-32-578"));
    }

    #[test]
    fn codes_that_are_cut_short_are_not_codes() {
        assert_eq!(failure("OperationFailed", "0x8007 0x80070005x").refusal(), Refusal::FileAccess);
        assert_eq!(failure("OperationFailed", "0x8007").refusal(), Refusal::Other);
    }
}
