//! A file server for guests: named folders and files of the host, read only, streamed.
//!
//! It listens on 127.0.0.1; a guest on a user-mode network finds it at 10.0.2.2. Paths lie
//! behind a random word, so that other users of the host do not stumble upon a build's files.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::io::ReaderStream;

use crate::error::{Error, Result};

/// What the random word in each address begins with, so that an address of a build can be told wherever
/// it is left.
pub const SERVED: &str = "gilt-served-";

type Body = BoxBody<Bytes, std::io::Error>;

#[derive(Clone, Debug)]
enum Root {
    /// A file, or a folder with all in it.
    Path(PathBuf),
    Bytes(Bytes),
}

/// A running server. Dropped, it stops.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    word: String,
    roots: Arc<RwLock<BTreeMap<String, Root>>>,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into()).await
    }

    /// Listens on a free port of an address of this host.
    pub async fn start_on(host: IpAddr) -> Result<Self> {
        let failed = || Error::io("listen on", host.to_string());
        let listener = TcpListener::bind((host, 0)).await.map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let word = format!("{SERVED}{}", uuid::Uuid::new_v4().simple());
        let roots = Arc::new(RwLock::new(BTreeMap::new()));
        let task = tokio::spawn(serve(listener, word.clone(), roots.clone()));
        Ok(Self { address, word, roots, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a file or folder under `/<word>/<name>`.
    pub fn serve_path(&self, name: &str, path: impl Into<PathBuf>) {
        self.add(name, Root::Path(path.into()));
    }

    /// Serves bytes under `/<word>/<name>`.
    pub fn serve_bytes(&self, name: &str, bytes: impl Into<Bytes>) {
        self.add(name, Root::Bytes(bytes.into()));
    }

    fn add(&self, name: &str, root: Root) {
        if let Ok(mut roots) = self.roots.write() {
            roots.insert(name.trim_matches('/').to_owned(), root);
        }
    }

    /// `http://HOST:PORT/<word>` as a guest that sees this host as `host` writes it.
    pub fn url(&self, host: IpAddr) -> String {
        format!("http://{}/{}", SocketAddr::new(host, self.address.port()), self.word)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Roots = Arc<RwLock<BTreeMap<String, Root>>>;

async fn serve(listener: TcpListener, word: String, roots: Roots) {
    // Connections end with the set they belong to, that is with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file handles, say; not for ever.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (word, roots) = (word.clone(), roots.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let (word, roots) = (word.clone(), roots.clone());
                async move { Ok::<_, Infallible>(answer(&request, &word, &roots).await) }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            if let Err(e) =
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
            {
                tracing::debug!(error = %e, "a guest broke off a download");
            }
        });
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|e| match e {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

async fn answer(request: &Request<Incoming>, word: &str, roots: &Roots) -> Response<Body> {
    let path = request.uri().path();
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    let Some(found) = find(path, word, roots) else {
        tracing::info!(path, "a guest asked for what is not served");
        return plain(StatusCode::NOT_FOUND, "not served\n");
    };
    match found {
        Root::Bytes(bytes) => {
            let length = bytes.len() as u64;
            let bytes = if head_only { Bytes::new() } else { bytes };
            sized(Full::new(bytes).map_err(|e| match e {}).boxed(), length)
        }
        Root::Path(path) => match open(&path).await {
            Ok((_, length)) if head_only => {
                sized(Full::new(Bytes::new()).map_err(|e| match e {}).boxed(), length)
            }
            Ok((file, length)) => {
                let frames = ReaderStream::with_capacity(file, 128 << 10).map_ok(Frame::data);
                sized(StreamBody::new(frames).boxed(), length)
            }
            Err(_) => plain(StatusCode::NOT_FOUND, "not served\n"),
        },
    }
}

fn sized(body: Body, length: u64) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    let kind = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn open(path: &Path) -> std::io::Result<(tokio::fs::File, u64)> {
    let file = tokio::fs::File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok((file, metadata.len()))
}

/// What a request path names. The longest root wins; nothing leads out of a root.
fn find(path: &str, word: &str, roots: &Roots) -> Option<Root> {
    let path = percent_decode(path)?;
    let rest = path.strip_prefix('/')?.strip_prefix(word)?.strip_prefix('/')?;
    let roots = roots.read().ok()?;
    let (name, root) = roots
        .iter()
        .filter(|(name, _)| {
            rest.strip_prefix(name.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        })
        .max_by_key(|(name, _)| name.len())?;
    let below = rest[name.len()..].trim_start_matches('/');
    match root {
        Root::Bytes(bytes) => below.is_empty().then(|| Root::Bytes(bytes.clone())),
        Root::Path(base) => {
            let below = Path::new(below);
            let inside =
                below.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
            if !inside {
                return None;
            }
            let full = if below.as_os_str().is_empty() { base.clone() } else { base.join(below) };
            // A link inside a root must not show what lies outside of it.
            let real = full.canonicalize().ok()?;
            real.starts_with(base.canonicalize().ok()?).then_some(Root::Path(real))
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|t| !t.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(server: &HttpServer, path: &str) -> (String, Vec<u8>) {
        let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        let split = reply.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(reply[..split].to_vec()).unwrap();
        (head.lines().next().unwrap().to_owned(), reply[split + 4..].to_vec())
    }

    #[tokio::test]
    async fn only_what_is_named_is_served_and_big_files_come_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let big: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(root.join("big file"), &big).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        let server = HttpServer::start().await.unwrap();
        server.serve_path("files", &root);
        server.serve_bytes("answer.txt", "42");
        let url = server.url(IpAddr::from([10, 0, 2, 2]));
        let prefix = url[url.rfind('/').unwrap()..].to_owned();
        assert_eq!(url, format!("http://10.0.2.2:{}{prefix}", server.address().port()));

        let (status, body) = get(&server, &format!("{prefix}/files/big%20file")).await;
        assert_eq!((status.as_str(), body == big), ("HTTP/1.1 200 OK", true));
        assert_eq!(get(&server, &format!("{prefix}/answer.txt")).await.1, b"42");
        for bad in [
            "/files/big%20file".to_owned(),
            format!("{prefix}/files"),
            format!("{prefix}/files/../secret"),
            format!("{prefix}/files/%2e%2e/secret"),
            format!("{prefix}/files/link"),
            format!("{prefix}/other"),
            format!("{prefix}/filesX"),
            format!("{prefix}/files/%zz"),
        ] {
            let (status, _) = get(&server, &bad).await;
            assert_eq!(status, "HTTP/1.1 404 Not Found", "{bad}");
        }
    }
}
