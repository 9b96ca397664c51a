//! What the interop tests share: referees, sample directories, and comparing directories.
#![allow(dead_code)]

pub mod trees;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a referee; fails with its output, and says how to get it if it is not there.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("needs {program} ({error}): run ci/setup"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{text}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

pub fn wimlib(args: &[&str]) -> String {
    run("wimlib-imagex", args)
}

pub fn seven_zip_test(path: &Path) {
    let text = run("7z", &["t", text(path)]);
    assert!(text.contains("Everything is Ok"), "{text}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// What a file is, for comparing. Hard links show as the first path with the same inode.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub modified: (i64, i64),
    pub rdev: u64,
    pub contents: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub same_as: Option<PathBuf>,
}

/// Everything under `root`, by relative path.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut out = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (name, contents) = if kind.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|child| child.unwrap().path()));
            ("directory", Vec::new())
        } else if kind.is_symlink() {
            ("link", fs::read_link(&path).unwrap().into_os_string().into_vec())
        } else if kind.is_file() {
            ("file", fs::read(&path).unwrap())
        } else if kind.is_block_device() {
            ("block", Vec::new())
        } else if kind.is_char_device() {
            ("char", Vec::new())
        } else if kind.is_fifo() {
            ("pipe", Vec::new())
        } else {
            ("socket", Vec::new())
        };
        let seen = Seen {
            kind: name,
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            // A WIM keeps 100 ns.
            modified: (meta.mtime(), meta.mtime_nsec() / 100),
            rdev: if matches!(name, "block" | "char") { meta.rdev() } else { 0 },
            contents,
            xattrs: xattrs(&path),
            same_as: None,
        };
        out.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
    }
    let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let paths: Vec<PathBuf> = out.keys().cloned().collect();
    for path in paths {
        let meta = fs::symlink_metadata(root.join(&path)).unwrap();
        if meta.is_dir() || meta.nlink() < 2 || meta.file_type().is_symlink() {
            continue;
        }
        let known = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone()).clone();
        if known != path {
            out.get_mut(&path).unwrap().same_as = Some(known);
        }
    }
    out
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 65536];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

/// Compares two directories; names what differs.
pub fn assert_same(expected: &Path, found: &Path) {
    let (a, b) = (snapshot(expected), snapshot(found));
    for (path, seen) in &a {
        match b.get(path) {
            None => panic!("{} is missing", path.display()),
            Some(other) if other != seen => {
                let short = |s: &Seen| {
                    let mut s = s.clone();
                    s.contents.truncate(64);
                    format!("{s:?}")
                };
                panic!("{} differs:\n{}\n{}", path.display(), short(seen), short(other));
            }
            Some(_) => {}
        }
    }
    for path in b.keys() {
        assert!(a.contains_key(path), "{} is too much", path.display());
    }
}

/// Repeatable bytes that look like nothing.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Text-like bytes that compress to about a half.
    pub fn words(&mut self, len: usize) -> Vec<u8> {
        let words =
            ["the ", "image ", "of ", "a ", "volume\n", "0x1f ", "GetProcAddress", "\0\0\0\0"];
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            if self.below(5) == 0 {
                out.push(self.next() as u8);
            } else {
                out.extend_from_slice(words[self.below(8) as usize].as_bytes());
            }
        }
        out.truncate(len);
        out
    }
}

/// A directory with one of everything Unix has.
pub fn sample(root: &Path) {
    let mut random = Random(7);
    let file = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).unwrap();
    fs::create_dir_all(root.join("d1/d2/d3")).unwrap();
    fs::create_dir(root.join("empty-dir")).unwrap();
    file("empty", b"");
    file("one", b"1");
    file("d1/32k", &random.words(32768));
    file("d1/32k+1", &random.words(32769));
    file("d1/64k", &random.words(65536));
    file("d1/random", &random.bytes(100_000));
    file("d1/d2/big", &random.words(5_000_001));
    file("d1/d2/big-random", &random.bytes(3_000_000));
    fs::copy(root.join("d1/d2/big"), root.join("d1/d2/big-copy")).unwrap();
    fs::copy(root.join("d1/64k"), root.join("64k-copy")).unwrap();
    file("zeros", &[0; 200_000]);
    file("ä€😀.txt", "Umlaut".as_bytes());
    file("UPPER", b"upper");
    file("upper", b"lower");
    let surrogate = OsString::from_vec(b"sur\xed\xa0\x80rogate".to_vec());
    fs::write(root.join(surrogate), b"unpaired").unwrap();
    fs::hard_link(root.join("d1/64k"), root.join("d1/d2/d3/64k-link")).unwrap();
    fs::hard_link(root.join("empty"), root.join("empty-link")).unwrap();
    for (target, name) in [
        ("d1/32k", "link"),
        ("/etc/passwd", "absolute"),
        ("d1/d2", "to-dir"),
        ("we\\ird", "backslash"),
        ("nowhere/..", "dangling"),
        ("/", "to-root"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("d1/d2/d3"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (name, value) in
        [("user.a", &b"value"[..]), ("user.empty", b""), ("user.bin", &[0, 255, 1])]
    {
        rustix::fs::lsetxattr(root.join("one"), name, value, rustix::fs::XattrFlags::empty())
            .unwrap();
        rustix::fs::lsetxattr(root.join("d1"), name, value, rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    run("mkfifo", &[text(&root.join("pipe"))]);
    if rustix::process::geteuid().is_root() {
        run("mknod", &[text(&root.join("char")), "c", "1", "3"]);
        run("mknod", &[text(&root.join("block")), "b", "259", "300"]);
        run("chown", &["1000:1001", text(&root.join("zeros"))]);
    }
    run("touch", &["-h", "-d", "2001-02-03 04:05:06.7654321 UTC", text(&root.join("link"))]);
    run("touch", &["-d", "1960-01-01 00:00:00.5 UTC", text(&root.join("UPPER"))]);
    run("touch", &["-d", "2020-01-01 UTC", text(&root.join("d1"))]);
}
