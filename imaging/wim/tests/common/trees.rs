//! Trees made up in memory, and comparing trees.

use super::Random;
use gilt_wim::tree::*;
use sha1::Digest;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// Contents in memory.
#[derive(Default)]
pub struct Memory(pub Vec<Vec<u8>>);

impl ContentSource for Memory {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.0[id.0 as usize].as_slice()))
    }
}

impl Memory {
    pub fn add(&mut self, name: Option<&str>, bytes: &[u8]) -> Stream {
        self.0.push(bytes.to_vec());
        Stream {
            name: name.map(Name::from),
            len_bytes: bytes.len() as u64,
            content: ContentId(self.0.len() as u64 - 1),
        }
    }
}

pub fn entry(name: &str, node: usize) -> Entry {
    Entry { name: name.into(), short_name: Name::default(), node: NodeId(node as u32) }
}

pub fn directory() -> Node {
    Node { attributes: attribute::DIRECTORY, ..Node::default() }
}

/// What a node is, for comparing; everything a WIM keeps.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    attributes: u32,
    times: [u64; 3],
    security: Option<Vec<u8>>,
    streams: Vec<(Option<Name>, Vec<u8>)>,
    extra: Extra,
    short_name: Name,
    /// The first path with the same node.
    same_as: String,
}

/// Everything in a tree by path.
pub fn facts(tree: &Tree, contents: &dyn ContentSource) -> BTreeMap<String, Facts> {
    let mut paths: BTreeMap<String, (NodeId, Name)> = BTreeMap::new();
    paths.insert("/".into(), (Tree::ROOT, Name::default()));
    let mut stack = vec![(Tree::ROOT, String::new())];
    while let Some((id, path)) = stack.pop() {
        for entry in &tree.node(id).entries {
            // Escaped, so that every name is its own path.
            let units: String = entry.name.0.iter().map(|unit| format!("{unit:04x}")).collect();
            let path = format!("{path}/{} {units}", entry.name.to_display());
            paths.insert(path.clone(), (entry.node, entry.short_name.clone()));
            if tree.node(entry.node).is_directory() {
                stack.push((entry.node, path));
            }
        }
    }
    let mut first: BTreeMap<NodeId, String> = BTreeMap::new();
    paths
        .iter()
        .map(|(path, (id, short_name))| {
            let node = tree.node(*id);
            let mut streams: Vec<(Option<Name>, Vec<u8>)> = node
                .streams
                .iter()
                // Empty contents and none are one in a WIM.
                .filter(|stream| stream.name.is_some() || stream.len_bytes > 0)
                .map(|stream| {
                    let mut bytes = Vec::new();
                    contents.open(stream.content).unwrap().read_to_end(&mut bytes).unwrap();
                    assert_eq!(bytes.len() as u64, stream.len_bytes);
                    (stream.name.clone(), sha1::Sha1::digest(&bytes).to_vec())
                })
                .collect();
            streams.sort();
            let same_as = first.entry(*id).or_insert_with(|| path.clone()).clone();
            let facts = Facts {
                attributes: node.attributes,
                times: [node.created.0, node.accessed.0, node.modified.0],
                security: node.security.map(|id| tree.security[id.0 as usize].to_vec()),
                streams,
                extra: node.extra.as_deref().cloned().unwrap_or_default(),
                short_name: short_name.clone(),
                same_as,
            };
            (path.clone(), facts)
        })
        .collect()
}

pub fn assert_same_tree(
    expected: (&Tree, &dyn ContentSource),
    found: (&Tree, &dyn ContentSource),
    what: &str,
) {
    let (a, b) = (facts(expected.0, expected.1), facts(found.0, found.1));
    for (path, facts) in &a {
        assert_eq!(Some(facts), b.get(path), "{what}: {path}");
    }
    for path in b.keys() {
        assert!(a.contains_key(path), "{what}: {path} is too much");
    }
}

/// A self-relative descriptor: `O:SYG:SYD:` with one allowed entry whose mask varies.
pub fn descriptor(mask: u32) -> Box<[u8]> {
    let mut out = vec![1, 0, 0x04, 0x80, 20, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0];
    let system = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    out.extend_from_slice(&system);
    out.extend_from_slice(&system);
    out.extend_from_slice(&[2, 0, 28, 0, 1, 0, 0, 0]);
    out.extend_from_slice(&[0, 0, 20, 0]);
    out.extend_from_slice(&mask.to_le_bytes());
    out.extend_from_slice(&system);
    out.into()
}

/// A Windows-like tree with everything a WIM can hold, drawn from `random`.
pub fn windows_tree(random: &mut Random) -> (Tree, Memory) {
    let mut memory = Memory::default();
    let mut tree = Tree { nodes: vec![directory()], security: Vec::new() };
    let mut descriptors = random.below(4) as u32;
    if random.below(4) == 0 {
        descriptors = 0;
    }
    tree.security = (0..descriptors).map(descriptor).collect();
    decorate(&mut tree, random, Tree::ROOT, false);
    let count = 1 + random.below(40) as usize;
    let mut directories = vec![0usize];
    let mut files: Vec<usize> = Vec::new();
    for number in 0..count {
        let parent = directories[random.below(directories.len() as u64) as usize];
        let name = random_name(random, number);
        // Sometimes another name of a file there is.
        if !files.is_empty() && random.below(8) == 0 {
            let node = files[random.below(files.len() as u64) as usize];
            tree.nodes[parent].entries.push(entry_named(name, node));
            continue;
        }
        let node = tree.nodes.len();
        tree.nodes.push(Node::default());
        let mut new = entry_named(name, node);
        match random.below(10) {
            0..=2 => {
                tree.nodes[node].attributes = attribute::DIRECTORY;
                directories.push(node);
            }
            3 => {
                let is_directory = random.below(2) == 0;
                add_link(&mut tree.nodes[node], random, is_directory);
            }
            _ => {
                tree.nodes[node].attributes = attribute::ARCHIVE;
                let bytes = random_bytes(random);
                let stream = memory.add(None, &bytes);
                tree.nodes[node].streams.push(stream);
                files.push(node);
                if random.below(4) == 0 {
                    new.short_name = format!("SHORT~{number}.X").as_str().into();
                }
            }
        }
        if random.below(6) == 0 {
            for stream in 0..1 + random.below(3) {
                let bytes = random_bytes(random);
                let name = format!("stream{stream}");
                let stream = memory.add(Some(&name), &bytes);
                tree.nodes[node].streams.push(stream);
            }
        }
        decorate(&mut tree, random, NodeId(node as u32), true);
        tree.nodes[parent].entries.push(new);
    }
    (tree, memory)
}

fn entry_named(name: Name, node: usize) -> Entry {
    Entry { name, short_name: Name::default(), node: NodeId(node as u32) }
}

/// Distinct by its number, even without case.
fn random_name(random: &mut Random, number: usize) -> Name {
    let alphabets = ["abc.-_ ", "ABZ09", "äöü€ß", "日本語", "😀x", "\u{d7ff}\u{e000}"];
    let alphabet: Vec<char> = alphabets[random.below(6) as usize].chars().collect();
    let mut name = format!("{number}");
    for _ in 0..random.below(12) {
        name.push(alphabet[random.below(alphabet.len() as u64) as usize]);
    }
    let name = name.trim_end_matches([' ', '.']);
    Name::from(if name.is_empty() { "x" } else { name })
}

fn random_bytes(random: &mut Random) -> Vec<u8> {
    let sizes = [0, 1, 2, 100, 4095, 32767, 32768, 32769, 65536, 70000, 131_073];
    let size = sizes[random.below(sizes.len() as u64) as usize];
    match random.below(4) {
        // Often the same few contents.
        0 => vec![random.below(3) as u8; size],
        1 => random.bytes(size),
        _ => random.words(size),
    }
}

fn add_link(node: &mut Node, random: &mut Random, is_directory: bool) {
    node.attributes = attribute::REPARSE_POINT;
    let mut reparse = gilt_wim::unix_names::reparse_from_target(b"some/where").unwrap();
    if is_directory {
        node.attributes |= attribute::DIRECTORY;
        if random.below(2) == 0 {
            let target: Vec<u8> =
                r"\??\C:\target".encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let bytes = target.len() as u16 - 2;
            let mut data = Vec::new();
            for field in [0, bytes, bytes + 2, 0] {
                data.extend_from_slice(&field.to_le_bytes());
            }
            data.extend_from_slice(&target);
            data.extend_from_slice(&[0; 2]);
            reparse.tag = reparse_tag::MOUNT_POINT;
            reparse.data = data.into();
        }
    }
    reparse.flags = random.below(2) as u16;
    node.extra_mut().reparse = Some(reparse);
}

/// Times, descriptor, and rare attributes.
fn decorate(tree: &mut Tree, random: &mut Random, id: NodeId, rare: bool) {
    let descriptors = tree.security.len() as u64;
    let node = &mut tree.nodes[id.0 as usize];
    let time = |random: &mut Random| FileTime(0x01d0_0000_0000_0000 + random.below(1 << 50));
    (node.created, node.accessed, node.modified) = (time(random), time(random), time(random));
    if random.below(3) == 0 {
        node.attributes |= attribute::HIDDEN | attribute::SYSTEM;
    }
    if descriptors > 0 {
        node.security = Some(SecurityId(random.below(descriptors) as u32));
    }
    if !rare {
        return;
    }
    match random.below(12) {
        0 => node.extra_mut().object_id = Some(random.bytes(16).into()),
        1 => node.extra_mut().object_id = Some(random.bytes(64).into()),
        2 => {
            let unix = UnixData { uid: 1, gid: 2, mode: 0o100_644, rdev: 0 };
            let extra = node.extra_mut();
            extra.unix = Some(unix);
            extra.xattrs =
                vec![Xattr { name: b"user.x".as_slice().into(), value: random.bytes(9).into() }];
        }
        3 => {
            // One entry of FILE_FULL_EA_INFORMATION: flags 0, name LXUID, four bytes.
            let mut ea = vec![0, 0, 0, 0, 0, 5, 4, 0];
            ea.extend_from_slice(b"LXUID\0");
            ea.extend_from_slice(&random.bytes(4));
            node.extra_mut().eas = Some(ea.into());
        }
        4 => {
            let item = TaggedItem { tag: 0x7777_0000, data: random.bytes(11).into() };
            node.extra_mut().unknown.push(item);
        }
        _ => {}
    }
}
