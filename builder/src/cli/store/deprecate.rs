use super::{At, failed, print, version_of};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Change, Reference};
use serde_json::json;

#[derive(Args)]
pub struct Deprecate {
    /// IMAGE@N
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Why; shown to who pulls it
    #[arg(short = 'm', long)]
    why: String,
}

impl Deprecate {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let (image, version) = version_of(&self.reference)?;
        let change = Change::Deprecate { why: self.why };
        let changed = store.change(&image, version, change, None).await.map_err(failed)?;
        let value = json!({ "image": image, "version": version, "changed": changed });
        print(context, &value, |_| format!("{image}@{version} is deprecated\n"))
    }
}
