//! The store's commands on real WIM files, with wimlib-imagex as the referee.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gilt(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gilt"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("GILT_STORE")
            .env("TZ", "UTC");
        for name in ["CONFIG", "STATE", "CACHE", "DATA"] {
            command.env(format!("XDG_{name}_HOME"), self.path(name));
        }
        command.output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.gilt(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gilt {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[&["--json"], arguments].concat())).unwrap()
    }

    /// Exit code and what is said on stderr.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.gilt(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("needs {program} ({error}): run ci/setup"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
}

/// A tree of text-like files, so that there is something to compress and to share.
fn tree(root: &Path, files: usize) {
    for n in 0..files {
        let folder = root.join(format!("Windows/part{}", n % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let line = format!("file {n} of the tree, line after line {}\n", n * 7919);
        std::fs::write(folder.join(format!("file{n}.txt")), line.repeat(50 + n * 3)).unwrap();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_wim_comes_back_bit_for_bit_and_wimlib_accepts_it() {
    let desk = Desk::new();
    let (root, wim) = (desk.path("tree"), desk.path("one.wim"));
    tree(&root, 200);
    for compress in ["LZX", "XPRESS", "none"] {
        let _ = std::fs::remove_file(&wim);
        let compress = format!("--compress={compress}");
        tool("wimlib-imagex", &["capture", &text(&root), &text(&wim), &compress, "--check"]);
        let published = desk.json(&["publish", "win", "one.wim"]);
        let name = format!("win@{}", published["version"]);
        desk.ok(&["pull", &name, "-o", "out.wim"]);
        desk.ok(&["pull", &name, "-o", "again.wim"]);
        let out = std::fs::read(desk.path("out.wim")).unwrap();
        assert!(out == std::fs::read(&wim).unwrap(), "{compress}");
        assert!(out == std::fs::read(desk.path("again.wim")).unwrap());
        tool("wimlib-imagex", &["verify", &text(&desk.path("out.wim"))]);
        desk.ok(&["wim", "verify", "out.wim"]);
    }
    desk.ok(&["store", "fsck"]);
}

#[test]
fn every_kind_of_wim_comes_back_and_both_verifiers_accept_it() {
    let desk = Desk::new();
    let root = desk.path("tree");
    tree(&root, 60);
    let made = |name: &str, options: &[&str]| {
        let (root, wim) = (text(&root), text(&desk.path(name)));
        tool("wimlib-imagex", &[&["capture", &root, &wim], options].concat());
    };
    made("solid.esd", &["--solid"]);
    made("lzms.wim", &["--compress=LZMS", "--check"]);
    made("pipable.wim", &["--pipable", "--check"]);
    made("wide.wim", &["--compress=LZX", "--chunk-size=128K"]);
    made("two.wim", &["--check"]);
    tool("wimlib-imagex", &["append", &text(&root), &text(&desk.path("two.wim")), "again"]);
    for name in ["solid.esd", "lzms.wim", "pipable.wim", "wide.wim", "two.wim"] {
        desk.ok(&["publish", "any", name]);
        for out in ["out", "again"] {
            desk.ok(&["pull", "any", "-o", out]);
            let same =
                std::fs::read(desk.path(out)).unwrap() == std::fs::read(desk.path(name)).unwrap();
            assert!(same, "{name}");
        }
        tool("wimlib-imagex", &["verify", &text(&desk.path("out"))]);
        desk.ok(&["wim", "verify", "out"]);
    }
    // A split set is published part by part.
    std::fs::write(root.join("a.bin"), noise(3_000_000, 1)).unwrap();
    std::fs::write(root.join("b.bin"), noise(3_000_000, 2)).unwrap();
    made("whole.wim", &["--check"]);
    tool(
        "wimlib-imagex",
        &["split", &text(&desk.path("whole.wim")), &text(&desk.path("part.swm")), "4"],
    );
    for (part, out) in [("part.swm", "out.swm"), ("part2.swm", "out2.swm")] {
        desk.ok(&["publish", "split", part]);
        desk.ok(&["pull", "split", "-o", out]);
        assert!(std::fs::read(desk.path(out)).unwrap() == std::fs::read(desk.path(part)).unwrap());
    }
    let reference = format!("--ref={}", text(&desk.path("out2.swm")));
    tool("wimlib-imagex", &["verify", &text(&desk.path("out.swm")), &reference]);
    desk.ok(&["wim", "verify", "out.swm", "--ref", "out2.swm"]);
    desk.ok(&["store", "fsck"]);
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_file_that_is_no_wim_comes_back_too() {
    let desk = Desk::new();
    std::fs::write(desk.path("plain.bin"), vec![7; 10_000_000]).unwrap();
    std::fs::write(desk.path("broken.wim"), b"MSWIM\0\0\0 and then nothing").unwrap();
    desk.ok(&["publish", "any", "plain.bin"]);
    desk.ok(&["pull", "any", "-o", "out"]);
    assert!(std::fs::read(desk.path("out")).unwrap() == vec![7; 10_000_000]);
    let (code, said) = desk.refused(&["publish", "any", "broken.wim"]);
    assert_eq!(code, 7, "{said}");
}

#[test]
fn the_next_wim_of_a_tree_adds_what_changed_in_it() {
    let desk = Desk::new();
    let root = desk.path("tree");
    tree(&root, 400);
    let (one, two) = (text(&desk.path("one.wim")), text(&desk.path("two.wim")));
    tool("wimlib-imagex", &["capture", &text(&root), &one]);
    let first = desk.json(&["publish", "win", "one.wim"]);
    std::fs::write(root.join("Windows/part1/new.txt"), "something new\n".repeat(100)).unwrap();
    tool("wimlib-imagex", &["capture", &text(&root), &two]);
    let second = desk.json(&["publish", "win", "two.wim"]);
    let new = second["bytes_new"].as_u64().unwrap();
    assert!(new * 4 < first["bytes_new"].as_u64().unwrap(), "{first} {second}");
    desk.ok(&["pull", "win:latest", "-o", "out.wim"]);
    assert!(std::fs::read(desk.path("out.wim")).unwrap() == std::fs::read(two).unwrap());

    let diff = desk.json(&["diff", "win@1", "win@2"]);
    let paths: Vec<&str> = diff["tree"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|file| file["change"] == "added")
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/Windows/part1/new.txt"]);
    assert_eq!(diff["tree"]["folders"][0]["path"], "/Windows/part1");
    let plain = desk.ok(&["diff", "win@1", "win@2", "--files"]);
    assert!(plain.contains("+ /Windows/part1/new.txt"), "{plain}");
}

#[test]
fn a_diff_tells_what_changed_in_the_registry() {
    let desk = Desk::new();
    let root = desk.path("tree");
    let config = root.join("Windows/System32/config");
    std::fs::create_dir_all(&config).unwrap();
    let hive = |change: &dyn Fn(&mut regf::HiveBuilder)| {
        let mut hive = regf::HiveBuilder::new_with_name("ROOT").unwrap();
        hive.create_key("Microsoft\\Windows").unwrap();
        hive.add_value_string("Microsoft\\Windows", Some("Product"), "eleven").unwrap();
        change(&mut hive);
        std::fs::write(config.join("SOFTWARE"), hive.to_bytes().unwrap()).unwrap();
    };
    hive(&|hive| {
        hive.add_value_dword("Microsoft\\Windows", Some("UBR"), 2700).unwrap();
        hive.create_key("Microsoft\\Old\\Deep").unwrap();
    });
    tool("wimlib-imagex", &["capture", &text(&root), &text(&desk.path("one.wim"))]);
    desk.ok(&["publish", "win", "one.wim"]);
    hive(&|hive| {
        hive.add_value_dword("Microsoft\\Windows", Some("UBR"), 2701).unwrap();
        hive.create_key("Microsoft\\New").unwrap();
        hive.add_value_string("Microsoft\\New", None, "default").unwrap();
    });
    tool("wimlib-imagex", &["capture", &text(&root), &text(&desk.path("two.wim"))]);
    desk.ok(&["publish", "win", "two.wim"]);
    let said = desk.ok(&["diff", "win@1", "win@2"]);
    for line in [
        "registry /Windows/System32/config/SOFTWARE: 3 differ",
        "  ~ Microsoft\\Windows UBR: 0xa8c -> 0xa8d",
        "  - Microsoft\\Old\n",
        "  + Microsoft\\New\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    let json = desk.json(&["diff", "win@1", "win@2"]);
    assert_eq!(json["tree"]["registry"][0]["entries"].as_array().unwrap().len(), 3);
}

#[test]
fn one_content_packed_at_two_levels_is_no_collision() {
    let desk = Desk::new();
    let root = desk.path("tree");
    tree(&root, 30);
    for (name, level) in [("one.wim", "LZX:20"), ("two.wim", "LZX:100"), ("three.wim", "XPRESS")] {
        let compress = format!("--compress={level}");
        tool("wimlib-imagex", &["capture", &text(&root), &text(&desk.path(name)), &compress]);
        desk.ok(&["publish", "win", name]);
    }
    desk.ok(&["store", "fsck"]);
}

#[test]
fn the_life_of_a_version_from_publish_to_revoke() {
    let desk = Desk::new();
    std::fs::write(
        desk.path("facts.json"),
        r#"{"tests": {"passed": 2}, "os": {"packages": [{"name": "vim", "version": "1"}]}}"#,
    )
    .unwrap();
    std::fs::write(
        desk.path("more.json"),
        r#"{"tests": {"passed": 2}, "os": {"packages": [{"name": "vim", "version": "2"}]}}"#,
    )
    .unwrap();
    std::fs::write(desk.path("a.img"), "one").unwrap();
    std::fs::write(desk.path("b.img"), "two").unwrap();
    desk.ok(&["publish", "a", "a.img", "--manifest", "facts.json", "--channel", "dev"]);
    desk.ok(&["publish", "a", "b.img", "--manifest", "more.json", "--artifact", "log=a.img"]);
    desk.ok(&["promote", "a:dev", "test"]);
    let (code, said) = desk.refused(&["promote", "a@2", "test"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("never in dev") && said.contains("hint: --force"), "{said}");
    desk.ok(&["promote", "a@2", "dev", "-m", "ready"]);
    desk.ok(&["promote", "a", "test"]);
    let listing = desk.ok(&["store", "ls"]);
    assert!(listing.contains("latest@2") && listing.contains("dev@2 test@2"), "{listing}");
    assert!(desk.ok(&["rollback", "a:test", "-m", "broken"]).contains("a:test is at 1"));
    let history = desk.ok(&["history", "a:test"]);
    assert!(history.contains("rolled back from 2") && history.contains("broken"), "{history}");
    assert!(desk.ok(&["diff", "a@1", "a@2"]).contains("~ vim"));
    desk.ok(&["revoke", "a@2", "-m", "leaks a key", "--rollback-channels"]);
    let (code, said) = desk.refused(&["pull", "a@2", "-o", "x"]);
    assert_eq!(code, 6);
    assert!(said.contains("leaks a key"), "{said}");
    desk.ok(&["restore", "a@2"]);
    desk.ok(&["deprecate", "a@2", "-m", "old"]);
    desk.ok(&["hold", "a@2", "audit"]);
    let (_, said) = desk.refused(&["store", "rm", "a@2"]);
    assert!(said.contains("held by audit"), "{said}");
    desk.ok(&["release", "a@2", "audit"]);
    assert!(desk.ok(&["store", "show", "a@2"]).contains("deprecated: old"));
    desk.ok(&["pull", "a@2", "--artifact", "log", "-o", "log.txt"]);
    assert_eq!(std::fs::read(desk.path("log.txt")).unwrap(), b"one");
    desk.ok(&["verify", "a@2"]);
    desk.ok(&["pull", "a@2", "-o", "b.out", "--manifest", "b.json"]);
    std::fs::write(desk.path("k.pub"), desk.ok(&["store", "key", "export"])).unwrap();
    let offline = ["verify", "--file", "b.out", "--manifest", "b.json", "--key", "k.pub"];
    desk.ok(&offline);
    std::fs::write(desk.path("b.out"), "tampered").unwrap();
    assert_eq!(desk.refused(&offline).0, 7);
    let (code, _) = desk.refused(&["store", "ls", "--store", "nowhere"]);
    assert_eq!(code, 2, "a store that is named must exist");
}
