//! Dirty hives and their logs. The logs are written here, with the hash of the regf crate, from
//! the differences between two hives that hivex made.

mod support;

use gilt_hive::{Dirty, Error, Hive, Recovery};
use support::{Contents, empty_hive, exported, merge, ours};

const BASE: usize = 4096;

struct Two {
    _dir: tempfile::TempDir,
    before: Vec<u8>,
    after: Vec<u8>,
    contents: Contents,
}

/// A hive before and after a change that makes it longer.
fn two() -> Two {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hive");
    std::fs::write(&path, empty_hive()).unwrap();
    merge(&path, "[HIVE\\Setup]\r\n\"SetupType\"=dword:00000000\r\n\"CmdLine\"=\"\"\r\n");
    let before = std::fs::read(&path).unwrap();
    let mut reg =
        "[HIVE\\Setup]\r\n\"SetupType\"=dword:00000002\r\n\"CmdLine\"=\"oobe\\\\windeploy.exe\"\r\n"
            .to_owned();
    for i in 0..100 {
        reg += &format!("[HIVE\\New\\key {i}]\r\n\"value\"=dword:{i:08x}\r\n");
    }
    merge(&path, &reg);
    let after = std::fs::read(&path).unwrap();
    assert!(after.len() > before.len());
    let contents = exported(&path);
    Two { _dir: dir, before, after, contents }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A base block with these sequences and a fitting checksum.
fn seal(base: &mut [u8], primary: u32, secondary: u32, file_type: u32) {
    put(base, 4, primary);
    put(base, 8, secondary);
    put(base, 28, file_type);
    let mut whole = base[..512].to_vec();
    whole.resize(4096, 0);
    put(base, 508, regf::calculate_checksum(&whole));
}

fn dirty(mut hive: Vec<u8>) -> Vec<u8> {
    seal(&mut hive, 8, 7, 0);
    hive
}

/// An entry that writes `pages` (512 bytes each, by number) of `after`'s bins.
fn entry(sequence: u32, after: &[u8], pages: &[usize]) -> Vec<u8> {
    let bins = &after[BASE..];
    let mut entry = b"HvLE".to_vec();
    entry.resize(40, 0);
    for page in pages {
        entry.extend_from_slice(&(*page as u32 * 512).to_le_bytes());
        entry.extend_from_slice(&512u32.to_le_bytes());
    }
    for page in pages {
        entry.extend_from_slice(&bins[page * 512..(page + 1) * 512]);
    }
    entry.resize(entry.len().next_multiple_of(512), 0);
    let size = entry.len() as u32;
    put(&mut entry, 4, size);
    put(&mut entry, 12, sequence);
    put(&mut entry, 16, bins.len() as u32);
    put(&mut entry, 20, pages.len() as u32);
    let hash = regf::marvin32_hash(&entry[40..], regf::MARVIN32_SEED);
    entry[24..32].copy_from_slice(&hash.to_le_bytes());
    let hash = regf::marvin32_hash(&entry[..32], regf::MARVIN32_SEED);
    entry[32..40].copy_from_slice(&hash.to_le_bytes());
    entry
}

fn log(after: &[u8], entries: &[Vec<u8>]) -> Vec<u8> {
    let mut log = after[..512].to_vec();
    seal(&mut log, 7, 7, 6);
    for entry in entries {
        log.extend_from_slice(entry);
    }
    log
}

fn changed_pages(two: &Two) -> Vec<usize> {
    let (before, after) = (&two.before[BASE..], &two.after[BASE..]);
    (0..after.len() / 512)
        .filter(|&page| {
            let range = page * 512..(page + 1) * 512;
            before.get(range.clone()) != Some(&after[range])
        })
        .collect()
}

#[test]
fn a_dirty_hive_is_completed_from_two_logs_in_any_order() {
    let two = two();
    let pages = changed_pages(&two);
    let (first, rest) = pages.split_at(pages.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    let log1 = log(&two.after, &[entry(7, &two.after, first)]);
    let log2 = log(&two.after, &[entry(8, &two.after, second), entry(9, &two.after, third)]);
    for logs in [[log1.clone(), log2.clone()], [log2.clone(), log1.clone()]] {
        let hive = Hive::open(dirty(two.before.clone()), &logs, Dirty::Refuse).unwrap();
        assert_eq!(hive.recovery(), Recovery::Replayed { entries: 3 });
        assert_eq!(ours(&hive), two.contents);
    }

    // What an earlier use of the file left behind its last entry is not applied.
    let stale = entry(3, &two.before, &[0, 1]);
    let mut log2_and_stale = log2;
    log2_and_stale.extend_from_slice(&stale);
    let logs = [log1, log2_and_stale];
    let hive = Hive::open(dirty(two.before.clone()), &logs, Dirty::Refuse).unwrap();
    assert_eq!(ours(&hive), two.contents);
}

#[test]
fn a_torn_entry_ends_the_replay() {
    let two = two();
    let pages = changed_pages(&two);
    let mut torn = entry(8, &two.after, &pages);
    let last = torn.len() - 600;
    torn[last] ^= 1;
    let logs = [log(&two.after, &[entry(7, &two.before, &[0]), torn])];
    let hive = Hive::open(dirty(two.before.clone()), &logs, Dirty::Refuse);
    // The first entry names the longer bins but brings none of the new pages.
    if let Ok(hive) = hive {
        assert_eq!(hive.recovery(), Recovery::Replayed { entries: 1 });
    }
}

#[test]
fn a_log_of_the_older_form_is_applied() {
    let two = two();
    let pages = changed_pages(&two);
    let count = (two.after.len() - BASE) / 512;
    let mut log = two.after[..512].to_vec();
    seal(&mut log, 7, 7, 1);
    log.extend_from_slice(b"DIRT");
    let mut bitmap = vec![0u8; count.div_ceil(8)];
    for page in &pages {
        bitmap[page / 8] |= 1 << (page % 8);
    }
    log.extend_from_slice(&bitmap);
    log.resize(log.len().next_multiple_of(512), 0);
    for page in &pages {
        log.extend_from_slice(&two.after[BASE + page * 512..BASE + (page + 1) * 512]);
    }
    let mut before = two.before.clone();
    before[12..20].copy_from_slice(&two.after[12..20]);
    let hive = Hive::open(dirty(before), &[log], Dirty::Refuse).unwrap();
    assert_eq!(hive.recovery(), Recovery::Replayed { entries: 1 });
    assert_eq!(ours(&hive), two.contents);
}

#[test]
fn a_dirty_hive_without_a_fitting_log_is_refused_or_read_as_told() {
    let two = two();
    let refused = Hive::open(dirty(two.before.clone()), &[vec![0; 512]], Dirty::Refuse);
    assert_eq!(refused.err(), Some(Error::Dirty { primary: 8, secondary: 7, logs: 1 }));
    let hive = Hive::open(dirty(two.before.clone()), &[], Dirty::Read).unwrap();
    assert_eq!(hive.recovery(), Recovery::Incomplete);
    // A clean hive ignores its logs.
    let stray = log(&two.after, &[entry(7, &two.after, &changed_pages(&two))]);
    let hive = Hive::open(two.before.clone(), &[stray], Dirty::Refuse).unwrap();
    assert_eq!(hive.recovery(), Recovery::Clean);
    assert_ne!(ours(&hive), two.contents);
}
