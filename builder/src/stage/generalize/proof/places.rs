//! Where a Linux machine, or the build it was made by, leaves traces.

use super::{Leftover, children, lookup, read_small};
use aho_corasick::AhoCorasick;
use gilt_wim::tree::{ContentSource, Entry, Node, Tree};
use std::collections::BTreeSet;
use std::io::Read;

/// A trace is at `path` when `is` holds. `step` is what removes it, and what `keep` names.
struct Place {
    step: &'static str,
    path: &'static str,
    is: Is,
    what: &'static str,
}

enum Is {
    /// There is something of that name.
    There,
    /// A file with something in it.
    Filled,
    /// Any entry of that folder.
    AnyEntry,
    /// Entries of that folder that end so.
    EntryEnding(&'static str),
    /// Entries of that folder that begin so.
    EntryBeginning(&'static str),
    /// Entries of that folder but those named or begun so.
    EntryBut(&'static [&'static str]),
}

const fn place(step: &'static str, path: &'static str, is: Is, what: &'static str) -> Place {
    Place { step, path, is, what }
}

/// Sources: machine-id(5), sshd(8), systemd-random-seed(8), dhclient.leases(5), apt-get(8) `clean`,
/// cloud-init's `clean`, utmp(5).
const PLACES: &[Place] = &[
    place("ssh-host-keys", "etc/ssh", Is::EntryBeginning("ssh_host_"), "an SSH host key"),
    place("random-seed", "var/lib/systemd/random-seed", Is::There, "a saved random seed"),
    place("random-seed", "var/lib/systemd/credential.secret", Is::There, "a machine's secret"),
    place("leases", "var/lib/dhcp", Is::AnyEntry, "a DHCP lease"),
    place("leases", "var/lib/NetworkManager", Is::EntryEnding(".lease"), "a DHCP lease"),
    place("leases", "var/lib/NetworkManager/secret_key", Is::There, "a machine's secret"),
    place("leases", "etc/udev/rules.d", Is::EntryBeginning("70-persistent-"), "a name of a device"),
    place("logs", "var/log/journal", Is::AnyEntry, "a journal"),
    place("logs", "var/log/installer", Is::There, "logs of the installer"),
    place("logs", "var/log/wtmp", Is::Filled, "who logged in"),
    place("logs", "var/log/btmp", Is::Filled, "who failed to log in"),
    place("logs", "var/log/lastlog", Is::Filled, "who logged in last"),
    place(
        "caches",
        "var/lib/apt/lists",
        Is::EntryBut(&["partial", "lock", "auxfiles"]),
        "a package list",
    ),
    place("caches", "var/cache/apt/archives", Is::EntryEnding(".deb"), "a package archive"),
    place("caches", "var/cache/apt", Is::EntryEnding(".bin"), "a cache of package lists"),
    place("caches", "var/lib/dpkg", Is::EntryEnding("-old"), "an old package database"),
    place("tmp", "tmp", Is::EntryBut(&["systemd-private-"]), "a temporary file"),
    place("tmp", "var/tmp", Is::EntryBut(&["systemd-private-"]), "a temporary file"),
    place("cloud-init", "var/lib/cloud/instance", Is::There, "the state of a cloud-init run"),
    place("cloud-init", "var/lib/cloud/instances", Is::AnyEntry, "the state of a cloud-init run"),
    place("history", "root", Is::EntryEnding("_history"), "a history of commands"),
];

/// Traces of one machine, but those of the steps `kept` names.
pub fn of_the_machine(
    tree: &Tree,
    contents: &dyn ContentSource,
    kept: &dyn Fn(&str) -> bool,
) -> std::io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let mut add = |path: String, what: &str| found.push(Leftover { path, what: what.to_owned() });
    if !kept("machine-id") {
        for path in ["etc/machine-id", "var/lib/dbus/machine-id"] {
            if let Some(text) = read_small(tree, contents, path)?
                && !matches!(text.trim_ascii(), b"" | b"uninitialized")
            {
                add(path.to_owned(), "a machine-id");
            }
        }
    }
    for place in PLACES.iter().filter(|place| !kept(place.step)) {
        let mut entries = |wanted: &dyn Fn(&str) -> bool| {
            for entry in children(tree, place.path) {
                let name = entry.name.to_display();
                if wanted(&name) {
                    add(format!("{}/{name}", place.path), place.what);
                }
            }
        };
        match place.is {
            Is::AnyEntry => entries(&|_| true),
            Is::EntryEnding(end) => entries(&|name| name.ends_with(end)),
            Is::EntryBeginning(begin) => entries(&|name| name.starts_with(begin)),
            Is::EntryBut(but) => entries(&|name| !but.iter().any(|but| name.starts_with(but))),
            Is::There => {
                if lookup(tree, place.path).is_some() {
                    add(place.path.to_owned(), place.what);
                }
            }
            Is::Filled => {
                if lookup(tree, place.path).is_some_and(filled) {
                    add(place.path.to_owned(), place.what);
                }
            }
        }
    }
    Ok(found)
}

fn filled(node: &Node) -> bool {
    node.streams.iter().any(|stream| stream.len_bytes > 0)
}

/// What the build put beside the system carries this in its name.
const NAME_OF_THE_BUILD: &str = "gilt-build";
/// Below these a mention of the build's network is a setting; elsewhere it is a text about one.
const SETTINGS: &[&str] = &["etc", "root", "home", "usr/local", "var/lib", "var/spool"];
/// Settings are small.
const SETTING_MAX_BYTES: u64 = 1 << 20;
/// Address and resolver that a user-mode network gives its only guest.
const BUILD_ADDRESS: &str = "10.0.2.15";
pub const BUILD_DNS: &str = "10.0.2.3";

/// Traces of the build that no image may have, whatever it keeps. `host_url` is in every
/// address of the build's file server: `http://10.0.2.2:`.
pub fn of_the_build(
    tree: &Tree,
    contents: &dyn ContentSource,
    host_url: &str,
) -> std::io::Result<Vec<Leftover>> {
    let resolver = format!("nameserver {BUILD_DNS}");
    let words = [host_url, BUILD_ADDRESS, resolver.as_str()];
    let what = [
        "an address of the build",
        "the fixed network address of the build",
        "the resolver of the build's network",
    ];
    let automaton = AhoCorasick::new(words).map_err(std::io::Error::other)?;
    let mut found = Vec::new();
    let mut add = |path: &str, what: &str| {
        found.push(Leftover { path: path.to_owned(), what: what.to_owned() });
    };
    let mut queue = vec![(Tree::ROOT, String::new())];
    while let Some((folder, below)) = queue.pop() {
        for Entry { name, node, .. } in &tree.node(folder).entries {
            let name = name.to_display();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if name.contains(NAME_OF_THE_BUILD) {
                add(&path, "a file of the build");
            }
            if is_setting(&path) {
                for word in mentioned(contents, tree.node(*node), &automaton)? {
                    add(&path, what[word]);
                }
            }
            queue.push((*node, path));
        }
    }
    // Left by a layer that kept services from starting while it installed them; in an image it keeps
    // them from starting after every later installation. A package's own is another program.
    let policy = "usr/sbin/policy-rc.d";
    if let Some(text) = read_small(tree, contents, policy)?
        && text.len() < 1024
        && String::from_utf8_lossy(&text).contains("exit 101")
    {
        add(policy, "a policy that keeps services from starting");
    }
    Ok(found)
}

fn is_setting(path: &str) -> bool {
    SETTINGS.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}

/// Which of the words stand in a small plain file.
fn mentioned(
    contents: &dyn ContentSource,
    node: &Node,
    words: &AhoCorasick,
) -> std::io::Result<BTreeSet<usize>> {
    let mut seen = BTreeSet::new();
    if node.reparse().is_some() {
        return Ok(seen);
    }
    for stream in &node.streams {
        if stream.len_bytes == 0 || stream.len_bytes > SETTING_MAX_BYTES {
            continue;
        }
        let mut bytes = Vec::new();
        contents.open(stream.content)?.take(SETTING_MAX_BYTES).read_to_end(&mut bytes)?;
        seen.extend(words.find_iter(&bytes).map(|hit| hit.pattern().as_usize()));
    }
    Ok(seen)
}
