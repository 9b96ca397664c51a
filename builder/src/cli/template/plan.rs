//! `gilt plan`.

use super::TemplateArgs;
use crate::checkpoint::Index;
use crate::cli::{Context, Failure};
use crate::plan::{Build, Decision, Plan, PlanOptions, plan};
use clap::Args;
use std::fmt::Write;

/// Shows, layer by layer, what a build would run and what it would reuse, and why a layer is not
/// reused. Nothing is started and nothing is changed.
#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    template: TemplateArgs,
    /// The driver whose checkpoints are looked at; those of QEMU and libvirt are the same
    #[arg(long, env = "GILT_DRIVER", value_name = "NAME[:ADDRESS]")]
    driver: Option<String>,
}

impl PlanArgs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let resolved = self.template.resolve()?;
        let home = super::home()?;
        let checkpoints = super::checkpoints(&home, self.driver.as_deref())?;
        let index = Index { checkpoints: &checkpoints, home: &home };
        let plans: Vec<Plan> = resolved
            .builds
            .iter()
            .map(|build| plan(build, &index, &PlanOptions::default()))
            .collect();
        if context.json {
            println!("{:#}", serde_json::json!({ "plans": plans }));
            return Ok(());
        }
        let shown: Vec<String> = plans
            .iter()
            .zip(&resolved.builds)
            .map(|(plan, build)| format!("{}{}", show(plan), then(build)))
            .collect();
        print!("{}", shown.join("\n"));
        Ok(())
    }
}

/// The plan as a person reads it.
fn show(plan: &Plan) -> String {
    let mut out = format!("{}\n", plan.image);
    let names = plan.steps.iter().map(|step| step.name.as_str());
    let names = names.chain(plan.skipped.iter().map(|layer| layer.name.as_str()));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    for step in &plan.steps {
        let took = step.last_seconds.map_or("–".to_owned(), seconds);
        let (word, why) = match &step.decision {
            Decision::Reuse { .. } => ("reuse", String::new()),
            Decision::Run { .. } => ("run", step.why()),
        };
        let line =
            format!("  {word:5}  {:width$}  {}  {took:>6}  {why}", step.name, step.key.short());
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for layer in &plan.skipped {
        let _ = writeln!(out, "  skip   {:width$}  when {}", layer.name, layer.when);
    }
    let count = plan.to_run().count();
    let _ = match (count, plan.expected_seconds()) {
        (0, _) => writeln!(out, "no layer runs"),
        (_, Some(expected)) => {
            writeln!(out, "{count} of {} layers run, about {}", plan.steps.len(), seconds(expected))
        }
        (_, None) => writeln!(out, "{count} of {} layers run", plan.steps.len()),
    };
    out
}

/// What comes after the layers.
fn then(build: &Build) -> String {
    let spec = &build.spec;
    let tests = match spec.tests.len() {
        0 => "no test".to_owned(),
        1 => "1 test".to_owned(),
        count => format!("{count} tests"),
    };
    let publish = spec.publish_image().map_or(String::new(), |image| {
        let channel = spec.publish.as_ref().and_then(|publish| publish.channel.as_deref());
        let channel = channel.map_or(String::new(), |channel| format!(" to {channel}"));
        format!(", publish {image}{channel}")
    });
    format!("then generalize, capture ({}), {tests}{publish}\n", spec.capture.compress)
}

fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=99 => format!("{whole} s"),
        100..=5999 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content_hash::Digest;
    use crate::plan::{Change, How, LayerKey, PlannedStep, Reason};
    use crate::template::SkippedLayer;

    #[test]
    fn a_plan_reads_as_a_table() {
        let step = |name: &str, decision, last_seconds| PlannedStep {
            name: name.to_owned(),
            key: LayerKey(Digest::of(name.as_bytes())),
            decision,
            last_seconds,
        };
        let change = Change { name: "install.sh".into(), how: How::Changed };
        let plan = Plan {
            image: "debian-12-thin".into(),
            steps: vec![
                step("install", Decision::Reuse { bytes: Some(1 << 30) }, Some(181.0)),
                step(
                    "runtime-python",
                    Decision::Run { why: vec![Reason::Input(change)] },
                    Some(31.4),
                ),
                step("app", Decision::Run { why: vec![Reason::NeverBuilt] }, None),
            ],
            skipped: vec![SkippedLayer {
                name: "web".into(),
                when: "${matrix.flavour} == \"web\"".into(),
            }],
        };
        insta::assert_snapshot!(show(&plan));
    }
}
