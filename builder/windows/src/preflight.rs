//! What would make Sysprep fail, known before it runs: a failed run cannot be repaired.

use crate::reboot;
use crate::request::Preflight;

/// Something in the way, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub what: String,
    pub cure: String,
}

/// Sysprep itself needs little; the first start of the deployed image needs room.
const MIN_FREE_BYTES: u64 = 2 << 30;

/// Server roles that cannot be generalized (sysprep support for server roles).
const ROLES: &[&str] = &[
    "AD-Certificate",
    "AD-Domain-Services",
    "ADFS-Federation",
    "ADLDS",
    "ADRMS",
    "DHCP",
    "Fax",
    "NPAS",
    "UpdateServices",
];

fn blocker(what: impl Into<String>, cure: impl Into<String>) -> Blocker {
    Blocker { what: what.into(), cure: cure.into() }
}

/// All that is in the way. `build_user` goes before Sysprep runs, and its apps with it.
pub fn blockers(facts: &Preflight) -> Vec<Blocker> {
    let mut found = Vec::new();
    if facts.domain_joined == Some(true) {
        found.push(blocker(
            "the machine is joined to a domain",
            "leave the domain in a layer; join when the image is deployed",
        ));
    }
    let hard: Vec<&str> = reboot::hard(&facts.pending).collect();
    if !hard.is_empty() {
        found.push(blocker(
            format!("a restart is pending: {}", hard.join(", ")),
            "end the last layer with `windows-restart`",
        ));
    }
    if facts.servicing {
        found.push(blocker(
            "servicing still works (TiWorker, or packages pending)",
            "end the last layer with `windows-restart`, which waits for it",
        ));
    }
    for app in &facts.appx {
        if !app.provisioned && !app.users.is_empty() {
            found.push(blocker(
                format!("the app {} is installed for a user but not for all", app.full_name),
                format!(
                    "in a layer: `Get-AppxPackage -AllUsers {} | Remove-AppxPackage -AllUsers`, or provision it for all users",
                    app.name
                ),
            ));
        }
    }
    for volume in &facts.bitlocker {
        if !volume.status.is_empty() && volume.status != "FullyDecrypted" {
            found.push(blocker(
                format!("BitLocker on {}: {}", volume.drive, volume.status),
                format!(
                    "in a layer: `manage-bde -off {}` and wait until it is decrypted; gilt's answer file prevents device encryption",
                    volume.drive
                ),
            ));
        }
    }
    if facts.rearm == Some(0) {
        found.push(blocker(
            "the licence cannot be rearmed any more (0xC004D307)",
            "build the image from the install medium again",
        ));
    }
    if let Some(free) = facts.free_bytes
        && free < MIN_FREE_BYTES
    {
        found.push(blocker(
            format!("{} MB are free on C:", free >> 20),
            "raise `machine.disk`, or clean up in a layer",
        ));
    }
    if facts.system_account {
        found.push(blocker(
            "Sysprep would run as SYSTEM, which breaks the desktop of what is deployed",
            "log in as an administrator (`communicator.username`)",
        ));
    }
    if facts.reserved_storage == Some(true) {
        found.push(blocker(
            "reserved storage is in use by servicing",
            "end the last layer with `windows-restart`",
        ));
    }
    if let Some(state) = &facts.image_state
        && !state.is_empty()
        && state != "IMAGE_STATE_COMPLETE"
    {
        found.push(blocker(
            format!("the image state is {state}"),
            "an earlier Sysprep ran here and cannot be repaired: resume from an earlier layer",
        ));
    }
    for role in &facts.roles {
        if ROLES.iter().any(|of| of.eq_ignore_ascii_case(role)) {
            found.push(blocker(
                format!("the role {role} cannot be generalized"),
                "install the role when the image is deployed",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Appx, Pending, Volume};

    #[test]
    fn a_clean_machine_and_one_that_says_nothing_pass() {
        assert_eq!(blockers(&Preflight::default()), []);
        let clean = Preflight {
            domain_joined: Some(false),
            rearm: Some(1001),
            free_bytes: Some(20 << 30),
            image_state: Some("IMAGE_STATE_COMPLETE".into()),
            bitlocker: vec![Volume { drive: "C:".into(), status: "FullyDecrypted".into() }],
            pending: vec![Pending { source: "PendingFileRenameOperations".into(), soft: true }],
            appx: vec![Appx { provisioned: true, users: vec!["S-1".into()], ..Appx::default() }],
            roles: vec!["Web-Server".into()],
            ..Preflight::default()
        };
        assert_eq!(blockers(&clean), []);
    }

    #[test]
    fn each_trouble_is_told_with_its_cure() {
        let bad = Preflight {
            domain_joined: Some(true),
            pending: vec![Pending { source: "CBS RebootPending".into(), soft: false }],
            servicing: true,
            appx: vec![Appx {
                name: "Vendor.App".into(),
                full_name: "Vendor.App_1.0_x64__abc".into(),
                users: vec!["S-1-5-21-1".into()],
                provisioned: false,
            }],
            bitlocker: vec![Volume { drive: "C:".into(), status: "EncryptionInProgress".into() }],
            rearm: Some(0),
            free_bytes: Some(1 << 20),
            system_account: true,
            reserved_storage: Some(true),
            image_state: Some("IMAGE_STATE_UNDEPLOYABLE".into()),
            roles: vec!["DHCP".into()],
            ..Preflight::default()
        };
        let found = blockers(&bad);
        insta::assert_debug_snapshot!(found);
        assert!(found.iter().all(|blocker| !blocker.cure.is_empty()));
    }
}
