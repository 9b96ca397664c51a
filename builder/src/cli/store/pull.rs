use super::text::bytes;
use super::{At, failed, print, watch};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{PullRequest, Reference};
use std::path::PathBuf;

#[derive(Args)]
pub struct Pull {
    /// IMAGE, IMAGE@N or IMAGE:CHANNEL
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Where to put it: a file, or a folder; by default the file's own name here
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Pull what hangs on the version under this role, instead of the image
    #[arg(long, value_name = "ROLE")]
    artifact: Option<String>,
    /// Also write the signed manifest, for `gilt verify --manifest`
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Pull it also when it is revoked
    #[arg(long)]
    allow_revoked: bool,
}

impl Pull {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let found = store.resolve(&self.reference).await.map_err(failed)?;
        let stored =
            match &self.artifact {
                None => &found.manifest.file,
                Some(role) => found
                    .manifest
                    .artifacts
                    .iter()
                    .find(|artifact| artifact.role == *role)
                    .ok_or_else(|| Failure::usage(format!("{} has no {role}", self.reference)))?,
            };
        let to = match self.output {
            Some(path) if path.is_dir() => path.join(&stored.name),
            Some(path) => path,
            None => PathBuf::from(&stored.name),
        };
        let request = PullRequest {
            // What was looked at is what is pulled, also when the channel moves meanwhile.
            reference: Reference {
                image: found.image.clone(),
                pick: gilt_store::Pick::Version(found.version),
            },
            to: to.clone(),
            role: self.artifact,
            allow_revoked: self.allow_revoked,
            watch: watch(context, "pull", stored.content.size),
        };
        let pulled = store.pull(request).await.map_err(failed)?;
        if let Some(path) = self.manifest {
            let signed =
                store.signed_manifest(&found.image, found.version).await.map_err(failed)?;
            std::fs::write(&path, signed)?;
        }
        if let Some(why) = &pulled.deprecated {
            eprintln!("warning: {}@{} is deprecated: {why}", pulled.image, pulled.version);
        }
        print(context, &pulled, |p| {
            format!(
                "{}@{} -> {}: {}, {} fetched, {} reused\n{}\n",
                p.image,
                p.version,
                to.display(),
                bytes(p.size),
                bytes(p.bytes_fetched),
                bytes(p.bytes_reused),
                p.digest
            )
        })
    }
}
