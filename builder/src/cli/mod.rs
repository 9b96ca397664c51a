//! The command line: one file per group of commands, one map from failures to exit codes.
//!
//! A command returns `Result<(), Failure>`; `main` prints the message and the hint and picks the
//! exit code. Results go to stdout, everything else (progress, warnings, errors) to stderr.

pub mod build;
pub mod capture;
pub mod doctor;
pub mod exit;
pub mod progress;
pub mod store;
pub mod template;
pub mod wim;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

pub use exit::{Exit, Failure};
pub use progress::Progress;

/// Builds golden images in layers: boot, install, lay, generalize, capture, test, publish.
#[derive(Parser)]
#[command(name = "gilt", version, about, propagate_version = true)]
struct Cli {
    /// Print results and progress as JSON (one object per line for progress)
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Template(template::TemplateCommand),
    #[command(flatten)]
    Build(build::BuildCommand),
    /// What this host can do, what it lacks, and how to get it
    Doctor(doctor::DoctorArgs),
    #[command(flatten)]
    Capture(capture::CaptureCommand),
    #[command(flatten)]
    Store(store::StoreCommand),
    /// Read, write, verify and transform WIM files
    #[command(subcommand)]
    Wim(wim::WimCommand),
}

/// What every command is given.
pub struct Context {
    /// Machine-readable output was asked for.
    pub json: bool,
}

impl Context {
    /// Progress of a piece of work of `total` units (bytes, usually); 0 where unknown.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        Progress::start(label, total, self.json)
    }
}

/// A reader that has seen enough (`gilt schema | head`) is no defect: the program ends as one that a
/// closed pipe ended, without a word.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(128 + 13);
        }
        usual(panic);
    }));
}

pub fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let cli = Cli::parse();
    let context = Context { json: cli.json };
    let done = match cli.command {
        Command::Template(command) => command.run(&context),
        Command::Build(command) => command.run(&context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Capture(command) => command.run(&context),
        Command::Store(command) => command.run(&context),
        Command::Wim(command) => command.run(&context),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit as u8)
        }
    }
}
