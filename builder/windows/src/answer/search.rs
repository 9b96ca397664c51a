//! Where Windows looks for an answer file, in order; the first that is there wins, in every pass
//! anew (Windows Setup automation overview, "Implicit answer file search order").

use super::passes::Pass;

/// One place, in Windows' own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `HKLM\System\Setup` `UnattendFile`.
    Registry,
    /// `%WINDIR%\Panther\Unattend\`, `Unattend.xml` or `Autounattend.xml`; not from WinPE.
    PantherUnattend,
    /// `%WINDIR%\Panther\`: Setup's own annotated cache.
    Panther,
    /// Removable writable media, root, `Autounattend.xml`.
    WritableMedia,
    /// Removable read-only media, root, `Autounattend.xml`.
    ReadOnlyMedia,
    /// windowsPE and offlineServicing: `\Sources` of the distribution; other passes:
    /// `%WINDIR%\System32\Sysprep\Unattend.xml`.
    SourcesOrSysprep,
    /// `%SYSTEMDRIVE%\`.
    SystemDrive,
    /// The root of the drive Setup runs from.
    SetupDrive,
}

impl Place {
    pub const ORDER: [Place; 8] = [
        Place::Registry,
        Place::PantherUnattend,
        Place::Panther,
        Place::WritableMedia,
        Place::ReadOnlyMedia,
        Place::SourcesOrSysprep,
        Place::SystemDrive,
        Place::SetupDrive,
    ];

    /// Whether Windows looks there in this pass.
    pub fn searched(self, pass: Pass) -> bool {
        !(self == Place::PantherUnattend && pass == Pass::WindowsPe)
    }
}

/// Which of the files that are there Windows takes in `pass`.
pub fn winner(pass: Pass, present: &[Place]) -> Option<Place> {
    Place::ORDER.into_iter().find(|place| place.searched(pass) && present.contains(place))
}

/// Copies that keep their secrets: of the places that hold a file, those Windows never cleans.
/// Setup wipes its own cache only.
pub fn keep_secrets(present: &[Place]) -> Vec<Place> {
    present.iter().copied().filter(|place| *place != Place::Panther).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Place::*;

    #[test]
    fn the_first_place_wins_in_every_pass() {
        assert_eq!(Place::ORDER.len(), 8);
        assert!(Place::ORDER.windows(2).all(|pair| pair[0] < pair[1]));
        for pass in Pass::ALL {
            assert_eq!(winner(pass, &Place::ORDER), Some(Registry));
            assert_eq!(winner(pass, &[]), None);
            // A stick beats a disc, a disc the folder of the installation.
            assert_eq!(winner(pass, &[ReadOnlyMedia, WritableMedia]), Some(WritableMedia));
            assert_eq!(winner(pass, &[SourcesOrSysprep, ReadOnlyMedia]), Some(ReadOnlyMedia));
            // What the installation left in its cache beats the file beside sysprep.exe.
            assert_eq!(winner(pass, &[SourcesOrSysprep, Panther]), Some(Panther));
        }
        assert_eq!(winner(Pass::WindowsPe, &[PantherUnattend, ReadOnlyMedia]), Some(ReadOnlyMedia));
        assert_eq!(
            winner(Pass::Specialize, &[PantherUnattend, ReadOnlyMedia]),
            Some(PantherUnattend)
        );
    }

    #[test]
    fn only_the_cache_is_wiped_by_windows() {
        assert_eq!(keep_secrets(&[Panther, PantherUnattend]), [PantherUnattend]);
    }
}
