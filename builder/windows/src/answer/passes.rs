//! Which setting may stand in which pass. The rows are those gilt writes and those users commonly
//! add; a setting without a row has that of its nearest parent. Source: "Valid Configuration
//! Passes" of each setting's page in the Windows unattended setup reference.

/// A configuration pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    WindowsPe,
    OfflineServicing,
    Generalize,
    Specialize,
    AuditSystem,
    AuditUser,
    OobeSystem,
}

use Pass::{
    AuditSystem, AuditUser, Generalize, OfflineServicing, OobeSystem, Specialize, WindowsPe,
};

impl Pass {
    pub const ALL: [Pass; 7] =
        [WindowsPe, OfflineServicing, Generalize, Specialize, AuditSystem, AuditUser, OobeSystem];

    pub fn name(self) -> &'static str {
        match self {
            WindowsPe => "windowsPE",
            OfflineServicing => "offlineServicing",
            Generalize => "generalize",
            Specialize => "specialize",
            AuditSystem => "auditSystem",
            AuditUser => "auditUser",
            OobeSystem => "oobeSystem",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pass| pass.name() == name)
    }
}

pub const SETUP: &str = "Microsoft-Windows-Setup";
pub const INTERNATIONAL_PE: &str = "Microsoft-Windows-International-Core-WinPE";
pub const INTERNATIONAL: &str = "Microsoft-Windows-International-Core";
pub const SHELL: &str = "Microsoft-Windows-Shell-Setup";
pub const DEPLOYMENT: &str = "Microsoft-Windows-Deployment";
pub const ENCRYPTION: &str = "Microsoft-Windows-SecureStartup-FilterDriver";
pub const SERVER_MANAGER: &str = "Microsoft-Windows-ServerManager-SvrMgrNc";
pub const PNP_SYSPREP: &str = "Microsoft-Windows-PnpSysprep";

const SYSTEM_THREE: &[Pass] = &[AuditSystem, OobeSystem, Specialize];

/// Component, path of the setting (empty for all of it), passes.
const RULES: &[(&str, &str, &[Pass])] = &[
    (SETUP, "", &[WindowsPe]),
    (INTERNATIONAL_PE, "", &[WindowsPe]),
    ("Microsoft-Windows-PnpCustomizationsWinPE", "", &[WindowsPe]),
    ("Microsoft-Windows-PnpCustomizationsNonWinPE", "", &[AuditSystem, OfflineServicing]),
    (INTERNATIONAL, "", &[OobeSystem, Specialize]),
    (SHELL, "ComputerName", &[OfflineServicing, Specialize]),
    (SHELL, "ProductKey", &[Specialize]),
    (SHELL, "CopyProfile", &[Specialize]),
    (SHELL, "TimeZone", SYSTEM_THREE),
    (SHELL, "AutoLogon", SYSTEM_THREE),
    (SHELL, "DisableAutoDaylightTimeSet", SYSTEM_THREE),
    (SHELL, "UserAccounts", &[AuditSystem, OobeSystem]),
    (SHELL, "OfflineUserAccounts", &[OfflineServicing]),
    (SHELL, "OOBE", &[OobeSystem]),
    (SHELL, "FirstLogonCommands", &[OobeSystem]),
    (SHELL, "LogonCommands", &[OobeSystem]),
    (SHELL, "RegisteredOwner", &[AuditUser, Generalize, OfflineServicing, OobeSystem, Specialize]),
    (
        SHELL,
        "RegisteredOrganization",
        &[AuditUser, Generalize, OfflineServicing, OobeSystem, Specialize],
    ),
    (SHELL, "OEMInformation", &[AuditUser, Generalize, OfflineServicing, OobeSystem, Specialize]),
    (SHELL, "Display", &[AuditSystem, AuditUser, OobeSystem, Specialize]),
    (DEPLOYMENT, "RunSynchronous", &[AuditUser, Specialize]),
    (DEPLOYMENT, "RunAsynchronous", &[AuditUser, Specialize]),
    (DEPLOYMENT, "Reseal", &[AuditSystem, AuditUser, OobeSystem]),
    (DEPLOYMENT, "Generalize", &[AuditUser]),
    (DEPLOYMENT, "ExtendOSPartition", &[AuditSystem, Generalize, OobeSystem, Specialize]),
    (PNP_SYSPREP, "PersistAllDeviceInstalls", &[Generalize]),
    (PNP_SYSPREP, "DoNotCleanUpNonPresentDevices", &[Generalize]),
    ("Microsoft-Windows-Security-SPP", "SkipRearm", &[Generalize]),
    ("Microsoft-Windows-Security-SPP-UX", "SkipAutoActivation", &[Specialize]),
    ("Microsoft-Windows-UnattendedJoin", "Identification", &[Specialize]),
    ("Microsoft-Windows-LUA-Settings", "EnableLUA", &[OfflineServicing]),
    (SERVER_MANAGER, "DoNotOpenServerManagerAtLogon", &[Generalize, Specialize]),
    (
        ENCRYPTION,
        "PreventDeviceEncryption",
        &[AuditSystem, OfflineServicing, OobeSystem, Specialize],
    ),
    ("Networking-MPSSVC-Svc", "", &[Specialize]),
    ("Security-Malware-Windows-Defender", "", &[OfflineServicing, OobeSystem, Specialize]),
];

/// The passes the setting may stand in; `None` where gilt does not know. `path` is the names
/// below the component.
pub fn legal(component: &str, path: &[&str]) -> Option<&'static [Pass]> {
    RULES
        .iter()
        .filter(|(of, setting, _)| {
            of.eq_ignore_ascii_case(component)
                && (setting.is_empty() || path.first().is_some_and(|first| first == setting))
        })
        .max_by_key(|(_, setting, _)| setting.len())
        .map(|(_, _, passes)| *passes)
}

/// Whether gilt has any row for the component.
pub fn is_known(component: &str) -> bool {
    RULES.iter().any(|(of, ..)| of.eq_ignore_ascii_case(component))
}

/// All rows, for the test against the reference.
pub fn rules() -> impl Iterator<Item = (&'static str, &'static str, &'static [Pass])> {
    RULES.iter().copied()
}
