use super::text::{bytes, columns, time};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{Action, Change, Event, LATEST, Pick, Reference, What};

#[derive(Args)]
pub struct History {
    /// IMAGE, or IMAGE:CHANNEL, or IMAGE@N
    reference: Reference,
    #[command(flatten)]
    at: At,
    /// Show at most so many events, newest last
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
}

impl History {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let image = &self.reference.image;
        let mut events = match &self.reference.pick {
            Pick::Channel(channel) => {
                let entries = store.history(image, channel).await.map_err(failed)?;
                let event = |checked: gilt_store::Checked<gilt_store::Assignment>| Event {
                    at: checked.entry.at,
                    by: checked.entry.by,
                    version: checked.entry.body.version,
                    channel: Some(channel.clone()),
                    what: What::Moved(checked.entry.body),
                };
                entries.into_iter().map(event).collect()
            }
            Pick::Version(version) => {
                let mut events = store.events(image).await.map_err(failed)?;
                events.retain(|event| event.version == *version);
                events
            }
            Pick::Latest => {
                let mut events = store.events(image).await.map_err(failed)?;
                // It follows every publish; saying so twice tells nobody anything.
                events.retain(|event| event.channel.as_deref() != Some(LATEST));
                events
            }
        };
        if events.is_empty() {
            let what = self.reference.to_string();
            return Err(failed(gilt_store::Error::NotFound { what }));
        }
        events.drain(..events.len().saturating_sub(self.limit));
        print(context, &events, |events| {
            columns(&events.iter().map(|event| row(image, event)).collect::<Vec<_>>())
        })
    }
}

fn row(image: &str, event: &Event) -> Vec<String> {
    let (what, why) = match &event.what {
        What::Published { size, .. } => (format!("published ({})", bytes(*size)), String::new()),
        What::Moved(moved) => {
            let channel = event.channel.as_deref().unwrap_or_default();
            let word = match moved.action {
                Action::Publish => "follows",
                Action::Promote => "promoted",
                Action::Assign => "assigned",
                Action::Rollback => "rolled back",
                Action::Withdraw => "withdrawn",
                Action::Renew => "renewed",
            };
            let from = moved.from_version.map(|v| format!(" from {v}")).unwrap_or_default();
            let forced = if moved.forced { " (forced)" } else { "" };
            (format!("{channel}: {word}{from}{forced}"), moved.why.clone())
        }
        What::Changed(change) => match change {
            Change::Deprecate { why } => ("deprecated".into(), why.clone()),
            Change::Revoke { why, .. } => ("revoked".into(), why.clone()),
            Change::Restore { why } => ("restored".into(), why.clone()),
            Change::Hold { name, why } => (format!("held by {name}"), why.clone()),
            Change::Release { name } => (format!("released by {name}"), String::new()),
            Change::Attest { name, passed, detail } => {
                let word = if *passed { "passed" } else { "failed" };
                (format!("{name} {word}"), detail.clone())
            }
            Change::Delete { why } => ("deleted".into(), why.clone()),
            Change::Purge => ("purged".into(), String::new()),
        },
    };
    vec![time(event.at), format!("{image}@{}", event.version), what, event.by.clone(), why]
}
