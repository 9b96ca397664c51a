//! `gilt build` and `gilt shell`: what needs a machine.

use super::template::TemplateArgs;
use super::{Context, Exit, Failure};
use crate::event::{Events, JsonSink, LineSink, Sink, TerminalSink};
use crate::home::Home;
use crate::pipeline::{self, Failed, Host, Outcome, Target};
use crate::stage::{OnError, Options};
use clap::{Args, Subcommand};
use std::io::IsTerminal;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Subcommand)]
pub enum BuildCommand {
    /// Build the images of a template: install, layers, generalize, capture, test, publish
    Build(Box<BuildArgs>),
    /// Boot a throw-away copy after a layer and open a shell in it
    Shell(Box<ShellArgs>),
}

#[derive(Args)]
pub struct BuildArgs {
    #[command(flatten)]
    template: TemplateArgs,
    /// Publish the tested image to the store
    #[arg(long)]
    publish: bool,
    /// The store: a folder or an address
    #[arg(long, env = "GILT_STORE", value_name = "URL")]
    store: Option<String>,
    /// Do not use checkpoints of earlier builds
    #[arg(short, long)]
    force: bool,
    /// What to do when a build fails
    #[arg(long, value_enum, default_value = "cleanup")]
    on_error: OnError,
    /// Stop after this layer's checkpoint
    #[arg(long, value_name = "LAYER")]
    until: Option<String>,
    /// Skip the tests of the captured image (it is then never published)
    #[arg(long, conflicts_with = "publish")]
    no_test: bool,
    /// Do not keep the guest's memory with checkpoints: smaller, but each resume boots
    #[arg(long)]
    no_memory: bool,
    /// How many images of a matrix are built at once; by default what memory and cores bear
    #[arg(long, value_name = "N", alias = "parallel-builds")]
    parallel: Option<usize>,
    /// The driver of the reference machine
    #[arg(long, env = "GILT_DRIVER", default_value = "qemu", value_name = "NAME[:ADDRESS]")]
    driver: String,
    /// Show the guest's screen over VNC on 127.0.0.1
    #[arg(long)]
    vnc: bool,
    /// Reach the guest's SSH at this port of 127.0.0.1; by default a free one
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// Print what the guest prints
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Args)]
pub struct ShellArgs {
    #[command(flatten)]
    template: TemplateArgs,
    /// After this layer; the last one where left out
    layer: Option<String>,
    /// Run this command instead of a shell
    #[arg(short, long, value_name = "COMMAND")]
    command: Option<String>,
    /// The driver of the machine
    #[arg(long, env = "GILT_DRIVER", default_value = "qemu", value_name = "NAME[:ADDRESS]")]
    driver: String,
}

impl BuildCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cancel = CancellationToken::new();
        runtime.block_on(async {
            tokio::spawn(watch_signals(cancel.clone()));
            match self {
                Self::Build(args) => build(*args, context, cancel).await,
                Self::Shell(args) => shell(*args, context, cancel).await,
            }
        })
    }
}

/// The first Ctrl-C or SIGTERM asks for an orderly end; the second one ends the process, and the
/// machines with it.
async fn watch_signals(cancel: CancellationToken) {
    for round in 0.. {
        interrupted().await;
        if round > 0 {
            std::process::exit(i32::from(Exit::Cancelled as u8));
        }
        eprintln!("cancelling: removing what this build made (again to end at once)");
        cancel.cancel();
    }
}

#[cfg(unix)]
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

#[cfg(not(unix))]
async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}

fn home() -> Result<Home, Failure> {
    let root = Home::default_root().ok_or_else(|| {
        Failure::usage("no home folder is known").hint("set GILT_HOME to a folder for checkpoints")
    })?;
    let home = Home::open(&root).map_err(|error| {
        Failure::new(Exit::Host, anyhow::anyhow!("cannot use {}: {error}", root.display()))
    })?;
    Ok(home)
}

async fn build(
    args: BuildArgs,
    context: &Context,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let home = home()?;
    let resolved = args.template.resolve()?;
    let host = Host {
        home,
        driver: pipeline::driver(&args.driver)?,
        options: Options {
            vnc: args.vnc,
            keep_memory: !args.no_memory,
            on_error: args.on_error,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            ssh_port: args.ssh_port,
        },
        cancel: cancel.clone(),
    };
    let target = Target {
        publish: args.publish,
        store: args.store.clone(),
        force: args.force,
        until: args.until.clone(),
        test: !args.no_test,
        template: args.template.template.clone(),
    };
    let several = resolved.builds.len() > 1;
    let bars = indicatif::MultiProgress::new();
    let mut all = Vec::new();
    for build in resolved.builds {
        let sink: Arc<dyn Sink> = if context.json {
            Arc::new(JsonSink::new(std::io::stdout()))
        } else if std::io::stderr().is_terminal() && several {
            Arc::new(TerminalSink::within(&bars, args.verbose))
        } else if std::io::stderr().is_terminal() {
            Arc::new(TerminalSink::new(args.verbose))
        } else {
            Arc::new(LineSink::new(std::io::stderr(), args.verbose))
        };
        let secrets = build.spec.secrets.clone();
        let scrub: crate::event::Scrub = Arc::new(move |text| secrets.scrub(text).into_owned());
        let events = Events::new(build.spec.name.clone(), vec![sink], scrub);
        all.push((build, events));
    }
    let results = pipeline::run_all(&host, &target, all, args.parallel).await;
    report(context, results)
}

/// Sums up: what was made, and for each failure its diagnosis, hint, and last its evidence.
fn report(
    context: &Context,
    results: Vec<(String, Result<Outcome, Failed>)>,
) -> Result<(), Failure> {
    let mut worst: Option<Failed> = None;
    for (_, result) in results {
        match result {
            Ok(outcome) if !context.json => {
                if let Some(version) = &outcome.version {
                    println!("{version}");
                } else if let Some(wim) = &outcome.wim {
                    println!("{}", wim.display());
                }
            }
            Ok(_) => {}
            Err(failed) => {
                if let Some(earlier) = worst.take() {
                    eprintln!("error: {}", earlier.diagnosis);
                    if let Some(folder) = &earlier.evidence {
                        eprintln!("evidence: {}", folder.display());
                    }
                }
                worst = Some(failed);
            }
        }
    }
    match worst {
        None => Ok(()),
        Some(failed) => {
            let mut failure = Failure::new(failed.exit, anyhow::anyhow!("{}", failed.diagnosis));
            failure.hint = failed.hint;
            failure.evidence = failed.evidence;
            failure.kept = failed.kept;
            Err(failure)
        }
    }
}

async fn shell(
    args: ShellArgs,
    _context: &Context,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let home = home()?;
    let mut resolved = args.template.resolve()?;
    if resolved.builds.len() != 1 {
        let names: Vec<_> = resolved.builds.iter().map(|build| build.spec.name.as_str()).collect();
        return Err(Failure::usage("the template makes several images")
            .hint(format!("choose one with --only: {}", names.join(", "))));
    }
    let build = resolved.builds.remove(0);
    let host = Host {
        home,
        driver: pipeline::driver(&args.driver)?,
        options: Options {
            vnc: false,
            keep_memory: false,
            on_error: OnError::Cleanup,
            threads: 1,
            ssh_port: None,
        },
        cancel,
    };
    let sink: Arc<dyn Sink> = Arc::new(LineSink::new(std::io::stderr(), false));
    let events = Events::new(build.spec.name.clone(), vec![sink], crate::event::nothing_secret());
    let code =
        pipeline::shell(&host, build, events, args.layer.as_deref(), args.command.as_deref())
            .await
            .map_err(|error| {
                let mut failure = Failure::new(error.exit(), anyhow::anyhow!("{error}"));
                failure.hint = error.hint();
                failure
            })?;
    if code == 0 {
        Ok(())
    } else {
        Err(Failure::new(Exit::Guest, anyhow::anyhow!("the shell ended with exit code {code}")))
    }
}
