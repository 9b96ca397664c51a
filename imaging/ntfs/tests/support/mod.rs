//! What the tests of whole volumes share: opening an image, and two views of a tree as plain text
//! facts, ours and wimlib's, that can be compared.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gilt_disk::BlockRead;
use gilt_ntfs::{Error, Options, Volume};
use gilt_wim::tree::{ContentSource, NodeId, Tree};
use sha1::{Digest, Sha1};

pub fn disk(image: &Path) -> Arc<dyn BlockRead> {
    gilt_disk::open(image).expect("opening the image").reader()
}

pub fn open(image: &Path) -> Result<Volume, Error> {
    Volume::open(disk(image), &Options::default())
}

/// What one name in the tree leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub attributes: u32,
    pub short_name: String,
    /// Hex of the descriptor.
    pub security: String,
    /// Seconds since 1970: created, written, accessed.
    pub times: [i64; 3],
    /// Hex of the 16 or 64 bytes, without birth ids that are zero; empty for none.
    pub object_id: String,
    pub reparse_tag: u32,
    pub link_count: usize,
    /// SHA-1 and length by stream name; `""` is the unnamed one, `"*"` the reparse data.
    pub streams: BTreeMap<String, (String, u64)>,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha1_of_stream(volume: &Volume, id: gilt_wim::tree::ContentId) -> (String, u64) {
    let mut hash = Sha1::new();
    let mut reader = volume.open(id).expect("opening a stream");
    let mut buffer = vec![0; 100_003];
    let mut len = 0;
    loop {
        let n = reader.read(&mut buffer).expect("reading a stream");
        if n == 0 {
            return (hex(&hash.finalize()), len);
        }
        hash.update(&buffer[..n]);
        len += n as u64;
    }
}

/// All names of the tree, as `/a/b`, with what they lead to.
pub fn facts_of(volume: &Volume) -> BTreeMap<String, Facts> {
    let tree = volume.tree();
    let mut links = vec![0usize; tree.nodes.len()];
    for entry in tree.nodes.iter().flat_map(|node| &node.entries) {
        links[entry.node.0 as usize] += 1;
    }
    links[0] = 1;
    let mut all = BTreeMap::new();
    let mut stack = vec![("/".to_owned(), String::new(), Tree::ROOT)];
    while let Some((path, short_name, id)) = stack.pop() {
        for entry in &tree.node(id).entries {
            let slash = if path == "/" { "" } else { "/" };
            let below = format!("{path}{slash}{}", entry.name.to_display());
            stack.push((below, entry.short_name.to_display(), entry.node));
        }
        all.insert(path, facts_of_node(volume, id, short_name, links[id.0 as usize]));
    }
    all
}

fn facts_of_node(volume: &Volume, id: NodeId, short_name: String, link_count: usize) -> Facts {
    let node = volume.tree().node(id);
    let extra = node.extra.as_deref().cloned().unwrap_or_default();
    let mut streams: BTreeMap<String, (String, u64)> = node
        .streams
        .iter()
        .map(|stream| {
            let (sha1, len) = sha1_of_stream(volume, stream.content);
            assert_eq!(len, stream.len_bytes, "a stream has the length it claims");
            (stream.name.as_ref().map_or_else(String::new, |name| name.to_display()), (sha1, len))
        })
        .collect();
    if let Some(reparse) = &extra.reparse {
        let sha1 = hex(&Sha1::digest(&reparse.data));
        streams.insert("*".to_owned(), (sha1, reparse.data.len() as u64));
    }
    Facts {
        attributes: node.attributes,
        short_name,
        security: node
            .security
            .map_or_else(String::new, |id| hex(&volume.tree().security[id.0 as usize])),
        times: [node.created, node.modified, node.accessed].map(|time| time.to_unix().0),
        object_id: extra.object_id.as_deref().map_or_else(String::new, |id| {
            let birth = id.get(16..).filter(|birth| birth.iter().any(|byte| *byte != 0));
            hex(&id[..16]) + &birth.map_or_else(String::new, hex)
        }),
        reparse_tag: extra.reparse.as_ref().map_or(0, |reparse| reparse.tag),
        link_count,
        streams,
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("needs wimlib-imagex (package wimtools): run ci/setup");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Captures `image` by wimlib and reads its own description of the result.
pub fn facts_of_wimlib(image: &Path, scratch: &Path) -> BTreeMap<String, Facts> {
    let wim = scratch.join("reference.wim");
    run(Command::new("wimlib-imagex")
        .args(["capture", "--quiet", "--compress=none"])
        .arg(image)
        .arg(&wim));
    let text = run(Command::new("wimlib-imagex").arg("dir").arg(&wim).args(["1", "--detailed"]));
    parse_detailed(&text)
}

fn parse_detailed(text: &str) -> BTreeMap<String, Facts> {
    let mut all = BTreeMap::new();
    let mut path = String::new();
    let mut facts = Facts::default();
    let mut stream = String::new();
    let mut hash = String::new();
    let unquote = |value: &str| value.trim_matches('"').to_owned();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("Named data stream ") {
            stream = unquote(name.trim_end_matches(':'));
        } else if line.trim() == "Unnamed data stream:" {
            stream = String::new();
        } else if line.trim() == "Reparse point stream:" {
            stream = "*".to_owned();
        }
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "Full Path" => {
                if !path.is_empty() {
                    all.insert(std::mem::take(&mut path), std::mem::take(&mut facts));
                }
                path = unquote(value);
            }
            "Short Name" => facts.short_name = unquote(value),
            "Attributes" => facts.attributes = parse_hex(value),
            "Security Descriptor" => facts.security = value.to_owned(),
            "Creation Time" => facts.times[0] = parse_time(value),
            "Last Write Time" => facts.times[1] = parse_time(value),
            "Last Access Time" => facts.times[2] = parse_time(value),
            "Object ID" | "Birth Volume ID" | "Birth Object ID" | "Domain ID" => {
                facts.object_id += value.trim_start_matches("0x");
            }
            "Reparse Tag" => facts.reparse_tag = parse_hex(value),
            "Link Count" => facts.link_count = value.parse().expect("a count"),
            "Hash" => hash = value.trim_start_matches("0x").to_owned(),
            "Uncompressed size" => {
                let len = value.trim_end_matches(" bytes").parse().expect("a size");
                facts.streams.insert(stream.clone(), (hash.clone(), len));
            }
            _ => {}
        }
    }
    all.insert(path, facts);
    all
}

fn parse_hex(value: &str) -> u32 {
    u32::from_str_radix(value.trim_start_matches("0x"), 16).expect("a hexadecimal number")
}

/// `Mon Nov 23 00:31:13 2026 UTC`.
fn parse_time(value: &str) -> i64 {
    let parts: Vec<&str> = value.split_whitespace().collect();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(parts[1]).expect("a month") as i64 / 3 + 1;
    let day: i64 = parts[2].parse().expect("a day");
    let year: i64 = parts[4].parse().expect("a year");
    let clock: Vec<i64> = parts[3].split(':').map(|n| n.parse().expect("a number")).collect();
    // Days since 1970 of the proleptic Gregorian calendar, years from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
            - 1
            - 719_468;
    days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2]
}

/// The unnamed stream of the file at `path`.
pub fn contents(volume: &Volume, path: &str) -> Vec<u8> {
    let node = volume.lookup(path).expect("the file");
    volume.read_file(node, 1 << 30).expect("reading the file")
}
