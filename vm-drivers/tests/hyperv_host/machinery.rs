//! What the model allows, done by QEMU and qemu-img.

use std::{
    collections::HashMap,
    io::Read,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gilt_vm::{
    Accelerator, CdromInterface, CdromSpec, DiskFormat, DiskInterface, DiskSpec, ExitReason,
    ExitWatch, Firmware, MachineSpec, NetworkSpec, StartFrom, Vm, VmDriver,
    keys::{Key, KeyEvent},
    qemu::{Qemu, QemuConfig},
    registry::RunRegistry,
};
use hyperv_rs::{
    HostPath, VmId,
    cmdlet::{BootDevice, Generation, Slot, VhdType},
    model::{Disk, Machinery, ModelMachine},
    wmi::Keys,
};
use tokio::runtime::Handle;

use super::real_path;

/// What others of the server see of a machine that was started.
#[derive(Clone, Debug)]
pub struct Running {
    pub id: VmId,
    pub pipe: String,
    pub serial: PathBuf,
    pub exit: ExitWatch,
    /// The guest's address as the host tells it, and where its port 22 is.
    pub address: String,
    pub ssh: Option<SocketAddr>,
}

/// A machine with its QEMU.
#[derive(Debug)]
struct Behind {
    vm: Box<dyn Vm>,
    dvds: Vec<Slot>,
    /// Its SSH server has spoken: the guest has its network up.
    has_greeted: Arc<AtomicBool>,
}

#[derive(Debug)]
pub struct Real {
    dir: PathBuf,
    drive: PathBuf,
    qemu: Qemu,
    runtime: Handle,
    behind: HashMap<VmId, Behind>,
    running: Arc<Mutex<Vec<Running>>>,
    count: u32,
}

impl Real {
    pub fn new(dir: PathBuf, drive: PathBuf, running: Arc<Mutex<Vec<Running>>>) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = QemuConfig::new(dir.join("cache"));
        config.registry = RunRegistry::at(dir.join("run"));
        let qemu = Qemu::new(config);
        let runtime = Handle::current();
        Self { dir, drive, qemu, runtime, behind: HashMap::new(), running, count: 0 }
    }

    fn file(&self, path: &str) -> Result<PathBuf, String> {
        real_path(&self.drive, path).ok_or_else(|| format!("'{path}' is on no drive (0x80070003)."))
    }

    fn machine(&self, id: &VmId) -> Result<&Behind, String> {
        self.behind.get(id).ok_or_else(|| "it is not running".into())
    }
}

fn qemu_img(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("qemu-img").args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn format_of(path: &Path) -> Result<DiskFormat, String> {
    let mut magic = [0; 8];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    match &magic {
        b"vhdxfile" => Ok(DiskFormat::Vhdx),
        [b'Q', b'F', b'I', 0xfb, ..] => Ok(DiskFormat::Qcow2),
        _ => Err(format!("{} is no virtual disk (0xC03A0002).", path.display())),
    }
}

fn word(path: &Path) -> String {
    path.display().to_string()
}

impl Machinery for Real {
    fn make_disk(&mut self, disk: &Disk) -> Result<(), String> {
        let path = self.file(&disk.path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        }
        match &disk.parent {
            Some(parent) => {
                let parent = self.file(parent)?;
                let format = format_of(&parent)?.qemu_name();
                qemu_img(&[
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-F",
                    format,
                    "-b",
                    &word(&parent),
                    &word(&path),
                ])
            }
            None => qemu_img(&[
                "create",
                "-q",
                "-f",
                "vhdx",
                &word(&path),
                &disk.size_bytes.to_string(),
            ]),
        }
    }

    fn convert_disk(&mut self, from: &Disk, to: &HostPath, kind: VhdType) -> Result<(), String> {
        let (from, to) = (self.file(&from.path)?, self.file(to.as_str())?);
        let options: &[&str] = match kind {
            VhdType::Fixed => &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
            _ => &["-O", "vhdx"],
        };
        let format = format_of(&from)?.qemu_name();
        qemu_img(&[&["convert", "-f", format], options, &[&word(&from), &word(&to)]].concat())
    }

    fn remove_file(&mut self, path: &str) {
        if let Ok(path) = self.file(path) {
            // Files only the books knew have nothing to remove.
            let _ = std::fs::remove_file(path);
        }
    }

    fn start(&mut self, machine: &ModelMachine) -> Result<(), String> {
        self.count += 1;
        let dir = self.dir.join(format!("{}-{}", machine.id, self.count));
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let mut spec = MachineSpec::new(machine.name.clone(), dir.join("serial.log"));
        spec.cpu_count = u32::try_from(machine.processors).unwrap_or(1);
        spec.memory_bytes = machine.memory_bytes;
        spec.accelerator = Accelerator::Tcg;
        if machine.generation == Generation::Two {
            let variables = dir.join("variables.fd");
            spec.firmware = Firmware::Uefi { secure_boot: machine.secure_boot, variables };
        }
        let index = |device: BootDevice| {
            let at = machine.boot_order.iter().position(|it| *it == device)?;
            u32::try_from(at + 1).ok()
        };
        for (slot, path) in &machine.disks {
            let path = self.file(path)?;
            spec.disks.push(DiskSpec {
                format: format_of(&path)?,
                path,
                interface: DiskInterface::VirtioBlk,
                boot_index: index(BootDevice::HardDisk(*slot)),
                throw_away_writes: false,
            });
        }
        for (slot, medium) in &machine.dvds {
            spec.cdroms.push(CdromSpec {
                medium: medium.as_ref().map(|path| self.file(path)).transpose()?,
                interface: CdromInterface::VirtioScsi,
                boot_index: index(BootDevice::Dvd(*slot)),
            });
        }
        if !machine.switch.is_empty() {
            spec.network = Some(NetworkSpec::forwarding(22));
        }
        let vm = self
            .runtime
            .block_on(self.qemu.start(&spec, &dir, StartFrom::PowerOn))
            .map_err(|e| e.to_string())?;
        let mut running = self.running.lock().unwrap();
        running.retain(|other| other.id != machine.id);
        running.push(Running {
            id: machine.id.clone(),
            pipe: machine.pipe.clone().unwrap_or_default(),
            serial: spec.serial_log.clone(),
            exit: vm.exit_watch(),
            address: format!("10.77.{}.{}", self.count >> 8, self.count & 0xff),
            ssh: vm.info().forwarded(22),
        });
        let dvds = machine.dvds.iter().map(|(slot, _)| *slot).collect();
        let has_greeted = Arc::new(AtomicBool::new(false));
        if let Some(ssh) = vm.info().forwarded(22) {
            let (exit, has_greeted) = (vm.exit_watch(), has_greeted.clone());
            std::thread::spawn(move || {
                while exit.ended().is_none() && !greets(ssh).unwrap_or(false) {
                    std::thread::sleep(Duration::from_millis(100));
                }
                has_greeted.store(exit.ended().is_none(), Ordering::SeqCst);
            });
        }
        self.behind.insert(machine.id.clone(), Behind { vm, dvds, has_greeted });
        Ok(())
    }

    fn cut(&mut self, id: &VmId) {
        if let Some(behind) = self.behind.remove(id) {
            let _ = self.runtime.block_on(behind.vm.power_off());
        }
    }

    fn shut_down(&mut self, id: &VmId) -> Result<(), String> {
        self.runtime.block_on(self.machine(id)?.vm.request_shutdown()).map_err(|e| e.to_string())
    }

    fn reset(&mut self, id: &VmId) -> Result<(), String> {
        self.runtime.block_on(self.machine(id)?.vm.reset()).map_err(|e| e.to_string())
    }

    fn is_running(&mut self, id: &VmId) -> bool {
        let Some(behind) = self.behind.get(id) else { return false };
        match behind.vm.exit_watch().ended() {
            // A guest that gave up still runs, for all its host knows.
            None | Some(ExitReason::Panicked { .. }) => true,
            Some(_) => {
                self.behind.remove(id);
                false
            }
        }
    }

    fn press(&mut self, id: &VmId, keys: &Keys) -> Result<(), String> {
        let Keys::ScanCodes(bytes) = keys else { return Err("only scan codes are played".into()) };
        let mut events = Vec::new();
        let mut extended = false;
        for byte in bytes {
            if *byte == 0xe0 {
                extended = true;
                continue;
            }
            let code = u16::from(byte & 0x7f) | if extended { 0xe000 } else { 0 };
            let key = Key::from_scan_code(code).ok_or_else(|| format!("no key {code:#x}"))?;
            events.push(KeyEvent { key, down: byte & 0x80 == 0 });
            extended = false;
        }
        self.runtime.block_on(self.machine(id)?.vm.send_keys(&events)).map_err(|e| e.to_string())
    }

    fn screen(&mut self, id: &VmId, width: u16, height: u16) -> Result<Vec<u8>, String> {
        let screen =
            self.runtime.block_on(self.machine(id)?.vm.screenshot()).map_err(|e| e.to_string())?;
        let mut out = Vec::with_capacity(usize::from(width) * usize::from(height) * 2);
        for y in 0..u32::from(height) {
            for x in 0..u32::from(width) {
                let (from_x, from_y) =
                    (x * screen.width / u32::from(width), y * screen.height / u32::from(height));
                let at = (from_y * screen.width + from_x) as usize * 3;
                let [r, g, b] = [0, 1, 2].map(|i| u16::from(screen.rgb[at + i]));
                out.extend(((r >> 3) << 11 | (g >> 2) << 5 | b >> 3).to_le_bytes());
            }
        }
        Ok(out)
    }

    fn change_medium(&mut self, id: &VmId, slot: Slot, path: Option<&str>) -> Result<(), String> {
        let medium = path.map(|path| self.file(path)).transpose()?;
        let behind = self.machine(id)?;
        let at = behind.dvds.iter().position(|it| *it == slot).ok_or("no such drive")?;
        self.runtime
            .block_on(behind.vm.change_medium(at, medium.as_deref()))
            .map_err(|e| e.to_string())
    }

    fn addresses(&mut self, id: &VmId) -> Vec<String> {
        let running = self.running.lock().unwrap();
        let Some(told) = running.iter().find(|machine| machine.id == *id) else { return vec![] };
        let Some(behind) = self.behind.get(id) else { return vec![] };
        let known = behind.has_greeted.load(Ordering::SeqCst);
        if known { vec![told.address.clone()] } else { vec![] }
    }
}

/// Whether an SSH server speaks. A busy guest takes its time, and one that is not there is silent.
fn greets(ssh: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&ssh, Duration::from_millis(200))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    Ok(&greeting == b"SSH-")
}
