//! Test guests for drivers that load no kernel themselves: the kernel of the spec goes onto a CD with grub.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

use async_trait::async_trait;
use gilt_vm::{
    CdromInterface, CdromSpec, DiskFormat, Error, Firmware, MachineSpec, StartFrom, Vm, VmDriver,
};
use tokio::sync::Mutex;

/// A driver whose machines boot from a CD what their spec would have loaded directly.
#[derive(Debug)]
pub struct BootFromCd<D> {
    pub driver: D,
    pub uefi: bool,
    dir: tempfile::TempDir,
    /// By kernel, initrd and words.
    made: Mutex<HashMap<String, PathBuf>>,
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::HostLacks { what: format!("a CD to boot from: {what}"), hint: "run ci/setup".into() }
}

fn make_cd(to: &Path, kernel: &Path, initrd: Option<&Path>, words: &str) -> Result<(), Error> {
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

impl<D: VmDriver> BootFromCd<D> {
    pub fn new(driver: D, uefi: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { driver, uefi, dir, made: Mutex::default() }
    }

    /// The spec with its kernel on a CD.
    pub async fn with_cd(&self, spec: &MachineSpec) -> Result<MachineSpec, Error> {
        let mut spec = spec.clone();
        spec.accelerator = gilt_vm::Accelerator::Auto;
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
impl<D: VmDriver> VmDriver for BootFromCd<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    async fn capabilities(&self) -> Result<gilt_vm::Capabilities, Error> {
        self.driver.capabilities().await
    }

    async fn start(
        &self,
        spec: &MachineSpec,
        run_dir: &Path,
        from: StartFrom<'_>,
    ) -> Result<Box<dyn Vm>, Error> {
        self.driver.start(&self.with_cd(spec).await?, run_dir, from).await
    }

    async fn create_disk(&self, path: &Path, format: DiskFormat, bytes: u64) -> Result<(), Error> {
        self.driver.create_disk(path, format, bytes).await
    }

    async fn create_overlay(
        &self,
        base: &Path,
        format: DiskFormat,
        path: &Path,
    ) -> Result<(), Error> {
        self.driver.create_overlay(base, format, path).await
    }

    async fn flatten(&self, disk: &Path, to: &Path, format: DiskFormat) -> Result<(), Error> {
        self.driver.flatten(disk, to, format).await
    }
}
