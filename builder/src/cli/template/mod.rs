//! `gilt validate | plan | inspect | lock | schema | fmt | answer-file | layers`: what needs no
//! machine.
//! One file per command.

mod answer_file;
mod fmt;
mod inspect;
mod layers;
mod lock;
mod plan;
mod schema;
mod validate;

use super::{Context, Exit, Failure};
use crate::checkpoint::Checkpoints;
use crate::home::Home;
use crate::lock::{Digests, Lock};
use crate::plan::{Build, KeyError};
use crate::template::{
    Diagnostic, Diagnostics, Given, ResolveOptions, Resolved, Severity, Template,
};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum TemplateCommand {
    /// Check a template, its layers and every profile
    Validate(validate::ValidateArgs),
    /// Show what a build would run, what it would reuse, and why not
    Plan(plan::PlanArgs),
    /// Show a template as it was understood: everything filled in and typed
    Inspect(inspect::InspectArgs),
    /// Record every input of a template by digest, in gilt.lock beside it
    Lock(lock::LockArgs),
    /// Print the JSON Schema of templates or layers, for editors
    Schema(schema::SchemaArgs),
    /// Tidy the layout of templates and layers
    Fmt(fmt::FmtArgs),
    /// Show how Windows Setup is answered
    #[command(subcommand)]
    AnswerFile(answer_file::AnswerFileCommand),
    /// List, show and explain layers
    #[command(subcommand)]
    Layers(layers::LayersCommand),
}

impl TemplateCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Validate(args) => args.run(context),
            Self::Plan(args) => args.run(context),
            Self::Inspect(args) => args.run(context),
            Self::Lock(args) => args.run(context),
            Self::Schema(args) => args.run(context),
            Self::Fmt(args) => args.run(context),
            Self::AnswerFile(command) => command.run(context),
            Self::Layers(command) => command.run(context),
        }
    }
}

/// What every command takes that reads a template.
#[derive(Args, Clone, Debug)]
pub struct TemplateArgs {
    /// The template
    #[arg(value_name = "TEMPLATE")]
    pub template: PathBuf,
    /// Give a variable its value
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = name_and_value)]
    vars: Vec<(String, String)>,
    /// Take variables from a YAML file
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
    /// Lay a profile of the template over it
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Only these images of the matrix: names, or AXIS=VALUE
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// All but these images of the matrix: names, or AXIS=VALUE
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    except: Vec<String>,
    /// Look for layers in this folder first
    #[arg(long = "layers-dir", value_name = "DIR")]
    layers_dirs: Vec<PathBuf>,
    /// Take only inputs whose bytes are those of gilt.lock
    #[arg(long)]
    locked: bool,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is given as NAME=VALUE".to_owned()),
    }
}

/// The builds of a template, with keys.
pub struct ResolvedBuilds {
    pub builds: Vec<Build>,
}

impl TemplateArgs {
    /// A template as it is by itself.
    fn plain(template: &Path) -> Self {
        Self {
            template: template.to_owned(),
            vars: Vec::new(),
            var_files: Vec::new(),
            profiles: Vec::new(),
            only: Vec::new(),
            except: Vec::new(),
            layers_dirs: Vec::new(),
            locked: false,
        }
    }

    fn options(&self) -> ResolveOptions {
        ResolveOptions {
            given: Given {
                vars: self.vars.clone(),
                var_files: self.var_files.clone(),
                ..Given::from_environment()
            },
            profiles: self.profiles.clone(),
            only: self.only.clone(),
            except: self.except.clone(),
            layers_dirs: self.layers_dirs.clone(),
        }
    }

    /// The template, with what the lock file beside it says of addresses.
    fn load(&self) -> Result<(Template, Option<Lock>), Diagnostics> {
        let mut template = Template::load(&self.template)?;
        let path = Lock::path_for(&self.template);
        let lock = Lock::load(&path).map_err(|error| Diagnostics(vec![lock_problem(&error)]))?;
        if let Some(lock) = &lock {
            template.set_url_digests(lock.urls());
        }
        Ok((template, lock))
    }

    /// The builds without their keys: inputs are not read. Warnings go to stderr.
    pub fn specs(&self) -> Result<Resolved, Failure> {
        let resolved = self.load().and_then(|(template, _)| template.resolve(&self.options()));
        let resolved = resolved.map_err(|problems| wrong(&self.template, &problems))?;
        print_problems(&resolved.warnings);
        Ok(resolved)
    }

    /// The builds with their keys; every input was read, and with `--locked` compared.
    pub fn resolve(&self) -> Result<ResolvedBuilds, Failure> {
        let path = Lock::path_for(&self.template);
        let lock = Lock::load(&path)
            .map_err(|error| wrong(&self.template, &Diagnostics(vec![lock_problem(&error)])))?;
        let mut digests = digests();
        let resolved = self.resolve_with(lock.as_ref(), &mut digests)?;
        if self.locked {
            let lock = lock.ok_or_else(|| {
                Failure::usage(format!("--locked: there is no {}", path.display()))
                    .hint(format!("make it with `gilt lock {}`", self.template.display()))
            })?;
            let problems = lock.check(&self.template, &resolved.builds, &mut digests);
            if !problems.is_empty() {
                return Err(mismatch(&self.template, &Diagnostics(problems)));
            }
        }
        // A cache that cannot be written only costs time.
        let _ = digests.save();
        Ok(resolved)
    }

    fn resolve_with(
        &self,
        lock: Option<&Lock>,
        digests: &mut Digests,
    ) -> Result<ResolvedBuilds, Failure> {
        let wrong = |problems: Diagnostics| wrong(&self.template, &problems);
        let mut template = Template::load(&self.template).map_err(wrong)?;
        if let Some(lock) = lock {
            template.set_url_digests(lock.urls());
        }
        let resolved = template.resolve(&self.options()).map_err(wrong)?;
        print_problems(&resolved.warnings);
        let mut builds = Vec::new();
        for spec in resolved.builds {
            let build = Build::new(spec, digests).map_err(|error| match error {
                KeyError::Input(problems) => wrong(problems),
                KeyError::Mismatch(problems) => mismatch(&self.template, &problems),
            })?;
            builds.push(build);
        }
        Ok(ResolvedBuilds { builds })
    }
}

/// Digests with the cache of gilt's home, if there is one.
fn digests() -> Digests {
    let root = Home::default_root().filter(|root| std::fs::create_dir_all(root).is_ok());
    Digests::open(root.map(|root| root.join("digests.json")))
}

fn home() -> Result<Home, Failure> {
    let root = Home::default_root().ok_or_else(|| {
        Failure::usage("no home folder is known").hint("set GILT_HOME to a folder for checkpoints")
    })?;
    Home::open(&root).map_err(|error| {
        Failure::new(Exit::Host, anyhow::anyhow!("cannot use {}: {error}", root.display()))
    })
}

/// The checkpoints a driver can go on with; without one, those whose disks are files here.
fn checkpoints(home: &Home, driver: Option<&str>) -> Result<Checkpoints, Failure> {
    Ok(match driver {
        None => Checkpoints::new(home),
        Some(driver) => Checkpoints::of(home, crate::pipeline::driver(driver)?.as_ref()),
    })
}

fn lock_problem(error: &crate::lock::LockError) -> Diagnostic {
    Diagnostic::error(error.to_string())
        .hint("remove the lock file and run `gilt lock` again, if nobody knows what happened to it")
}

fn print_problems(problems: &[Diagnostic]) {
    for problem in problems {
        eprintln!("{problem}\n");
    }
}

/// Shows all that is wrong; the failure then only counts.
fn wrong(template: &Path, problems: &Diagnostics) -> Failure {
    failure(Exit::Usage, template, problems, "mistake")
}

/// Shows the inputs that are not what was said of them.
fn mismatch(template: &Path, problems: &Diagnostics) -> Failure {
    failure(Exit::Corrupt, template, problems, "wrong input")
}

fn failure(exit: Exit, template: &Path, problems: &Diagnostics, what: &str) -> Failure {
    if let [Diagnostic { message, at: None, hint, severity: Severity::Error }] =
        problems.0.as_slice()
    {
        let mut failure = Failure::new(exit, anyhow::anyhow!("{message}"));
        failure.hint.clone_from(hint);
        return failure;
    }
    print_problems(&problems.0);
    let count = problems.0.iter().filter(|problem| problem.severity == Severity::Error).count();
    let plural = if count == 1 { "" } else { "s" };
    Failure::new(exit, anyhow::anyhow!("{} has {count} {what}{plural}", template.display()))
}
