//! Was the volume cleanly dismounted? Only then is what lies on disk the whole truth.

use crate::error::{Error, Place, Result, Unclean};
use crate::raw::{u16_at, u32_at, u64_at};
use crate::record::fix_up;

const DIRTY: u16 = 0x0001;
const NO_CLIENT: u16 = 0xFFFF;
const VOLUME_IS_CLEAN: u16 = 0x0002;

pub(crate) const SHUT_DOWN: &str = "start the machine, run `chkdsk /scan`, shut it down with \
     `shutdown /s /t 0` (not by closing the VM) and try again";
pub(crate) const NO_FAST_STARTUP: &str = "start the machine, run `powercfg /h off`, shut it down \
     with `shutdown /s /t 0` and try again";

pub(crate) fn unclean(why: Unclean) -> Error {
    let way_out = match why {
        Unclean::DirtyFlag | Unclean::LogOpen => SHUT_DOWN,
        Unclean::LogCached | Unclean::Hibernated => NO_FAST_STARTUP,
    };
    Error::Unclean { why, way_out }
}

/// What `$VOLUME_INFORMATION` says: `u64 0, u8 major, u8 minor, u16 flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeInformation {
    pub version: (u8, u8),
    pub dirty: bool,
}

impl VolumeInformation {
    pub fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            version: (*value.get(8)?, *value.get(9)?),
            dirty: u16_at(value, 10)? & DIRTY != 0,
        })
    }
}

/// How much of `$LogFile` [`log_state`] wants: two restart pages of up to 64 KiB.
pub(crate) const LOG_HEAD: usize = 128 << 10;

/// Reads the two restart pages at the start of `$LogFile`.
///
/// ```text
/// page  "RSTR"  0x08 u64 chkdsk LSN  0x10 u32 page size  0x18 u16 restart area offset
///       0x1A u16 minor version  0x1C u16 major version
/// area  0x00 u64 current LSN  0x0C u16 first client in use  0x0E u16 flags
/// ```
pub(crate) fn log_state(head: &[u8]) -> Result<Option<Unclean>> {
    if head.iter().all(|&b| b == 0xFF) {
        return Ok(None); // formatted, never mounted
    }
    let first = restart_page(head, 0);
    let page = first.map_or(4096, |page| page.bytes);
    let second = restart_page(head, page);
    let newest = match (first, second) {
        (Some(a), Some(b)) => {
            if b.lsn > a.lsn {
                b
            } else {
                a
            }
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => {
            return Err(Error::Corrupt {
                place: Place::Log { offset: 0 },
                what: "no sound restart page",
            });
        }
    };
    Ok(if newest.open {
        Some(Unclean::LogOpen)
    } else if newest.major >= 2 {
        Some(Unclean::LogCached)
    } else {
        None
    })
}

#[derive(Clone, Copy)]
struct RestartPage {
    bytes: usize,
    lsn: u64,
    major: u16,
    open: bool,
}

fn restart_page(head: &[u8], at: usize) -> Option<RestartPage> {
    let magic = head.get(at..at + 4)?;
    if magic != b"RSTR" && magic != b"CHKD" {
        return None;
    }
    let bytes = u32_at(head, at + 0x10)? as usize;
    if !bytes.is_power_of_two() || !(512..=65536).contains(&bytes) {
        return None;
    }
    let mut page = head.get(at..at + bytes)?.to_vec();
    fix_up(&mut page).ok()?;
    let area = usize::from(u16_at(&page, 0x18)?);
    let client = u16_at(&page, area.checked_add(0x0C)?)?;
    let flags = u16_at(&page, area + 0x0E)?;
    Some(RestartPage {
        bytes,
        lsn: u64_at(&page, area)?,
        major: u16_at(&page, 0x1C)?,
        open: client != NO_CLIENT && flags & VOLUME_IS_CLEAN == 0,
    })
}

/// Whether the first bytes of `hiberfil.sys` are those of a system that waits to be resumed. A
/// resumed one (`wake`) and a zeroed header are fine.
pub(crate) fn is_hibernated(head: &[u8]) -> bool {
    matches!(head.get(..4), Some(b"hibr" | b"HIBR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lsn: u64, client: u16, flags: u16, major: u16) -> Vec<u8> {
        let mut page = vec![0u8; 4096];
        page[..4].copy_from_slice(b"RSTR");
        page[4..6].copy_from_slice(&0x1Eu16.to_le_bytes());
        page[6..8].copy_from_slice(&9u16.to_le_bytes());
        page[0x10..0x14].copy_from_slice(&4096u32.to_le_bytes());
        page[0x18..0x1A].copy_from_slice(&0x30u16.to_le_bytes());
        page[0x1C..0x1E].copy_from_slice(&major.to_le_bytes());
        page[0x30..0x38].copy_from_slice(&lsn.to_le_bytes());
        page[0x3C..0x3E].copy_from_slice(&client.to_le_bytes());
        page[0x3E..0x40].copy_from_slice(&flags.to_le_bytes());
        page
    }

    fn log(first: Vec<u8>, second: Vec<u8>) -> Option<Unclean> {
        log_state(&[first, second].concat()).unwrap()
    }

    #[test]
    fn the_newer_restart_page_decides() {
        let clean = page(10, NO_CLIENT, 0, 1);
        assert_eq!(log(clean.clone(), clean.clone()), None);
        assert_eq!(log(clean.clone(), page(11, 0, 0, 1)), Some(Unclean::LogOpen));
        assert_eq!(log(page(9, 0, 0, 1), clean.clone()), None);
        assert_eq!(log(page(11, 0, VOLUME_IS_CLEAN, 1), clean.clone()), None);
        assert_eq!(log(page(11, NO_CLIENT, 0, 2), clean), Some(Unclean::LogCached));
    }

    #[test]
    fn a_torn_page_leaves_the_other() {
        let mut torn = page(99, 0, 0, 1);
        torn[510] = 7;
        assert_eq!(log(torn, page(1, NO_CLIENT, 0, 1)), None);
    }

    #[test]
    fn a_fresh_log_is_clean_and_garbage_is_not() {
        assert_eq!(log_state(&[0xFF; 8192]).unwrap(), None);
        assert!(log_state(&[0x55; 8192]).is_err());
    }
}
