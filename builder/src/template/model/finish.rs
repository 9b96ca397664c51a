//! What is done once all layers are on: generalize, capture, test, publish.

use super::FileRef;
use crate::template::fields::{choices, fields, one_key};
use crate::template::text::Text;
use std::collections::BTreeMap;
use std::time::Duration;

choices! {
    /// A trace of one machine that generalizing removes. The build's account and key always go.
    pub enum Trace {
        /// `/etc/machine-id` and its copies.
        MachineId = "machine-id",
        /// The host keys of the SSH server.
        SshHostKeys = "ssh-host-keys",
        /// Logs and journals.
        Logs = "logs",
        /// DHCP leases and network state.
        Leases = "leases",
        /// Package caches and lists.
        Caches = "caches",
        /// Shell histories.
        History = "history",
        /// State of cloud-init, so that it runs again.
        CloudInit = "cloud-init",
        /// Seeds of random number generators.
        RandomSeed = "random-seed",
        /// Temporary files.
        Tmp = "tmp",
    }
}

fields! {
    /// Makes the image fit for many machines: removes what belongs to one, and proves it.
    pub struct Generalize = "generalize" {
        /// Traces to leave in the image.
        key keep: Vec<Trace> = Vec::new(),
        /// How long the guest may take to power off.
        run shutdown_timeout: Duration = Duration::from_secs(120),
        /// How long generalizing itself may take. Sysprep is slow.
        run timeout: Duration = Duration::from_secs(1800),
        /// How Sysprep is run. Windows guests.
        key sysprep: Option<Sysprep> = None,
    }
}

choices! {
    /// What Windows shows at its first start after Sysprep.
    pub enum SysprepMode {
        /// The out-of-box experience.
        Oobe = "oobe",
        /// Audit mode.
        Audit = "audit",
    }
}

fields! {
    /// How Sysprep is run.
    pub struct Sysprep = "sysprep" {
        /// What Windows shows at its first start.
        key mode: SysprepMode = SysprepMode::Oobe,
        /// `/mode:vm`: the image is only for the hypervisor it was built on; starts faster.
        key vm: bool = false,
        /// Answer file for the first start of the deployed image.
        key unattend: Option<FileRef> = None,
        /// Keep drivers of devices that are present.
        key persist_drivers: bool = false,
    }
}

choices! {
    /// How a WIM's contents are compressed.
    pub enum Compression {
        /// Not at all.
        None = "none",
        /// Fast to write and to apply.
        Xpress = "xpress",
        /// Smaller; what Windows media use.
        Lzx = "lzx",
        /// Smallest, in solid blocks; cannot be serviced by every tool.
        Lzms = "lzms",
    }
}

choices! {
    /// How hard the compressor tries.
    pub enum CompressionLevel {
        /// Quick, for work in progress.
        Fast = "fast",
        /// A fair trade.
        Normal = "normal",
        /// Smallest, slow.
        Max = "max",
    }
}

fields! {
    /// Captures the powered-off disk as a WIM, from the host.
    pub struct Capture = "capture" {
        /// How contents are compressed.
        key compress: Compression = Compression::Lzx,
        /// How hard the compressor tries.
        key level: CompressionLevel = CompressionLevel::Normal,
        /// Name of the image inside the WIM; without one, the image's own.
        key name: Option<Text> = None,
        /// Description inside the WIM; without one, the template's.
        key description: Option<Text> = None,
        /// Paths to leave out, with `*` and `?`: `/var/tmp/*`.
        key exclude: Vec<String> = Vec::new(),
        /// Write a table of checksums over the whole file.
        key integrity: bool = true,
    }
}

one_key! {
    /// What a test runs.
    pub enum TestCommand {
        /// A shell command. Linux guests.
        Shell("shell", Text),
        /// A PowerShell command. Windows guests.
        PowerShell("powershell", Text),
    }
}

impl TestCommand {
    pub fn text(&self) -> &Text {
        match self {
            Self::Shell(text) | Self::PowerShell(text) => text,
        }
    }
}

fields! {
    /// A check run on a throw-away machine that starts from the captured image. All must pass
    /// before the image may be published. A `when` beside it decides whether it is there at all.
    pub struct Test = "test" {
        /// What is shown.
        run name: String,
        flat command: TestCommand,
        /// Exit codes that mean success.
        key exit_codes: Vec<i64> = vec![0],
        /// Text that the output must hold.
        key contains: Option<String> = None,
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(60),
        /// How often it is tried again after a failure.
        run retries: u32 = 0,
    }
}

fields! {
    /// Where the image goes once it has passed its tests.
    pub struct Publish = "publish" {
        /// Name of the image in the store; without one, the image's own.
        run image: Option<String> = None,
        /// Channel the new version is put on.
        run channel: Option<String> = None,
        /// The store: a folder or an address. Without one, the default store.
        run store: Option<String> = None,
        /// Labels kept with the version.
        run labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Why this version was made; kept in its history.
        run note: Option<String> = None,
    }
}
