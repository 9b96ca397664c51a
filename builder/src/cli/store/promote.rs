use super::{At, channel_of, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{MoveRequest, Pick, PromoteRequest, Reference};

#[derive(Args)]
pub struct Promote {
    /// IMAGE@N, or IMAGE:CHANNEL for the version that channel is at, or IMAGE
    reference: Reference,
    /// The channel to move
    to: String,
    #[command(flatten)]
    at: At,
    /// Why, for the record
    #[arg(short = 'm', long, default_value = "")]
    why: String,
    /// Promote also when a gate fails; recorded
    #[arg(long)]
    force: bool,
    /// Set the channel without asking any gate: for its first version, and for repair
    #[arg(long, conflicts_with = "force")]
    assign: bool,
    /// Sign the head again, so that it does not expire; IMAGE:CHANNEL names the channel
    #[arg(long, conflicts_with_all = ["force", "assign"])]
    renew: bool,
}

impl Promote {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let image = self.reference.image.clone();
        let (version, from) = match &self.reference.pick {
            Pick::Version(version) => (Some(*version), None),
            Pick::Channel(channel) => (None, Some(channel.clone())),
            Pick::Latest => (None, None),
        };
        let mut request = MoveRequest {
            image: image.clone(),
            channel: self.to.clone(),
            version,
            by: None,
            why: self.why.clone(),
        };
        let entry = if self.renew {
            if from.is_some() {
                channel_of(&self.reference)?;
            }
            store.renew(request).await
        } else if self.assign {
            let found = store.resolve(&self.reference).await.map_err(failed)?;
            request.version = Some(found.version);
            store.assign(request).await
        } else {
            let (to, why, force) = (self.to, self.why, self.force);
            store
                .promote(PromoteRequest {
                    image: image.clone(),
                    version,
                    from,
                    to,
                    by: None,
                    why,
                    force,
                })
                .await
        };
        let entry = entry.map_err(failed)?.entry;
        print(context, &entry, |entry| {
            let body = &entry.body;
            let channel = entry.log.rsplit('/').next().unwrap_or_default();
            let mut text = format!("{image}:{channel} is at {}\n", body.version);
            for gate in body.gates.iter().filter(|gate| !gate.passed) {
                text.push_str(&format!("overruled: {} ({})\n", gate.gate, gate.detail));
            }
            text
        })
    }
}
