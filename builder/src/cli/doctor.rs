//! `gilt doctor`: what this host can do, what it lacks, and how to get it.

use super::{Context, Exit, Failure};
use crate::home::Home;
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

#[derive(Args)]
pub struct DoctorArgs {
    /// The driver to examine
    #[arg(long, default_value = "qemu")]
    driver: String,
}

/// A program gilt runs for some of its work.
struct Tool {
    program: &'static str,
    package: &'static str,
    needed_for: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "qemu-img", package: "qemu-utils", needed_for: "disks of the qemu driver" },
    Tool { program: "mke2fs", package: "e2fsprogs", needed_for: "testing a Linux image" },
    Tool { program: "debugfs", package: "e2fsprogs", needed_for: "testing a Linux image" },
];

#[derive(serde::Serialize)]
struct Finding {
    what: String,
    fit: bool,
    detail: String,
    hint: Option<String>,
}

pub fn run(args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match Home::default_root() {
        Some(root) => findings.push(match Home::open(&root) {
            Ok(_) => fit("home", root.display()),
            Err(error) => lacks("home", format!("{}: {error}", root.display()), "set GILT_HOME"),
        }),
        None => findings.push(lacks("home", "no folder is known", "set GILT_HOME")),
    }
    for tool in TOOLS {
        findings.push(match find(tool.program) {
            Some(path) => fit(tool.program, path.display()),
            None => lacks(
                tool.program,
                format!("not found; needed for {}", tool.needed_for),
                &format!("install the package {}", tool.package),
            ),
        });
    }
    let driver = crate::pipeline::driver(&args.driver)?;
    let runtime = tokio::runtime::Runtime::new()?;
    match runtime.block_on(driver.capabilities()) {
        Ok(can) => {
            findings.push(fit(driver.name(), &can.hypervisor));
            let accelerator = format!("{} ({})", can.accelerator, can.accelerator_reason);
            findings.push(fit("accelerator", accelerator));
            for (what, has) in
                [("UEFI", can.uefi), ("Secure Boot", can.secure_boot), ("TPM 2.0", can.tpm)]
            {
                if has {
                    findings.push(fit(what, "available"));
                }
            }
            for missing in can.missing {
                findings.push(Finding {
                    what: driver.name().into(),
                    fit: false,
                    detail: missing,
                    hint: None,
                });
            }
        }
        Err(error) => findings.push(lacks(driver.name(), error, "see docs/drivers.md")),
    }
    if context.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(anyhow::Error::from)?);
    } else {
        for finding in &findings {
            let mark = if finding.fit { "ok  " } else { "LACK" };
            println!("{mark} {:<12} {}", finding.what, finding.detail);
            if let Some(hint) = &finding.hint {
                println!("     {:<12} hint: {hint}", "");
            }
        }
    }
    match findings.iter().filter(|finding| !finding.fit).count() {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Host, anyhow::anyhow!("this host lacks {count} things"))),
    }
}

fn fit(what: &str, detail: impl std::fmt::Display) -> Finding {
    Finding { what: what.into(), fit: true, detail: detail.to_string(), hint: None }
}

fn lacks(what: &str, detail: impl std::fmt::Display, hint: &str) -> Finding {
    Finding { what: what.into(), fit: false, detail: detail.to_string(), hint: Some(hint.into()) }
}

/// The program on the PATH, or where Debian puts tools of the administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path)
        .chain(admin)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file() && runs(candidate))
}

fn runs(path: &std::path::Path) -> bool {
    Command::new(path).arg("-V").output().is_ok()
}
