use super::{At, failed, print, version_of};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Reference, RevokeRequest};
use serde_json::json;

#[derive(Args)]
pub struct Revoke {
    /// IMAGE@N
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Why, for the record and for who tries to pull it
    #[arg(short = 'm', long)]
    why: String,
    /// Revoke also every version built on it, in every image
    #[arg(long)]
    descendants: bool,
    /// Move channels that are at it back to their former good version
    #[arg(long)]
    rollback_channels: bool,
}

#[derive(Args)]
pub struct Restore {
    /// IMAGE@N
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Why, for the record
    #[arg(short = 'm', long, default_value = "")]
    why: String,
}

impl Revoke {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let (image, version) = version_of(&self.reference)?;
        let request = RevokeRequest {
            image,
            version,
            why: self.why,
            by: None,
            descendants: self.descendants,
            rollback_channels: self.rollback_channels,
        };
        let done = store.revoke(request).await.map_err(failed)?;
        for name in &done.stuck {
            eprintln!("warning: {name} stays at a revoked version: it has no good former one");
        }
        print(context, &done, |done| {
            let mut text = format!("revoked {}\n", done.revoked.join(", "));
            for moved in &done.moved {
                text.push_str(&format!("{}:{} is at {}\n", moved.image, moved.channel, moved.to));
            }
            text
        })
    }
}

impl Restore {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let (image, version) = version_of(&self.reference)?;
        store.restore(&image, version, &self.why, None).await.map_err(failed)?;
        let state = store.life(&image, version).await.map_err(failed)?.state;
        let value = json!({ "image": image, "version": version, "state": state });
        print(context, &value, |_| format!("{image}@{version} is {}\n", state.name()))
    }
}
