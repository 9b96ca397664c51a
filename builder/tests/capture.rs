//! `gilt capture`, `gilt disk` and `gilt inventory` as one uses them: as an ordinary user, on disks that
//! cannot be written to.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Who runs gilt when the tests run as root.
const NOBODY: &str = "65534";

/// ```text
/// disks/   read-only, of whoever runs the tests:  disk.raw  GPT: 1 an ESP, 2 ext4 with a small Debian
///                                                 top.qcow2 over it, with files changed
/// out/     where gilt runs
/// ```
struct Desk {
    dir: TempDir,
    is_root: bool,
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("needs {program} ({error}): run ci/setup"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stage(root: &Path) {
    for path in ["etc", "usr/lib", "var/lib/dpkg", "tmp", "boot"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    let write = |path: &str, text: &str| std::fs::write(root.join(path), text).unwrap();
    let release = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n";
    write("usr/lib/os-release", release);
    symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
    write(
        "var/lib/dpkg/status",
        "Package: base-files\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.4\n\n",
    );
    write("etc/fstab", "LABEL=root / ext4 defaults 0 1\n");
    write("boot/vmlinuz-6.1.0-1-amd64", "no kernel");
    write("tmp/junk", "junk");
    for number in 0..40 {
        let text = format!("file {number} has lines\n").repeat(200 + 50 * number);
        write(&format!("usr/lib/file{number:02}"), &text);
    }
}

/// An ext4 file system as partition 2 of `disk`.
fn as_disk(folder: &Path, volume: &str, disk: &str) {
    run(folder, "truncate", &["-s", "48M", disk]);
    let parts = ["-n", "1:2048:+8M", "-t", "1:ef00", "-n", "2:0:0", "-t", "2:8300", disk];
    run(folder, "sgdisk", &parts);
    let (from, to) = (format!("if={volume}"), format!("of={disk}"));
    let place = ["bs=1M", "seek=9", "conv=notrunc,sparse", "status=none"];
    run(folder, "dd", &[&[&*from, &*to][..], &place].concat());
}

impl Desk {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (made, disks, out) =
            (dir.path().join("made"), dir.path().join("disks"), dir.path().join("out"));
        for folder in [&made, &disks, &out] {
            std::fs::create_dir(folder).unwrap();
        }
        stage(&made.join("stage"));
        run(&made, "truncate", &["-s", "32M", "root.img"]);
        run(&made, "mke2fs", &["-q", "-F", "-t", "ext4", "-L", "root", "-d", "stage", "root.img"]);
        as_disk(&made, "root.img", "../disks/disk.raw");

        // The same volume a day later; what differs lies in an overlay.
        std::fs::write(made.join("new"), "written later\n".repeat(3000)).unwrap();
        let script = "rm /usr/lib/file07\nwrite new /usr/lib/file07\nwrite new /etc/new\n";
        std::fs::write(made.join("script"), script).unwrap();
        run(&made, "cp", &["--sparse=always", "root.img", "later.img"]);
        run(&made, "debugfs", &["-w", "-f", "script", "later.img"]);
        run(&made, "cp", &["--sparse=always", "../disks/disk.raw", "later.raw"]);
        let place = ["if=later.img", "of=later.raw", "bs=1M", "seek=9", "conv=notrunc"];
        run(&made, "dd", &[&place[..], &["status=none"]].concat());
        let create = ["create", "-q", "-f", "qcow2", "-b", "../made/later.raw", "-F", "raw"];
        run(&disks, "qemu-img", &[&create[..], &["top.qcow2"]].concat());
        let rebase = ["rebase", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "top.qcow2"];
        run(&disks, "qemu-img", &rebase);

        let is_root = run(dir.path(), "id", &["-u"]).trim() == "0";
        let mode = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        if is_root {
            // Wherever the program was built, nobody else may be let in.
            std::fs::copy(env!("CARGO_BIN_EXE_gilt"), dir.path().join("gilt")).unwrap();
            mode(dir.path(), 0o755);
            run(dir.path(), "chown", &[NOBODY, "out"]);
        }
        mode(&disks.join("disk.raw"), 0o444);
        mode(&disks.join("top.qcow2"), 0o444);
        mode(&disks, 0o555);
        Self { dir, is_root }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    /// Runs gilt in `out` as an ordinary user, who can get no more rights.
    fn gilt(&self, arguments: &[&str]) -> Output {
        let mut command = if self.is_root {
            let mut command = Command::new("setpriv");
            let ids = [&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")];
            command.args(ids).args(["--clear-groups", "--bounding-set=-all", "--no-new-privs"]);
            command.arg(self.dir.path().join("gilt"));
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_gilt"))
        };
        let home = self.out("");
        command.args(arguments).current_dir(&home).env("HOME", &home).stdin(Stdio::null());
        command.output().expect("gilt, or setpriv (package util-linux)")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.gilt(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gilt {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Each line of what is printed with --json.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ok(&[arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Exit code and what is said on stderr.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.gilt(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Digests, times and names of all that belongs to the disks.
    fn disks(&self) -> String {
        let script = "cd disks && sha256sum * && stat -c '%n %y %z %s' . *";
        run(self.dir.path(), "sh", &["-c", script])
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Else an ordinary user cannot remove it.
        let _ = std::fs::set_permissions(
            self.dir.path().join("disks"),
            PermissionsExt::from_mode(0o755),
        );
    }
}

const DISK: &str = "../disks/disk.raw";
const TOP: &str = "../disks/top.qcow2";

#[test]
fn an_ordinary_user_captures_and_the_disk_stays_as_it_was() {
    let desk = Desk::new();
    let before = desk.disks();
    let first = &desk.json(&["capture", DISK, "-o", "base.wim"])[0];
    assert_eq!((&first["partition"], &first["file_system"]), (&2.into(), &"ext4".into()));
    assert_eq!(first["label"], "root");
    assert_eq!(first["incremental"], Value::Null);
    assert_eq!(first["index"], "base.wim.index");
    let excluded: Vec<&str> =
        first["excluded"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(excluded, ["/lost+found", "/tmp/junk"]);
    let out = desk.out("");
    run(&out, "wimlib-imagex", &["verify", "base.wim"]);

    // The next night: what was not written since is not read.
    let second = &desk.json(&["capture", TOP, "-o", "next.wim", "--base", "base.wim"])[0];
    let incremental = &second["incremental"];
    assert_eq!(incremental["used"], true, "{incremental}");
    assert!(incremental["known_bytes"].as_u64().unwrap() > 500_000, "{incremental}");
    assert!(incremental["changed_bytes"].as_u64().unwrap() < 1 << 20, "{incremental}");
    assert!(second["copied_bytes"].as_u64().unwrap() > 0);
    run(&out, "wimlib-imagex", &["verify", "next.wim"]);
    desk.ok(&["capture", TOP, "-o", "full.wim", "--no-index"]);
    assert!(!desk.out("full.wim.index").exists());
    assert_eq!(desk.ok(&["wim", "diff", "full.wim:1", "next.wim:1"]), "");
    let changed = desk.gilt(&["wim", "diff", "base.wim:1", "next.wim:1"]);
    let changed = String::from_utf8(changed.stdout).unwrap();
    assert!(changed.contains("/etc/new") && changed.contains("/usr/lib/file07"), "{changed}");

    // The index by its own name, proved by reading all.
    let proved = ["capture", TOP, "-o", "next.wim", "--base", "base.wim.index"];
    let proved = &desk.json(&[&proved[..], &["--verify-incremental"]].concat())[0];
    let files = proved["incremental"]["verified_files"].as_u64().unwrap();
    assert!(files >= 20, "{files}");
    assert_eq!(desk.disks(), before);
}

#[test]
fn an_index_that_does_not_fit_is_not_used_and_the_reason_is_told() {
    let desk = Desk::new();
    desk.ok(&["capture", DISK, "-o", "base.wim"]);
    let mut raw = std::fs::read(desk.out("base.wim.index")).unwrap();
    let middle = raw.len() / 2;
    raw[middle] ^= 1;
    std::fs::write(desk.out("base.wim.index"), raw).unwrap();
    let output = desk.gilt(&["capture", TOP, "-o", "next.wim", "--base", "base.wim"]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("index not used: base.wim.index: is damaged"), "{told}");
    // Everything was read; what the base has was copied all the same.
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("copied as they were") && !told.contains("not read again"), "{told}");
    desk.ok(&["capture", TOP, "-o", "full.wim", "--no-index"]);
    assert_eq!(desk.ok(&["wim", "diff", "full.wim:1", "next.wim:1"]), "");
}

#[test]
fn what_is_left_out_is_what_the_rules_say() {
    let desk = Desk::new();
    let excluded = |arguments: &[&str]| {
        let done =
            desk.json(&[&["capture", DISK, "-o", "x.wim", "--no-index"], arguments].concat());
        let list = done[0]["excluded"].as_array().unwrap();
        list.iter().map(|path| path.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(excluded(&["--no-default-excludes"]).is_empty());
    assert_eq!(excluded(&["--no-default-excludes", "--exclude", "/usr/lib/file3?"]).len(), 10);
    assert_eq!(excluded(&["--exclude", "fstab"]), ["/etc/fstab", "/lost+found", "/tmp/junk"]);
    let script = "[ExclusionList]\n\\usr\\lib\n[ExclusionException]\n\\usr\\lib\\os-release\n";
    std::fs::write(desk.out("WimScript.ini"), script).unwrap();
    let left_out = excluded(&["--exclude-file", "WimScript.ini"]);
    assert!(left_out.iter().all(|path| path.starts_with("/usr/lib")), "{left_out:?}");
    let kept = desk.ok(&["wim", "ls", "x.wim", "--path", "/usr/lib"]);
    assert_eq!(kept.trim(), "/usr/lib/os-release");
}

#[test]
fn a_disk_is_looked_into_without_being_touched() {
    let desk = Desk::new();
    let before = desk.disks();
    let info = &desk.json(&["disk", "info", TOP])[0];
    let formats: Vec<&Value> =
        info["layers"].as_array().unwrap().iter().map(|layer| &layer["format"]).collect();
    assert_eq!(formats, ["qcow2", "raw"]);
    assert_eq!(
        (&info["table"]["kind"], &info["table"]["sector_bytes"]),
        (&"gpt".into(), &512.into())
    );
    let second = &info["partitions"][1];
    assert_eq!((&second["number"], &second["label"]), (&2.into(), &"root".into()));
    assert_eq!(second["start"], 9 << 20);
    let text = desk.ok(&["disk", "info", TOP]);
    assert!(text.contains("top.qcow2: qcow2") && text.contains("sectors of 512 bytes"), "{text}");

    let listed = desk.json(&["disk", "ls", TOP, "/etc"]);
    let mut names: Vec<&str> = listed.iter().map(|line| line["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["fstab", "new", "os-release"]);
    // Links are followed.
    assert!(desk.ok(&["disk", "cat", TOP, "/etc/os-release"]).contains("Debian GNU/Linux 12"));
    assert_eq!(desk.ok(&["disk", "cat", TOP, "/etc/new"]), "written later\n".repeat(3000));

    let verified = &desk.json(&["disk", "verify", TOP])[0];
    assert_eq!(
        (&verified["disk_bytes"], &verified["problems"]),
        (&(48 << 20).into(), &Value::Array(vec![]))
    );
    assert!(verified["files"].as_u64().unwrap() >= 45, "{verified}");
    assert_eq!(desk.disks(), before);
}

#[test]
fn a_disk_and_its_capture_have_one_inventory() {
    let desk = Desk::new();
    desk.ok(&["capture", DISK, "-o", "base.wim", "--no-index"]);
    let of_disk = desk.json(&["inventory", DISK]);
    assert_eq!(of_disk[0]["system"]["id"], "debian");
    assert_eq!(of_disk[0]["packages"][0]["name"], "base-files");
    assert_eq!(of_disk[0]["kernels"][0], "6.1.0-1-amd64");
    assert_eq!(desk.json(&["inventory", "base.wim:1"]), of_disk);
    let bill: Value = serde_json::from_str(&desk.ok(&["inventory", DISK, "--cyclonedx"])).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let names: Vec<&Value> =
        bill["components"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert!(names.contains(&&Value::from("base-files")), "{names:?}");
}

#[test]
fn mistakes_end_with_their_exit_code_and_a_way_out_and_leave_nothing() {
    let desk = Desk::new();
    let says = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (exit, told) = desk.refused(arguments);
        assert_eq!(exit, code, "{arguments:?}: {told}");
        for part in parts {
            assert!(told.contains(part), "{arguments:?} does not say {part:?}: {told}");
        }
    };
    says(&["capture", "gone.qcow2", "-o", "x.wim"], 2, &["gone.qcow2"]);
    says(&["capture", DISK, "-o", "x.wim", "--partition", "7"], 2, &["7", "gilt disk info"]);
    says(&["capture", DISK, "-o", "x.wim", "--partition", "1"], 2, &["1"]);
    says(&["capture", DISK, "-o", "x.wim", "--exclude", "/a/../b"], 2, &["/a/../b"]);
    says(&["capture", DISK, "-o", "x.wim", "--base", "gone.wim"], 2, &["gone.wim"]);
    says(&["capture", DISK, "-o", "x.wim", "--snapshot", "monday"], 2, &["no snapshots"]);
    says(&["capture", TOP, "-o", "x.wim", "--snapshot", "monday"], 2, &["monday"]);
    says(&["disk", "cat", DISK, "/etc/gone"], 2, &["/etc/gone is not on the volume"]);
    says(&["inventory", DISK, "--partition", "9"], 2, &["9", "gilt disk info"]);
    // A disk that lost its second half.
    let half = std::fs::read(desk.dir.path().join("disks/disk.raw")).unwrap();
    std::fs::write(desk.out("half.raw"), &half[..24 << 20]).unwrap();
    let (exit, told) = desk.refused(&["disk", "verify", "half.raw"]);
    assert_eq!(exit, 7, "{told}");
    let (exit, _) = desk.refused(&["capture", "half.raw", "-o", "x.wim"]);
    assert_ne!(exit, 0);
    let left: Vec<_> = std::fs::read_dir(desk.out(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "half.raw")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
