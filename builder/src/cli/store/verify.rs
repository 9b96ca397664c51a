use super::text::bytes;
use super::{At, failed, print, watch};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Reference, State, verify_file};
use std::path::PathBuf;

#[derive(Args)]
pub struct Verify {
    /// IMAGE, IMAGE@N or IMAGE:CHANNEL
    #[arg(required_unless_present = "manifest")]
    reference: Option<Reference>,
    #[command(flatten)]
    at: At,
    /// Check this file, with no store: --manifest and --key say what it must be
    #[arg(long, value_name = "FILE", requires = "manifest")]
    file: Option<PathBuf>,
    /// The signed manifest, as `gilt pull --manifest` writes it
    #[arg(long, value_name = "FILE", requires_all = ["file", "key"], conflicts_with = "reference")]
    manifest: Option<PathBuf>,
    /// The public key the manifest must be signed by
    #[arg(long, value_name = "FILE", requires = "manifest")]
    key: Option<PathBuf>,
}

impl Verify {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if let (Some(file), Some(manifest), Some(key)) = (&self.file, &self.manifest, &self.key) {
            let read = |path: &PathBuf| {
                std::fs::read(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
            };
            let size = std::fs::metadata(file).map(|meta| meta.len()).unwrap_or(0);
            let key = String::from_utf8_lossy(&read(key)?).into_owned();
            let watch = watch(context, "verify", size);
            let found = verify_file(&read(manifest)?, &key, file, &watch).map_err(failed)?;
            return print(context, &found, |found| {
                format!(
                    "{} is {}@{}, signed; whether it was revoked since only the store knows\n",
                    file.display(),
                    found.image,
                    found.version
                )
            });
        }
        let Some(reference) = self.reference else {
            return Err(Failure::usage("name a version, or give --file, --manifest and --key"));
        };
        let store = self.at.open().await?;
        let found = store.resolve(&reference).await.map_err(failed)?;
        let size = found.manifest.contents().map(|stored| stored.content.size).sum();
        let watch = watch(context, "verify", size);
        let verified = store.verify(&reference, &watch).await.map_err(failed)?;
        if verified.state == State::Revoked {
            eprintln!("warning: {}@{} is revoked", verified.image, verified.version);
        }
        print(context, &verified, |v| {
            format!(
                "{}@{}: signed by {}, {} files, {} read and right\n",
                v.image,
                v.version,
                v.signed_by,
                v.files.len(),
                bytes(size)
            )
        })
    }
}
