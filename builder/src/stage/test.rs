//! Test: a throw-away machine laid out from the captured WIM boots, lets us in with a key that is
//! only on its own disk, and passes the template's tests.

use super::capture::{Captured, Ticks, imaging_error};
use super::guest::{Access, Command, Guest, Served};
use super::{Job, StageError};
use crate::event::Event;
use crate::template::model::{Guest as GuestKind, Test};
use gilt_capture::{ExtraFile, LayoutRequest, OutFormat};
use gilt_vm::{DiskFormat, StartFrom};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The account tests run as; its key lies on the throw-away disk, never in the image.
const TEST_USER: &str = "root";

/// A captured image that passed all its tests.
pub struct Tested {
    pub captured: Captured,
    pub passed: u32,
}

pub async fn run(job: &Job, captured: Captured) -> Result<Tested, StageError> {
    if job.build.spec.guest == GuestKind::Windows {
        // Tests of a Windows template are refused when it is read.
        job.events.warn(
            "the image was not started: gilt makes no bootable disk of a Windows image yet; \
             what was proven is what its disk says",
        );
        return Ok(Tested { captured, passed: 0 });
    }
    let access = Access::for_test(TEST_USER)?;
    let (format, extension) = match job.driver.disk_format() {
        DiskFormat::Vhdx => (OutFormat::Vhdx, "vhdx"),
        _ => (OutFormat::Qcow2, "qcow2"),
    };
    let disk = job.run.file(&format!("test.{extension}"));
    lay_out(job, &captured, &disk, format, &access).await?;

    let served = Served::start(job).await?;
    let mut spec = job.spec(disk, "test", served.reached_ports());
    for disk in &mut spec.disks {
        disk.throw_away_writes = true;
    }
    if let gilt_vm::Firmware::Uefi { variables, .. } = &mut spec.firmware {
        *variables = job.run.file("test-uefi-vars.fd");
    }
    spec.tpm = spec.tpm.map(|_| gilt_vm::TpmSpec { state_dir: job.run.file("test-tpm") });
    let vm = job.driver.start(&spec, job.run.path(), StartFrom::PowerOn).await?;
    let vm = job.watch(vm);
    let patience = job.build.spec.communicator.timeout;
    let guest = Guest::connect(job, vm.as_ref(), &access, served, patience).await?;
    job.events.note("the image booted and let the test in");

    let mut passed = 0;
    for test in &job.build.spec.tests {
        one(job, &guest, test).await?;
        passed += 1;
    }
    vm.power_off().await?;
    job.take_live();
    Ok(Tested { captured, passed })
}

/// A disk made of the image, with the test's key on it.
async fn lay_out(
    job: &Job,
    captured: &Captured,
    disk: &Path,
    format: OutFormat,
    access: &Access,
) -> Result<(), StageError> {
    let (wim, disk) = (captured.wim.clone(), disk.to_path_buf());
    let ticks = Ticks::new(job.events.clone(), job.cancel.clone(), "laying out the image");
    let size = job.build.spec.machine.disk.bytes();
    let keys = format!("{}\n", access.public_key).into_bytes();
    job.blocking(move || {
        let mut request = LayoutRequest::new(&wim, &disk, size, &ticks);
        request.format = format;
        request.extra_files = vec![ExtraFile {
            path: "/root/.ssh/authorized_keys".into(),
            contents: keys,
            mode: 0o600,
            uid: 0,
            gid: 0,
        }];
        gilt_capture::layout(&request).map(drop).map_err(imaging_error)
    })
    .await
}

async fn one(job: &Job, guest: &Guest, test: &Test) -> Result<(), StageError> {
    let step = test.name.clone();
    job.events.emit(Event::StepStarted { layer: "test".into(), step });
    let values = guest.values(job);
    let command = Command {
        what: format!("test {:?}", test.name),
        script: format!("{}\n", test.command.text().expand(&values)).into_bytes(),
        interpreter: Some("/bin/sh -eu".to_owned()),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        user: TEST_USER.to_owned(),
        timeout: test.timeout,
    };
    let mut attempt = 0;
    loop {
        let failure = match guest.run_script(job, &command).await {
            Ok(done) if !test.exit_codes.contains(&i64::from(done.code)) => {
                StageError::Command { what: command.what.clone(), code: done.code, tail: done.tail }
            }
            Ok(done) => match &test.contains {
                Some(text) if !done.output.contains(text.as_str()) => StageError::Guest(format!(
                    "{}: its output does not hold {text:?}",
                    command.what
                )),
                _ => return Ok(()),
            },
            Err(error @ StageError::CommandTimedOut { .. }) => error,
            Err(error) => return Err(error),
        };
        if attempt == test.retries {
            return Err(failure);
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
