//! VHDX images that no free tool makes: differencing ones and logs, composed from the specification.
#![allow(dead_code)]

use super::common::run;
use std::path::Path;

const MIB: usize = 1 << 20;

pub fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn sum_at(file: &mut [u8], at: usize, len: usize) {
    put(file, at + 4, &[0; 4]);
    let sum = crc32c::crc32c(&file[at..at + len]);
    put(file, at + 4, &sum.to_le_bytes());
}

pub fn le64(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("8"))
}

/// GUID as text, from its bytes on the disk.
fn guid_text(raw: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>, reverse: bool| {
        let mut bytes = raw[range].to_vec();
        if reverse {
            bytes.reverse();
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!(
        "{{{}-{}-{}-{}-{}}}",
        part(0..4, true),
        part(4..6, true),
        part(6..8, true),
        part(8..10, false),
        part(10..16, false)
    )
}

/// The header with the higher sequence.
pub fn active_header(file: &[u8]) -> usize {
    let (first, second) = (64 << 10, 128 << 10);
    if le64(file, first + 8) >= le64(file, second + 8) { first } else { second }
}

/// Offsets of block table and metadata.
pub fn regions(file: &[u8]) -> (usize, usize) {
    let table = 192 << 10;
    let place = |index: usize| le64(file, table + 16 + index * 32 + 16) as usize;
    let bat_first = file[table + 16..table + 20] == 0x2DC2_7766_u32.to_le_bytes();
    if bat_first { (place(0), place(1)) } else { (place(1), place(0)) }
}

/// What a child has of a block of 1 MiB.
pub enum Own {
    Whole(Vec<u8>),
    /// These sectors of the block's bytes.
    Sectors(Vec<usize>, Vec<u8>),
    Zeros,
}

/// Turns an empty dynamic image of `disk_bytes` (at most 4 GiB) into a child of `parent` that has `own`
/// blocks, by their numbers.
pub fn differencing(
    folder: &Path,
    child: &str,
    parent: &str,
    linkage: &str,
    disk_bytes: u64,
    own: &[(usize, Own)],
) {
    let size = disk_bytes.to_string();
    let options = "block_size=1M,block_state_zero=off";
    run(folder, "qemu-img", &["create", "-q", "-f", "vhdx", "-o", options, child, &size]);
    let path = folder.join(child);
    let mut file = std::fs::read(&path).expect("child");
    let (bat, metadata) = regions(&file);
    // Metadata: the parent flag, and a locator at a place nothing else uses.
    let count = usize::from(file[metadata + 10]);
    for index in 0..count {
        let entry = metadata + 32 + index * 32;
        if file[entry..entry + 4] == 0xCAA1_6737_u32.to_le_bytes() {
            let at = u32::from_le_bytes(file[entry + 16..entry + 20].try_into().expect("4"));
            put(&mut file, metadata + at as usize + 4, &2_u32.to_le_bytes());
        }
    }
    let pairs = [
        ("parent_linkage", linkage.to_owned()),
        ("relative_path", format!(".\\{parent}")),
        ("absolute_win32_path", format!("C:\\elsewhere\\{parent}")),
    ];
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut locator = Vec::new();
    locator.extend([
        0xB7, 0xEF, 0x4A, 0xB0, 0x9E, 0xD1, 0x81, 0x4A, 0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59,
        0x13,
    ]);
    locator.extend([0, 0]);
    locator.extend((pairs.len() as u16).to_le_bytes());
    let mut texts = Vec::new();
    let texts_at = 20 + pairs.len() * 12;
    for (key, value) in &pairs {
        let (key, value) = (utf16(key), utf16(value));
        locator.extend(((texts_at + texts.len()) as u32).to_le_bytes());
        locator.extend(((texts_at + texts.len() + key.len()) as u32).to_le_bytes());
        locator.extend((key.len() as u16).to_le_bytes());
        locator.extend((value.len() as u16).to_le_bytes());
        texts.extend(key);
        texts.extend(value);
    }
    locator.extend(texts);
    let place = 512 << 10;
    put(&mut file, metadata + place, &locator);
    let entry = metadata + 32 + count * 32;
    put(
        &mut file,
        entry,
        &[
            0x2D, 0x5F, 0xD3, 0xA8, 0x0B, 0xB3, 0x4D, 0x45, 0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34,
            0xAB, 0x0C,
        ],
    );
    put(&mut file, entry + 16, &(place as u32).to_le_bytes());
    put(&mut file, entry + 20, &(locator.len() as u32).to_le_bytes());
    put(&mut file, entry + 24, &4_u32.to_le_bytes());
    put(&mut file, metadata + 10, &[count as u8 + 1]);
    // At the end of the file: the bitmap of chunk 0, then the blocks.
    let end = file.len().next_multiple_of(MIB);
    let sectors = MIB / 512;
    let mut bitmap = vec![0_u8; MIB];
    file.resize(end + MIB, 0);
    let ratio = (1 << 23) * 512 / MIB;
    let mut states = vec![(ratio, end | 6)];
    for (block, own) in own {
        let at = file.len();
        match own {
            Own::Whole(bytes) => {
                file.extend(bytes);
                states.push((*block, at | 6));
            }
            Own::Sectors(list, bytes) => {
                for sector in list.iter().map(|sector| block * sectors + sector) {
                    bitmap[sector / 8] |= 1 << (sector % 8);
                }
                file.extend(bytes);
                states.push((*block, at | 7));
            }
            Own::Zeros => states.push((*block, 2)),
        }
        file.resize(file.len().next_multiple_of(MIB), 0);
    }
    put(&mut file, end, &bitmap);
    for (index, value) in states {
        put(&mut file, bat + index * 8, &(value as u64).to_le_bytes());
    }
    std::fs::write(path, file).expect("child");
}

pub fn data_write_id(folder: &Path, image: &str) -> String {
    let file = std::fs::read(folder.join(image)).expect("image");
    let header = active_header(&file);
    guid_text(&file[header + 32..header + 48])
}

/// Moves sectors of `image` into its log: the file gets garbage, the log the true bytes.
pub fn into_log(file: &mut [u8], sectors: &[u64], zeros: &[(u64, u64)]) {
    let header = active_header(file);
    let log_at = le64(file, header + 72) as usize;
    let log_id = [0x5A; 16];
    let len_of = |count: usize| 4096 + count * 4096;
    // Two entries: the second half of the sectors in the newer one; it names the older as its tail.
    let half = sectors.len() / 2;
    let tail = 3 * 4096_u32;
    let mut at = tail as usize;
    let flushed = file.len() as u64;
    for (number, (part, zero)) in
        [(&sectors[..half], zeros), (&sectors[half..], &[][..])].into_iter().enumerate()
    {
        let sequence = 7 + number as u64;
        let mut entry = vec![0_u8; len_of(part.len())];
        put(&mut entry, 0, b"loge");
        let entry_len = entry.len() as u32;
        put(&mut entry, 8, &entry_len.to_le_bytes());
        put(&mut entry, 12, &tail.to_le_bytes());
        put(&mut entry, 16, &sequence.to_le_bytes());
        put(&mut entry, 24, &((part.len() + zero.len()) as u32).to_le_bytes());
        put(&mut entry, 32, &log_id);
        put(&mut entry, 48, &flushed.to_le_bytes());
        put(&mut entry, 56, &flushed.to_le_bytes());
        let mut descriptor = 64;
        for (from, len) in zero {
            put(&mut entry, descriptor, b"zero");
            put(&mut entry, descriptor + 8, &len.to_le_bytes());
            put(&mut entry, descriptor + 16, &from.to_le_bytes());
            put(&mut entry, descriptor + 24, &sequence.to_le_bytes());
            descriptor += 32;
        }
        for (index, target) in part.iter().enumerate() {
            let raw = file[*target as usize..*target as usize + 4096].to_vec();
            put(&mut entry, descriptor, b"desc");
            put(&mut entry, descriptor + 4, &raw[4092..]);
            put(&mut entry, descriptor + 8, &raw[..8]);
            put(&mut entry, descriptor + 16, &target.to_le_bytes());
            put(&mut entry, descriptor + 24, &sequence.to_le_bytes());
            descriptor += 32;
            let data = 4096 + index * 4096;
            put(&mut entry, data, b"data");
            put(&mut entry, data + 4, &((sequence >> 32) as u32).to_le_bytes());
            put(&mut entry, data + 8, &raw[8..4092]);
            put(&mut entry, data + 4092, &(sequence as u32).to_le_bytes());
            file[*target as usize..*target as usize + 4096].fill(0xEE);
        }
        let len = entry.len();
        sum_at(&mut entry, 0, len);
        put(file, log_at + at, &entry);
        at += entry.len();
    }
    for (from, len) in zeros {
        file[*from as usize..(*from + *len) as usize].fill(0xDD);
    }
    put(file, header + 48, &log_id);
    sum_at(file, header, 4096);
}
