//! Test guests for drivers that load no kernel themselves: the kernel of the spec goes onto a CD with grub.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::{
    driver::{Capabilities, HostSide, StartFrom, Vm, VmDriver},
    error::{Error, Result},
    spec::{Accelerator, CdromInterface, CdromSpec, DiskFormat, Firmware, MachineSpec},
};

/// A driver whose machines boot from a CD what their spec would have loaded directly.
#[derive(Debug)]
pub struct BootFromCd {
    driver: Arc<dyn VmDriver>,
    uefi: bool,
    dir: tempfile::TempDir,
    /// By kernel, initrd and words.
    made: Mutex<HashMap<String, PathBuf>>,
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::HostLacks { what: format!("a CD to boot from: {what}"), hint: "run ci/setup".into() }
}

fn make_cd(to: &Path, kernel: &Path, initrd: Option<&Path>, words: &str) -> Result<()> {
    let tree = tempfile::tempdir().map_err(failed)?;
    let grub = tree.path().join("boot/grub");
    std::fs::create_dir_all(&grub).map_err(failed)?;
    std::fs::copy(kernel, tree.path().join("vmlinuz")).map_err(failed)?;
    let mut config = format!("set timeout=0\nlinux /vmlinuz {words}\n");
    if let Some(initrd) = initrd {
        std::fs::copy(initrd, tree.path().join("initrd")).map_err(failed)?;
        config.push_str("initrd /initrd\n");
    }
    config.push_str("boot\n");
    std::fs::write(grub.join("grub.cfg"), config).map_err(failed)?;
    let output = Command::new("grub-mkrescue")
        .args(["--locales=", "--fonts=", "--themes=", "-o"])
        .args([to, tree.path()])
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

impl BootFromCd {
    pub fn new(driver: Arc<dyn VmDriver>, uefi: bool) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(failed)?;
        Ok(Self { driver, uefi, dir, made: Mutex::default() })
    }

    /// The spec with its kernel on a CD.
    pub async fn with_cd(&self, spec: &MachineSpec) -> Result<MachineSpec> {
        let mut spec = spec.clone();
        spec.accelerator = Accelerator::Auto;
        let variables = self.dir.path().join("variables.fd");
        let firmware = match self.uefi {
            true => Firmware::Uefi { secure_boot: false, variables },
            false => Firmware::Bios,
        };
        let Firmware::DirectKernel { kernel, initrd, command_line } =
            std::mem::replace(&mut spec.firmware, firmware)
        else {
            return Ok(spec);
        };
        let key = format!("{} {initrd:?} {command_line}", kernel.display());
        let mut made = self.made.lock().await;
        let cd = match made.get(&key) {
            Some(cd) => cd.clone(),
            None => {
                let cd = self.dir.path().join(format!("{}.iso", made.len()));
                let (to, kernel, initrd) = (cd.clone(), kernel.clone(), initrd.clone());
                tokio::task::spawn_blocking(move || {
                    make_cd(&to, &kernel, initrd.as_deref(), &command_line)
                })
                .await
                .map_err(failed)??;
                made.insert(key, cd.clone());
                cd
            }
        };
        spec.cdroms.push(CdromSpec {
            medium: Some(cd),
            interface: CdromInterface::VirtioScsi,
            boot_index: Some(1),
        });
        Ok(spec)
    }
}

#[async_trait]
impl VmDriver for BootFromCd {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.driver.capabilities().await
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>> {
        self.driver.start(&self.with_cd(spec).await?, run_dir, from).await
    }

    async fn create_disk(&self, path: &Path, format: DiskFormat, bytes: u64) -> Result<()> {
        self.driver.create_disk(path, format, bytes).await
    }

    async fn create_overlay(&self, base: &Path, format: DiskFormat, path: &Path) -> Result<()> {
        self.driver.create_overlay(base, format, path).await
    }

    async fn flatten(&self, disk: &Path, to: &Path, format: DiskFormat) -> Result<()> {
        self.driver.flatten(disk, to, format).await
    }

    fn disk_format(&self) -> DiskFormat {
        self.driver.disk_format()
    }

    fn freezes(&self) -> bool {
        self.driver.freezes()
    }

    fn disk_home(&self) -> Option<String> {
        self.driver.disk_home()
    }

    fn check(&self, spec: &MachineSpec) -> Result<()> {
        self.driver.check(spec)
    }

    async fn host_side(&self) -> Result<HostSide> {
        self.driver.host_side().await
    }

    async fn clean_up(&self) -> Result<Vec<String>> {
        self.driver.clean_up().await
    }
}
