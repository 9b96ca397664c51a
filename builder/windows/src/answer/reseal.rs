//! The answer file of Sysprep: what the generalized image does at its first start.

use super::passes::{ENCRYPTION, PNP_SYSPREP, Pass};
use super::xml::Element;
use super::{AnswerFile, Architecture};

/// What Sysprep is told. Always given: without a file, Windows would go on with the cached one of
/// the installation, build account and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reseal {
    pub architecture: Architecture,
    /// Keep the drivers of devices that are there. Only for identical hardware.
    pub persist_drivers: bool,
    /// Let Windows encrypt the deployed disk by itself, as it would on bare hardware.
    pub allow_encryption: bool,
}

impl Reseal {
    pub fn answer_file(&self) -> AnswerFile {
        let mut file = AnswerFile::default();
        if self.persist_drivers {
            file.add(
                Pass::Generalize,
                self.architecture,
                PNP_SYSPREP,
                vec![Element::text("PersistAllDeviceInstalls", "true")],
            );
        }
        if !self.allow_encryption {
            let prevent = vec![Element::text("PreventDeviceEncryption", "true")];
            file.add(Pass::Specialize, self.architecture, ENCRYPTION, prevent);
        }
        file
    }
}
