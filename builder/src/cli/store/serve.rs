use super::{At, failed};
use crate::cli::{Context, Exit, Failure};
use clap::Args;
use std::net::SocketAddr;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    at: At,
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8480", value_name = "ADDRESS")]
    listen: SocketAddr,
}

impl Serve {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = self.at.open().await?;
        let listener = tokio::net::TcpListener::bind(self.listen).await.map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("listening on {}", self.listen));
            Failure::new(Exit::Host, error)
        })?;
        let address = listener.local_addr()?;
        if context.json {
            eprintln!("{}", serde_json::json!({ "event": "serving", "address": address }));
        } else {
            eprintln!("serving {} at http://{address}/", store.url());
        }
        store.serve(listener, stopped()).await.map_err(failed)
    }
}

/// Ctrl-C, or SIGTERM.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
