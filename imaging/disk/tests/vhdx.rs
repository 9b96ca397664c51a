//! VHDX and VHD: dynamic and fixed ones by QEMU; differencing ones and logs composed here from the
//! specification, because no free tool makes them. QEMU replays our logs to the same bytes.

mod common;

use common::{by_qemu, noise, read_all, run};
use gilt_disk::{DiskError, ExtentContent, Format, extent_list, open};
use std::path::Path;

const MIB: usize = 1 << 20;

fn base_raw(folder: &Path) {
    let mut bytes = noise(1, 3 * MIB);
    bytes.resize(40 * MIB, 0);
    bytes.extend(noise(2, 2 * MIB));
    bytes.resize(64 * MIB, 0);
    std::fs::write(folder.join("base.raw"), bytes).expect("base");
}

fn assert_equal(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: size");
    assert_eq!(got.iter().zip(want).position(|(a, b)| a != b), None, "{what}: first difference");
}

#[test]
fn images_made_by_qemu_read_as_qemu_reads_them() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    for (name, kind, options, format) in [
        ("dynamic.vhdx", "vhdx", "subformat=dynamic", Format::Vhdx),
        ("small.vhdx", "vhdx", "subformat=dynamic,block_size=1M", Format::Vhdx),
        ("fixed.vhdx", "vhdx", "subformat=fixed", Format::Vhdx),
        ("dynamic.vhd", "vpc", "subformat=dynamic,force_size=on", Format::Vhd),
        ("fixed.vhd", "vpc", "subformat=fixed,force_size=on", Format::Vhd),
    ] {
        run(folder, "qemu-img", &["convert", "-O", kind, "-o", options, "base.raw", name]);
        let disk = open(folder.join(name)).expect("open");
        assert_eq!(disk.layers()[0].format, format, "{name}");
        // QEMU takes a fixed VHD for a raw disk unless it is told.
        run(folder, "qemu-img", &["convert", "-f", kind, "-O", "raw", name, "oracle.raw"]);
        let theirs = std::fs::read(folder.join("oracle.raw")).expect("oracle");
        assert_equal(&read_all(&disk, 100_003), &theirs, name);
    }
}

// --- writing what QEMU does not ------------------------------------------------------------------

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn sum_at(file: &mut [u8], at: usize, len: usize) {
    put(file, at + 4, &[0; 4]);
    let sum = crc32c::crc32c(&file[at..at + len]);
    put(file, at + 4, &sum.to_le_bytes());
}

fn le64(file: &[u8], at: usize) -> u64 {
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
fn active_header(file: &[u8]) -> usize {
    let (first, second) = (64 << 10, 128 << 10);
    if le64(file, first + 8) >= le64(file, second + 8) { first } else { second }
}

/// Offsets of block table and metadata.
fn regions(file: &[u8]) -> (usize, usize) {
    let table = 192 << 10;
    let place = |index: usize| le64(file, table + 16 + index * 32 + 16) as usize;
    let bat_first = file[table + 16..table + 20] == 0x2DC2_7766_u32.to_le_bytes();
    if bat_first { (place(0), place(1)) } else { (place(1), place(0)) }
}

/// Turns an empty dynamic image into a child of `parent` in which 1 MiB block 1 is whole, block 2 is
/// partial (sectors 1 and 100..200 are its own), block 3 is zero.
fn differencing(folder: &Path, child: &str, parent: &str, linkage: &str) {
    run(
        folder,
        "qemu-img",
        &["create", "-q", "-f", "vhdx", "-o", "block_size=1M,block_state_zero=off", child, "64M"],
    );
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
    // Blocks at the end of the file: bitmap of chunk 0, block 1, block 2.
    let end = file.len().next_multiple_of(MIB);
    let mut bitmap = vec![0_u8; MIB];
    let sectors = MIB / 512;
    for sector in [2 * sectors + 1].into_iter().chain(2 * sectors + 100..2 * sectors + 200) {
        bitmap[sector / 8] |= 1 << (sector % 8);
    }
    file.resize(end, 0);
    file.extend(bitmap);
    file.extend(noise(31, MIB));
    file.extend(noise(32, MIB));
    let ratio = (1 << 23) * 512 / MIB;
    for (index, value) in [(1, (end + MIB) | 6), (2, (end + 2 * MIB) | 7), (3, 2), (ratio, end | 6)]
    {
        put(&mut file, bat + index * 8, &(value as u64).to_le_bytes());
    }
    std::fs::write(path, file).expect("child");
}

fn expected_over(parent: &[u8]) -> Vec<u8> {
    let mut want = parent.to_vec();
    put(&mut want, MIB, &noise(31, MIB));
    let own = noise(32, MIB);
    put(&mut want, 2 * MIB + 512, &own[512..1024]);
    put(&mut want, 2 * MIB + 51_200, &own[51_200..102_400]);
    put(&mut want, 3 * MIB, &vec![0; MIB]);
    want
}

fn data_write_id(folder: &Path, image: &str) -> String {
    let file = std::fs::read(folder.join(image)).expect("image");
    let header = active_header(&file);
    guid_text(&file[header + 32..header + 48])
}

#[test]
fn a_differencing_chain_is_read_sector_by_sector_and_its_linkage_checked() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-O", "vhdx", "base.raw", "base.vhdx"]);
    differencing(folder, "child.avhdx", "base.vhdx", &data_write_id(folder, "base.vhdx"));
    let base = std::fs::read(folder.join("base.raw")).expect("base");
    let want = expected_over(&base);
    let disk = open(folder.join("child.avhdx")).expect("open");
    assert_eq!(disk.layers().len(), 2);
    assert_equal(&read_all(&disk, 70_001), &want, "child");
    let reader = disk.reader();
    let list = extent_list(&*reader, 0..reader.len_bytes()).expect("extents");
    let own: u64 = list
        .iter()
        .filter(|e| e.content == ExtentContent::Data { depth: 0 })
        .map(|e| e.len_bytes)
        .sum();
    assert_eq!(own, (MIB + 101 * 512) as u64, "what the child holds, by sectors");

    // A second child over the first.
    differencing(folder, "grandchild.avhdx", "child.avhdx", &data_write_id(folder, "child.avhdx"));
    let disk = open(folder.join("grandchild.avhdx")).expect("open");
    assert_equal(&read_all(&disk, MIB), &expected_over(&want), "grandchild");

    // A parent that is not the one it was made over.
    let stranger = "{00000000-1111-2222-3333-444444444444}";
    differencing(folder, "wrong.avhdx", "base.vhdx", stranger);
    let error = open(folder.join("wrong.avhdx")).err().expect("refused");
    assert!(matches!(&error, DiskError::Chain { .. }), "{error}");
    assert!(error.to_string().contains("not the parent"), "{error}");
    differencing(folder, "lost.avhdx", "gone.vhdx", stranger);
    let error = open(folder.join("lost.avhdx")).err().expect("refused").to_string();
    assert!(error.contains("gone.vhdx"), "{error}");
    differencing(folder, "own.avhdx", "own.avhdx", stranger);
    let error = open(folder.join("own.avhdx")).err().expect("refused").to_string();
    assert!(error.contains("comes back"), "{error}");
}

/// Moves sectors of `image` into its log: the file gets garbage, the log the true bytes.
fn into_log(file: &mut [u8], sectors: &[u64], zeros: &[(u64, u64)]) {
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

#[test]
fn a_log_is_replayed_in_memory_and_the_file_stays_as_it_is() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(
        folder,
        "qemu-img",
        &["convert", "-O", "vhdx", "-o", "block_size=1M", "base.raw", "clean.vhdx"],
    );
    let mut file = std::fs::read(folder.join("clean.vhdx")).expect("image");
    let (bat, metadata) = regions(&file);
    let data = file.len() - 3 * MIB;
    let data = data as u64 / 4096 * 4096;
    // The block table, the metadata and some data exist in the log only.
    let sectors = [bat as u64, metadata as u64, metadata as u64 + 65_536, data, data + 8192];
    let unused = regions(&file).1 as u64 + (256 << 10);
    into_log(&mut file, &sectors, &[(unused, 8192)]);
    std::fs::write(folder.join("dirty.vhdx"), &file).expect("dirty");

    let disk = open(folder.join("dirty.vhdx")).expect("open");
    let base = std::fs::read(folder.join("base.raw")).expect("base");
    assert_equal(&read_all(&disk, 100_003), &base, "replayed");
    assert!(disk.layers()[0].notes.iter().any(|note| note.starts_with("2 log entries")));
    assert!(file == std::fs::read(folder.join("dirty.vhdx")).expect("dirty"), "never written");

    // The referee replays the same log, into a copy.
    run(folder, "cp", &["dirty.vhdx", "theirs.vhdx"]);
    run(folder, "qemu-img", &["check", "-q", "-r", "all", "theirs.vhdx"]);
    assert_equal(&by_qemu(folder, "theirs.vhdx"), &base, "replayed by QEMU");

    // An entry cut short ends the sequence before it: then no whole sequence is left.
    let header = active_header(&file);
    let log_at = le64(&file, header + 72) as usize;
    let mut torn = file.clone();
    torn[log_at + 3 * 4096 + 5000] ^= 1;
    std::fs::write(folder.join("torn.vhdx"), &torn).expect("torn");
    let error = open(folder.join("torn.vhdx")).err().expect("refused").to_string();
    assert!(error.contains("no whole sequence"), "{error}");
}

#[test]
fn damage_is_an_error_and_the_second_copy_of_each_table_is_used() {
    let temp = tempfile::tempdir().expect("temp");
    let folder = temp.path();
    base_raw(folder);
    run(folder, "qemu-img", &["convert", "-O", "vhdx", "base.raw", "good.vhdx"]);
    let good = std::fs::read(folder.join("good.vhdx")).expect("image");
    let read = |bytes: &[u8]| {
        std::fs::write(folder.join("bad.vhdx"), bytes).expect("write");
        open(folder.join("bad.vhdx"))
    };
    let mut bad = good.clone();
    bad[(192 << 10) + 100] ^= 1;
    assert!(read(&bad).is_ok(), "second region table");
    bad[(256 << 10) + 100] ^= 1;
    assert!(read(&bad).is_err(), "both region tables");
    let mut bad = good.clone();
    bad[(64 << 10) + 100] ^= 1;
    bad[(128 << 10) + 100] ^= 1;
    let error = read(&bad).err().expect("refused").to_string();
    assert!(error.contains("both headers"), "{error}");
}
