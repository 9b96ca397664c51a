//! The installation: the answer medium, and waiting for what the guest says of itself.

use super::super::guest::{Access, Guest, Served};
use super::super::{Job, StageError};
use super::media;
use crate::template::model::{self as template, WindowsSetup};
use crate::template::text::RuntimeValues;
use gilt_vm::Vm;
use gilt_vm::media::AnswerMedium;
use gilt_vm::serial::{SerialLog, SerialPattern};
use gilt_windows::answer::{Account, AnswerFile, Architecture, Firmware, ImageChoice, Install};
use gilt_windows::drivers::{self, Device, Inf};
use gilt_windows::medium::{self, Settings};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads a folder of drivers no deeper than this.
const MAX_DEPTH: usize = 12;
/// Drivers of a machine are some MiB; more is a mistake (the whole ISO, say).
const MAX_DRIVER_BYTES: u64 = 512 << 20;

/// What Setup is told, as `gilt answer-file show` shows it too.
pub fn answer_file(
    spec: &crate::template::BuildSpec,
    setup: &WindowsSetup,
    username: &str,
    password: &str,
    values: &RuntimeValues,
    over: Option<&str>,
) -> Result<AnswerFile, StageError> {
    let image = match (&setup.image_index, &setup.image_name) {
        (Some(index), _) => ImageChoice::Index(*index),
        (None, Some(name)) => ImageChoice::Name(name.clone()),
        (None, None) => ImageChoice::ByKey,
    };
    let install = Install {
        architecture: Architecture::Amd64,
        firmware: match spec.machine.firmware {
            template::Firmware::Uefi => Firmware::Uefi,
            template::Firmware::Bios => Firmware::Bios,
        },
        image,
        product_key: setup.product_key.as_ref().map(|key| key.expand(values)),
        locale: setup.locale.clone(),
        keyboard: setup.keyboard.clone().unwrap_or_else(|| setup.locale.clone()),
        timezone: setup.timezone.clone(),
        computer_name: setup.computer_name.clone(),
        organization: setup.organization.as_ref().map(|text| text.expand(values)),
        account: Account { name: username.to_owned(), password: password.to_owned() },
        bypass_requirements: setup.bypass_requirements,
    };
    let mut file = install.answer_file();
    if let Some(over) = over {
        file.merge(over)
            .map_err(|error| StageError::Input(format!("windows.answer_file: {error}")))?;
    }
    Ok(file)
}

/// The second medium, with all a Windows needs to come up and let gilt in.
pub async fn answer_medium(
    job: &Job,
    access: &Access,
    served: &Served,
    setup: &WindowsSetup,
    installer: &Path,
) -> Result<PathBuf, StageError> {
    let values = access.values(job, &served.base);
    let Some(password) = &access.password else {
        return Err(StageError::Guest("the build account has no password".into()));
    };
    let over = match &setup.answer_file {
        Some(file) => {
            let path = super::super::input::local_path(job, file).await?;
            let text = std::fs::read_to_string(&path)
                .map_err(StageError::io(format!("read {}", path.display())))?;
            Some(text)
        }
        None => None,
    };
    let file =
        answer_file(&job.build.spec, setup, &access.username, password, &values, over.as_deref())?;
    let text = file.render().map_err(|error| {
        StageError::Input(format!("Setup would reject the answer file: {error}"))
    })?;

    let mut more: Vec<(String, Vec<u8>)> = Vec::new();
    let mut openssh = None;
    if let Some(server) = &setup.openssh {
        let path = super::super::input::local_path(job, server).await?;
        let end =
            if server.file_name().to_ascii_lowercase().ends_with(".msi") { "msi" } else { "zip" };
        let name = format!("openssh.{end}");
        let bytes =
            std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))?;
        more.push((format!("gilt/{name}"), bytes));
        openssh = Some(name);
    }
    let mut number = 0;
    for folder in &setup.drivers {
        let path = super::super::input::local_path(job, &folder.0).await?;
        number += 1;
        add_folder(&path, &format!("{}/{number:02}", medium::DRIVERS), &mut more)?;
    }
    let devices = devices(&job.build.spec.machine);
    if let Some(collection) = &setup.virtio
        && !devices.is_empty()
    {
        let path = super::super::input::local_path(job, collection).await?;
        let installer = installer.to_path_buf();
        let choice = image_choice(setup);
        let found = job.blocking(move || virtio(&path, &installer, &choice, &devices)).await?;
        for (folder, files) in found {
            number += 1;
            job.events.note(format!("driver from {folder}"));
            for (name, bytes) in files {
                more.push((format!("{}/{number:02}/{name}", medium::DRIVERS), bytes));
            }
        }
    } else if !devices.is_empty() && setup.drivers.is_empty() {
        let names: Vec<_> = devices.iter().map(|device| device.name()).collect();
        job.events.warn(format!(
            "Windows has no drivers for {}; give `windows.virtio`, or use sata and e1000e",
            names.join(" and ")
        ));
    }

    let settings = Settings {
        format: 1,
        user: access.username.clone(),
        public_key: access.public_key.clone(),
        port: job.build.spec.communicator.port,
        openssh,
        first_boot: setup.first_boot.iter().map(|line| line.expand(&values)).collect(),
    };
    let mut disc = AnswerMedium::new(medium::LABEL)?;
    for (name, bytes) in medium::files(text, &settings, &job.id, &job.build.spec.name) {
        disc = disc.file(name, bytes);
    }
    for (name, bytes) in more {
        disc = disc.file(name, bytes);
    }
    // Files the template puts beside, and never in place of, gilt's own.
    if let Some(answer) = &job.build.spec.source.answer {
        for (name, text) in &answer.files {
            disc = disc.file(name.clone(), text.expand(&values).into_bytes());
        }
        for (name, file) in &answer.file_paths {
            let path = super::super::input::local_path(job, file).await?;
            let bytes =
                std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))?;
            disc = disc.file(name.clone(), bytes);
        }
    }
    let path = job.run.file("answer.iso");
    disc.write(&path)?;
    Ok(path)
}

/// The install medium as the machine gets it: checked, and without its question.
pub async fn install_medium(
    job: &Job,
    setup: &WindowsSetup,
    iso: PathBuf,
) -> Result<PathBuf, StageError> {
    let choice = image_choice(setup);
    let digest = job
        .build
        .install
        .files
        .iter()
        .find(|file| file.name == "medium")
        .map(|file| file.digest.to_string());
    let silent = setup.no_prompt;
    let inputs = job.home.inputs();
    let events = job.events.clone();
    job.blocking(move || {
        media::check(&iso, &choice, &events)?;
        match digest {
            Some(digest) if silent => media::silent_copy(&iso, &inputs, &digest, &events),
            _ => Ok(iso),
        }
    })
    .await
}

fn image_choice(setup: &WindowsSetup) -> ImageChoice {
    match (&setup.image_index, &setup.image_name) {
        (Some(index), _) => ImageChoice::Index(*index),
        (None, Some(name)) => ImageChoice::Name(name.clone()),
        (None, None) => ImageChoice::ByKey,
    }
}

/// Devices of the machine that Windows brings no driver for.
fn devices(machine: &template::Machine) -> Vec<Device> {
    let mut devices = Vec::new();
    match machine.disk_interface {
        template::DiskInterface::VirtioBlk => devices.push(Device::VirtioBlock),
        template::DiskInterface::VirtioScsi => devices.push(Device::VirtioScsi),
        template::DiskInterface::Sata | template::DiskInterface::Nvme => {}
    }
    if machine.net_device == template::NetDevice::VirtioNet {
        devices.push(Device::VirtioNet);
    }
    devices
}

/// All files of a folder, below `to`.
fn add_folder(from: &Path, to: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), StageError> {
    let mut left = MAX_DRIVER_BYTES;
    let mut folders = vec![(from.to_path_buf(), to.to_owned(), 0)];
    while let Some((from, to, depth)) = folders.pop() {
        let failed = || StageError::io(format!("read {}", from.display()));
        let mut entries: Vec<_> = std::fs::read_dir(&from)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .map_err(failed())?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = format!("{to}/{}", entry.file_name().to_string_lossy());
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path, name, depth + 1));
                }
                continue;
            }
            let bytes =
                std::fs::read(&path).map_err(StageError::io(format!("read {}", path.display())))?;
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                StageError::Input(format!(
                    "{} holds more than {} MB; give the folders of the drivers alone",
                    from.display(),
                    MAX_DRIVER_BYTES >> 20
                ))
            })?;
            files.push((name, bytes));
        }
    }
    Ok(())
}

/// Folder in the collection, and its files.
type Chosen = Vec<(String, Vec<(String, Vec<u8>)>)>;

/// The drivers of a collection that the machine needs.
fn virtio(
    collection: &Path,
    installer: &Path,
    choice: &ImageChoice,
    devices: &[Device],
) -> Result<Chosen, StageError> {
    let image = media::image(installer, choice)?;
    let folders = match &image {
        Some(image) => drivers::folders_for(image.build, image.is_server),
        // The newest first; most drivers of one are those of the other.
        None => &["w11", "2k25", "2k22", "w10"],
    };
    let mut source = media::Collection::open(collection)?;
    let infs: Vec<Inf> = source
        .find(".inf")?
        .into_iter()
        .map(|(path, bytes)| Inf { path, text: drivers::decode(&bytes) })
        .collect();
    let chosen = drivers::choose(&infs, devices, Architecture::Amd64, folders)
        .map_err(|error| StageError::Input(format!("{}: {error}", collection.display())))?;
    chosen.into_iter().map(|folder| Ok((folder.clone(), source.folder(&folder)?))).collect()
}

/// Waits for the first login, and fails as soon as the guest says that it has failed.
pub async fn first_login(
    job: &Job,
    vm: &dyn Vm,
    access: &Access,
    served: Served,
    patience: Duration,
) -> Result<Guest, StageError> {
    let failed = SerialPattern::parse("gilt-windows: FAILED")?;
    let exit = vm.exit_watch();
    let tell = tell_steps(job, vm.serial().clone());
    let guest = tokio::select! {
        biased;
        guest = Guest::connect(job, vm, access, served, patience) => guest?,
        found = vm.serial().wait_for(&failed, vm.serial().begin(), patience, &exit) => {
            found?;
            let line = vm
                .serial()
                .tail()
                .lines()
                .rev()
                .find(|line| line.contains("gilt-windows: FAILED"))
                .unwrap_or("gilt-windows: FAILED")
                .to_owned();
            return Err(StageError::Guest(format!("the first steps in Windows failed: {line}")));
        }
        never = tell => match never {},
    };
    Ok(guest)
}

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Passes on what the guest says of its steps.
async fn tell_steps(job: &Job, serial: SerialLog) -> std::convert::Infallible {
    let mut told = 0;
    loop {
        let text = serial.tail();
        let steps: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once("gilt-windows: "))
            .map(|(_, step)| step)
            .collect();
        for step in steps.iter().skip(told) {
            job.events.note(format!("windows: {step}"));
        }
        told = told.max(steps.len());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Setup and the scripts look for these names; Joliet is what Windows reads.
    #[test]
    #[cfg_attr(windows, ignore = "needs isoinfo")]
    fn the_answer_medium_has_the_names_windows_looks_for() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            format: 1,
            user: "gilt-build".into(),
            public_key: "ssh-ed25519 AAAA gilt build".into(),
            port: 22,
            openssh: Some("openssh.zip".into()),
            first_boot: vec!["echo \"a\" & b".into()],
        };
        let mut disc = AnswerMedium::new(medium::LABEL).unwrap();
        for (name, bytes) in medium::files("<unattend/>".into(), &settings, "id", "image") {
            disc = disc.file(name, bytes);
        }
        let driver = format!("{}/01/viostor.inf", medium::DRIVERS);
        let path = dir.path().join("answer.iso");
        disc.file(driver, "[Version]").write(&path).unwrap();
        let out = std::process::Command::new("isoinfo")
            .args(["-J", "-f", "-i"])
            .arg(&path)
            .output()
            .unwrap_or_else(|error| panic!("needs isoinfo: run ci/setup ({error})"));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "/$WinPEDriver$",
                "/$WinPEDriver$/01",
                "/$WinPEDriver$/01/viostor.inf",
                "/Autounattend.xml",
                "/gilt",
                "/gilt/first-boot.ps1",
                "/gilt/first-logon.ps1",
                "/gilt/medium.json",
                "/gilt/settings.json",
            ]
        );
    }
}
