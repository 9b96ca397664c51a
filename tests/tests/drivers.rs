//! One template, several drivers: what comes out differs only where docs/reproducible.md says so.

#[path = "../../vm-drivers/tests/hyperv_host/mod.rs"]
mod hyperv_host;

use gilt_tests::{Bench, Finished, Running};
use gilt_vm::testing::LibvirtDaemon;
use hyperv_host::PlayedHost;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `gilt wim diff` may say of two builds of the same inputs (docs/reproducible.md).
const TIMES: &[&str] = &["created", "accessed", "modified"];

/// A template over a disk that is installed already, so that only the layers and what follows run. With
/// what it says of the machine beside its sizes.
fn template(bench: &Bench, machine: &str) -> PathBuf {
    let folder = bench.dir.path();
    bench.thin_disk();
    let text = format!(
        "name: both\nguest: linux\nsource: {{disk: {{path: base.qcow2}}}}\n\
         machine: {{cpus: 2, memory: 768MiB, disk: 4GiB{machine}}}\n\
         communicator: {{type: ssh, username: gilt-build, private_key: key, timeout: 10m}}\n\
         layers:\n- name: mark\n  inputs: {{word: {{path: word}}}}\n  provisioners:\n  - shell: \
         '/usr/lib/apt/apt-helper download-file \"$GILT_INPUT_WORD\" /opt/mark'\n\
         capture: {{compress: xpress, level: fast}}\n\
         tests:\n- {{name: mark, shell: cat /opt/mark, contains: one word}}\n"
    );
    let path = folder.join("both.yaml");
    std::fs::write(&path, text).expect("write a template");
    std::fs::write(folder.join("word"), "one word\n").expect("write an input");
    path
}

fn start(bench: &Bench, template: &Path, home: &Path, driver: &str, more: &[&str]) -> Running {
    let mut command = bench.command();
    command.env("GILT_HOME", home).args(["build", "--json"]).arg(template);
    command.args(["--driver", driver]).args(more);
    Running::start(command)
}

/// Builds in a home of its own, with one command that differs by its driver only. The image.
fn build(bench: &Bench, template: &Path, home: &Path, driver: &str) -> PathBuf {
    let built = start(bench, template, home, driver, &["--no-test"]).finish();
    built.assert_code(0);
    assert_eq!(built.layers_run().last(), Some(&"mark"), "{}", built.stdout);
    image(&built)
}

fn image(built: &Finished) -> PathBuf {
    let finished = built.named("build-finished").next().expect("an end");
    finished["wim"].as_str().expect("an image").into()
}

/// The two images differ by the times of their files, and by nothing else.
fn assert_times_alone_differ(bench: &Bench, first: &Path, second: &Path) {
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let diff = bench.gilt(&["wim", "diff", "--json", &first, &second]);
    diff.assert_code(0);
    assert!(!diff.events.is_empty(), "times at least differ: {}", diff.stdout);
    let beyond: Vec<_> = diff
        .events
        .iter()
        .filter(|change| {
            let reasons = change["reasons"].as_array().expect("reasons");
            change["change"] != "changed"
                || !reasons
                    .iter()
                    .all(|reason| TIMES.contains(&reason.as_str().unwrap_or_default()))
        })
        .collect();
    assert!(beyond.is_empty(), "more than times differs: {beyond:#?}");
}

/// A host that is played, with the runtime its server lives on.
fn played() -> (tokio::runtime::Runtime, PlayedHost, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let host = runtime.block_on(PlayedHost::start());
    let driver = format!("hyperv:{}", host.address);
    (runtime, host, driver)
}

#[test]
fn a_template_builds_the_same_image_on_qemu_and_on_libvirt() {
    let bench = Bench::new();
    let template = template(&bench, ", accelerator: tcg");
    let daemon = LibvirtDaemon::start().unwrap_or_else(|what| panic!("{what}"));
    let libvirt = format!("libvirt:{}", daemon.uri);
    let home = |name: &str| bench.dir.path().join(name);
    let first = build(&bench, &template, &home("home-qemu"), "qemu");
    let second = build(&bench, &template, &home("home-libvirt"), &libvirt);

    assert_times_alone_differ(&bench, &first, &second);

    // Nothing of it runs on: no domain, no process.
    let left = Command::new("virsh")
        .args(["-q", "-c", &daemon.uri, "list", "--all", "--uuid"])
        .output()
        .expect("needs virsh: run ci/setup");
    assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "");

    // Keys do not depend on the driver: libvirt goes on from QEMU's checkpoints, by a boot from the
    // disk, for a guest's memory never crosses drivers.
    let mut command = bench.command();
    command.env("GILT_HOME", home("home-qemu")).arg("shell").arg(&template);
    command.args(["--driver", &libvirt, "--command", "cat /opt/mark"]);
    let shell = Running::start(command).finish();
    shell.assert_code(0);
    assert!(shell.stdout.contains("one word"), "{}", shell.stdout);
    assert!(shell.stderr.contains("cannot be resumed"), "{}", shell.stderr);
}

#[test]
fn a_template_builds_the_same_image_on_hyperv_and_is_tested_there() {
    let bench = Bench::new();
    let template = template(&bench, "");
    let (_runtime, host, hyperv) = played();
    let home = |name: &str| bench.dir.path().join(name);
    let first = build(&bench, &template, &home("home-qemu"), "qemu");

    // The same home: QEMU's checkpoints are no disks of that host, and are left alone.
    let checkpoints = home("home-qemu").join("checkpoints");
    std::fs::create_dir(home("home-hyperv")).expect("a home");
    let copied = Command::new("cp").arg("-a").arg(&checkpoints).arg(home("home-hyperv")).status();
    assert!(copied.expect("cp").success());
    let begun = std::time::Instant::now();
    let built = start(&bench, &template, &home("home-hyperv"), &hyperv, &[]).finish();
    built.assert_code(0);
    println!("the build on the played host took {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(built.layers_run(), ["install", "mark"], "{}", built.stdout);
    assert_eq!(built.named("stage-finished").filter(|done| done["stage"] == "test").count(), 1);
    assert_times_alone_differ(&bench, &first, &image(&built));

    assert_eq!(host.left_over(), Vec::<String>::new());
    assert_eq!(*host.world.not_understood.lock().unwrap(), Vec::<String>::new());

    // Another host has none of these disks.
    let (_runtime, _other, other) = played();
    let mut command = bench.command();
    command.env("GILT_HOME", home("home-hyperv")).arg("shell").arg(&template);
    command.args(["--driver", &other, "--command", "true"]);
    let shell = Running::start(command).finish();
    shell.assert_code(2);
    assert!(shell.stderr.contains("has no checkpoint"), "{}", shell.stderr);
}

#[test]
fn a_build_on_hyperv_that_is_killed_leaves_no_half_and_the_next_one_ends_its_machine() {
    let bench = Bench::new();
    let template = template(&bench, "");
    let (_runtime, host, hyperv) = played();
    let home = bench.dir.path().join("home");
    let mut killed = start(&bench, &template, &home, &hyperv, &["--until", "mark"]);
    killed.wait_for("the layer", |event| {
        event["event"] == "layer-started" && event["layer"] == "mark"
    });
    // The base is whole; what was begun over it runs on the host, and nobody is there to end it.
    killed.signal("KILL");
    killed.finish();
    assert_eq!(host.world.host.lock().unwrap().machines.len(), 1);
    let next = start(&bench, &template, &home, &hyperv, &["--until", "mark"]).finish();
    next.assert_code(0);
    assert_eq!(next.layers_run(), ["mark"], "{}", next.stdout);
    assert_eq!(host.left_over(), Vec::<String>::new());
}

#[test]
fn what_hyperv_cannot_do_is_told_before_any_work() {
    let bench = Bench::new();
    let (_runtime, host, hyperv) = played();
    let home = bench.dir.path().join("home");
    let template = template(&bench, "");
    let text = std::fs::read_to_string(&template).expect("the template");
    for (from, to, words) in [
        ("disk: 4GiB", "disk: 4GiB, boot: kernel", "boot: firmware"),
        ("disk: 4GiB", "disk: 4GiB, accelerator: kvm", "the host's own hypervisor"),
        ("disk: 4GiB", "disk: 4GiB, disk_interface: nvme", "NVMe"),
        ("disk: 4GiB", "disk: 4GiB, display: vnc", "VNC"),
        (
            "base.qcow2}}",
            "base.qcow2}, answer: {files: {a: 'get ${build.http}/b'}}}",
            "put the files on the answer medium",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&template, text.replace(from, to)).expect("write");
        let refused = start(&bench, &template, &home, &hyperv, &[]).finish();
        refused.assert_failed(3, words);
        assert_eq!(refused.named("stage-started").count(), 0, "{}", refused.stdout);
    }
    let scripts = host.world.scripts_run.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(scripts, 0, "the host was not even asked");
}
