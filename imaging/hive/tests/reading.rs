//! Hives made by hivex, read by us and by hivex.

mod support;

use std::fmt::Write as _;

use gilt_hive::{Dirty, Error, Hive, Kind, Recovery};
use support::{empty_hive, exported, merge, ours};

fn hive_of(reg: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hive");
    std::fs::write(&path, empty_hive()).unwrap();
    merge(&path, reg);
    (dir, path)
}

fn open(path: &std::path::Path) -> Hive {
    Hive::open(std::fs::read(path).unwrap(), &[], Dirty::Refuse).unwrap()
}

#[test]
fn values_of_all_types_are_read_as_hivex_reads_them() {
    let (_dir, path) = hive_of(concat!(
        "[HIVE\\Microsoft\\Windows NT\\CurrentVersion]\r\n",
        "\"ProductName\"=\"Windows 10 Pro\"\r\n",
        "\"UBR\"=dword:000007c3\r\n",
        "@=\"default\"\r\n",
        "\"Multi\"=hex(7):61,00,62,00,00,00,63,00,00,00,00,00\r\n",
        "\"Quad\"=hex(b):01,02,03,04,05,06,07,08\r\n",
        "\"Big\"=hex(5):00,00,01,02\r\n",
        "\"Empty\"=hex:\r\n",
        "\"Expand\"=hex(2):25,00,41,00,25,00,00,00\r\n",
        "\"Umläut 日本\"=hex(1):67,00,72,00,fc,00,6e,00,00,00\r\n",
    ));
    let hive = open(&path);
    assert_eq!(hive.recovery(), Recovery::Clean);
    assert_eq!(ours(&hive), exported(&path));

    let key = hive.key(r"microsoft\WINDOWS nt\CurrentVersion").unwrap().unwrap();
    assert_eq!(key.name(), "CurrentVersion");
    assert_eq!(key.text("productname").unwrap().as_deref(), Some("Windows 10 Pro"));
    assert_eq!(key.dword("UBR").unwrap(), Some(1987));
    let value = |name| key.value(name).unwrap().unwrap();
    assert_eq!(value("").text().unwrap(), "default");
    assert_eq!(value("Multi").texts().unwrap(), ["ab", "c"]);
    assert_eq!(value("Quad").qword().unwrap(), 0x0807_0605_0403_0201);
    assert_eq!(value("Big").dword().unwrap(), 0x0102);
    assert_eq!(value("Expand").kind(), Kind::ExpandString);
    assert_eq!(value("Umläut 日本").text().unwrap(), "grün");
    assert!(matches!(value("UBR").text(), Err(Error::WrongType { .. })));
    assert!(hive.key(r"Microsoft\nothing\here").unwrap().is_none());
}

#[test]
fn many_keys_and_values_and_large_values_are_read_as_hivex_reads_them() {
    let mut reg = String::new();
    for i in 0..2000 {
        let _ = write!(reg, "[HIVE\\Packages\\Package_{i}~31bf3856ad364e35~amd64~~10.0.{i}.1]\r\n");
        for j in 0..i % 4 {
            let _ = write!(reg, "\"CurrentState{j}\"=dword:{:08x}\r\n", i * j);
        }
    }
    let mut long = String::new();
    for i in 0..12_000 {
        let _ = write!(long, "{:02x},", i % 251);
    }
    let _ = write!(reg, "[HIVE\\Large]\r\n\"value\"=hex:{}\r\n", long.trim_end_matches(','));
    let mut deep = "[HIVE".to_owned();
    for depth in 0..200 {
        let _ = write!(deep, "\\d{depth}");
    }
    let _ = write!(reg, "{deep}]\r\n\"bottom\"=dword:00000001\r\n");
    let (_dir, path) = hive_of(&reg);
    let hive = open(&path);
    let read = ours(&hive);
    assert!(read.len() > 2200);
    assert_eq!(read, exported(&path));
}

#[test]
fn values_in_segments_are_read_whole() {
    // hivex does not write them; the regf crate does, and hivex reads them.
    let mut builder = regf::HiveBuilder::new_with_name("ROOT").unwrap();
    let root = builder.root_offset();
    let data: Vec<u8> = (0..50_000u32).map(|i| (i % 253) as u8).collect();
    builder.add_value(root, "segments", regf::DataType::Binary, &data).unwrap();
    let bytes = builder.to_bytes().unwrap();
    let hive = Hive::open(bytes, &[], Dirty::Refuse).unwrap();
    let value = hive.root().unwrap().value("SEGMENTS").unwrap().unwrap();
    assert_eq!(value.bytes(), data);
}

#[test]
fn a_loop_of_keys_ends_with_its_place() {
    let (_dir, path) = hive_of("[HIVE\\a\\b]\r\n[HIVE\\a\\c]\r\n");
    let mut bytes = std::fs::read(&path).unwrap();
    // The list of a's subkeys gets a itself as its first.
    let find = |bytes: &[u8], name: &[u8]| {
        (0x1000..bytes.len() - 0x60)
            .step_by(8)
            .find(|&at| {
                &bytes[at + 4..at + 6] == b"nk"
                    && &bytes[at + 4 + 0x4C..at + 4 + 0x4C + name.len()] == name
                    && bytes[at + 4 + 0x48] == name.len() as u8
            })
            .expect("the key")
    };
    let a = find(&bytes, b"a");
    let list = u32::from_le_bytes(bytes[a + 4 + 0x1C..a + 8 + 0x1C].try_into().unwrap()) as usize;
    let own = (a as u32 - 0x1000).to_le_bytes();
    bytes[0x1000 + list + 8..0x1000 + list + 12].copy_from_slice(&own);
    let hive = Hive::open(bytes, &[], Dirty::Refuse).unwrap();
    let error = hive.walk(|_, _| Ok(())).unwrap_err();
    assert_eq!(error, Error::Corrupt { at: a as u64, what: "key lies in two places or in itself" });
}

#[test]
fn no_damage_makes_it_panic_or_run_on() {
    let (_dir, path) = hive_of(concat!(
        "[HIVE\\one\\two\\three]\r\n\"v\"=\"text\"\r\n\"w\"=dword:00000001\r\n",
        "[HIVE\\one\\four]\r\n@=hex(7):61,00,00,00,00,00\r\n"
    ));
    let bytes = std::fs::read(&path).unwrap();
    let used = bytes.len().min(0x1800);
    for at in (0..0x200).chain(0x1000..used) {
        for value in [0x00, 0xFF, 0x80, bytes[at] ^ 1] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let Ok(hive) = Hive::open(damaged, &[], Dirty::Read) else { continue };
            let _ = hive.walk(|_, key| {
                let _ = key.class_name();
                for value in key.values()? {
                    let _ = (value.text(), value.texts(), value.qword());
                }
                Ok(())
            });
        }
    }
    for len in (0..bytes.len()).step_by(97) {
        if let Ok(hive) = Hive::open(bytes[..len].to_vec(), &[], Dirty::Read) {
            let _ = hive.walk(|_, key| key.values().map(drop));
        }
    }
}
