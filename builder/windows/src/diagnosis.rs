//! One line of cause and cure from the logs of Setup, servicing, Windows Update and Sysprep.
//!
//! A rule is a set of words that all stand in one line. Rules are tried in their order: what names
//! a cause stands before what only says that something failed.

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub cause: String,
    pub cure: &'static str,
    /// The line it stands in, cut.
    pub line: String,
}

struct Rule {
    /// All stand in the line; lower case.
    words: &'static [&'static str],
    cause: &'static str,
    cure: &'static str,
}

const RULES: &[Rule] = &[
    // Sysprep
    Rule {
        words: &["was installed for a user, but not provisioned for all users"],
        cause: "an app is installed for one user only",
        cure: "remove it for all users in a layer (`Remove-AppxPackage -AllUsers`), and keep the Store from updating apps",
    },
    Rule {
        words: &["0x80073cf2"],
        cause: "an app is installed for one user only",
        cure: "remove it for all users in a layer (`Remove-AppxPackage -AllUsers`), and keep the Store from updating apps",
    },
    Rule {
        words: &["0x80310039"],
        cause: "the disk is encrypted, or waits to be (device encryption)",
        cure: "`manage-bde -off C:` in a layer and wait; gilt's answer file prevents it from the start",
    },
    Rule {
        words: &["validatebitlockerstate"],
        cause: "the disk is encrypted, or waits to be (device encryption)",
        cure: "`manage-bde -off C:` in a layer and wait; gilt's answer file prevents it from the start",
    },
    Rule {
        words: &["failed to query pending cbs operations"],
        cause: "servicing is pending",
        cure: "end the last layer with `windows-restart`",
    },
    Rule {
        words: &["sysprep_clean_validate_opk"],
        cause: "servicing is pending",
        cure: "end the last layer with `windows-restart`",
    },
    Rule {
        words: &["reserved storage is in use"],
        cause: "reserved storage is in use by servicing",
        cure: "end the last layer with `windows-restart`, and try again",
    },
    Rule {
        words: &["senseguid", "0x5"],
        cause: "Defender for Endpoint protects its own settings",
        cure: "offboard the machine before it is generalized",
    },
    Rule {
        words: &["0xc004d307"],
        cause: "the licence cannot be rearmed any more",
        cure: "build from the install medium again",
    },
    Rule {
        words: &["sysprep_cleanup", "0x2"],
        cause: "remains of an older Windows Management Framework (DSC)",
        cure: "remove the DSC configuration in a layer",
    },
    Rule {
        words: &["machine is in an invalid state"],
        cause: "an earlier run of Sysprep failed on this machine",
        cure: "it cannot be repaired: resume from the layer before",
    },
    Rule {
        words: &["dwret = 31"],
        cause: "an earlier run of Sysprep failed on this machine",
        cure: "it cannot be repaired: resume from the layer before",
    },
    Rule {
        words: &["a fatal error occurred while trying to sysprep the machine"],
        cause: "Sysprep failed",
        cure: "the line before this one in setuperr.log names the provider that did",
    },
    // Setup
    Rule {
        words: &["could not apply", "<diskconfiguration>"],
        cause: "Setup saw no disk, or cannot partition it",
        cure: "give the drivers of the disk (`windows.drivers`), or attach it as sata or nvme",
    },
    Rule {
        words: &["0x80042405"],
        cause: "Setup saw no disk, or cannot partition it",
        cure: "give the drivers of the disk (`windows.drivers`), or attach it as sata or nvme",
    },
    Rule {
        words: &["0x80220005"],
        cause: "Setup rejects the answer file",
        cure: "compare `gilt answer-file show` with what the line names; a bad value rejects all of it",
    },
    Rule {
        words: &["could not parse or process the unattend answer file"],
        cause: "Setup rejects the answer file",
        cure: "compare `gilt answer-file show` with what the line names; a bad value rejects all of it",
    },
    Rule {
        words: &["no images are available"],
        cause: "the install medium has no image that fits name, index or key",
        cure: "see `windows.image_name`, `image_index` and `product_key`",
    },
    Rule {
        words: &["product key", "does not match"],
        cause: "the product key fits none of the images",
        cure: "leave `windows.product_key` out for evaluation media",
    },
    Rule {
        words: &["this pc can't run windows 11"],
        cause: "the machine lacks what Windows 11 asks for",
        cure: "set `machine.tpm` and `machine.secure_boot`, or `windows.bypass_requirements`",
    },
    // Servicing and updates
    Rule {
        words: &["0x80073712"],
        cause: "the component store is damaged, or a checkpoint update is missing",
        cure: "put all checkpoint MSU files into the folder of the update, and name the update itself",
    },
    Rule {
        words: &["0x80070228"],
        cause: "checkpoint updates are missing from, or foreign ones lie in, the folder",
        cure: "the folder holds the update and its checkpoints, and no other MSU",
    },
    Rule {
        words: &["0x800f0823"],
        cause: "a servicing operation is pending",
        cure: "`windows-restart` before it",
    },
    Rule {
        words: &["0x800f081f"],
        cause: "the source files of a feature were not found",
        cure: "give the feature's source, or let the guest reach Windows Update",
    },
    Rule {
        words: &["0x8024402c"],
        cause: "the guest does not find the update server",
        cure: "give the guest a network, or update from a folder",
    },
    Rule {
        words: &["0x80240438"],
        cause: "the guest has no way to the update server",
        cure: "give the guest a network, or update from a folder",
    },
    Rule {
        words: &["0x80240022"],
        cause: "all updates of a round failed",
        cure: "WindowsUpdate.log of the evidence names each",
    },
    Rule {
        words: &["0x80070070"],
        cause: "the guest's disk is full",
        cure: "raise `machine.disk`",
    },
    Rule {
        words: &["there is not enough space on the disk"],
        cause: "the guest's disk is full",
        cure: "raise `machine.disk`",
    },
    // gilt's own scripts
    Rule {
        words: &["gilt-windows: failed"],
        cause: "gilt's own first steps in Windows failed",
        cure: "C:\\ProgramData\\gilt\\setup.log is in the evidence",
    },
    Rule {
        words: &["running scripts is disabled on this system"],
        cause: "an execution policy forbids scripts",
        cure: "set `execution_policy: Bypass`, or change the policy in a layer before",
    },
    Rule {
        words: &["is not recognized as the name of a cmdlet"],
        cause: "a script calls a command Windows does not have (wmic, for one, is gone)",
        cure: "see the line; on 24H2 use Get-CimInstance in place of wmic",
    },
    Rule {
        words: &["is not recognized as an internal or external command"],
        cause: "a script calls a command Windows does not have (wmic, for one, is gone)",
        cure: "see the line; on 24H2 use Get-CimInstance in place of wmic",
    },
    Rule {
        words: &["access is denied"],
        cause: "a script was refused access",
        cure: "run it `as: elevated` or `as: system`",
    },
];

/// Errors of Sysprep's providers that are often harmless; never the cause while there is another.
const HARMLESS: &[&str] = &["mrtgeneralize"];

/// The cause a log names. Rules go first by their rank, then the last line that fits.
pub fn classify(log: &str) -> Option<Finding> {
    for rule in RULES {
        let hit = log.lines().rev().find(|line| {
            let line = line.to_ascii_lowercase();
            rule.words.iter().all(|word| line.contains(word))
                && !HARMLESS.iter().any(|word| line.contains(word))
        });
        if let Some(line) = hit {
            let cause = match package(line) {
                Some(package) => format!("{}: {package}", rule.cause),
                None => rule.cause.to_owned(),
            };
            let line = line.trim().chars().take(240).collect();
            return Some(Finding { cause, cure: rule.cure, line });
        }
    }
    None
}

/// The package a line about an app names.
fn package(line: &str) -> Option<&str> {
    let rest = &line[line.find("Package ")? + 8..];
    let name = rest.split(' ').next()?;
    (name.contains('_') && line.contains("was installed for a user")).then_some(name)
}

/// Folders of logs, in the order in which they name causes; paths from the root of the volume.
pub const FOLDERS: &[&str] = &[
    "Windows/System32/Sysprep/Panther",
    "Windows/Panther/UnattendGC",
    "Windows/Panther",
    "$WINDOWS.~BT/Sources/Panther",
    "Windows/Logs/CBS",
    "Windows/Logs/DISM",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines in the form of real logs, retyped short from the documents and threads of facts 8.
    const SAMPLES: &[(&str, &str)] = &[
        (
            "2026-08-02 10:11:12, Error                 SYSPRP Package NotepadPlusPlus_1.0.0.0_neutral__7njy0v32s6xk6 was installed for a user, but not provisioned for all users. This package will not function properly in the sysprep image.\n\
             2026-08-02 10:11:12, Error                 SYSPRP Failed to remove apps for the current user: 0x80073cf2.\n\
             2026-08-02 10:11:12, Error                 SYSPRP Exit code of RemoveAllApps thread was 0x3cf2.\n",
            "an app is installed for one user only: NotepadPlusPlus_1.0.0.0_neutral__7njy0v32s6xk6",
        ),
        (
            "2026-01-01 00:00:00, Error      [0x0f0082] SYSPRP ActionPlatform::LaunchModule: Failure occurred while executing 'ValidateBitLockerState' from C:\\Windows\\System32\\BdeSysprep.dll; dwRet = 0x80310039\n",
            "the disk is encrypted, or waits to be (device encryption)",
        ),
        (
            "2026-01-01 00:00:00, Error [0x0f0082] SYSPRP spopk.dll:: Failed to query pending CBS operations\n",
            "servicing is pending",
        ),
        (
            "2026-01-01 00:00:00, Error [0x0f0073] SYSPRP RunExternalDlls:Not running DLLs; either the machine is in an invalid state or we couldn't update the recorded state, dwRet = 31\n",
            "an earlier run of Sysprep failed on this machine",
        ),
        (
            "2026-01-01 00:00:00, Error MRTGeneralize: Failed ConnectServer 0x80070005\n\
             2026-01-01 00:00:00, Error SYSPRP RunDlls:An error occurred while running registry sysprep DLLs, error 0xC004D307\n",
            "the licence cannot be rearmed any more",
        ),
        (
            "2026-11-01 08:00:00, Info CBS Exec: Processing failed [HRESULT = 0x80073712 - ERROR_SXS_COMPONENT_STORE_CORRUPT]\n",
            "the component store is damaged, or a checkpoint update is missing",
        ),
        (
            "2026-11-01 08:00:00, Error [setup.exe] Windows could not apply the unattend answer file's <DiskConfiguration> setting. 0x80042405\n",
            "Setup saw no disk, or cannot partition it",
        ),
    ];

    #[test]
    fn each_log_gives_its_cause_and_a_cure() {
        for (log, cause) in SAMPLES {
            let finding = classify(log).unwrap_or_else(|| panic!("no finding in {log}"));
            assert_eq!(finding.cause, *cause);
            assert!(!finding.cure.is_empty() && finding.line.len() <= 240 * 4);
        }
    }

    #[test]
    fn what_is_only_noise_names_no_cause() {
        assert_eq!(classify(""), None);
        assert_eq!(
            classify("2026, Info SYSPRP all is well\n2026, Warning pending file operations\n"),
            None
        );
        assert_eq!(classify("Error MRTGeneralize: Failed ConnectServer, access is denied\n"), None);
    }
}
