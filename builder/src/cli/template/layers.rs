//! `gilt layers ls | show | why | prune`.

use super::TemplateArgs;
use crate::checkpoint::{Checkpoints, Index};
use crate::cli::{Context, Exit, Failure};
use crate::layer::{self, LayerInfo};
use crate::plan::{CheckpointIndex, Decision, INSTALL, PlanOptions, plan};
use crate::template::fields::nearest_hint;
use crate::template::scalar::parse_duration;
use crate::template::{ByteSize, Diagnostics};
use clap::{Args, Subcommand};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Subcommand)]
pub enum LayersCommand {
    /// List the layers a template can name
    Ls(LsArgs),
    /// Show a layer: what it does, what it needs, what can be set
    Show(ShowArgs),
    /// Say why a layer of a template is not reused, input by input
    Why(WhyArgs),
    /// Remove checkpoints of layers
    Prune(PruneArgs),
}

impl LayersCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Ls(args) => args.run(context),
            Self::Show(args) => args.run(context),
            Self::Why(args) => args.run(context),
            Self::Prune(args) => args.run(context),
        }
    }
}

/// Lists layers: those beside the current folder, and those that came with gilt.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct Places {
    /// Look for layers in this folder first
    #[arg(long = "layers-dir", value_name = "DIR")]
    layers_dirs: Vec<PathBuf>,
    /// Look for layers as this template does
    #[arg(long = "for", value_name = "TEMPLATE")]
    template: Option<PathBuf>,
}

impl Places {
    fn folders(&self) -> Vec<PathBuf> {
        layer::search_path(self.template.as_deref(), &self.layers_dirs)
    }
}

fn read(folder: &Path) -> Result<LayerInfo, Failure> {
    LayerInfo::read(folder)
        .map_err(|problems| super::wrong(&folder.join(layer::LAYER_FILE), &problems))
}

impl LsArgs {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let layers = layer::list(&self.places.folders());
        let mut broken = Vec::new();
        let mut infos = Vec::new();
        for (name, folder) in &layers {
            match LayerInfo::read(folder) {
                Ok(info) => infos.push((name, folder, info)),
                Err(Diagnostics(problems)) => broken.extend(problems),
            }
        }
        if context.json {
            let list: Vec<_> = infos
                .iter()
                .map(|(name, folder, info)| {
                    json!({"name": name, "folder": folder, "description": info.description, "guests": info.guests})
                })
                .collect();
            println!("{:#}", json!({ "layers": list }));
        } else {
            let width = infos.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
            for (name, _, info) in &infos {
                let guests: Vec<&str> = info.guests.iter().map(|guest| guest.as_str()).collect();
                let guests = if guests.is_empty() { "any".to_owned() } else { guests.join(",") };
                let description = info.description.as_deref().unwrap_or("");
                println!("{}", format!("{name:width$}  {guests:13}  {description}").trim_end());
            }
        }
        if infos.is_empty() && broken.is_empty() && !context.json {
            let folders: Vec<String> =
                self.places.folders().iter().map(|folder| folder.display().to_string()).collect();
            eprintln!("no layers in {}", folders.join(", "));
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(super::wrong(Path::new("the catalogue"), &Diagnostics(broken)))
    }
}

/// Shows one layer.
#[derive(Args)]
pub struct ShowArgs {
    /// Name of the layer, or its folder
    layer: String,
    #[command(flatten)]
    places: Places,
}

impl ShowArgs {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let layers = layer::list(&self.places.folders());
        let folder = match layers.iter().find(|(name, _)| *name == self.layer) {
            Some((_, folder)) => folder.clone(),
            None if Path::new(&self.layer).join(layer::LAYER_FILE).is_file() => {
                PathBuf::from(&self.layer)
            }
            None => {
                let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Failure::usage(format!("there is no layer `{}`", self.layer))
                    .hint(nearest_hint(&self.layer, &names)));
            }
        };
        let info = read(&folder)?;
        if context.json {
            println!("{:#}", info.to_json(&folder));
        } else {
            print!("{}", info.show(&folder));
        }
        Ok(())
    }
}

/// Says what a layer is made of, and what differs from the last time it was built.
#[derive(Args)]
pub struct WhyArgs {
    #[command(flatten)]
    template: TemplateArgs,
    /// The layer, by its name in the template
    layer: String,
    /// The driver whose checkpoints are looked at; those of QEMU and libvirt are the same
    #[arg(long, env = "GILT_DRIVER", value_name = "NAME[:ADDRESS]")]
    driver: Option<String>,
}

impl WhyArgs {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let resolved = self.template.resolve()?;
        let home = super::home()?;
        let checkpoints = super::checkpoints(&home, self.driver.as_deref())?;
        let index = Index { checkpoints: &checkpoints, home: &home };
        let mut reports = Vec::new();
        let mut known = vec![INSTALL.to_owned()];
        for build in &resolved.builds {
            known.extend(build.layers.iter().map(|layer| layer.name().to_owned()));
            let Some((_, keyed)) = build.steps().find(|(name, _)| *name == self.layer) else {
                continue;
            };
            let plan = plan(build, &index, &PlanOptions::default());
            let Some(step) = plan.steps.into_iter().find(|step| step.name == self.layer) else {
                continue;
            };
            let last = index.last_for(&build.spec.name, &self.layer);
            let changes = last
                .as_ref()
                .map(|last| keyed.inputs.changes_since(&last.inputs))
                .unwrap_or_default();
            reports.push((build, keyed, step, last, changes));
        }
        if reports.is_empty() {
            known.sort();
            known.dedup();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err(Failure::usage(format!("the template has no layer `{}`", self.layer))
                .hint(nearest_hint(&self.layer, &known)));
        }
        if context.json {
            let list: Vec<_> = reports
                .iter()
                .map(|(build, keyed, step, last, changes)| {
                    json!({
                        "image": build.spec.name,
                        "layer": self.layer,
                        "key": keyed.key,
                        "last_key": last.as_ref().map(|last| last.key),
                        "step": step,
                        "changes": changes,
                        "inputs": keyed.inputs,
                    })
                })
                .collect();
            println!("{:#}", json!({ "why": list }));
            return Ok(());
        }
        for (position, (build, keyed, step, last, changes)) in reports.iter().enumerate() {
            if position > 0 {
                println!();
            }
            let decision = match &step.decision {
                Decision::Reuse { .. } => "is reused: nothing it is made of changed".to_owned(),
                Decision::Run { .. } => format!("runs: {}", step.why()),
            };
            println!("{} of {} {decision}", self.layer, build.spec.name);
            println!("  key {}", keyed.key.short());
            if let Some(last) = last.as_ref().filter(|last| last.key != keyed.key) {
                println!("  key of the last build {}", last.key.short());
            }
            let width =
                keyed.inputs.named.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, digest) in &keyed.inputs.named {
                let mark = changes.iter().find(|change| change.name == *name);
                let mark = mark.map_or(String::new(), |change| {
                    let before = last.as_ref().and_then(|last| last.inputs.named.get(name));
                    let before =
                        before.map_or(String::new(), |digest| format!(", was {}", digest.short()));
                    format!("  {}{before}", change.verb())
                });
                println!("  {name:width$}  {}{mark}", digest.short());
            }
            for change in
                changes.iter().filter(|change| !keyed.inputs.named.contains_key(&change.name))
            {
                println!("  {change}");
            }
        }
        Ok(())
    }
}

/// Removes checkpoints that are old, or that no kept template needs. What a kept checkpoint lies over
/// is kept too. Says what it would remove with --dry-run.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct PruneArgs {
    /// Keep what this template needs now
    #[arg(long, value_name = "TEMPLATE", group = "what")]
    keep: Vec<PathBuf>,
    /// Keep what is younger: 30d, 12h
    #[arg(long, value_name = "AGE", value_parser = parse_duration, group = "what")]
    older_than: Option<Duration>,
    /// Remove every checkpoint
    #[arg(long, group = "what", conflicts_with_all = ["keep", "older_than"])]
    all: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl PruneArgs {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let mut keep = BTreeSet::new();
        for path in &self.keep {
            for build in TemplateArgs::plain(path).resolve()?.builds {
                keep.extend(build.steps().map(|(_, keyed)| keyed.key.to_string()));
            }
        }
        let home = super::home()?;
        let limit = self.older_than.map(|age| {
            let limit =
                jiff::Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap_or_default();
            limit.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        });
        let mut plan = Vec::new();
        for checkpoints in Checkpoints::everywhere(&home)? {
            plan.extend(checkpoints.plan_prune(&keep, limit.as_deref())?);
        }
        if !self.dry_run && !plan.is_empty() && builds_run(&home)? {
            return Err(Failure::new(
                Exit::Host,
                anyhow::anyhow!("a build is running and may need these checkpoints"),
            )
            .hint("wait for it to end"));
        }
        let mut freed = 0;
        for checkpoint in &plan {
            let bytes = checkpoint.bytes();
            freed += bytes;
            if !self.dry_run {
                checkpoint.remove()?;
            }
            if !context.json {
                let record = &checkpoint.record;
                let key: String = record.key.chars().take(12).collect();
                println!(
                    "{key}  {}  {}/{}  {}",
                    record.created,
                    record.image,
                    record.layer,
                    mib(bytes)
                );
            }
        }
        if context.json {
            let keys: Vec<&str> = plan.iter().map(|found| found.record.key.as_str()).collect();
            println!(
                "{:#}",
                json!({ "removed": !self.dry_run, "checkpoints": keys, "bytes": freed })
            );
        } else {
            let verb = if self.dry_run { "would free" } else { "freed" };
            println!("{} checkpoints, {verb} {}", plan.len(), mib(freed));
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> String {
    ByteSize::mib(bytes.div_ceil(1 << 20)).to_string()
}

/// Opening the home swept what dead builds left, so what is there belongs to living ones.
fn builds_run(home: &crate::home::Home) -> Result<bool, Failure> {
    Ok(std::fs::read_dir(home.root().join("runs"))?.next().is_some())
}
