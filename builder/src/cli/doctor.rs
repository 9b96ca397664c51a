//! `gilt doctor`: what this host can do, what it lacks, and how to get it.

use super::{Context, Exit, Failure};
use crate::home::Home;
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

#[derive(Args)]
pub struct DoctorArgs {
    /// The driver to examine
    #[arg(long, env = "GILT_DRIVER", default_value = "qemu", value_name = "NAME[:ADDRESS]")]
    driver: String,
    /// Hold this driver to the suite all drivers are held to; starts small machines for some minutes
    #[arg(long, value_name = "NAME[:ADDRESS]")]
    conformance: Option<String>,
    /// Of the suite, only lines that hold these words
    #[arg(long, value_name = "WORDS", requires = "conformance", default_value = "")]
    only: String,
    /// Start a machine over this disk and hold it until killed: a part of the suite
    #[arg(long, value_name = "DISK", requires = "conformance", hide = true)]
    hold: Option<PathBuf>,
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
    if let Some(driver) = &args.conformance {
        return conformance(driver, args, context);
    }
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

#[derive(serde::Serialize)]
struct LineResult {
    line: &'static str,
    /// `held`, `unsupported` or `broken`.
    outcome: &'static str,
    detail: String,
    seconds: f32,
}

/// The suite of all drivers, run on one.
fn conformance(address: &str, args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    use gilt_vm::conformance::{self, Bench, Outcome};
    let driver = crate::pipeline::driver(address)?;
    let host = |error: String| Failure::new(Exit::Host, anyhow::anyhow!("{error}"));
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(disk) = &args.hold {
        let held = runtime.block_on(conformance::hold(driver, disk));
        return held.map_err(|error| host(error.to_string()));
    }
    let mut bench = Bench::new(driver).map_err(host)?;
    let (program, address) = (std::env::current_exe()?, address.to_owned());
    bench.holder = Some(Box::new(move |disk| {
        let mut holder = Command::new(&program);
        holder.args(["doctor", "--conformance", &address, "--hold"]).arg(disk);
        holder
    }));
    let mut results = Vec::new();
    let json = context.json;
    let summary = runtime.block_on(conformance::run(
        &bench,
        |states| states.contains(&args.only),
        |line, outcome, took| {
            let (outcome, detail) = match outcome {
                Outcome::Held => ("held", String::new()),
                Outcome::Unsupported(what) => ("unsupported", what.clone()),
                Outcome::Broken(what) => ("broken", what.clone()),
            };
            let seconds = took.as_secs_f32();
            if !json {
                println!("{outcome:<11} {seconds:6.1} s  {}", line.states);
                for text in detail.lines() {
                    println!("                      {text}");
                }
            }
            results.push(LineResult { line: line.states, outcome, detail, seconds });
        },
    ));
    if json {
        println!("{}", serde_json::to_string_pretty(&results).map_err(anyhow::Error::from)?);
    } else {
        println!("{} held, {} unsupported", summary.held, summary.unsupported);
    }
    match summary.wrong.first() {
        None => Ok(()),
        Some(first) => {
            Err(host(format!("{} lines are wrong, first: {first}", summary.wrong.len())))
        }
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
