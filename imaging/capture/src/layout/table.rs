//! The partition table of a new disk.

use super::{Ids, LayoutRequest};
use crate::error::{CaptureError, Result};
use gilt_disk::type_guid;
use gptman::{GPT, GPTPartitionEntry};
use std::fs::File;
use std::io;
use std::ops::Range;

const SECTOR_BYTES: u64 = 512;
const ALIGN_BYTES: u64 = 1 << 20;
/// FAT32 needs 65,525 clusters of 512 bytes.
const MIN_ESP_BYTES: u64 = 34 << 20;

/// Byte ranges of the partitions.
pub struct Places {
    pub esp: Range<u64>,
    pub root: Range<u64>,
}

pub fn write(file: &mut File, request: &LayoutRequest<'_>, ids: &Ids) -> Result<Places> {
    let size = request.size_bytes / ALIGN_BYTES * ALIGN_BYTES;
    let esp_bytes = request.esp_bytes.next_multiple_of(ALIGN_BYTES);
    let least = MIN_ESP_BYTES + 16 * ALIGN_BYTES;
    if esp_bytes < MIN_ESP_BYTES || size < esp_bytes + 16 * ALIGN_BYTES {
        return Err(CaptureError::Layout {
            what: format!(
                "a disk of {} bytes with an ESP of {} is too small; {least} and {MIN_ESP_BYTES} are the least",
                request.size_bytes, request.esp_bytes
            ),
        });
    }
    let esp = ALIGN_BYTES..ALIGN_BYTES + esp_bytes;
    // The last MiB holds the second copy of the table.
    let root = esp.end..size - ALIGN_BYTES;
    let failed = |error: gptman::Error| CaptureError::Layout {
        what: format!("partition table: {}", io::Error::other(error)),
    };
    let mut table = GPT::new_from(file, SECTOR_BYTES, ids.guid("disk")).map_err(failed)?;
    for (number, name, kind, place) in
        [(1, "ESP", type_guid::ESP, &esp), (2, "root", type_guid::LINUX_ROOT_X86_64, &root)]
    {
        table[number] = GPTPartitionEntry {
            partition_type_guid: kind.0,
            unique_partition_guid: ids.guid(name),
            starting_lba: place.start / SECTOR_BYTES,
            ending_lba: place.end / SECTOR_BYTES - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    }
    table.write_into(file).map_err(failed)?;
    GPT::write_protective_mbr_into(file, SECTOR_BYTES).map_err(failed)?;
    Ok(Places { esp, root })
}
