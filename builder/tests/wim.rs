//! `gilt wim …` as one uses it, with wimlib-imagex as the referee.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: TempDir::new().unwrap() };
        desk.write("in/Windows/notepad.txt", &"a line of text\n".repeat(5000));
        desk.write("in/Windows/System32/config.txt", "config");
        desk.write("in/copy.txt", "config");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn gilt(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gilt"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.gilt(&[&["wim"], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gilt wim {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Each line of what is printed with --json.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ok(&[arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Exit code and what is said on stderr.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.gilt(&[&["wim"], arguments].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn wimlib(arguments: &[&str], dir: &Path) {
    let output = Command::new("wimlib-imagex").args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("needs wimtools ({error}): run ci/setup"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "wimlib-imagex {arguments:?}: {errors}");
}

fn names(value: &Value) -> Vec<&str> {
    value["images"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect()
}

#[test]
fn every_verb_does_its_work() {
    let desk = Desk::new();
    let made = desk.json(&["create", "in", "-o", "a.wim", "--name", "one", "--integrity"]);
    assert_eq!(made[0]["total_bytes"], 75_012);
    assert_eq!(made[0]["unique_bytes"], 75_006, "two files are one content");
    wimlib(&["verify", "a.wim"], desk.dir.path());

    let info = &desk.json(&["info", "a.wim"])[0];
    assert_eq!((names(info), &info["compression"]), (vec!["one"], &"lzx".into()));
    assert_eq!((&info["integrity_table"], &info["images"][0]["files"]), (&true.into(), &3.into()));
    assert!(desk.ok(&["info", "a.wim", "--xml"]).contains("<NAME>one</NAME>"));
    let listed = desk.ok(&["ls", "a.wim", "--path", "Windows"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    let expected = ["/Windows/System32", "/Windows/System32/config.txt", "/Windows/notepad.txt"];
    assert_eq!(listed, expected);
    assert_eq!(desk.json(&["verify", "a.wim"])[0]["faults"], Value::Array(Vec::new()));

    // A second image with a change; then what differs, and why.
    desk.write("in/Windows/notepad.txt", "shorter");
    desk.write("in/new.txt", "new");
    std::fs::remove_file(desk.path("in/copy.txt")).unwrap();
    desk.ok(&["append", "in", "a.wim", "--name", "two"]);
    let changes = desk.json(&["diff", "a.wim:one", "a.wim:2"]);
    let mut changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|line| (line["change"].as_str().unwrap(), line["path"].as_str().unwrap()))
        .filter(|(_, path)| path.ends_with("txt"))
        .collect();
    changes.sort_unstable();
    let expected =
        [("added", "/new.txt"), ("changed", "/Windows/notepad.txt"), ("removed", "/copy.txt")];
    assert_eq!(changes, expected);

    desk.ok(&["export", "a.wim:two", "b.wim", "--name", "three"]);
    desk.ok(&["export", "a.wim:one", "b.wim"]);
    assert_eq!(names(&desk.json(&["info", "b.wim"])[0]), ["three", "one"]);
    desk.ok(&["delete", "b.wim:three"]);
    assert_eq!(names(&desk.json(&["info", "b.wim"])[0]), ["one"]);
    desk.ok(&["optimize", "b.wim", "--compress", "none"]);
    assert_eq!(desk.json(&["info", "b.wim"])[0]["compression"], "none");
    wimlib(&["verify", "b.wim"], desk.dir.path());

    let parts = &desk.json(&["split", "b.wim", "--size", "40KiB"])[0]["parts"];
    assert!(parts.as_array().unwrap().len() >= 2, "{parts}");
    assert_eq!(desk.json(&["verify", "b.swm"])[0]["faults"], Value::Array(Vec::new()));
    wimlib(&["apply", "b.swm", "1", "theirs", "--ref=b*.swm"], desk.dir.path());

    desk.ok(&["extract", "b.swm", "-o", "ours"]);
    for name in ["Windows/notepad.txt", "copy.txt", "Windows/System32/config.txt"] {
        let ours = std::fs::read(desk.path("ours").join(name)).unwrap();
        assert_eq!(ours, std::fs::read(desk.path("theirs").join(name)).unwrap(), "{name}");
    }
    desk.ok(&["extract", "a.wim:2", "-o", "some", "Windows/System32"]);
    assert!(desk.path("some/Windows/System32/config.txt").exists());
    assert!(!desk.path("some/new.txt").exists());
}

#[test]
fn deltas_and_seeds_of_the_command_line() {
    let desk = Desk::new();
    desk.ok(&["create", "in", "-o", "base.wim", "--level", "fast"]);
    desk.write("in/new.txt", "new");
    desk.ok(&["create", "in", "-o", "delta.wim", "--delta-from", "base.wim", "--name", "x"]);
    let (code, said) = desk.refused(&["verify", "delta.wim"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("hint: give the base WIM"), "{said}");
    desk.ok(&["verify", "delta.wim", "--ref", "base.wim"]);
    desk.ok(&["extract", "delta.wim", "-o", "out", "--ref", "base.wim"]);
    assert!(desk.path("out/Windows/notepad.txt").exists());
    let seeded = desk.json(&["create", "in", "-o", "n.wim", "--seed", "base.wim"]);
    assert!(seeded[0]["copied_bytes"].as_u64().unwrap() > 0);
    desk.ok(&["verify", "n.wim"]);
}

#[test]
fn failures_have_their_exit_codes_and_leave_nothing() {
    let desk = Desk::new();
    desk.ok(&["create", "in", "-o", "a.wim", "--name", "one"]);
    let before = desk.files();
    assert_eq!(desk.refused(&["info", "none.wim"]).0, 2);
    let (code, said) = desk.refused(&["extract", "a.wim:7", "-o", "out"]);
    assert_eq!(code, 2);
    assert!(said.contains("`gilt wim info a.wim` lists them"), "{said}");
    assert_eq!(desk.refused(&["append", "in", "a.wim", "--name", "one"]).0, 2);
    assert_eq!(desk.refused(&["delete", "a.wim"]).0, 2, "which image, must be said");
    assert_eq!(desk.refused(&["split", "a.wim", "--size", "0"]).0, 2);
    assert_eq!(desk.refused(&["create", "nowhere", "-o", "b.wim"]).0, 2);
    assert_eq!(desk.files(), before);

    let mut bytes = std::fs::read(desk.path("a.wim")).unwrap();
    bytes[230] ^= 1;
    std::fs::write(desk.path("bad.wim"), bytes).unwrap();
    let (code, said) = desk.refused(&["verify", "bad.wim"]);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("faults"), "{said}");
}
