//! Finding UEFI firmware on the host. Distributions put the same files in different places.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A firmware image and the empty variables that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UefiFirmware {
    pub code: PathBuf,
    pub variables_template: PathBuf,
}

/// `(code, variables)`, best first. Sources: the file lists of Debian's and Ubuntu's `ovmf`,
/// Fedora's and RHEL's `edk2-ovmf`, Arch's `edk2-ovmf`, openSUSE's `qemu-ovmf-x86_64`.
const PLAIN: &[(&str, &str)] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Built with SMM, variables with Microsoft's keys enrolled.
const SECURE: &[(&str, &str)] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
    ("/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"),
    ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"),
];

/// The best firmware of this host.
pub fn find(secure_boot: bool) -> Result<UefiFirmware> {
    let places = if secure_boot { SECURE } else { PLAIN };
    places
        .iter()
        .map(|(code, vars)| UefiFirmware { code: code.into(), variables_template: vars.into() })
        .find(|f| f.code.is_file() && f.variables_template.is_file())
        .ok_or_else(|| Error::HostLacks {
            what: if secure_boot {
                "UEFI firmware with Secure Boot".into()
            } else {
                "UEFI firmware".into()
            },
            hint: "on Debian: apt-get install ovmf".into(),
        })
}

/// Gives the machine its own variables when it has none yet; refuses ones of another firmware.
pub fn prepare_variables(firmware: &UefiFirmware, own: &Path, machine: &str) -> Result<()> {
    let template = &firmware.variables_template;
    let expected = std::fs::metadata(template).map_err(Error::io("look at", template))?.len();
    match std::fs::metadata(own) {
        Ok(found) if found.len() == expected => Ok(()),
        Ok(found) => Err(Error::InvalidSpec {
            machine: machine.into(),
            what: format!(
                "the UEFI variables in {} have {} bytes, those of {} have {expected}",
                own.display(),
                found.len(),
                firmware.code.display(),
            ),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let bytes = std::fs::read(template).map_err(Error::io("read", template))?;
            std::fs::write(own, bytes).map_err(Error::io("write", own))
        }
        Err(e) => Err(Error::io("look at", own)(e)),
    }
}
