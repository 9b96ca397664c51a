//! The main job, whole: built, tested, published; then nothing changed, then one line changed.

use gilt_tests::Bench;
use std::process::Command;

fn template(bench: &Bench, last: &str) -> std::path::PathBuf {
    let text = format!(
        "layers:\n- name: first\n  provisioners:\n  - shell: 'echo one > /opt/first'\n- name: last\n  \
         provisioners:\n  - shell: '{last}'\ntests:\n- {{name: both are there, shell: cat /opt/first \
         /opt/last, contains: two}}\n- {{name: DHCP, shell: ls /run/systemd/netif/leases/*}}\npublish: \
         {{channel: dev}}\n"
    );
    bench.template("whole", &text)
}

/// Contents of a file of the image, as wimlib reads them; `None` where there is no such file.
fn file_of(bench: &Bench, wim: &std::path::Path, path: &str) -> Option<Vec<u8>> {
    let out = bench.dir.path().join("extracted");
    let _ = std::fs::remove_dir_all(&out);
    let done = Command::new("wimlib-imagex")
        .arg("extract")
        .arg(wim)
        .args(["1", path, "--dest-dir"])
        .arg(&out)
        .output()
        .expect("needs wimlib-imagex: run ci/setup");
    let name = path.rsplit('/').next()?;
    if done.status.success() { std::fs::read(out.join(name)).ok() } else { None }
}

#[test]
fn an_image_is_built_once_and_holds_nothing_of_its_build() {
    let bench = Bench::new();
    let publish = ["--publish"];
    let first = bench.build(&template(&bench, "echo two > /opt/last"), &publish);
    first.assert_code(0);
    let finished = first.named("build-finished").next().expect("an end");
    assert_eq!(finished["version"], "whole@1");

    // Nothing changed: no machine, no stage.
    let again = bench.build(&template(&bench, "echo two > /opt/last"), &publish);
    again.assert_code(0);
    let finished = again.named("build-finished").next().expect("an end");
    assert_eq!(finished["unchanged"], true);
    assert_eq!(again.named("stage-started").count(), 0, "{}", again.stdout);

    // The last script changed: only its layer runs, and `why` says so before.
    // The home is shared by runs of this test, so no earlier one may have had the very same script.
    let script = format!("echo two, changed {} > /opt/last", bench.dir.path().display());
    let changed = template(&bench, &script);
    let why = bench.gilt(&["layers", "why", &changed.display().to_string(), "last"]);
    why.assert_code(0);
    assert!(why.stdout.contains("changed"), "{}", why.stdout);
    let second = bench.build(&changed, &publish);
    second.assert_code(0);
    assert_eq!(second.layers_run(), ["last"]);

    // What comes out of the store is a good WIM, with nothing of the build in it.
    let wim = bench.dir.path().join("pulled.wim");
    bench.gilt(&["pull", "whole:dev", "-o", &wim.display().to_string()]).assert_code(0);
    let verified = Command::new("wimlib-imagex").arg("verify").arg(&wim).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    assert_eq!(file_of(&bench, &wim, "/etc/machine-id").expect("an empty machine-id"), b"");
    for file in ["/etc/passwd", "/etc/shadow", "/etc/group"] {
        let text = file_of(&bench, &wim, file).expect("an account file");
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("gilt-build"), "{file}: {text}");
    }
    let listed = Command::new("wimlib-imagex").arg("dir").arg(&wim).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for gone in ["ssh_host_", "gilt-build", "authorized_keys", "/var/lib/systemd/random-seed"] {
        assert!(!listed.contains(gone), "{gone} is in the image");
    }
    bench.assert_nothing_left();
}

#[test]
fn the_kernel_of_a_disk_is_started_past_its_boot_loader_and_the_image_boots_through_it() {
    let bench = Bench::new();
    let path = |name: &str| bench.dir.path().join(name);
    bench.thin_disk();
    let template = |last: &str| {
        let text = format!(
            "name: kernel\nsource: {{disk: {{path: base.qcow2}}}}\nmachine: {{boot: kernel, disk: 4GiB}}\n\
             communicator: {{private_key: key}}\nlayers:\n- name: first\n  provisioners:\n  - shell: 'test ! -e /sys/firmware/efi'\n\
             - name: last\n  provisioners:\n  - shell: '{last}'\ntests:\n- {{name: firmware, shell: test -e /sys/firmware/efi}}\n"
        );
        std::fs::write(path("kernel.yaml"), text).expect("write a template");
        path("kernel.yaml")
    };
    bench.build(&template("uname -r > /opt/kernel"), &[]).assert_code(0);

    // The saved memory fits the next machine, which reads the kernel from the checkpoint's disk.
    let again = bench.build(&template("uname -a > /opt/kernel"), &["--until", "last"]);
    again.assert_code(0);
    assert_eq!(again.layers_run(), ["last"]);
    let resumed = |event: &serde_json::Value| {
        event["text"].as_str().is_some_and(|text| text.starts_with("resumed"))
    };
    assert!(again.named("note").any(resumed), "{}", again.stdout);

    // The same kernel would start again: a restart is refused before, and is the end of the machine.
    let restarting = template("systemctl reboot; sleep 60");
    bench.build(&restarting, &["--until", "last"]).assert_failed(4, "reboot");
    let text = std::fs::read_to_string(&restarting).expect("the template");
    std::fs::write(&restarting, text.replace("shell: 'systemctl reboot; sleep 60'", "restart: {}"))
        .expect("write");
    let refused = bench.gilt(&["validate", "kernel.yaml"]);
    refused.assert_code(2);
    assert!(refused.stderr.contains("restarts the guest"), "{}", refused.stderr);
    bench.assert_nothing_left();
}
