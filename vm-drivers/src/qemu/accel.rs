//! Which accelerator to use: one that has booted a kernel to its first process, not one whose
//! device file opens. The verdict is remembered per host, kernel and QEMU.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cpio::Cpio,
    error::{Error, Result},
    process::{Invocation, ProcessError},
};

/// KVM boots the tiny guest in about a second; hangs were seen, slow successes never.
pub const PROOF_LIMIT: Duration = Duration::from_secs(6);
const PROOF_WORDS: &str = "gilt: first process runs";

/// What was chosen, and why, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// As QEMU's `-accel` names it.
    pub accelerator: &'static str,
    pub reason: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// Key of the circumstances to `(works, reason)`.
    kvm: BTreeMap<String, (bool, String)>,
}

/// Where verdicts are kept and with which kernel they are made.
#[derive(Clone, Debug)]
pub struct Prover {
    pub cache_dir: PathBuf,
    /// `None`: the newest kernel under `/boot`.
    pub kernel: Option<PathBuf>,
}

impl Prover {
    /// The verdict on KVM, from memory where the circumstances are the same.
    pub async fn choose(&self, qemu: &Path, qemu_version: &str) -> Result<Choice> {
        let tcg = |reason: String| Choice { accelerator: "tcg", reason };
        if let Err(e) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
            return Ok(tcg(format!("emulation, as /dev/kvm cannot be opened: {e}")));
        }
        let Some(kernel) = self.kernel.clone().or_else(host_kernel) else {
            return Ok(tcg(
                "emulation, as no kernel under /boot could be read to prove KVM with; \
                 GILT_PROBE_KERNEL may name one"
                    .into(),
            ));
        };
        let key = circumstances(qemu_version, &kernel);
        let file = self.cache_dir.join("accelerators.json");
        let mut remembered: Remembered = std::fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let (works, reason) = match remembered.kvm.get(&key) {
            Some((works, reason)) => (*works, format!("{reason}; remembered")),
            None => {
                let verdict = match prove(qemu, "kvm", &kernel, PROOF_LIMIT).await {
                    Ok(took) => {
                        (true, format!("KVM booted a test guest in {:.1} s", took.as_secs_f32()))
                    }
                    Err(reason) => (false, one_line(&reason)),
                };
                remembered.kvm.insert(key, verdict.clone());
                remember(&self.cache_dir, &file, &remembered)?;
                verdict
            }
        };
        Ok(if works {
            Choice { accelerator: "kvm", reason }
        } else {
            tcg(format!("emulation, as KVM failed its test here ({reason})"))
        })
    }
}

/// A failing QEMU says much; its first words name the cause.
fn one_line(reason: &str) -> String {
    const MOST: usize = 200;
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{} …", &line[..cut]),
        None => line,
    }
}

fn remember(dir: &Path, file: &Path, remembered: &Remembered) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let temporary = tempfile::NamedTempFile::new_in(dir).map_err(Error::io("write in", dir))?;
    serde_json::to_writer_pretty(&temporary, remembered)
        .map_err(|e| Error::Malformed { what: "accelerators".into(), reason: e.to_string() })?;
    temporary.persist(file).map_err(|e| Error::io("write", file)(e.error))?;
    Ok(())
}

/// Boots a kernel under `accelerator` to a first process that says so and powers off.
pub async fn prove(
    qemu: &Path,
    accelerator: &str,
    kernel: &Path,
    limit: Duration,
) -> std::result::Result<Duration, String> {
    let begun = std::time::Instant::now();
    let initrd = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    std::fs::write(initrd.path(), tiny_initrd()).map_err(|e| e.to_string())?;
    let result = Invocation::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35,smm=off", "-cpu", "max", "-m", "256M", "-serial", "stdio"])
        .args(["-accel", accelerator])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd.path())
        .args(["-append", "console=ttyS0 panic=-1 loglevel=4"])
        .run(limit)
        .await;
    match result {
        Ok(finished) if String::from_utf8_lossy(&finished.stdout).contains(PROOF_WORDS) => {
            Ok(begun.elapsed())
        }
        Ok(_) => Err("the test guest ended before its first process".into()),
        Err(ProcessError::TimedOut { .. }) => {
            Err(format!("the test guest hung for {} s", limit.as_secs()))
        }
        Err(e) => Err(e.to_string()),
    }
}

/// The newest readable kernel of this host.
pub fn host_kernel() -> Option<PathBuf> {
    if let Some(kernel) = std::env::var_os("GILT_PROBE_KERNEL") {
        return Some(kernel.into());
    }
    let mut kernels: Vec<_> = std::fs::read_dir("/boot")
        .ok()?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("vmlinuz"))
        .filter(|e| std::fs::File::open(e.path()).is_ok())
        .filter_map(|e| Some((std::fs::metadata(e.path()).ok()?.modified().ok()?, e.path())))
        .collect();
    kernels.sort();
    kernels.pop().map(|(_, path)| path)
}

/// What a verdict depends on, as a short digest.
fn circumstances(qemu_version: &str, kernel: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find(|l| l.starts_with("model name"))
        .unwrap_or_default()
        .to_owned();
    let stamp = std::fs::metadata(kernel)
        .and_then(|m| m.modified())
        .map(|t| format!("{t:?}"))
        .unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [
        &read("/etc/machine-id"),
        &read("/proc/sys/kernel/osrelease"),
        &read("/proc/sys/kernel/version"),
        &cpu,
        qemu_version,
        &kernel.display().to_string(),
        &stamp,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..12])
}

/// An initrd whose only file is a program of our own.
fn tiny_initrd() -> Vec<u8> {
    let mut cpio = Cpio::new();
    cpio.directory("dev", 0o755).character_device("dev/console", 0o600, (5, 1)).file(
        "init",
        0o755,
        &tiny_init(),
    );
    cpio.finish()
}

/// A static x86-64 ELF program: writes the proof to its stdout and powers the machine off.
fn tiny_init() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let text = format!("{PROOF_WORDS}\n");
    let mut code: Vec<u8> = Vec::new();
    code.extend([0xb8, 1, 0, 0, 0]); // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1 (stdout)
    code.push(0xbe); // mov esi, address of the text
    let address_at = code.len();
    code.extend([0; 4]);
    code.push(0xba); // mov edx, length
    code.extend((text.len() as u32).to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xb8, 169, 0, 0, 0]); // mov eax, 169 (reboot)
    code.push(0xbf); // mov edi, LINUX_REBOOT_MAGIC1
    code.extend(0xfee1_dead_u32.to_le_bytes());
    code.push(0xbe); // mov esi, LINUX_REBOOT_MAGIC2
    code.extend(672_274_793_u32.to_le_bytes());
    code.push(0xba); // mov edx, LINUX_REBOOT_CMD_POWER_OFF
    code.extend(0x4321_fedc_u32.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xeb, 0xfe]); // jmp here: a machine that cannot power off stands still
    let address = (BASE + HEADERS) as u32 + code.len() as u32;
    code[address_at..address_at + 4].copy_from_slice(&address.to_le_bytes());
    code.extend(text.as_bytes());

    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes()); // executable
    elf.extend(62_u16.to_le_bytes()); // x86-64
    elf.extend(1_u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes()); // no sections
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // load
    elf.extend(5_u32.to_le_bytes()); // read and execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn qemu() -> PathBuf {
        crate::process::which(OsStr::new("qemu-system-x86_64"))
            .expect("needs qemu-system-x86: run ci/setup")
    }

    #[tokio::test]
    async fn emulation_passes_the_proof() {
        let kernel = host_kernel().expect("needs linux-image-cloud-amd64: run ci/setup");
        prove(&qemu(), "tcg", &kernel, Duration::from_secs(60)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_kernel_proves_nothing() {
        let reason =
            prove(&qemu(), "tcg", Path::new("/etc/os-release"), Duration::from_secs(5)).await;
        assert!(reason.is_err());
    }
}
