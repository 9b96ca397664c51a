//! Volumes made by mke2fs and debugfs.
#![allow(dead_code)]

use gilt_disk::{BlockRead, open};
use gilt_ext4::Ext4Volume;
use gilt_wim::tree::{ContentSource, Node, NodeId, Tree};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Runs a tool of the host; a missing one fails the test with the way out.
pub fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("needs {program}: run ci/setup ({error})"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compressible but never repeating bytes, the same for one seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of each word is zero, so that compression has something to do.
        bytes.extend_from_slice(&(state & 0x00FF_00FF_00FF_00FF).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn open_volume(path: &Path) -> Ext4Volume {
    let disk: Arc<dyn BlockRead> = open(path).expect("open").reader();
    Ext4Volume::open(disk).expect("volume")
}

/// The node at a path with `/`.
pub fn find(tree: &Tree, path: &str) -> NodeId {
    let mut at = Tree::ROOT;
    for step in path.split('/').filter(|step| !step.is_empty()) {
        let entries = &tree.node(at).entries;
        let entry = entries.iter().find(|entry| entry.name.to_display() == step);
        at = entry.unwrap_or_else(|| panic!("no {step} of {path}")).node;
    }
    at
}

pub fn contents(volume: &Ext4Volume, node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stream in &node.streams {
        let mut reader = volume.open(stream.content).expect("open");
        std::io::Read::read_to_end(&mut reader, &mut bytes).expect("read");
        assert_eq!(bytes.len() as u64, stream.len_bytes);
    }
    bytes
}

/// Runs a debugfs script.
pub fn debugfs(folder: &Path, image: &str, script: &str) {
    std::fs::write(folder.join("script"), script).expect("script");
    run(folder, "debugfs", &["-w", "-f", "script", image]);
}
