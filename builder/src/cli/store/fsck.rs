use super::text::{bytes, plural};
use super::{At, failed, print};
use crate::cli::{Context, Exit, Failure};
use crate::image_store;
use clap::Args;
use gilt_store::{FsckOptions, Store};

#[derive(Args)]
pub struct Fsck {
    #[command(flatten)]
    at: At,
    /// Check references and signatures only; do not read the packs
    #[arg(long)]
    quick: bool,
    /// Put back what is damaged or missing
    #[arg(long)]
    repair: bool,
    /// A store that holds the same, such as a mirror, to repair from
    #[arg(long, value_name = "URL", requires = "repair")]
    from: Option<String>,
}

impl Fsck {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let from = match &self.from {
            Some(url) => {
                let mut options = image_store::options();
                options.create = false;
                Some(Store::open(url, options).await.map_err(failed)?)
            }
            None => None,
        };
        let options = FsckOptions { skip_data: self.quick, repair: self.repair, from };
        let report = store.fsck(&options).await.map_err(failed)?;
        let clean = report.is_clean();
        let wrong = report.findings.iter().filter(|finding| !finding.repaired).count() as u64;
        print(context, &report, |report| {
            let mut text = String::new();
            for finding in &report.findings {
                let word = if finding.repaired { "repaired" } else { "wrong" };
                text.push_str(&format!("{word}: {}: {}\n", finding.object, finding.problem));
            }
            text.push_str(&format!(
                "{}, {}, {} read\n",
                plural(report.versions, "version", "versions"),
                plural(report.packs, "pack", "packs"),
                bytes(report.bytes)
            ));
            text
        })?;
        if clean {
            return Ok(());
        }
        let message = format!("{} wrong", plural(wrong, "thing is", "things are"));
        let failure = Failure::new(Exit::Corrupt, anyhow::anyhow!(message));
        Err(failure
            .hint("`gilt store fsck --repair --from OTHER` puts back what another store has"))
    }
}
