//! Single parsers, for the fuzzer. Not part of the library otherwise.

use crate::boot::Geometry;
use crate::mft::{list_lines, open_record};
use crate::record::Body;
use crate::runs::decode;
use crate::secure::Descriptors;
use crate::state::{is_hibernated, log_state};

/// Feeds `data` but its first byte to the parser that the first byte chooses.
pub fn part(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    match choice % 6 {
        0 => record(data),
        1 => drop(list_lines(data)),
        2 => {
            let found = Descriptors::parse(data.to_vec());
            for id in 0x100..0x110 {
                let _ = found.get(id);
            }
        }
        3 => drop(crate::file::ea_list(data)),
        4 => {
            let _ = (log_state(data), is_hibernated(data));
        }
        _ => {
            if let Ok(sector) = data.get(..512).unwrap_or(&[]).try_into() {
                let _ = Geometry::parse(sector, 1 << 40);
            }
        }
    }
}

fn record(data: &[u8]) {
    let geometry = Geometry {
        sector_bytes: 512,
        cluster_bytes: 4096,
        record_bytes: 1024,
        clusters: 1 << 20,
        mft_lcn: 4,
        serial: 0,
    };
    let mut record = data.to_vec();
    record.resize(1024, 0);
    // As the fuzzer will hardly find the magic and a valid update sequence, they are given.
    record[..8].copy_from_slice(b"FILE\x30\0\x03\0");
    let sequence = [record[0x30], record[0x31]];
    for tail in [510, 1022] {
        record[tail..tail + 2].copy_from_slice(&sequence);
    }
    let number =
        u64::from(u32::from_le_bytes([record[0x2C], record[0x2D], record[0x2E], record[0x2F]]));
    let Ok(header) = open_record(&mut record, number) else { return };
    if !header.in_use {
        return;
    }
    for attribute in header.attributes(&record).map_while(Result::ok) {
        if let Body::Mapped(mapping) = &attribute.body {
            let mut runs = Vec::new();
            let _ = decode(mapping, &geometry, &mut runs, 0);
        }
    }
}
