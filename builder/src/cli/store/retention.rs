use super::text::{bytes, columns, time};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::Considered;

#[derive(Args)]
pub struct Retention {
    #[command(flatten)]
    at: At,
    /// Delete what the plan says; without it the plan is only shown
    #[arg(long)]
    apply: bool,
    /// Show also what stays, and why
    #[arg(long)]
    all: bool,
}

impl Retention {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let plan = store.plan_retention().await.map_err(failed)?;
        if self.apply {
            let deleted = store.apply_retention(&plan, None).await.map_err(failed)?;
            return print(context, &deleted, |deleted| {
                let mut text = columns(&deleted.iter().map(row).collect::<Vec<_>>());
                text.push_str("deleted; `gilt restore` takes one back until gc has freed it\n");
                text
            });
        }
        print(context, &plan, |plan| {
            let mut text = columns(&plan.delete.iter().map(row).collect::<Vec<_>>());
            if self.all {
                text.push_str("stays:\n");
                text.push_str(&columns(&plan.keep.iter().map(row).collect::<Vec<_>>()));
            }
            let sum: u64 = plan.delete.iter().map(|doomed| doomed.size).sum();
            let count = plan.delete.len();
            text.push_str(&format!("{count} would be deleted, files of {}\n", bytes(sum)));
            text
        })
    }
}

fn row(one: &Considered) -> Vec<String> {
    let name = format!("{}@{}", one.image, one.version);
    vec![name, time(one.at), bytes(one.size), one.kept_because.join("; ")]
}
