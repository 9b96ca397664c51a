//! What other writers got wrong, one test each.
#![cfg(unix)]

mod common;

use common::trees::{Memory, directory, entry};
use common::{Random, run, seven_zip_test, text, wimlib};
use gilt_wim::tree::*;
use gilt_wim::{
    Compression, Error, ExtractOptions, ImageInfo, ImageSource, Level, Wim, WindowsInfo,
    WriteOptions, create, extract_tree, header_flag,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn options() -> WriteOptions {
    WriteOptions {
        level: Level::Fast,
        threads: 2,
        sync: false,
        creation_time: Some(FileTime(0x01d9_0000_1234_5678)),
        ..WriteOptions::default()
    }
}

fn write(tree: &Tree, memory: &Memory, options: &WriteOptions) -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    let image = ImageSource { tree, contents: memory, info: ImageInfo::named("x") };
    create(&path, &[image], options, &()).unwrap();
    (temp, path)
}

fn file(memory: &mut Memory, bytes: &[u8]) -> Node {
    let stream = memory.add(None, bytes);
    Node { attributes: attribute::ARCHIVE, streams: vec![stream], ..Node::default() }
}

fn tree_of(mut children: Vec<(&str, Node)>) -> Tree {
    let mut nodes = vec![directory()];
    for (number, (name, node)) in children.drain(..).enumerate() {
        nodes[0].entries.push(entry(name, number + 1));
        nodes.push(node);
    }
    Tree { nodes, security: Vec::new() }
}

fn junction() -> Node {
    let mut node = directory();
    node.attributes |= attribute::REPARSE_POINT;
    let reparse = Reparse { tag: reparse_tag::MOUNT_POINT, flags: 1, data: vec![7; 40].into() };
    node.extra_mut().reparse = Some(reparse);
    node
}

/// A dentry as it lies in the metadata: its hash, and its stream entries by name.
struct RawDentry {
    hash: [u8; 20],
    streams: Vec<(String, [u8; 20])>,
    link_field: u64,
    short_name_bytes: u16,
}

/// The dentries in the root directory of image 1.
fn raw_dentries(path: &Path) -> Vec<(String, RawDentry)> {
    let bytes = Wim::open(path).unwrap().metadata(1).unwrap();
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let name = |at: usize, len: usize| {
        let units: Vec<u16> = (0..len / 2).map(|i| u16_at(at + 2 * i)).collect();
        String::from_utf16_lossy(&units)
    };
    let security = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let mut at = u64_at(security.next_multiple_of(8) + 16) as usize;
    let mut out = Vec::new();
    while u64_at(at) > 8 {
        let mut next = (at + u64_at(at) as usize).next_multiple_of(8);
        let mut streams = Vec::new();
        for _ in 0..u16_at(at + 96) {
            let text = name(next + 38, u16_at(next + 36).into());
            streams.push((text, bytes[next + 16..next + 36].try_into().unwrap()));
            next = (next + u64_at(next) as usize).next_multiple_of(8);
        }
        let dentry = RawDentry {
            hash: bytes[at + 64..at + 84].try_into().unwrap(),
            streams,
            link_field: u64_at(at + 88),
            short_name_bytes: u16_at(at + 98),
        };
        out.push((name(at + 102, u16_at(at + 100).into()), dentry));
        at = next;
    }
    out
}

fn dentry(path: &Path, wanted: &str) -> RawDentry {
    raw_dentries(path).into_iter().find(|(name, _)| name == wanted).unwrap().1
}

const NONE: [u8; 20] = [0; 20];

#[test]
fn junction_has_its_hash_in_the_dentry_which_windows_8_setup_wants() {
    let (_temp, path) = write(&tree_of(vec![("j", junction())]), &Memory::default(), &options());
    let raw = dentry(&path, "j");
    assert_ne!(raw.hash, NONE);
    assert!(raw.streams.is_empty());
}

#[test]
fn directory_with_a_named_stream_has_no_entry_for_contents_which_dism_refuses() {
    let mut memory = Memory::default();
    let mut node = directory();
    node.streams.push(memory.add(Some("ads"), b"x"));
    let (_temp, path) = write(&tree_of(vec![("d", node)]), &memory, &options());
    let raw = dentry(&path, "d");
    assert_eq!(raw.hash, NONE);
    let names: Vec<&str> = raw.streams.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ads"]);
}

#[test]
fn junction_with_a_named_stream_has_both_in_entries_and_none_for_contents() {
    let mut memory = Memory::default();
    let mut node = junction();
    node.streams.push(memory.add(Some("ads"), b"x"));
    let (_temp, path) = write(&tree_of(vec![("j", node)]), &memory, &options());
    let raw = dentry(&path, "j");
    assert_eq!(raw.hash, NONE);
    let names: Vec<&str> = raw.streams.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "ads"]);
    assert_ne!(raw.streams[0].1, NONE);
}

#[test]
fn file_with_streams_has_reparse_data_then_contents_then_names_in_entries() {
    let mut memory = Memory::default();
    let mut node = file(&mut memory, b"contents");
    node.streams.push(memory.add(Some("ads"), b"x"));
    node.attributes |= attribute::REPARSE_POINT;
    node.extra_mut().reparse =
        Some(Reparse { tag: 0x8000_1234, flags: 0, data: vec![1; 20].into() });
    let mut plain = file(&mut memory, b"contents");
    plain.streams.push(memory.add(Some("ads"), b"x"));
    let tree = tree_of(vec![("both", node), ("plain", plain)]);
    let (_temp, path) = write(&tree, &memory, &options());
    let raw = dentry(&path, "both");
    let names: Vec<&str> = raw.streams.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((raw.hash, names), (NONE, vec!["", "", "ads"]));
    let wim = Wim::open(&path).unwrap();
    assert_eq!(wim.find(Sha1(raw.streams[0].1)).unwrap().size_bytes, 20);
    assert_eq!(wim.find(Sha1(raw.streams[1].1)).unwrap().size_bytes, 8);
    let raw = dentry(&path, "plain");
    assert_eq!((raw.hash, raw.streams[0].0.as_str(), raw.streams.len()), (NONE, "", 2));
}

#[test]
fn link_nobody_rewrote_stays_marked_so_and_the_header_claims_nothing() {
    for (flags, claims) in [(1u16, false), (0, true)] {
        let mut link = Node { attributes: attribute::REPARSE_POINT, ..Node::default() };
        let mut reparse = gilt_wim::unix_names::reparse_from_target(b"/Program Files/x").unwrap();
        assert_eq!(reparse.flags, 1, "an absolute link is stored as it is");
        reparse.flags = flags;
        link.extra_mut().reparse = Some(reparse);
        let (_temp, path) = write(&tree_of(vec![("l", link)]), &Memory::default(), &options());
        assert_eq!(dentry(&path, "l").link_field >> 48, u64::from(flags));
        let wim = Wim::open(&path).unwrap();
        assert_eq!(wim.header().flags & header_flag::RP_FIX != 0, claims);
        assert_eq!(wim.load_tree(1).unwrap().0.nodes[1].reparse().unwrap().flags, flags);
    }
}

#[test]
fn windows_block_has_what_mdt_and_configmgr_read_and_flags_agree_with_the_edition() {
    let tree = tree_of(Vec::new());
    let windows = WindowsInfo {
        architecture: Some(9),
        product_name: Some("Windows 11 Pro".into()),
        edition_id: Some("Professional".into()),
        installation_type: Some("Client".into()),
        product_type: Some("WinNT".into()),
        languages: vec!["en-US".into(), "de-DE".into()],
        default_language: Some("en-US".into()),
        version_major: Some(10),
        version_minor: Some(0),
        version_build: Some(26100),
        service_pack_build: Some(4061),
        service_pack_level: Some(0),
        system_root: Some("WINDOWS".into()),
        ..WindowsInfo::default()
    };
    let mut info = ImageInfo::named("Windows 11");
    info.set_windows(&windows);
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    let memory = Memory::default();
    let image = ImageSource { tree: &tree, contents: &memory, info };
    create(&path, &[image], &options(), &()).unwrap();
    let wim = Wim::open(&path).unwrap();
    assert_eq!(wim.images()[0].windows(), Some(windows));
    assert_eq!(wim.images()[0].flags(), Some("Professional"));
    let text = wimlib(&["info", text(&path), "1"]);
    for part in ["x86_64", "Professional", "26100", "4061", "de-DE", "Client"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut elements = wim.xml().child("IMAGE").unwrap().children.iter().map(|e| e.name.as_str());
    assert_eq!(elements.next(), Some("DIRCOUNT"));
    assert_eq!(wim.xml().children[0].name, "TOTALBYTES");
}

#[test]
fn extended_attributes_of_ntfs_are_stored_which_offline_capture_of_wimlib_drops() {
    let mut ea = vec![0, 0, 0, 0, 0x80, 5, 4, 0];
    ea.extend_from_slice(b"LXUID\0\x01\x02\x03\x04");
    let mut memory = Memory::default();
    let mut node = file(&mut memory, b"x");
    node.extra_mut().eas = Some(ea.clone().into());
    let (_temp, path) = write(&tree_of(vec![("f", node)]), &memory, &options());
    let (tree, _) = Wim::open(&path).unwrap().load_tree(1).unwrap();
    assert_eq!(tree.nodes[1].extra.as_ref().unwrap().eas.as_deref(), Some(&ea[..]));
}

#[test]
fn contents_changed_under_the_same_size_and_time_are_not_taken_from_a_seed() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("d");
    fs::create_dir(&dir).unwrap();
    let capture = |to: &Path, lenders: Vec<Wim>| {
        let (tree, contents) = gilt_wim::capture_directory(&dir, &Default::default()).unwrap();
        let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("x") };
        create(to, &[image], &WriteOptions { lenders, ..options() }, &()).unwrap();
    };
    let (one, two) = (temp.path().join("1.wim"), temp.path().join("2.wim"));
    for (bytes, to) in [("old", &one), ("new", &two)] {
        fs::write(dir.join("f"), bytes).unwrap();
        run("touch", &["-d", "2020-01-01 UTC", text(&dir.join("f"))]);
        let lenders = if to == &two { vec![Wim::open(&one).unwrap()] } else { Vec::new() };
        capture(to, lenders);
    }
    let (tree, contents) = Wim::open(&two).unwrap().load_tree(1).unwrap();
    let stream = &tree.nodes[1].streams[0];
    let mut found = String::new();
    std::io::Read::read_to_string(&mut contents.open(stream.content).unwrap(), &mut found).unwrap();
    assert_eq!(found, "new");
}

#[test]
fn blob_table_and_xml_are_uncompressed_and_chunks_are_32_kib() {
    let mut memory = Memory::default();
    let node = file(&mut memory, &Random(1).words(100_000));
    for compression in [Compression::Xpress, Compression::Lzx] {
        let tree = tree_of(vec![("f", node.clone())]);
        let (_temp, path) = write(&tree, &memory, &WriteOptions { compression, ..options() });
        let wim = Wim::open(&path).unwrap();
        let header = wim.header();
        assert!(!header.blob_table.is_compressed() && !header.xml.is_compressed());
        assert_eq!(header.blob_table.stored_bytes % 50, 0);
        assert_eq!((header.version, header.chunk_bytes), (0x10d00, 32768));
        let xml = wim.xml_bytes();
        assert_eq!(&xml[..4], &[0xff, 0xfe, b'<', 0]);
    }
}

#[test]
fn several_solid_resources_are_numbered_through_as_one() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("x.wim");
    let mut dirs = Vec::new();
    for number in 0..3u64 {
        let dir = temp.path().join(number.to_string());
        fs::create_dir(&dir).unwrap();
        for file in 0..5 {
            let bytes = Random(number * 10 + file).words(30_000 + file as usize * 7000);
            fs::write(dir.join(file.to_string()), bytes).unwrap();
        }
        let verb = if number == 0 { "capture" } else { "append" };
        let chunk = "--solid-chunk-size=32768";
        wimlib(&[verb, text(&dir), text(&path), &format!("n{number}"), "--solid", chunk]);
        dirs.push(dir);
    }
    let wim = Wim::open(&path).unwrap();
    let report = wim.verify(2, &()).unwrap();
    assert!(report.faults.is_empty() && report.missing == 0, "{report:?}");
    for (index, dir) in (1..).zip(&dirs) {
        let (tree, contents) = wim.load_tree(index).unwrap();
        let out = temp.path().join(format!("out{index}"));
        extract_tree(&tree, &contents, &out, &ExtractOptions::default(), &()).unwrap();
        common::assert_same(dir, &out);
    }
}

#[test]
fn incompressible_contents_are_stored_raw_and_in_chunks_of_any_size() {
    let mut memory = Memory::default();
    let large = file(&mut memory, &Random(5).bytes(5_000_000));
    let small = file(&mut memory, &Random(6).bytes(40_000));
    let mut mixed = Random(7).bytes(3_000_000);
    mixed.extend_from_slice(&[0; 1_000_000]);
    let mixed = file(&mut memory, &mixed);
    let tree = tree_of(vec![("large", large), ("small", small), ("mixed", mixed)]);
    for (compression, chunk_bytes) in
        [(Compression::Xpress, 65536), (Compression::Lzx, 32768), (Compression::Lzx, 1 << 17)]
    {
        let options = WriteOptions { compression, chunk_bytes, ..options() };
        let (_temp, path) = write(&tree, &memory, &options);
        let wim = Wim::open(&path).unwrap();
        let raw: Vec<bool> = wim
            .resources()
            .filter(|resource| !resource.is_metadata())
            .map(|resource| !resource.is_compressed())
            .collect();
        assert_eq!(raw, [true, true, false]);
        wimlib(&["verify", text(&path)]);
        assert!(wim.verify(2, &()).unwrap().faults.is_empty());
    }
}

#[test]
fn names_that_differ_in_case_are_kept_and_reported_on_extract() {
    let mut memory = Memory::default();
    let (a, b) = (file(&mut memory, b"1"), file(&mut memory, b"2"));
    let tree = tree_of(vec![("readme", a), ("README", b)]);
    let (temp, path) = write(&tree, &memory, &options());
    let (tree, contents) = Wim::open(&path).unwrap().load_tree(1).unwrap();
    let out = temp.path().join("out");
    let done = extract_tree(&tree, &contents, &out, &ExtractOptions::default(), &()).unwrap();
    assert_eq!(fs::read(out.join("README")).unwrap(), b"2");
    assert_eq!(done.warnings.len(), 1, "{:?}", done.warnings);
    assert!(done.warnings[0].contains("case"));
}

#[test]
fn children_come_in_ntfs_order() {
    let names = ["b", "_", "A", "a1", "ä", "Z", "B1", "^", "10", "9"];
    let tree = tree_of(names.iter().map(|name| (*name, directory())).collect());
    let (_temp, path) = write(&tree, &Memory::default(), &options());
    let found: Vec<String> = raw_dentries(&path).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["10", "9", "A", "a1", "b", "B1", "Z", "^", "_", "ä"]);
}

#[test]
fn hard_links_share_a_group_and_the_short_name_belongs_to_one_of_them() {
    let mut memory = Memory::default();
    let mut tree = tree_of(vec![("long name.txt", file(&mut memory, b"x"))]);
    tree.nodes[0].entries[0].short_name = "LONGNA~1.TXT".into();
    tree.nodes[0].entries.push(entry("other", 1));
    let (_temp, path) = write(&tree, &memory, &options());
    let (a, b) = (dentry(&path, "long name.txt"), dentry(&path, "other"));
    assert!(a.link_field != 0 && a.link_field == b.link_field);
    assert_eq!((a.short_name_bytes, b.short_name_bytes), (24, 0));
    let (tree, _) = Wim::open(&path).unwrap().load_tree(1).unwrap();
    assert_eq!(tree.nodes.len(), 2);
    assert_eq!(Wim::open(&path).unwrap().images()[0].counts().hardlink_bytes, 1);
}

#[test]
fn one_group_id_on_different_files_makes_two_files() {
    // As in install.wim of Windows 7.
    let mut memory = Memory::default();
    let (a, b) = (file(&mut memory, b"first"), file(&mut memory, b"second"));
    let options = WriteOptions { compression: Compression::None, ..options() };
    let mut tree = tree_of(vec![("a", a), ("b", b)]);
    tree.nodes[0].entries.push(entry("a2", 1));
    tree.nodes[0].entries.push(entry("b2", 2));
    let (_temp, path) = write(&tree, &memory, &options);
    let mut metadata = Wim::open(&path).unwrap().metadata(1).unwrap();
    // Groups 1 and 2 -> both 1.
    let mut changed = 0;
    for at in (0..metadata.len() - 96).step_by(8) {
        let is_dentry = (104..120).contains(&metadata[at]) && metadata[at + 1..at + 8] == [0; 7];
        if is_dentry && metadata[at + 88..at + 96] == 2u64.to_le_bytes() {
            metadata[at + 88] = 1;
            changed += 1;
        }
    }
    assert_eq!(changed, 2);
    let patched = patch_metadata(&path, &metadata);
    let (tree, _) = Wim::from_reader(std::sync::Arc::new(patched)).unwrap().load_tree(1).unwrap();
    assert_eq!(tree.nodes.len(), 3);
}

/// The file with the metadata of its one image replaced by bytes of the same length.
fn patch_metadata(path: &Path, metadata: &[u8]) -> Vec<u8> {
    use sha1::Digest;
    let wim = Wim::open(path).unwrap();
    let resource = wim.resources().find(|resource| resource.is_metadata()).unwrap();
    assert_eq!(resource.stored_bytes, metadata.len() as u64, "stored raw");
    let mut bytes = fs::read(path).unwrap();
    let at = resource.offset as usize;
    bytes[at..at + metadata.len()].copy_from_slice(metadata);
    let table = wim.header().blob_table;
    let (start, len) = (table.offset as usize, table.stored_bytes as usize);
    for entry in bytes[start..start + len].chunks_exact_mut(50) {
        if entry[30..] == resource.sha1.0 {
            entry[30..].copy_from_slice(&sha1::Sha1::digest(metadata));
        }
    }
    bytes
}

#[test]
fn metadata_nobody_refers_to_is_no_image() {
    let (_temp, path) = write(
        &tree_of(Vec::new()),
        &Memory::default(),
        &WriteOptions { compression: Compression::None, ..options() },
    );
    let mut bytes = fs::read(&path).unwrap();
    let table = Wim::open(&path).unwrap().header().blob_table;
    // A second metadata entry with no references, as WinPE of WAIK 2.1 has it.
    let start = table.offset as usize;
    let mut entry = bytes[start..start + 50].to_vec();
    entry[26..30].copy_from_slice(&[0; 4]);
    let mut new_table = entry;
    new_table.extend_from_slice(&bytes[start..start + 50]);
    let offset = bytes.len() as u64;
    bytes.extend_from_slice(&new_table);
    bytes[48..56].copy_from_slice(&(100u64 | 2 << 56).to_le_bytes());
    bytes[56..64].copy_from_slice(&offset.to_le_bytes());
    bytes[64..72].copy_from_slice(&100u64.to_le_bytes());
    let wim = Wim::from_reader(std::sync::Arc::new(bytes)).unwrap();
    assert_eq!(wim.image_count(), 1);
    wim.load_tree(1).unwrap();
}

#[test]
fn a_wim_without_images_is_refused() {
    let temp = TempDir::new().unwrap();
    let error = create(temp.path().join("x.wim"), &[], &options(), &()).unwrap_err();
    assert!(matches!(error, Error::Options(_)), "{error}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn odd_or_missing_xml_leaves_the_images_readable() {
    let mut memory = Memory::default();
    let node = file(&mut memory, b"x");
    let (_temp, path) = write(&tree_of(vec![("f", node)]), &memory, &options());
    let good = fs::read(&path).unwrap();
    let xml = Wim::open(&path).unwrap().header().xml;
    let (at, len) = (xml.offset as usize, xml.stored_bytes as usize);
    let mut missing = good.clone();
    missing[72..96].fill(0);
    let mut garbage = good.clone();
    garbage[at..at + len].fill(0xd8);
    let mut cut = good.clone();
    cut[at + len / 2..at + len].fill(0);
    for bytes in [missing, garbage, cut] {
        let wim = Wim::from_reader(std::sync::Arc::new(bytes)).unwrap();
        assert_eq!(wim.image_count(), 1);
        assert_eq!(wim.images().len(), 1);
        assert_eq!(wim.load_tree(1).unwrap().0.nodes.len(), 2);
        assert!(wim.verify(1, &()).unwrap().faults.is_empty());
    }
}

#[test]
fn boot_image_is_named_by_number_and_by_its_metadata() {
    let tree = tree_of(Vec::new());
    let (_temp, path) =
        write(&tree, &Memory::default(), &WriteOptions { boot_index: 1, ..options() });
    let wim = Wim::open(&path).unwrap();
    let metadata = wim.resources().find(|resource| resource.is_metadata()).unwrap();
    assert_eq!(wim.header().boot_index, 1);
    assert_eq!(wim.header().boot_metadata.offset, metadata.offset);
    assert_eq!(wim.header().boot_metadata.stored_bytes, metadata.stored_bytes);
    assert!(wimlib(&["info", text(&path)]).contains("Boot Index:     1"));
}

#[test]
#[ignore = "long: ci/bench wim-trees"]
fn contents_of_exactly_4_gib_and_around_are_right() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("d");
    fs::create_dir(&dir).unwrap();
    for (name, len) in [("less", (4u64 << 30) - 1), ("exact", 4 << 30), ("more", (4 << 30) + 1)] {
        fs::File::create(dir.join(name)).unwrap().set_len(len).unwrap();
    }
    let path = temp.path().join("x.wim");
    let (tree, contents) = gilt_wim::capture_directory(&dir, &Default::default()).unwrap();
    let image = ImageSource { tree: &tree, contents: &contents, info: ImageInfo::named("x") };
    let options = WriteOptions { compression: Compression::Xpress, ..options() };
    create(&path, &[image], &options, &()).unwrap();
    wimlib(&["verify", text(&path)]);
    seven_zip_test(&path);
    assert!(Wim::open(&path).unwrap().verify(2, &()).unwrap().faults.is_empty());
}
