use super::text::{bytes, columns, plural, time};
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_store::{LATEST, State};

#[derive(Args)]
pub struct Ls {
    /// List the versions of this image
    image: Option<String>,
    #[command(flatten)]
    at: At,
    /// Show at most so many versions, newest first
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
    /// List publishes under way instead
    #[arg(long, conflicts_with = "image")]
    building: bool,
}

impl Ls {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        if self.building {
            let pins = store.building().await.map_err(failed)?;
            return print(context, &pins, |pins| {
                let row = |p: &gilt_store::Pin| vec![p.image.clone(), time(p.at), p.by.clone()];
                columns(&pins.iter().map(row).collect::<Vec<_>>())
            });
        }
        if let Some(image) = &self.image {
            let rows = store.list(image, self.limit).await.map_err(failed)?;
            if rows.is_empty() {
                return Err(failed(gilt_store::Error::NotFound { what: format!("image {image}") }));
            }
            return print(context, &rows, |rows| {
                let row = |r: &gilt_store::VersionRow| {
                    let mut notes = r.channels.clone();
                    if r.state != State::Complete {
                        notes.push(format!("({})", r.state.name()));
                    }
                    vec![
                        format!("{image}@{}", r.version),
                        time(r.at),
                        bytes(r.size),
                        notes.join(" "),
                        r.description.clone(),
                    ]
                };
                columns(&rows.iter().map(row).collect::<Vec<_>>())
            });
        }
        let rows = store.ls().await.map_err(failed)?;
        print(context, &rows, |rows| {
            let row = |r: &gilt_store::ImageRow| {
                let channels = r.channels.iter().filter(|(name, _)| *name != LATEST);
                let channels: Vec<_> = channels.map(|(name, v)| format!("{name}@{v}")).collect();
                vec![
                    r.image.clone(),
                    plural(r.versions, "version", "versions"),
                    r.latest.map(|v| format!("latest@{v}")).unwrap_or_default(),
                    channels.join(" "),
                    r.size.map(bytes).unwrap_or_default(),
                    r.at.map(time).unwrap_or_default(),
                ]
            };
            columns(&rows.iter().map(row).collect::<Vec<_>>())
        })
    }
}
