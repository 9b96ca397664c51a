//! Disks made by sgdisk, mke2fs, debugfs and qemu-img.
#![allow(dead_code)]

use gilt_wim::tree::{ContentSource, Sha1, Tree, attribute};
use gilt_wim::{Progress, Wim};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

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

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state & 0x00FF_00FF_00FF_00FF).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A small Debian-like root in `stage`.
pub fn stage(folder: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = folder.join("stage");
    for path in ["etc", "usr/lib", "usr/bin", "var/lib/dpkg", "var/cache/apt", "tmp", "boot"] {
        std::fs::create_dir_all(root.join(path)).expect("folder");
    }
    let write = |path: &str, bytes: &[u8]| std::fs::write(root.join(path), bytes).expect("file");
    write(
        "usr/lib/os-release",
        b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
    );
    symlink("../usr/lib/os-release", root.join("etc/os-release")).expect("link");
    symlink("usr/bin", root.join("bin")).expect("link");
    symlink("/etc/fstab", root.join("absolute")).expect("link");
    write(
        "var/lib/dpkg/status",
        b"Package: base-files\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.4\n\n",
    );
    write("etc/fstab", b"LABEL=gilt-root / ext4 defaults 0 1\n");
    write("boot/vmlinuz-6.1.0-1-amd64", &noise(1, 100_000));
    write("usr/bin/tool", &noise(2, 300_001));
    std::fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/tool2")).expect("link");
    std::fs::set_permissions(root.join("usr/bin/tool"), PermissionsExt::from_mode(0o4755))
        .expect("mode");
    write("var/cache/apt/x.deb", &noise(3, 5000));
    write("tmp/junk", b"junk");
    write("etc/empty", b"");
    for index in 0..300_u64 {
        write(&format!("usr/lib/file{index:04}"), &noise(50 + index, 100 + index as usize * 37));
    }
    // mke2fs keeps whole seconds only.
    let touch = ["stage", "-exec", "touch", "-h", "-d", "2026-01-02T03:04:05Z", "{}", "+"];
    run(folder, "find", &touch);
}

/// `disk.raw`: GPT with an ESP and `stage` as ext4.
pub fn disk(folder: &Path) {
    run(folder, "truncate", &["-s", "96M", "disk.raw"]);
    let table = ["-n", "1:2048:+8M", "-t", "1:ef00", "-n", "2:0:0", "-t", "2:8300", "disk.raw"];
    run(folder, "sgdisk", &table);
    run(folder, "truncate", &["-s", "80M", "root.img"]);
    let make = ["-q", "-F", "-t", "ext4", "-L", "gilt-root", "-d", "stage", "root.img"];
    run(folder, "mke2fs", &make);
    let place = ["if=root.img", "of=disk.raw", "bs=1M", "seek=9", "conv=notrunc,sparse"];
    run(folder, "dd", &[&place[..], &["status=none"]].concat());
}

/// Everything of an image that must not change, by path. Not the short-lived access times.
pub fn facts(wim: &Path) -> BTreeMap<String, String> {
    let wim = Wim::open(wim).expect("wim");
    let (tree, contents) = wim.load_tree(1).expect("tree");
    facts_of(&tree, &contents)
}

pub fn facts_of(tree: &Tree, contents: &dyn ContentSource) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut names: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut pending = vec![(Tree::ROOT, String::new())];
    while let Some((id, path)) = pending.pop() {
        let node = tree.node(id);
        names.entry(id.0).or_default().push(path.clone());
        for entry in &node.entries {
            pending.push((entry.node, format!("{path}/{}", entry.name.to_display())));
        }
        let streams: Vec<(u64, Option<Sha1>)> = node
            .streams
            .iter()
            .filter(|stream| stream.len_bytes > 0)
            .map(|stream| (stream.len_bytes, contents.known_sha1(stream.content)))
            .collect();
        let extra = node.extra.clone().unwrap_or_default();
        let xattrs: Vec<_> = extra.xattrs.iter().map(|x| (&x.name, &x.value)).collect();
        let reparse = extra.reparse.map(|r| (r.tag, r.data));
        // Whether a link leads to a folder is a matter of the host it is captured on.
        let attributes = match reparse {
            Some(_) => node.attributes & !attribute::DIRECTORY,
            None => node.attributes,
        };
        let modified = node.modified.0;
        let unix = extra.unix;
        let security = node.security.map(|id| &tree.security[id.0 as usize]);
        let fact = format!(
            "{attributes:#x} {modified} {security:?} {unix:?} {reparse:?} {xattrs:?} {streams:?}"
        );
        all.insert(path, fact);
    }
    for (_, mut list) in names {
        list.sort();
        if list.len() > 1 {
            for name in &list {
                all.entry(name.clone()).and_modify(|fact| *fact += &format!(" links {list:?}"));
            }
        }
    }
    all
}

pub fn assert_same(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut wrong = Vec::new();
    for key in keys {
        if ours.get(key) != theirs.get(key) {
            wrong.push(format!(
                "{key}\n  ours   {:?}\n  theirs {:?}",
                ours.get(key),
                theirs.get(key)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
}

/// Stops the work at once.
pub struct Cancelled;

impl Progress for Cancelled {
    fn is_cancelled(&self) -> bool {
        true
    }
}
