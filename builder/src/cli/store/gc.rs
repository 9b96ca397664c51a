use super::text::{bytes, plural};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;

#[derive(Args)]
pub struct Gc {
    #[command(flatten)]
    at: At,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let report = if self.dry_run { store.plan_gc().await } else { store.gc().await };
        print(context, &report.map_err(failed)?, |report| {
            let mut text = String::new();
            for version in &report.purged {
                text.push_str(&format!("purged {version}\n"));
            }
            for why in &report.waiting {
                text.push_str(&format!("waiting: {why}\n"));
            }
            let packs = |count: usize| plural(count as u64, "pack", "packs");
            text.push_str(&format!(
                "{} marked ({}), {} of them copied in part; {} deleted ({})\n",
                packs(report.marked.len()),
                bytes(report.marked_bytes),
                report.repacked.len(),
                packs(report.deleted.len()),
                bytes(report.deleted_bytes)
            ));
            if self.dry_run {
                text.push_str("nothing was done: --dry-run\n");
            }
            text
        })
    }
}
