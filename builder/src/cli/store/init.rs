use super::{failed, print};
use crate::cli::{Context, Failure};
use crate::image_store;
use clap::Args;
use gilt_store::Store;
use serde_json::json;

#[derive(Args)]
pub struct Init {
    /// A folder or s3://BUCKET/PREFIX; by default a folder of the user
    #[arg(env = "GILT_STORE")]
    url: Option<String>,
    /// Accept that there is another store at that address than before; makes none
    #[arg(long)]
    forget: bool,
}

impl Init {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let url = self.url.or_else(image_store::default_url);
        let url = url.ok_or_else(|| Failure::usage("name a folder or s3://BUCKET/PREFIX"))?;
        let options = image_store::options();
        if self.forget {
            Store::forget(&url, &options).map_err(failed)?;
            return Ok(());
        }
        let store = Store::init(&url, options.clone()).await.map_err(failed)?;
        let key = store.policy().keys.first().map(|key| key.id.clone()).unwrap_or_default();
        let value = json!({ "url": store.url(), "store": store.id(), "key": key });
        print(context, &value, |_| {
            format!(
                "store {} at {}\nsigned by key {} in {}\n",
                store.id(),
                store.url(),
                &key[..key.len().min(16)],
                options.keys.folder().display()
            )
        })
    }
}
