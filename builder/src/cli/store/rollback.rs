use super::{At, channel_of, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{MoveRequest, Reference};

#[derive(Args)]
pub struct Rollback {
    /// IMAGE:CHANNEL
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Go back to this version, which the channel was at before
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Why, for the record
    #[arg(short = 'm', long, default_value = "")]
    why: String,
}

impl Rollback {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let (image, channel) = channel_of(&self.reference)?;
        let request = MoveRequest { image, channel, version: self.to, by: None, why: self.why };
        let entry = store.rollback(request).await.map_err(failed)?.entry;
        print(context, &entry, |entry| {
            let from = entry.body.from_version.map(|v| format!(" (was {v})")).unwrap_or_default();
            format!("{} is at {}{from}\n", self.reference, entry.body.version)
        })
    }
}
