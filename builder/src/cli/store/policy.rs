use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Policy {
    /// Print the policy, as JSON
    Show {
        #[command(flatten)]
        at: At,
    },
    /// Replace the policy by the one in a file; the admin key of the one before signs it
    Set {
        /// JSON, as `show` prints it
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
}

impl Policy {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Show { at } => {
                let store = at.open().await?;
                let policy = store.policy();
                let text = serde_json::to_string_pretty(&policy).map_err(anyhow::Error::from)?;
                print(context, &policy, |_| format!("{text}\n"))
            }
            Self::Set { file, at } => {
                let store = at.open().await?;
                let wrong = |error: String| Failure::usage(format!("{}: {error}", file.display()));
                let text = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
                let new: gilt_store::Policy =
                    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
                store
                    .change_policy(|policy| {
                        *policy = new.clone();
                        Ok(())
                    })
                    .await
                    .map_err(failed)?;
                print(context, &store.policy(), |_| "the policy is changed\n".to_owned())
            }
        }
    }
}
