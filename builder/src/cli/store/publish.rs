use super::text::bytes;
use super::{At, failed, print, watch};
use crate::cli::{Context, Exit, Failure};
use crate::image_store;
use clap::Args;
use gilt_store::{
    Artifact, Input, ManifestFields, MoveRequest, Opaque, Parent, PublishRequest, Reference, Source,
};
use std::path::PathBuf;

#[derive(Args)]
pub struct Publish {
    /// Name of the image
    image: String,
    /// The file: a WIM is stored by its resources, anything else as it is
    file: PathBuf,
    #[command(flatten)]
    at: At,
    /// Also set this channel to the new version
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// A file that hangs on the version, such as sbom=packages.cdx.json
    #[arg(long = "artifact", value_name = "ROLE=FILE")]
    artifacts: Vec<String>,
    /// A version this one is built on
    #[arg(long = "parent", value_name = "IMAGE@N")]
    parents: Vec<Reference>,
    /// A file with what else the manifest says, as JSON: os, tests, layers, inputs, builder …
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// A file that went into the image; its digest is recorded
    #[arg(long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    #[arg(long)]
    description: Option<String>,
    /// Make a new version also when the newest ones say the same
    #[arg(long)]
    force: bool,
}

impl Publish {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let mut manifest: ManifestFields = match &self.manifest {
            Some(path) => {
                let text = std::fs::read(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                serde_json::from_slice(&text)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
            None => ManifestFields::default(),
        };
        if let Some(description) = self.description {
            manifest.description = description;
        }
        if manifest.builder.id.is_empty() {
            manifest.builder.id = "gilt publish".into();
            manifest.builder.version = env!("CARGO_PKG_VERSION").into();
        }
        for parent in &self.parents {
            let found = store.resolve(parent).await.map_err(failed)?;
            manifest.parents.push(Parent {
                image: found.image,
                version: found.version,
                digest: found.manifest.file.content.digest,
            });
        }
        for path in &self.inputs {
            manifest.inputs.push(input(path)?);
        }
        let mut artifacts = Vec::new();
        for text in &self.artifacts {
            let (role, path) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("{text}: want ROLE=FILE")))?;
            let path = PathBuf::from(path);
            artifacts.push(Artifact {
                role: role.to_owned(),
                name: name(&path),
                media_type: media_type(&path).to_owned(),
                source: Source::Path(path),
            });
        }
        let size = std::fs::metadata(&self.file)
            .map_err(|error| Failure::usage(format!("{}: {error}", self.file.display())))?
            .len();
        let segments = match image_store::segments(&self.file) {
            Ok(segments) => segments,
            Err(error) if error.is_corruption() => {
                let error = anyhow::Error::new(error).context(self.file.display().to_string());
                return Err(Failure::new(Exit::Corrupt, error));
            }
            // A part of a split set, or the like: not understood, so stored as it is.
            Err(_) => Box::new(Opaque),
        };
        let request = PublishRequest {
            image: self.image.clone(),
            file_name: name(&self.file),
            media_type: media_type(&self.file).to_owned(),
            file: Source::Path(self.file),
            segments,
            manifest,
            artifacts,
            by: None,
            again: self.force,
            watch: watch(context, "publish", size),
        };
        let published = store.publish(request).await.map_err(failed)?;
        if let Some(channel) = self.channel {
            let request = MoveRequest {
                image: self.image,
                channel,
                version: Some(published.version),
                by: None,
                why: "published".into(),
            };
            store.assign(request).await.map_err(failed)?;
        }
        print(context, &published, |p| {
            let done = if p.already { "is already there as" } else { "published" };
            format!(
                "{done} {}@{}: {}, {} new, {} shared\n{}\n",
                p.image,
                p.version,
                bytes(p.size),
                bytes(p.bytes_new),
                bytes(p.bytes_shared),
                p.digest
            )
        })
    }
}

fn name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn media_type(path: &std::path::Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("wim" | "esd" | "swm") => "application/x-ms-wim",
        Some("json") => "application/json",
        Some("log" | "txt") => "text/plain",
        Some("html") => "text/html",
        Some("xml") => "application/xml",
        _ => "application/octet-stream",
    }
}

fn input(path: &std::path::Path) -> Result<Input, Failure> {
    use sha2::{Digest, Sha256};
    let fail = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let size = std::io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(fail)?;
    Ok(Input { name: name(path), digest: gilt_store::Digest(hasher.finalize().into()), size })
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
