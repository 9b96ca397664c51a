//! The question "Press any key to boot from CD or DVD" comes from the boot image a medium names.
//! Beside it lies the same image without the question: the medium is made to name that one, and
//! stays as it was, byte for byte, in all but the few that say where the boot image begins.
//!
//! ```text
//! sector 17: boot record ─▶ catalog: validation | default entry | section: EFI entry
//!                                     EFI entry: first sector of efisys.bin ─▶ efisys_noprompt.bin
//! ```
//! (El Torito 1.0; UEFI 2.x 13.3.2.1, platform 0xEF.)

use super::SECTOR;
use super::udf::{Udf, UdfError};
use std::io::{Read, Seek, SeekFrom};

const FOLDER: &str = "efi/microsoft/boot";
const ASKS: &str = "efisys.bin";
const SILENT: &str = "efisys_noprompt.bin";
const EFI: u8 = 0xEF;

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Udf(#[from] UdfError),
    #[error("cannot read the medium: {0}")]
    Io(#[from] std::io::Error),
    #[error("the medium cannot be made to start without a question: {0}")]
    Unfit(&'static str),
}

/// What to write where, for a medium that asks no question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPrompt {
    /// It asks none as it is.
    Already,
    /// These bytes at this offset.
    Patch { offset: u64, bytes: Vec<u8> },
}

/// How to make a medium start without a question.
pub fn no_prompt<R: Read + Seek>(mut disc: R) -> Result<NoPrompt, BootError> {
    let (offset, entry) = efi_entry(&mut disc)?;
    let named = u64::from(u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]));
    let mut udf = Udf::open(disc)?;
    let find = |udf: &mut Udf<R>, name: &str| udf.find(&format!("{FOLDER}/{name}"));
    let Some(silent) = find(&mut udf, SILENT)? else {
        return Err(BootError::Unfit("it has no efisys_noprompt.bin"));
    };
    let sector = |start: Option<u64>| {
        let start = start.ok_or(BootError::Unfit("its boot image lies in pieces"))?;
        if start.is_multiple_of(SECTOR) {
            Ok(start / SECTOR)
        } else {
            Err(BootError::Unfit("its boot image does not begin with a sector"))
        }
    };
    let target = sector(silent.start())?;
    if named == target {
        return Ok(NoPrompt::Already);
    }
    // The entry names the boot image by its place: a copy beside the file, most often. Only one
    // that is the asking image is replaced, or a medium of another kind would be broken.
    let Some(asks) = find(&mut udf, ASKS)? else {
        return Err(BootError::Unfit("it has no efisys.bin"));
    };
    let asking = udf.read(&asks, 64 << 20)?;
    let len = u64::try_from(asking.len()).unwrap_or(u64::MAX);
    let mut there = Vec::new();
    let mut disc = udf.into_disc();
    disc.seek(SeekFrom::Start(named * SECTOR))?;
    (&mut disc).take(len).read_to_end(&mut there)?;
    if there != asking {
        return Err(BootError::Unfit("what it boots is not its efisys.bin"));
    }
    let target =
        u32::try_from(target).map_err(|_| BootError::Unfit("its boot image lies too far out"))?;
    let mut bytes = entry[6..12].to_vec();
    bytes[2..6].copy_from_slice(&target.to_le_bytes());
    // Sectors of 512 to load, where the medium counts them.
    let count = |len: u64| u16::try_from(len.div_ceil(512)).ok();
    if count(len) == Some(u16::from_le_bytes([entry[6], entry[7]]))
        && let Some(count) = count(silent.len_bytes)
    {
        bytes[0..2].copy_from_slice(&count.to_le_bytes());
    }
    Ok(NoPrompt::Patch { offset: offset + 6, bytes })
}

/// Offset and bytes of the catalog's entry for UEFI.
fn efi_entry<R: Read + Seek>(disc: &mut R) -> Result<(u64, [u8; 32]), BootError> {
    let record = sector(disc, 17)?;
    if record[0] != 0 || &record[1..6] != b"CD001" || !record[7..].starts_with(b"EL TORITO SPEC") {
        return Err(BootError::Unfit("it has no boot record"));
    }
    let catalog = u32::from_le_bytes([record[71], record[72], record[73], record[74]]);
    let base = u64::from(catalog) * SECTOR;
    let bytes = sector(disc, u64::from(catalog))?;
    let entries: Vec<&[u8; 32]> = bytes.as_chunks::<32>().0.iter().collect();
    let valid = entries[0][0] == 1 && entries[0][30..32] == [0x55, 0xAA];
    if !valid {
        return Err(BootError::Unfit("its boot catalog is damaged"));
    }
    let mut platform = entries[0][1];
    let mut left = 1usize;
    for (at, entry) in entries.iter().enumerate().skip(1) {
        if left == 0 {
            // A section's header, and the last one ends the catalog.
            match entry[0] {
                0x90 | 0x91 => {
                    platform = entry[1];
                    left = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
                    continue;
                }
                _ => break,
            }
        }
        left -= 1;
        if platform == EFI && entry[0] == 0x88 {
            return Ok((base + 32 * at as u64, **entry));
        }
    }
    Err(BootError::Unfit("it does not start under UEFI"))
}

fn sector<R: Read + Seek>(disc: &mut R, sector: u64) -> Result<[u8; 2048], BootError> {
    let mut bytes = [0; 2048];
    disc.seek(SeekFrom::Start(sector * SECTOR))?;
    disc.read_exact(&mut bytes)?;
    Ok(bytes)
}
