use super::text::{bytes, plural};
use super::{At, failed, print, watch};
use crate::cli::{Context, Failure};
use crate::image_store;
use clap::Args;
use gilt_store::MirrorRequest;

#[derive(Args)]
pub struct Mirror {
    /// Where to: a folder or s3://BUCKET/PREFIX; made if it is not there
    to: String,
    #[command(flatten)]
    at: At,
    /// Only this image; may be given more than once
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<String>,
}

impl Mirror {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let request = MirrorRequest { images: self.images, watch: watch(context, "mirror", 0) };
        let options = image_store::options();
        let report = store.mirror(&self.to, options, &request).await.map_err(failed)?;
        print(context, &report, |report| {
            format!(
                "{}, {} moved in {}, {}\n",
                plural(report.versions, "version", "versions"),
                bytes(report.bytes),
                plural(report.blobs, "blob", "blobs"),
                plural(report.records, "new record", "new records")
            )
        })
    }
}
