//! Every driver held to the suite, for real, under emulation.

mod hyperv_host;

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, OnceLock},
};

use gilt_vm::{
    VmDriver,
    conformance::{self, Bench, UNSUPPORTED},
    drivers::{self, DRIVERS},
    testing::LibvirtDaemon,
};

/// One test for each driver, by its address with what must live as long as the test: the lines share
/// the guest, and the report tells them apart.
macro_rules! suite {
    ($($driver:ident => $address:expr;)*) => {
        $(mod $driver {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn holds_every_line_it_says_it_can() {
                super::holds_lines_it_says_it_can(stringify!($driver), $address).await;
            }
        })*
        const TESTED: &[&str] = &[$(stringify!($driver)),*];
    };
}

suite! {
    qemu => ("qemu".to_owned(), ());
    libvirt => (super::libvirt(), ());
    hyperv => super::played_hyperv().await;
}

/// The lines that need most of the way to another host: volumes there and back, tunnels, an end by the connection.
const FAR: &[&str] = &[
    "a gilt that is killed leaves no machine",
    "commands and files reach the guest",
    "a checkpoint freezes the disk while the guest goes on",
];

/// The same daemon, as another host: by SSH, with nothing shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libvirt_of_another_host_holds_the_lines_about_the_way_there() {
    let address = format!("libvirt:{}", daemon().far_uri);
    holds("libvirt+ssh", (address, ()), |line| FAR.contains(&line)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long; run by ci/nightly"]
async fn libvirt_of_another_host_holds_every_line_it_says_it_can() {
    let address = format!("libvirt:{}", daemon().far_uri);
    holds_lines_it_says_it_can("libvirt+ssh", (address, ())).await;
}

/// `GILT_TEST_LIBVIRT`, or a daemon of this test alone.
fn libvirt() -> String {
    match std::env::var("GILT_TEST_LIBVIRT") {
        Ok(uri) => format!("libvirt:{uri}"),
        Err(_) => format!("libvirt:{}", daemon().uri),
    }
}

/// Lives as long as this process.
fn daemon() -> &'static LibvirtDaemon {
    static DAEMON: OnceLock<LibvirtDaemon> = OnceLock::new();
    DAEMON.get_or_init(|| LibvirtDaemon::start().unwrap_or_else(|what| panic!("{what}")))
}

/// A server that plays the host; nothing of ours may be left on it, and it must have understood all.
async fn played_hyperv() -> (String, impl Drop) {
    struct Checked(hyperv_host::PlayedHost);
    impl Drop for Checked {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                assert_eq!(self.0.left_over(), Vec::<String>::new());
                assert_eq!(*self.0.world.not_understood.lock().unwrap(), Vec::<String>::new());
            }
        }
    }
    let host = hyperv_host::PlayedHost::start().await;
    (format!("hyperv:{}", host.address), Checked(host))
}

/// All lines, or those with the words of `GILT_CONFORMANCE_ONLY`.
async fn holds_lines_it_says_it_can<G>(name: &str, at: (String, G)) {
    let only = std::env::var("GILT_CONFORMANCE_ONLY").unwrap_or_default();
    holds(name, at, |line| line.contains(&only)).await;
}

async fn holds<G>(name: &str, (address, _lives): (String, G), wanted: impl Fn(&str) -> bool) {
    let driver = open(&address);
    assert_eq!(driver.name(), name);
    let mut bench = Bench::new(driver).unwrap_or_else(|what| panic!("{what}"));
    bench.holder = Some(Box::new(move |disk| {
        let mut holder = Command::new(std::env::current_exe().expect("this test"));
        holder.env("HOLDER_DRIVER", &address).env("HOLDER_DISK", disk).args([
            "--exact",
            "holder_of_a_machine",
            "--ignored",
            "--nocapture",
        ]);
        holder
    }));
    let summary = conformance::run(&bench, wanted, |line, outcome, took| {
        println!("{:7.1} s  {}: {outcome:?}", took.as_secs_f32(), line.states);
    })
    .await;
    println!("{name}: {} lines held, {} unsupported", summary.held, summary.unsupported);
    assert!(summary.wrong.is_empty(), "{}", summary.wrong.join("\n"));
    assert!(summary.held > 0);
}

fn open(address: &str) -> Arc<dyn VmDriver> {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    drivers::open(address, cache).unwrap_or_else(|error| panic!("{error}"))
}

/// Not a test of its own: the process that is killed in the line about a killed gilt.
#[tokio::test]
#[ignore = "run by the line about a killed gilt as a process of its own"]
async fn holder_of_a_machine() {
    let driver = open(&std::env::var("HOLDER_DRIVER").expect("a driver"));
    let disk = std::env::var_os("HOLDER_DISK").expect("a disk");
    conformance::hold(driver, disk.as_ref()).await.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_driver_is_tested_and_in_the_conformance_list() {
    for driver in DRIVERS {
        assert!(TESTED.contains(&driver.name), "{} has no test", driver.name);
        let listed = UNSUPPORTED.iter().find(|(name, _)| *name == driver.name);
        let (_, lines) = listed.unwrap_or_else(|| panic!("{} is not listed", driver.name));
        for line in *lines {
            assert!(conformance::LINES.iter().any(|l| l.states == *line), "no such line: {line}");
        }
    }
}
