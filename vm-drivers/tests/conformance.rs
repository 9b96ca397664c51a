//! The QEMU driver held to the suite, for real, under emulation.

use gilt_vm::{
    conformance::{Bench, LINES, Outcome},
    qemu::{Qemu, QemuConfig},
    registry::RunRegistry,
};

/// All lines in one test: they share the guest, and the report tells them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_holds_every_line_of_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = QemuConfig::new(dir.path().join("cache"));
    config.registry = RunRegistry::at(dir.path().join("run"));
    let bench = Bench::new(Box::new(Qemu::new(config))).unwrap_or_else(|what| panic!("{what}"));
    let only = std::env::var("GILT_CONFORMANCE_ONLY").unwrap_or_default();
    let mut broken = Vec::new();
    let mut held = 0;
    for line in LINES.iter().filter(|l| l.states.contains(&only)) {
        let (outcome, took) = bench.check(line).await;
        println!("{:7.1} s  {}: {outcome:?}", took.as_secs_f32(), line.states);
        match outcome {
            Outcome::Held => held += 1,
            // QEMU can do all of it.
            Outcome::Unsupported(what) | Outcome::Broken(what) => {
                broken.push(format!("{}: {what}", line.states));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(held > 0);
    assert_eq!(std::fs::read_dir(dir.path().join("run")).unwrap().count(), 0, "no record is left");
}
