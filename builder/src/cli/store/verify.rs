use super::text::bytes;
use super::{At, failed, print, watch};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Error, Manifest, Reference, State, Store, verify_file};
use std::path::{Path, PathBuf};

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
            return print(context, &found, |found| offline(file, found));
        }
        let Some(reference) = self.reference else {
            return Err(Failure::usage("name a version, or give --file, --manifest and --key"));
        };
        let (url, options) = (self.at.url()?, self.at.options());
        let store = match Store::open(&url, options.clone()).await {
            Ok(store) => store,
            // The server is away: what was pulled from it can be verified all the same.
            Err(error @ Error::Backend { .. }) => {
                let watch = watch(context, "verify", 0);
                let pulled = Store::verify_pulled(&url, &options, &reference, &watch);
                let Some((path, manifest)) = pulled.map_err(failed)? else {
                    return Err(failed(error));
                };
                return print(context, &manifest, |manifest| offline(&path, manifest));
            }
            Err(error) => return Err(failed(error)),
        };
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

fn offline(path: &Path, manifest: &Manifest) -> String {
    format!(
        "{} is {}@{}, signed; whether it was revoked since only the store knows\n",
        path.display(),
        manifest.image,
        manifest.version
    )
}
