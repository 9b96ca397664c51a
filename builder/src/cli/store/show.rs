use super::text::{bytes, columns, time};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Reference, VersionDetail};

#[derive(Args)]
pub struct Show {
    /// IMAGE, IMAGE@N or IMAGE:CHANNEL
    reference: Reference,
    #[command(flatten)]
    at: At,
}

impl Show {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let detail = store.show(&self.reference).await.map_err(failed)?;
        print(context, &detail, plain)
    }
}

fn plain(detail: &VersionDetail) -> String {
    let manifest = &detail.manifest;
    let (fields, os) = (&manifest.fields, &manifest.fields.os);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    row("version", format!("{}@{}", manifest.image, manifest.version));
    row("description", fields.description.clone());
    row("published", format!("{} by {}", time(manifest.at), manifest.by));
    let life = &detail.life;
    let why = if life.why.is_empty() { String::new() } else { format!(": {}", life.why) };
    row("state", format!("{}{why}", life.state.name()));
    for hold in &life.holds {
        row("held", format!("{} ({}) {}", hold.name, hold.by, hold.why).trim_end().to_owned());
    }
    for attested in &life.attested {
        let word = if attested.passed { "passed" } else { "failed" };
        row("attested", format!("{} {word} {}", attested.name, attested.detail));
    }
    row("channels", detail.channels.join(" "));
    row("file", format!("{} ({})", manifest.file.name, bytes(manifest.file.content.size)));
    row("digest", manifest.file.content.digest.to_string());
    row("signed by", detail.signed_by.clone());
    for parent in &fields.parents {
        row("built on", format!("{}@{}", parent.image, parent.version));
    }
    row("template", fields.template_digest.map(|digest| digest.to_string()).unwrap_or_default());
    for layer in &fields.layers {
        row("layer", format!("{} {}", layer.name, layer.key));
    }
    for input in &fields.inputs {
        row("input", format!("{} ({}) {}", input.name, bytes(input.size), input.digest));
    }
    row("builder", format!("{} {}", fields.builder.id, fields.builder.version).trim().to_owned());
    row("os", format!("{} {} {}", os.name, os.edition, os.build).trim().to_owned());
    row("architecture", os.architecture.clone());
    row("languages", os.languages.join(", "));
    row("updates", os.updates.join(", "));
    if !os.packages.is_empty() {
        row("packages", os.packages.len().to_string());
    }
    if let Some(tests) = &fields.tests {
        let (passed, failed, skipped) = (tests.passed, tests.failed, tests.skipped);
        row("tests", format!("{passed} passed, {failed} failed, {skipped} skipped"));
    }
    for artifact in &manifest.artifacts {
        let size = bytes(artifact.content.size);
        row("artifact", format!("{} {} ({size})", artifact.role, artifact.name));
    }
    columns(&rows)
}
