//! Proof, from the powered-off disk, that a Linux image holds nothing of the machine or the
//! build it came from. The guest's word is not asked.

mod places;

use gilt_wim::tree::{ContentSource, Entry, Node, NodeId, Tree};
use std::io::Read;
use std::sync::Mutex;

pub use places::BUILD_DNS;

/// Something found that must not be in an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Path in the image, from `/`.
    pub path: String,
    pub what: String,
}

/// What the build put in and must find gone.
pub struct Traces<'a> {
    pub build_user: &'a str,
    /// The build's public keys as in `authorized_keys`: type, base64, comment.
    pub public_keys: &'a [String],
    /// Values of sensitive variables and other secrets.
    pub secrets: &'a [Vec<u8>],
    /// What addresses of the build's file server have in them: `http://10.0.2.2:`.
    pub host_url: &'a str,
    /// Steps the template keeps (`generalize: {keep: […]}`).
    pub keep: &'a [String],
}

/// Files are searched in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// Secrets shorter than this would be found everywhere by chance.
const SHORTEST_SECRET_BYTES: usize = 8;
/// `/etc/passwd` and its like are small; more than this is not one.
const ACCOUNT_FILE_MAX_BYTES: u64 = 16 << 20;

/// Everything left over, by path. Empty means proven clean.
pub fn prove(
    tree: &Tree,
    contents: &dyn ContentSource,
    traces: &Traces<'_>,
) -> std::io::Result<Vec<Leftover>> {
    let kept = |step: &str| traces.keep.iter().any(|k| k == step);
    let mut found = places::of_the_machine(tree, contents, &kept)?;
    found.extend(places::of_the_build(tree, contents, traces.host_url)?);
    let mut add = |path: &str, what: &str| {
        found.push(Leftover { path: path.to_owned(), what: what.to_owned() });
    };
    let account = format!("{}:", traces.build_user);
    for file in ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"] {
        for path in [format!("etc/{file}"), format!("etc/{file}-")] {
            if let Some(text) = read_small(tree, contents, &path)?
                && traces.build_user != "root"
                && text.split(|b| *b == b'\n').any(|line| line.starts_with(account.as_bytes()))
            {
                add(&path, "the build account");
            }
        }
    }
    found.extend(search(tree, contents, traces)?);
    found.sort();
    found.dedup();
    Ok(found)
}

/// Reads every stream of the tree, on all cores, for the build's keys and secrets.
fn search(
    tree: &Tree,
    contents: &dyn ContentSource,
    traces: &Traces<'_>,
) -> std::io::Result<Vec<Leftover>> {
    let mut needles: Vec<(Vec<u8>, &str)> = Vec::new();
    for key in traces.public_keys {
        if let Some(body) = key.split_whitespace().nth(1) {
            needles.push((body.as_bytes().to_vec(), "the build's SSH key"));
        }
    }
    for secret in traces.secrets {
        if secret.len() >= SHORTEST_SECRET_BYTES {
            needles.push((secret.clone(), "a secret of the build"));
        }
    }
    if needles.is_empty() {
        return Ok(Vec::new());
    }
    let patterns: Vec<&[u8]> = needles.iter().map(|(bytes, _)| bytes.as_slice()).collect();
    let automaton = aho_corasick::AhoCorasick::new(&patterns)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let overlap = patterns.iter().map(|p| p.len()).max().unwrap_or(1) - 1;

    let mut jobs: Vec<(u64, NodeId, usize)> = Vec::new();
    for (index, node) in tree.nodes.iter().enumerate() {
        for (at, stream) in node.streams.iter().enumerate() {
            if stream.len_bytes > 0 {
                let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
                jobs.push((contents.position(stream.content), id, at));
            }
        }
    }
    jobs.sort_unstable();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let hits: Mutex<Vec<(NodeId, usize)>> = Mutex::default();
    let failed: Mutex<Option<std::io::Error>> = Mutex::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                let mut piece = vec![0; PIECE_BYTES + overlap];
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some((_, node, stream)) = jobs.get(at) else { return };
                    let content = tree.node(*node).streams[*stream].content;
                    match scan(contents, content, &automaton, overlap, &mut piece) {
                        Ok(None) => {}
                        Ok(Some(needle)) => {
                            hits.lock().unwrap_or_else(|p| p.into_inner()).push((*node, needle));
                        }
                        Err(error) => {
                            failed.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(|p| p.into_inner()) {
        return Err(error);
    }
    let hits = hits.into_inner().unwrap_or_else(|p| p.into_inner());
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let paths = paths(tree);
    Ok(hits
        .into_iter()
        .map(|(node, needle)| Leftover {
            path: paths.get(node.0 as usize).cloned().unwrap_or_default(),
            what: needles[needle].1.to_owned(),
        })
        .collect())
}

fn scan(
    contents: &dyn ContentSource,
    content: gilt_wim::tree::ContentId,
    automaton: &aho_corasick::AhoCorasick,
    overlap: usize,
    piece: &mut [u8],
) -> std::io::Result<Option<usize>> {
    let mut reader = contents.open(content)?;
    let mut held = 0;
    loop {
        let got = reader.read(&mut piece[held..])?;
        if got == 0 {
            return Ok(None);
        }
        let end = held + got;
        if let Some(hit) = automaton.find(&piece[..end]) {
            return Ok(Some(hit.pattern().as_usize()));
        }
        // A needle may begin in this piece and end in the next.
        held = overlap.min(end);
        piece.copy_within(end - held..end, 0);
    }
}

fn lookup<'t>(tree: &'t Tree, path: &str) -> Option<&'t Node> {
    let mut node = tree.node(Tree::ROOT);
    for part in path.split('/') {
        let entry = node.entries.iter().find(|entry| entry.name.to_display() == part)?;
        node = tree.node(entry.node);
    }
    Some(node)
}

fn children<'t>(tree: &'t Tree, path: &str) -> &'t [Entry] {
    lookup(tree, path).map(|node| node.entries.as_slice()).unwrap_or_default()
}

/// The contents of a plain small file; `None` for no file, a symlink or a huge one.
fn read_small(
    tree: &Tree,
    contents: &dyn ContentSource,
    path: &str,
) -> std::io::Result<Option<Vec<u8>>> {
    let Some(node) = lookup(tree, path) else { return Ok(None) };
    if node.reparse().is_some() {
        return Ok(None);
    }
    let Some(stream) = node.streams.iter().find(|stream| stream.name.is_none()) else {
        return Ok(Some(Vec::new()));
    };
    if stream.len_bytes > ACCOUNT_FILE_MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    contents.open(stream.content)?.take(ACCOUNT_FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The first path of every node.
fn paths(tree: &Tree) -> Vec<String> {
    let mut paths = vec![String::new(); tree.nodes.len()];
    let mut queue = vec![Tree::ROOT];
    while let Some(id) = queue.pop() {
        for entry in &tree.node(id).entries {
            let slot = entry.node.0 as usize;
            if slot != 0 && paths[slot].is_empty() {
                let parent = &paths[id.0 as usize];
                let name = entry.name.to_display();
                paths[slot] = if parent.is_empty() { name } else { format!("{parent}/{name}") };
                queue.push(entry.node);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use gilt_wim::tree::{ContentId, Stream, attribute};
    use std::io;

    struct InMemory(Vec<Vec<u8>>);

    impl ContentSource for InMemory {
        fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
            // Small reads on purpose: needles straddle them.
            Ok(Box::new(Dribble(&self.0[usize::try_from(id.0).unwrap()])))
        }
    }

    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(out.len()).min(7);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn tree(files: &[(&str, &[u8])]) -> (Tree, InMemory) {
        let mut tree = Tree::default();
        let directory = || Node { attributes: attribute::DIRECTORY, ..Node::default() };
        tree.nodes.push(directory());
        let mut contents = Vec::new();
        for (path, bytes) in files {
            let mut at = 0;
            let parts: Vec<&str> = path.split('/').collect();
            for (depth, part) in parts.iter().enumerate() {
                let known = tree.nodes[at].entries.iter().find(|e| e.name.to_display() == *part);
                at = match known {
                    Some(entry) => entry.node.0 as usize,
                    None => {
                        let mut node = directory();
                        if depth + 1 == parts.len() {
                            node.attributes = attribute::NORMAL;
                            node.streams.push(Stream {
                                name: None,
                                len_bytes: bytes.len() as u64,
                                content: ContentId(contents.len() as u64),
                            });
                            contents.push(bytes.to_vec());
                        }
                        let id = NodeId(u32::try_from(tree.nodes.len()).unwrap());
                        tree.nodes.push(node);
                        tree.nodes[at].entries.push(Entry {
                            name: (*part).into(),
                            short_name: "".into(),
                            node: id,
                        });
                        id.0 as usize
                    }
                };
            }
        }
        (tree, InMemory(contents))
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuildKey gilt";

    fn found(files: &[(&str, &[u8])], keep: &[String]) -> Vec<String> {
        let (tree, contents) = tree(files);
        let traces = Traces {
            build_user: "gilt-build",
            public_keys: &[KEY.to_owned()],
            secrets: &[b"correct horse".to_vec()],
            host_url: "http://10.0.2.2:",
            keep,
        };
        let left = prove(&tree, &contents, &traces).unwrap();
        left.into_iter().map(|l| format!("{}: {}", l.path, l.what)).collect()
    }

    #[test]
    fn a_generalized_tree_is_clean() {
        let files: &[(&str, &[u8])] = &[
            ("etc/machine-id", b""),
            ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            ("etc/ssh/sshd_config", b"UseDNS no\n"),
        ];
        assert_eq!(found(files, &[]), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_leftover_is_named_with_its_path() {
        let files: &[(&str, &[u8])] = &[
            ("etc/machine-id", b"0123456789abcdef0123456789abcdef\n"),
            ("etc/shadow-", b"root:*:1::::::\ngilt-build:!:1::::::\n"),
            ("etc/ssh/ssh_host_ed25519_key", b"x"),
            ("home/u/.ssh/authorized_keys", KEY.as_bytes()),
            ("opt/app/config", b"....................... password=correct horse ..."),
            ("var/lib/systemd/random-seed", b"x"),
            ("etc/systemd/network/10-gilt-build.network", b"[Match]"),
            ("etc/network/interfaces", b"iface eth0 inet static\n address 10.0.2.15/24\n"),
            ("etc/resolv.conf", b"nameserver 10.0.2.3\n"),
            ("etc/apt/sources.list", b"deb http://10.0.2.2:4711/debian bookworm main\n"),
            ("usr/share/doc/qemu/README", b"the host is http://10.0.2.2:80, the guest 10.0.2.15"),
            ("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n"),
            ("var/lib/apt/lists/deb_Packages", b"x"),
            ("var/lib/apt/lists/lock", b""),
            ("var/lib/dpkg/status-old", b"x"),
            ("var/tmp/build.log", b"x"),
            ("root/.bash_history", b"ls"),
            ("var/log/wtmp", b""),
        ];
        assert_eq!(
            found(files, &[]),
            [
                "etc/apt/sources.list: an address of the build",
                "etc/machine-id: a machine-id",
                "etc/network/interfaces: the fixed network address of the build",
                "etc/resolv.conf: the resolver of the build's network",
                "etc/shadow-: the build account",
                "etc/ssh/ssh_host_ed25519_key: an SSH host key",
                "etc/systemd/network/10-gilt-build.network: a file of the build",
                "home/u/.ssh/authorized_keys: the build's SSH key",
                "opt/app/config: a secret of the build",
                "root/.bash_history: a history of commands",
                "usr/sbin/policy-rc.d: a policy that keeps services from starting",
                "var/lib/apt/lists/deb_Packages: a package list",
                "var/lib/dpkg/status-old: an old package database",
                "var/lib/systemd/random-seed: a saved random seed",
                "var/tmp/build.log: a temporary file",
            ]
        );
    }

    #[test]
    fn what_the_template_keeps_is_not_a_leftover() {
        let files: &[(&str, &[u8])] = &[("etc/machine-id", b"0123456789abcdef0123456789abcdef\n")];
        assert_eq!(found(files, &["machine-id".into()]), Vec::<String>::new());
    }
}
