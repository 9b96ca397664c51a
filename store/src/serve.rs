//! The store over HTTP, read-only: what deployment, BITS, iPXE and `curl` fetch.
//!
//! ```text
//! GET /                                    images and where their channels are
//! GET /images/IMAGE                        its versions
//! GET /images/IMAGE/PICK                   one version: PICK is a number or a channel
//! GET /images/IMAGE/PICK/file              the image file; ranges, ETag = its SHA-256
//! GET /images/IMAGE/PICK/artifacts/ROLE    what hangs on it
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::error::{Error, Result};
use crate::manifest::Stored;
use crate::name::{Pick, Reference};
use crate::store::Store;

type Body = UnsyncBoxBody<Bytes, Error>;

/// A client that sends no request for this long is let go.
const PATIENCE: Duration = Duration::from_secs(30);
/// Versions a listing shows.
const LISTED: usize = 1000;

impl Store {
    /// Answers until `stop` is ready; answers under way are then cut.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let mut stop = std::pin::pin!(stop);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, usually: those who are served now make room.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let store = self.clone();
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let store = store.clone();
                    async move { Ok::<_, Infallible>(store.answer(&request, peer).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!("{peer}: {error}");
                }
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let path = request.uri().path();
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        let response = match self.route(path, request.headers(), head).await {
            Ok(response) => response,
            Err(error) => {
                tracing::info!("{peer}: {path}: {error}");
                text(status(&error), &format!("{error}\n"))
            }
        };
        if head {
            response.map(|_| Full::new(Bytes::new()).map_err(never).boxed_unsync())
        } else {
            response
        }
    }

    async fn route(&self, path: &str, headers: &HeaderMap, head: bool) -> Result<Response<Body>> {
        self.refresh().await?;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts[..] {
            [] => json(&self.ls().await?),
            ["images", image] => json(&self.list(image, LISTED).await?),
            ["images", image, pick] => json(&self.show(&reference(image, pick)?).await?),
            ["images", image, pick, "file"] => {
                self.send(image, pick, headers, head, |manifest| Some(manifest.file.clone())).await
            }
            ["images", image, pick, "artifacts", role] => {
                self.send(image, pick, headers, head, |manifest| {
                    manifest.artifacts.iter().find(|artifact| artifact.role == role).cloned()
                })
                .await
            }
            _ => Err(Error::not_found(path)),
        }
    }

    async fn send(
        &self,
        image: &str,
        pick: &str,
        headers: &HeaderMap,
        head: bool,
        choose: impl Fn(&crate::Manifest) -> Option<Stored> + Send,
    ) -> Result<Response<Body>> {
        let found = self.resolve(&reference(image, pick)?).await?;
        self.check_good(&found.image, found.version).await?;
        let stored = choose(&found.manifest).ok_or_else(|| Error::not_found(pick))?;
        let content = stored.content;
        let tag = format!("\"{}\"", content.digest.hex());
        let name = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("file"))
        };
        let mut response = Response::builder()
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::ETAG, name(&tag))
            .header(header::CONTENT_TYPE, name(&stored.media_type))
            .header(
                header::CONTENT_DISPOSITION,
                name(&format!("attachment; filename=\"{}\"", stored.name)),
            )
            .header(
                "repr-digest",
                name(&format!("sha-256=:{}:", STANDARD.encode(content.digest.0))),
            )
            .header("x-gilt-version", name(&format!("{}@{}", found.image, found.version)));
        let none_match = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        if none_match.is_some_and(|tags| tags == "*" || tags.split(',').any(|t| t.trim() == tag)) {
            return finish(response.status(StatusCode::NOT_MODIFIED), empty());
        }
        // A range of another version's file is of no use to who asks with If-Range.
        let current = headers.get(header::IF_RANGE).is_none_or(|value| value == tag.as_str());
        let asked = headers.get(header::RANGE).filter(|_| current).and_then(|v| v.to_str().ok());
        let range = match asked.map(|asked| parse_range(asked, content.size)) {
            None | Some(Asked::Other) => 0..content.size,
            Some(Asked::Unsatisfiable) => {
                let response = response
                    .status(StatusCode::RANGE_NOT_SATISFIABLE)
                    .header(header::CONTENT_RANGE, format!("bytes */{}", content.size));
                return finish(response, empty());
            }
            Some(Asked::Range(range)) => {
                let text = format!("bytes {}-{}/{}", range.start, range.end - 1, content.size);
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, text);
                range
            }
        };
        response = response.header(header::CONTENT_LENGTH, range.end - range.start);
        if head {
            return finish(response, empty());
        }
        let file = self.file(&content).await?;
        finish(response, stream(file.stream(range)))
    }
}

fn reference(image: &str, pick: &str) -> Result<Reference> {
    crate::name::check("image", image)?;
    let pick = match pick.parse() {
        Ok(version) => Pick::Version(version),
        Err(_) => {
            crate::name::check("channel", pick)?;
            Pick::Channel(pick.to_owned())
        }
    };
    Ok(Reference { image: image.to_owned(), pick })
}

fn status(error: &Error) -> StatusCode {
    match error {
        error if error.is_not_found() => StatusCode::NOT_FOUND,
        Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        Error::Revoked { .. } | Error::Refused { .. } => StatusCode::GONE,
        Error::Expired { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Range(Range<u64>),
    Unsatisfiable,
    /// Several ranges, or another unit: answered with the whole file, as RFC 9110 allows.
    Other,
}

fn parse_range(text: &str, size: u64) -> Asked {
    let Some(spec) = text.strip_prefix("bytes=") else { return Asked::Other };
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Other };
    let (first, last) = (first.trim(), last.trim());
    let range = if first.is_empty() {
        match last.parse::<u64>() {
            Ok(suffix) => size.saturating_sub(suffix)..size,
            Err(_) => return Asked::Other,
        }
    } else {
        let Ok(first) = first.parse::<u64>() else { return Asked::Other };
        if last.is_empty() {
            first..size
        } else {
            match last.parse::<u64>() {
                Ok(last) if last >= first => first..last.saturating_add(1).min(size),
                _ => return Asked::Other,
            }
        }
    };
    if range.start >= range.end { Asked::Unsatisfiable } else { Asked::Range(range) }
}

fn never(never: Infallible) -> Error {
    match never {}
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(never).boxed_unsync()
}

fn stream(bytes: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data))))
}

fn finish(response: hyper::http::response::Builder, body: Body) -> Result<Response<Body>> {
    response.body(body).map_err(|error| Error::invalid("response", error.to_string()))
}

fn json(value: &impl Serialize) -> Result<Response<Body>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::invalid("response", error.to_string()))?;
    text.push(b'\n');
    let body = Full::new(Bytes::from(text)).map_err(never).boxed_unsync();
    finish(Response::builder().header(header::CONTENT_TYPE, "application/json"), body)
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(
        Full::new(Bytes::copy_from_slice(message.as_bytes())).map_err(never).boxed_unsync(),
    );
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (text, asked) in [
            ("bytes=0-99", Asked::Range(0..100)),
            ("bytes=50-", Asked::Range(50..1000)),
            ("bytes=-10", Asked::Range(990..1000)),
            ("bytes=-5000", Asked::Range(0..1000)),
            ("bytes=990-5000", Asked::Range(990..1000)),
            ("bytes=1000-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=9-2", Asked::Other),
            ("bytes=0-1,5-6", Asked::Other),
            ("lines=0-1", Asked::Other),
        ] {
            assert_eq!(parse_range(text, 1000), asked, "{text}");
        }
    }
}
