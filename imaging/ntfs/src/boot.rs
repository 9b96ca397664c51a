//! The boot sector: sizes of everything else.
//!
//! ```text
//! 0x03 "NTFS    "      0x0B u16 bytes per sector   0x0D u8 sectors per cluster
//! 0x28 u64 sectors     0x30 u64 $MFT cluster       0x38 u64 $MFTMirr cluster
//! 0x40 i8 record size  0x44 i8 index block size    0x48 u64 serial number
//! ```
//! A size byte above 127 is a negative power: -10 means 1 << 10 bytes. Windows uses the same trick
//! for clusters above 64 KiB.

use crate::error::{Error, Place, Result};
use crate::raw::{u16_at, u64_at};

/// Bytes between two update sequence numbers, whatever the sector size.
pub(crate) const STRIDE: usize = 512;

const MAX_CLUSTER: u64 = 2 << 20;
/// Windows formats 1 or 4 KiB; anything to 64 KiB has the same layout.
const RECORD_SIZES: std::ops::RangeInclusive<u64> = 512..=65536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub sector_bytes: u32,
    pub cluster_bytes: u32,
    /// Bytes of a file record.
    pub record_bytes: u32,
    /// Clusters in the volume.
    pub clusters: u64,
    pub(crate) mft_lcn: u64,
    pub serial: u64,
}

fn corrupt(offset: usize, what: &'static str) -> Error {
    Error::Corrupt { place: Place::Boot { offset }, what }
}

impl Geometry {
    /// `volume_bytes` is what the partition really has.
    pub(crate) fn parse(sector: &[u8; 512], volume_bytes: u64) -> Result<Self> {
        match &sector[3..11] {
            b"NTFS    " => {}
            b"-FVE-FS-" => return Err(Error::BitLocker),
            b"ReFS\0\0\0\0" => return Err(Error::NotNtfs { found: "it is ReFS" }),
            b"EXFAT   " => return Err(Error::NotNtfs { found: "it is exFAT" }),
            _ => return Err(Error::NotNtfs { found: "no NTFS signature in the first sector" }),
        }
        let sector_bytes = u64::from(u16_at(sector, 0x0B).unwrap_or(0));
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return Err(corrupt(0x0B, "sector size is not 256 to 4096"));
        }
        let per_cluster = sector[0x0D];
        let cluster_bytes = match per_cluster {
            0 => 0,
            1..=128 => u64::from(per_cluster) * sector_bytes,
            _ => sector_bytes.checked_shl(u32::from(per_cluster.wrapping_neg())).unwrap_or(0),
        };
        if !cluster_bytes.is_power_of_two()
            || !(sector_bytes..=MAX_CLUSTER).contains(&cluster_bytes)
        {
            return Err(corrupt(0x0D, "cluster size is not a power of two up to 2 MiB"));
        }
        let record_byte = sector[0x40];
        let record_bytes = if record_byte < 0x80 {
            u64::from(record_byte) * cluster_bytes
        } else {
            1u64.checked_shl(u32::from(record_byte.wrapping_neg())).unwrap_or(0)
        };
        if !record_bytes.is_power_of_two() || !RECORD_SIZES.contains(&record_bytes) {
            return Err(corrupt(0x40, "file record size is not 512 bytes to 64 KiB"));
        }
        let sectors = u64_at(sector, 0x28).unwrap_or(0);
        let bytes = sectors
            .checked_mul(sector_bytes)
            .filter(|&bytes| bytes > 0)
            .ok_or_else(|| corrupt(0x28, "volume size is zero or overflows"))?;
        if bytes > volume_bytes {
            return Err(corrupt(0x28, "the volume is larger than its partition: the image is cut"));
        }
        let clusters = bytes / cluster_bytes;
        let mft_lcn = u64_at(sector, 0x30).unwrap_or(u64::MAX);
        if mft_lcn >= clusters {
            return Err(corrupt(0x30, "$MFT lies beyond the end of the volume"));
        }
        Ok(Self {
            sector_bytes: sector_bytes as u32,
            cluster_bytes: cluster_bytes as u32,
            record_bytes: record_bytes as u32,
            clusters,
            mft_lcn,
            serial: u64_at(sector, 0x48).unwrap_or(0),
        })
    }

    pub(crate) fn cluster(&self) -> u64 {
        u64::from(self.cluster_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector() -> [u8; 512] {
        let mut s = [0u8; 512];
        s[3..11].copy_from_slice(b"NTFS    ");
        s[0x0B..0x0D].copy_from_slice(&512u16.to_le_bytes());
        s[0x0D] = 8;
        s[0x28..0x30].copy_from_slice(&20_000u64.to_le_bytes());
        s[0x30..0x38].copy_from_slice(&4u64.to_le_bytes());
        s[0x40] = 0xF6;
        s
    }

    #[test]
    fn negative_sizes_are_powers_of_two() {
        let mut s = sector();
        let g = Geometry::parse(&s, 20_000 * 512).unwrap();
        assert_eq!((g.cluster_bytes, g.record_bytes, g.clusters), (4096, 1024, 2500));
        s[0x0D] = 0xF4; // 512 << 12
        s[0x28..0x30].copy_from_slice(&1_000_000u64.to_le_bytes());
        let g = Geometry::parse(&s, 1_000_000 * 512).unwrap();
        assert_eq!(g.cluster_bytes, 2 << 20);
        s[0x40] = 0xF4;
        assert_eq!(Geometry::parse(&s, 1_000_000 * 512).unwrap().record_bytes, 4096);
    }

    #[test]
    fn odd_sizes_are_refused_with_the_byte() {
        for (at, value) in
            [(0x0D, 3u8), (0x0D, 0), (0x0D, 0xF3), (0x40, 0), (0x40, 0xFF), (0x40, 0x80)]
        {
            let mut s = sector();
            s[at] = value;
            match Geometry::parse(&s, 20_000 * 512) {
                Err(Error::Corrupt { place: Place::Boot { offset }, .. }) => assert_eq!(offset, at),
                other => panic!("{at:#x}={value:#x}: {other:?}"),
            }
        }
        assert!(matches!(
            Geometry::parse(&sector(), 19_999 * 512),
            Err(Error::Corrupt { place: Place::Boot { offset: 0x28 }, .. })
        ));
    }

    #[test]
    fn bitlocker_is_named() {
        let mut s = sector();
        s[3..11].copy_from_slice(b"-FVE-FS-");
        assert!(matches!(Geometry::parse(&s, 1 << 30), Err(Error::BitLocker)));
    }
}
