//! The failure table: each way a build can fail gives its exit code, a diagnosis that names the
//! cause, evidence, and leaves no process and no file.

use gilt_tests::{Bench, Running, root, signal};
use std::process::Command;

/// A template with one layer that runs `script`.
fn with_layer(bench: &Bench, name: &str, script: &str, more: &str) -> std::path::PathBuf {
    let script = script.replace('\'', "''");
    let text = format!(
        "layers:\n- name: {name}\n  provisioners:\n  - shell: {{inline: ['{script}']{more}}}\n"
    );
    bench.template(name, &text)
}

#[test]
fn a_script_that_fails_is_named_with_its_place_and_last_words() {
    let bench = Bench::new();
    let template = with_layer(&bench, "script-fails", "echo no such thing >&2; exit 3", "");
    let done = bench.build(&template, &[]);
    done.assert_failed(4, "exit code 3");
    assert!(done.stderr.contains("script-fails.yaml:6"), "{}", done.stderr);
    let output = std::fs::read_to_string(done.evidence().join("output.log")).unwrap();
    assert!(output.contains("no such thing"), "{output}");
    bench.assert_nothing_left();
}

#[test]
fn a_secret_is_in_no_output_and_no_evidence() {
    let bench = Bench::new();
    let text = "variables:\n  token: {sensitive: true}\nlayers:\n- name: leaks\n  provisioners:\n  \
                - shell: {inline: ['echo the token is $T; exit 1'], env: {T: \"${token}\"}}\n";
    let template = bench.template("secret", text);
    let done = bench.build(&template, &["--var", "token=correct-horse-battery"]);
    done.assert_failed(4, "exit code 1");
    assert!(!done.stdout.contains("correct-horse"), "{}", done.stdout);
    assert!(!done.stderr.contains("correct-horse"), "{}", done.stderr);
    let grep = Command::new("grep").args(["-ra", "correct-horse"]).arg(done.evidence()).output();
    assert_eq!(String::from_utf8_lossy(&grep.unwrap().stdout), "");
}

#[test]
fn a_command_that_hangs_ends_at_its_deadline() {
    let bench = Bench::new();
    let template = with_layer(&bench, "hangs", "echo asleep; sleep 1000", ", timeout: 5s");
    bench.build(&template, &[]).assert_failed(5, "did not end within 5 s");
    bench.assert_nothing_left();
}

/// A disk whose boot sector does nothing for ever: `jmp $`.
#[test]
fn a_guest_that_hangs_at_boot_is_told_by_its_silence() {
    let bench = Bench::new();
    let mut disk = vec![0; 1 << 20];
    disk[..2].copy_from_slice(&[0xeb, 0xfe]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(bench.dir.path().join("hang.raw"), disk).unwrap();
    let template = bench.dir.path().join("hang.yaml");
    let text = "name: hang\nsource: {disk: hang.raw}\nmachine: {firmware: bios, memory: 64MiB}\n\
                communicator: {timeout: 8s}\n";
    std::fs::write(&template, text).unwrap();
    let done = bench.build(&template, &[]);
    done.assert_failed(5, "nothing on its serial line");
    assert!(done.evidence().join("screen-last.png").exists());
    bench.assert_nothing_left();
}

#[test]
fn a_guest_that_never_answers_ssh_is_shown_by_its_serial_log() {
    let bench = Bench::new();
    let text = "layers:\n- name: no-ssh\n  provisioners:\n  - shell: {inline: ['systemctl disable --now ssh.socket 2>/dev/null || true', \
                'systemctl mask ssh.service']}\n  - restart: {timeout: 30s}\n";
    let template = bench.template("no-ssh", text);
    let done = bench.build(&template, &[]);
    done.assert_failed(5, "timed out");
    let serial = std::fs::read_to_string(done.evidence().join("guest-serial.log")).unwrap();
    assert!(serial.contains("Debian") || serial.contains("Linux"), "{serial}");
    bench.assert_nothing_left();
}

#[test]
fn a_kernel_panic_is_called_one() {
    let bench = Bench::new();
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60";
    let template = with_layer(&bench, "panics", script, "");
    bench.build(&template, &[]).assert_failed(4, "panic");
    bench.assert_nothing_left();
}

#[test]
fn a_guest_that_powers_off_in_the_middle_is_noticed_at_once() {
    let bench = Bench::new();
    let template = with_layer(&bench, "goes-off", "poweroff -ff; sleep 600", "");
    bench.build(&template, &[]).assert_failed(4, "powered off");
    bench.assert_nothing_left();
}

#[test]
fn a_hypervisor_that_dies_is_noticed() {
    let bench = Bench::new();
    let template = with_layer(&bench, "qemu-dies", "echo ready; sleep 600", "");
    let mut running = bench.start_build(&template, &[]);
    running.wait_for_output("ready");
    for pid in bench.machines() {
        signal(pid, "KILL");
    }
    running.finish().assert_failed(4, "the hypervisor died");
    bench.assert_nothing_left();
}

/// The home is a small file system of its own, mounted where only this build sees it.
#[test]
fn a_full_disk_of_the_host_is_named_as_the_cause() {
    let bench = Bench::new();
    let home = bench.dir.path().join("small-home");
    std::fs::create_dir(&home).unwrap();
    let template = bench.template("disk-full", "layers: []\n");
    let gilt = bench.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user"]).arg("sh").arg("-c").arg(format!(
        "mount -t tmpfs -o size=150m none '{0}' && exec '{1}' build --json '{2}'",
        home.display(),
        gilt.get_program().to_string_lossy(),
        template.display(),
    ));
    command
        .env("GILT_HOME", &home)
        .env("GILT_STORE", bench.store())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let done = Running::start(command).finish();
    done.assert_code(3);
    assert!(done.stderr.contains("disk of this host is full"), "{}", done.stderr);
    // It went with the small file system; that it was kept at all is told.
    assert!(!done.evidence().as_os_str().is_empty());
    assert_eq!(bench.machines(), Vec::<u32>::new());
}

#[test]
fn a_taken_port_is_refused_before_anything_runs() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let template = with_layer(&bench, "port-taken", "true", "");
    bench.build(&template, &["--ssh-port", &port]).assert_failed(3, "is taken");
    bench.assert_nothing_left();
}

#[test]
fn an_input_with_another_checksum_is_refused_with_both() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("tool.tar"), b"hello").unwrap();
    let wrong = "0".repeat(64);
    let text = format!(
        "layers:\n- name: wrong-sum\n  inputs: {{tool: {{path: tool.tar, sha256: \"{wrong}\"}}}}\n  \
         provisioners:\n  - shell: 'true'\n"
    );
    let template = bench.template("wrong-sum", &text);
    let done = bench.build(&template, &[]);
    done.assert_code(7);
    assert!(done.stderr.contains("tool.tar"), "{}", done.stderr);
    assert!(done.stderr.contains("2cf24dba5fb0a30e"), "{}", done.stderr);
    bench.assert_nothing_left();
}

#[test]
fn a_failed_layer_is_where_the_next_build_begins() {
    let bench = Bench::new();
    let text = |second: &str| {
        format!(
            "layers:\n- name: first\n  provisioners:\n  - shell: 'echo resume-{0} > /root/first'\n\
             - name: second\n  provisioners:\n  - shell: '{second}'\n",
            std::process::id()
        )
    };
    let template = bench.template("resume", &text("false"));
    let failed = bench.build(&template, &["--until", "second"]);
    failed.assert_failed(4, "exit code 1");
    let template = bench.template("resume", &text("cat /root/first"));
    let done = bench.build(&template, &["--until", "second"]);
    done.assert_code(0);
    assert_eq!(done.layers_run(), ["second"]);
    let why = bench.gilt(&["layers", "why", &template.display().to_string(), "second"]);
    why.assert_code(0);
    bench.assert_nothing_left();
}

#[test]
fn kill_9_leaves_no_machine_and_the_next_build_succeeds() {
    let bench = Bench::new();
    let text = "variables: {nap: {default: \"600\"}}\nlayers:\n- name: naps\n  provisioners:\n  \
                - shell: {inline: ['echo ready; sleep $NAP'], env: {NAP: \"${nap}\"}}\n";
    let template = bench.template("killed", text);
    let mut running = bench.start_build(&template, &["--until", "naps"]);
    running.wait_for_output("ready");
    running.signal("KILL");
    running.finish();
    // The machine goes with gilt, not only when the next build looks.
    bench.assert_no_machine();
    let done = bench.build(&template, &["--until", "naps", "--var", "nap=0"]);
    done.assert_code(0);
    bench.assert_nothing_left();
}

/// Stops a build as soon as it is in `stage`.
fn interrupt_in(stage: &str, signal: &str, more: &[&str]) {
    let bench = Bench::new();
    // A layer of its own for each stage, so that no stage is reused from another test.
    let nap = if stage == "layers" { "sleep 600".to_owned() } else { format!("echo {stage}") };
    let text = format!(
        "layers:\n- name: nap\n  provisioners:\n  - shell: '{nap}'\ntests:\n- {{name: nap, shell: sleep 5}}\n"
    );
    let template = bench.template("interrupted", &text);
    let mut running = bench.start_build(&template, more);
    running.wait_for_stage(stage);
    if matches!(stage, "install" | "layers" | "generalize" | "test") {
        bench.wait_for_machine();
    }
    running.signal(signal);
    let done = running.finish();
    done.assert_code(130);
    assert!(done.named("build-finished").next().is_none(), "{}", done.stdout);
    bench.assert_nothing_left();
}

#[test]
fn ctrl_c_while_installing_cleans_up() {
    interrupt_in("install", "INT", &["--force"]);
}

#[test]
fn sigterm_in_a_layer_cleans_up() {
    interrupt_in("layers", "TERM", &[]);
}

#[test]
fn ctrl_c_while_generalizing_cleans_up() {
    interrupt_in("generalize", "INT", &[]);
}

#[test]
fn sigterm_while_capturing_cleans_up() {
    interrupt_in("capture", "TERM", &[]);
}

#[test]
fn ctrl_c_while_testing_cleans_up() {
    interrupt_in("test", "INT", &[]);
}

#[test]
fn ctrl_c_while_publishing_leaves_a_whole_store() {
    interrupt_in("publish", "INT", &["--publish"]);
}

#[test]
fn the_shipped_templates_are_valid() {
    let bench = Bench::new();
    for entry in std::fs::read_dir(root().join("templates")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let path = path.display().to_string();
            let mut arguments = vec!["validate", &path];
            // Templates of Windows want the media of whoever builds them.
            if path.contains("/windows-") {
                arguments.extend(["--var", "iso=install.iso"]);
                if !path.contains("/windows-server-") {
                    arguments.extend(["--var", "openssh=OpenSSH.zip"]);
                }
            }
            bench.gilt(&arguments).assert_code(0);
        }
    }
}
