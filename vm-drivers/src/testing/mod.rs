//! Guests small enough for a test: a kernel of the host and an initial RAM file system made of
//! the host's busybox, kernel modules, `dropbear` and `sftp-server`.
//!
//! The guest says `guest ready` on its serial line, answers SSH for `root` by key, powers off
//! and reboots when asked, and writes to `/dev/vda` when there is one.

mod boot_cd;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use boot_cd::BootFromCd;

use crate::{
    cpio::Cpio,
    driver::VmDriver,
    process::which,
    spec::{Accelerator, DiskSpec, Firmware, MachineSpec, NetworkSpec},
};

/// What the tiny guest says when its services answer.
pub const READY: &str = "guest ready";

/// Modules of Debian's cloud kernel for virtio, CD drives, the power button and panics.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio-rng",
    "sd_mod",
    "sr_mod",
    "isofs",
    "nls_utf8",
    "button",
    "evdev",
    "pvpanic-mmio",
    "ata_piix",
];

/// The driver, made to boot test guests from a CD where it loads no kernels.
pub fn for_test_guests(driver: Arc<dyn VmDriver>) -> Arc<dyn VmDriver> {
    if driver.loads_kernels() {
        return driver;
    }
    match BootFromCd::new(driver.clone(), false) {
        Ok(cd) => Arc::new(cd),
        // Its own refusal of a kernel says what is wrong.
        Err(_) => driver,
    }
}

/// Builds the guest. `Err` says which package is missing.
#[derive(Debug)]
pub struct TinyGuest {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    _dir: tempfile::TempDir,
}

/// A libvirtd of its own by `ci/libvirtd`, unprivileged; ends when this value or this process does.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct LibvirtDaemon {
    /// What to connect to.
    pub uri: String,
    /// The same, as if it were another host.
    pub far_uri: String,
    script: std::process::Child,
}

#[cfg(feature = "testing")]
impl LibvirtDaemon {
    /// `Err` says why it does not run.
    pub fn start() -> Result<Self, String> {
        use std::io::BufRead;
        // The paths of its sockets may have about 100 bytes. The script removes the folder.
        let dir = tempfile::Builder::new().prefix("gilt-lv").tempdir_in("/tmp");
        let dir = dir.map_err(|e| e.to_string())?;
        let mut script = std::process::Command::new(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/libvirtd"),
        )
        .arg(dir.keep())
        .arg("--ssh")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|e| format!("ci/libvirtd: {e}"))?;
        let mut uris = Vec::new();
        if let Some(stdout) = script.stdout.take() {
            let lines = std::io::BufReader::new(stdout).lines().take(2);
            uris.extend(lines.map_while(|line| line.ok()));
        }
        let Ok([uri, far_uri]) = <[String; 2]>::try_from(uris) else {
            return Err("ci/libvirtd ended before its daemon answered: run ci/setup".into());
        };
        Ok(Self { uri, far_uri, script })
    }
}

#[cfg(feature = "testing")]
impl Drop for LibvirtDaemon {
    fn drop(&mut self) {
        // Its stdin is how it knows.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn need(program: &str, package: &str) -> Result<PathBuf, String> {
    let absolute = Path::new(program);
    let found = if absolute.is_absolute() {
        absolute.is_file().then(|| absolute.to_path_buf())
    } else {
        which(OsStr::new(program))
    };
    found.ok_or_else(|| format!("needs {program} of Debian's {package}: run ci/setup"))
}

impl TinyGuest {
    /// With SSH when a public key (OpenSSH line) is given.
    pub fn build(authorized_key: Option<&str>) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        let kernel = newest_kernel().ok_or("needs linux-image-cloud-amd64: run ci/setup")?;
        let release = kernel
            .file_name()
            .and_then(OsStr::to_str)
            .and_then(|n| n.strip_prefix("vmlinuz-"))
            .ok_or("a kernel named vmlinuz-RELEASE is needed")?
            .to_owned();
        let busybox = need("busybox", "busybox-static")?;
        let scratch = tempfile::tempdir().map_err(text)?;
        let mut cpio = Cpio::new();
        for dir in [
            "bin",
            "dev",
            "proc",
            "sys",
            "etc",
            "root",
            "tmp",
            "run",
            "lib",
            "lib64",
            "usr",
            "usr/lib",
            "usr/bin",
            "usr/sbin",
            "lib/modules",
            "mnt",
            "var",
            "var/log",
        ] {
            cpio.directory(dir, if dir == "tmp" { 0o1777 } else { 0o755 });
        }
        cpio.directory("root/.ssh", 0o700).directory("etc/dropbear", 0o700);
        cpio.character_device("dev/console", 0o600, (5, 1));
        cpio.character_device("dev/null", 0o666, (1, 3));
        cpio.file("bin/busybox", 0o755, &std::fs::read(&busybox).map_err(text)?);
        cpio.symlink("bin/sh", "busybox");
        let modules = module_files(&Path::new("/lib/modules").join(&release))?;
        let mut load = String::new();
        for module in &modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            cpio.file(&format!("lib/modules/{name}"), 0o644, &std::fs::read(module).map_err(text)?);
            load.push_str(&format!("insmod /lib/modules/{name}\n"));
        }
        cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        cpio.file("etc/group", 0o644, b"root:x:0:\n");
        cpio.file("etc/shells", 0o644, b"/bin/sh\n");
        if let Some(key) = authorized_key {
            let dropbear = need("/usr/sbin/dropbear", "dropbear-bin")?;
            let sftp = need("/usr/lib/openssh/sftp-server", "openssh-sftp-server")?;
            let mut libraries = BTreeSet::new();
            for program in [&dropbear, &sftp] {
                libraries.extend(shared_libraries(program)?);
            }
            for library in libraries {
                let name = library.file_name().unwrap_or_default().to_string_lossy();
                let to = if name.starts_with("ld-linux") { "lib64" } else { "usr/lib" };
                let bytes = std::fs::read(&library).map_err(text)?;
                cpio.file(&format!("{to}/{name}"), 0o755, &bytes);
            }
            cpio.file("usr/sbin/dropbear", 0o755, &std::fs::read(&dropbear).map_err(text)?);
            cpio.file("usr/lib/sftp-server", 0o755, &std::fs::read(&sftp).map_err(text)?);
            cpio.file("root/.ssh/authorized_keys", 0o600, key.as_bytes());
            // Made once, so that the guest is the same after a reboot.
            let host_key = scratch.path().join("host-key");
            std::process::Command::new(need("dropbearkey", "dropbear-bin")?)
                .args(["-t", "ed25519", "-f"])
                .arg(&host_key)
                .output()
                .map_err(text)?;
            let bytes = std::fs::read(&host_key).map_err(text)?;
            cpio.file("etc/dropbear/dropbear_ed25519_host_key", 0o600, &bytes);
        }
        cpio.file("init", 0o755, init_script(&load, authorized_key.is_some()).as_bytes());
        let initrd = scratch.path().join("initrd");
        std::fs::write(&initrd, cpio.finish()).map_err(text)?;
        Ok(Self { kernel, initrd, _dir: scratch })
    }

    /// A machine that boots this guest; `words` are added to the kernel's command line.
    pub fn machine(&self, name: &str, dir: &Path, words: &str) -> MachineSpec {
        let mut spec = MachineSpec::new(name, dir.join(format!("{name}.serial.log")));
        spec.memory_bytes = 256 << 20;
        spec.accelerator = Accelerator::Tcg;
        spec.firmware = Firmware::DirectKernel {
            kernel: self.kernel.clone(),
            initrd: Some(self.initrd.clone()),
            // An emulated timer on a busy host may be too late for the kernel's check of it.
            command_line: format!(
                "console=ttyS0 quiet panic=-1 no_timer_check random.trust_cpu=on {words}"
            ),
        };
        spec
    }

    /// As [`TinyGuest::machine`], with a network and a disk.
    pub fn machine_with_disk(&self, name: &str, dir: &Path, disk: &Path) -> MachineSpec {
        let mut spec = self.machine(name, dir, "");
        spec.network = Some(NetworkSpec::forwarding(22));
        spec.disks.push(DiskSpec { boot_index: None, ..DiskSpec::boot(disk) });
        spec
    }
}

fn newest_kernel() -> Option<PathBuf> {
    let mut kernels: Vec<_> = std::fs::read_dir("/boot")
        .ok()?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
        .collect();
    kernels.sort();
    kernels.pop()
}

/// The wanted modules with what they depend on, in loading order.
fn module_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let index = std::fs::read_to_string(dir.join("modules.dep"))
        .map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut files = Vec::new();
    for wanted in MODULES {
        let line = index.lines().find(|line| {
            let path = line.split(':').next().unwrap_or_default();
            Path::new(path).file_stem().is_some_and(|stem| stem == OsStr::new(wanted))
        });
        // What is built into a kernel has no file.
        let Some((own, needs)) = line.and_then(|l| l.split_once(':')) else { continue };
        for path in needs.split_ascii_whitespace().rev().chain([own]) {
            let path = dir.join(path);
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let output =
        std::process::Command::new("ldd").arg(program).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn init_script(load_modules: &str, ssh: bool) -> String {
    let services = if ssh {
        "ip link set lo up\n[ -e /sys/class/net/eth0 ] && {\nip addr add 10.0.2.15/24 dev eth0\nip link set eth0 up\n\
         ip route add default via 10.0.2.2\n\
         /usr/sbin/dropbear -E -s -p 22 >/dev/null 2>&1\n}\n"
    } else {
        ""
    };
    format!(
        r#"#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
# Words go to the serial line wherever the kernel has its console.
exec </dev/ttyS0 >/dev/ttyS0 2>&1
{load_modules}
hostname tiny
case "$(cat /proc/cmdline)" in
*do=poweroff*) echo bye; poweroff -f ;;
*do=reboot*) reboot -f ;;
*do=panic*) echo c > /proc/sysrq-trigger ;;
*do=exit*) exit 1 ;;
*do=silent*) exec sleep 100000 ;;
esac
{services}
# The power button, as systemd's logind would heed it.
for event in /dev/input/event*; do
  name=$(cat /sys/class/input/${{event##*/}}/device/name)
  [ "$name" = "Power Button" ] && exec 3<$event
done
# Open before the guest says that it is ready: no press is lost.
(dd bs=24 count=1 <&3 >/dev/null 2>&1 && echo "power button pressed" && sync && poweroff -f) &
case "$(cat /proc/cmdline)" in
*do=echo*)
  echo "what a screen shows" >/dev/tty1
  echo "{READY}"
  # What is typed on the keyboard is said on the serial line.
  while read -r line < /dev/tty1; do echo "typed: $line"; done ;;
*do=cdrom*)
  echo "{READY}"
  while true; do
    if mount -t iso9660 -o ro /dev/sr0 /mnt 2>/dev/null; then
      echo "medium: $(cat /mnt/*)"
      umount /mnt
      sleep 1
    else
      echo "no medium"
      sleep 1
    fi
  done ;;
esac
echo "{READY}"
while true; do sleep 1000; done
"#
    )
}
