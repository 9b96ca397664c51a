use super::{At, failed, print, version_of};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::Reference;
use serde_json::json;

#[derive(Args)]
pub struct Delete {
    /// IMAGE@N
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Why, for the record
    #[arg(short = 'm', long, default_value = "")]
    why: String,
}

impl Delete {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let (image, version) = version_of(&self.reference)?;
        store.delete(&image, version, &self.why, None).await.map_err(failed)?;
        let value = json!({ "image": image, "version": version, "state": "deleted" });
        print(context, &value, |_| {
            format!(
                "{image}@{version} is deleted; `gilt restore {image}@{version}` takes that back\n"
            )
        })
    }
}
