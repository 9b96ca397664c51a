//! `boot: kernel`: what the guest's own boot loader would start, read from its disk while the machine is off.

use super::{Job, StageError};
use gilt_capture::TreeView;
use gilt_vm::{Firmware, MachineSpec, OnGuestReset};
use std::path::Path;

/// Where GRUB's configuration lies; the first that is there counts.
const CONFIGURATIONS: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;
const MAX_KERNEL_BYTES: u64 = 256 << 20;
const MAX_INITRD_BYTES: u64 = 1 << 30;

/// The first entry of a boot loader's menu.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kernel: String,
    initrd: Vec<String>,
    command_line: String,
}

impl Job {
    /// Lets the hypervisor start the kernel that lies on the machine's first disk, where the template says so. A
    /// guest that restarts would get the same kernel again, also after an update: such a machine ends instead.
    pub async fn boot_kernel_of_disk(&self, spec: &mut MachineSpec) -> Result<(), StageError> {
        if !self.build.spec.machine.boots_kernel() {
            return Ok(());
        }
        let disk = spec.disks[0].path.clone();
        let folder = self.run.path().to_path_buf();
        spec.firmware = self.blocking(move || extract(&disk, &folder)).await?;
        spec.on_guest_reset = OnGuestReset::Stop;
        Ok(())
    }
}

/// Copies kernel and initial RAM disk from `disk` into `folder`.
fn extract(disk: &Path, folder: &Path) -> Result<Firmware, StageError> {
    let volume = super::capture::open_volume(disk)?;
    let view = volume.view();
    let (configuration, text) = CONFIGURATIONS
        .iter()
        .find_map(|path| {
            read(view, path, MAX_CONFIGURATION_BYTES).transpose().map(|text| (path, text))
        })
        .ok_or_else(|| {
            cannot(&format!("there is no {} on the guest's system volume", CONFIGURATIONS[0]))
        })?;
    let text = String::from_utf8_lossy(&text?).into_owned();
    let entry =
        first_entry(&text).map_err(|reason| cannot(&format!("{configuration}: {reason}")))?;
    let write = |name: &str, paths: &[String], max_bytes| -> Result<_, StageError> {
        let to = folder.join(name);
        let mut all = Vec::new();
        for path in paths {
            let missing =
                || cannot(&format!("{configuration} names {path}, which is not on that volume"));
            // The kernel looks for the next archive at a multiple of four.
            all.resize(all.len().next_multiple_of(4), 0);
            all.extend(read(view, path, max_bytes)?.ok_or_else(missing)?);
        }
        std::fs::write(&to, all).map_err(StageError::io(format!("write {}", to.display())))?;
        Ok(to)
    };
    Ok(Firmware::DirectKernel {
        kernel: write("kernel", &[entry.kernel], MAX_KERNEL_BYTES)?,
        initrd: match entry.initrd.as_slice() {
            [] => None,
            paths => Some(write("initrd", paths, MAX_INITRD_BYTES)?),
        },
        command_line: entry.command_line,
    })
}

fn read(view: TreeView<'_>, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, StageError> {
    view.read(path, max_bytes).map_err(StageError::io(format!("read {path} from the guest's disk")))
}

fn cannot(reason: &str) -> StageError {
    StageError::Input(format!(
        "`boot: kernel` does not work here: {reason}; use `boot: firmware` in `machine`"
    ))
}

/// The first `linux` line of a GRUB configuration, and the `initrd` line that follows.
fn first_entry(configuration: &str) -> Result<Entry, String> {
    let mut entry: Option<Entry> = None;
    for line in configuration.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), &mut entry) {
            (Some("linux" | "linuxefi" | "linux16"), None) => {
                let kernel = words.next().ok_or("a `linux` line without a kernel")?.to_owned();
                // Unset where Ubuntu writes it; any other variable would have to be known.
                let arguments: Vec<&str> = words.filter(|word| *word != "$vt_handoff").collect();
                let command_line = arguments.join(" ");
                entry = Some(Entry { kernel, initrd: Vec::new(), command_line });
            }
            (Some("initrd" | "initrdefi" | "initrd16"), Some(entry)) => {
                entry.initrd = words.map(str::to_owned).collect();
                break;
            }
            (Some("linux" | "linuxefi" | "linux16" | "menuentry"), Some(_)) => break,
            _ => {}
        }
    }
    let entry = entry.ok_or("no `linux` line")?;
    let all = [&entry.kernel, &entry.command_line].into_iter().chain(&entry.initrd);
    for text in all {
        if text.contains(['$', '"', '\'', '\\']) {
            return Err(format!("{text:?} holds what only GRUB can work out"));
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_taken_with_its_initrd() {
        let debian = "set default=0\nmenuentry 'Debian' --class debian {\n\tsearch --no-floppy --fs-uuid --set=root 1\n\
                      \tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro  quiet $vt_handoff\n\tinitrd\t/boot/a.img /boot/b.img\n}\n\
                      menuentry 'old' {\n linux /boot/vmlinuz-5 root=UUID=1\n initrd /boot/old.img\n}\n";
        let entry = Entry {
            kernel: "/boot/vmlinuz-6.1".into(),
            initrd: vec!["/boot/a.img".into(), "/boot/b.img".into()],
            command_line: "root=UUID=1 ro quiet".into(),
        };
        assert_eq!(first_entry(debian), Ok(entry));
    }

    #[test]
    fn an_entry_without_an_initrd_does_not_take_the_next_ones() {
        let text =
            "menuentry a {\nlinux /k root=/dev/vda1\n}\nmenuentry b {\nlinux /l\ninitrd /i\n}\n";
        assert_eq!(first_entry(text).unwrap().initrd, Vec::<String>::new());
    }

    #[test]
    fn what_only_grub_knows_is_refused() {
        let reason = first_entry("linux /vmlinuz root=$root_device ro\n").unwrap_err();
        assert!(reason.contains("root=$root_device"), "{reason}");
        assert!(first_entry("blscfg\n").unwrap_err().contains("no `linux` line"));
        assert!(first_entry("linux\n").is_err());
    }
}
