//! One template, several drivers: what comes out differs only where docs/reproducible.md says so.

use gilt_tests::Bench;
use gilt_vm::testing::LibvirtDaemon;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `gilt wim diff` may say of two builds of the same inputs (docs/reproducible.md).
const TIMES: &[&str] = &["created", "accessed", "modified"];

/// A template over a disk that is installed already, so that only the layers and what follows run.
fn template(bench: &Bench) -> PathBuf {
    let folder = bench.dir.path();
    bench.thin_disk();
    let text = "name: both\nguest: linux\nsource: {disk: {path: base.qcow2}}\n\
                machine: {cpus: 2, memory: 768MiB, disk: 4GiB, accelerator: tcg}\n\
                communicator: {type: ssh, username: gilt-build, private_key: key, timeout: 5m}\n\
                layers:\n- name: mark\n  inputs: {word: {path: word}}\n  provisioners:\n  - shell: \
                '/usr/lib/apt/apt-helper download-file \"$GILT_INPUT_WORD\" /opt/mark'\n\
                capture: {compress: xpress, level: fast}\n";
    let path = folder.join("both.yaml");
    std::fs::write(&path, text).expect("write a template");
    std::fs::write(folder.join("word"), "one word\n").expect("write an input");
    path
}

/// Builds in a home of its own, with one command that differs by its driver only. The image.
fn build(bench: &Bench, template: &Path, home: &Path, driver: &str) -> PathBuf {
    let mut command = bench.command();
    command.env("GILT_HOME", home).args(["build", "--json"]).arg(template);
    command.args(["--no-test", "--driver", driver]);
    let built = gilt_tests::Running::start(command).finish();
    built.assert_code(0);
    assert_eq!(built.layers_run().last(), Some(&"mark"), "{}", built.stdout);
    let finished = built.named("build-finished").next().expect("an end");
    finished["wim"].as_str().expect("an image").into()
}

#[test]
fn a_template_builds_the_same_image_on_qemu_and_on_libvirt() {
    let bench = Bench::new();
    let template = template(&bench);
    let daemon = LibvirtDaemon::start().unwrap_or_else(|what| panic!("{what}"));
    let libvirt = format!("libvirt:{}", daemon.uri);
    let home = |name: &str| bench.dir.path().join(name);
    let first = build(&bench, &template, &home("home-qemu"), "qemu");
    let second = build(&bench, &template, &home("home-libvirt"), &libvirt);

    let diff = bench.gilt(&[
        "wim",
        "diff",
        "--json",
        &first.display().to_string(),
        &second.display().to_string(),
    ]);
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
    let shell = gilt_tests::Running::start(command).finish();
    shell.assert_code(0);
    assert!(shell.stdout.contains("one word"), "{}", shell.stdout);
    assert!(shell.stderr.contains("cannot be resumed"), "{}", shell.stderr);
}
