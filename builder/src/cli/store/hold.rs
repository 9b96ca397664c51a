use super::{At, failed, print, version_of};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Change, Reference};
use serde_json::json;

#[derive(Args)]
pub struct Hold {
    /// IMAGE@N
    reference: Reference,
    /// Name of the hold, such as the case it is kept for
    name: String,
    #[command(flatten)]
    at: At,
    /// Why, for the record
    #[arg(short = 'm', long, default_value = "")]
    why: String,
}

#[derive(Args)]
pub struct Release {
    /// IMAGE@N
    reference: Reference,
    /// Name of the hold
    name: String,
    #[command(flatten)]
    at: At,
}

impl Hold {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = Change::Hold { name: self.name.clone(), why: self.why };
        apply(context, &self.at, &self.reference, change, &format!("is held by {}", self.name))
            .await
    }
}

impl Release {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = Change::Release { name: self.name.clone() };
        let said = format!("is no longer held by {}", self.name);
        apply(context, &self.at, &self.reference, change, &said).await
    }
}

async fn apply(
    context: &Context,
    at: &At,
    reference: &Reference,
    change: Change,
    said: &str,
) -> Result<(), Failure> {
    let store = at.open().await?;
    let (image, version) = version_of(reference)?;
    store.change(&image, version, change, None).await.map_err(failed)?;
    let holds = store.life(&image, version).await.map_err(failed)?.holds;
    let value = json!({ "image": image, "version": version, "holds": holds });
    print(context, &value, |_| format!("{image}@{version} {said}\n"))
}
