//! S3 servers for tests, as `store/tests/setup-servers` gets them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that runs until it is dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

/// The bucket that s3rver has from its start.
pub const LIES: &str = "lies";

fn folder() -> PathBuf {
    let target = std::env::current_exe().unwrap();
    // target/debug/deps/test-…
    let target = target.ancestors().nth(3).unwrap().to_owned();
    target.join("test-servers")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(program: &str, arguments: impl Fn(u16, &str) -> Vec<String>) -> Server {
    let path = folder().join(program);
    assert!(path.exists(), "needs {}: run store/tests/setup-servers", path.display());
    let port = free_port();
    let scratch = tempfile::TempDir::new().unwrap();
    let child = Command::new(path)
        .args(arguments(port, scratch.path().to_str().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, port, _folder: scratch };
    let deadline = Instant::now() + Duration::from_secs(90);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{program} does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// moto: an independent S3 that honours preconditions.
pub fn moto() -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/moto-server");
    start("moto/bin/python3", |port, _| vec![script.to_owned(), port.to_string()])
}

/// s3rver: answers 200 to every conditional write.
pub fn s3rver() -> Server {
    start("s3rver/node_modules/.bin/s3rver", |port, folder| {
        let bucket = ["--configure-bucket", LIES];
        let place = ["-a", "127.0.0.1", "-p", &port.to_string(), "-d", folder].map(str::to_owned);
        place.into_iter().chain(bucket.map(str::to_owned)).collect()
    })
}

impl Server {
    /// What points a client at it.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "S3RVER".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "S3RVER".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// A client of the home, pointed at this server.
    pub fn client(&self, home: &crate::common::Home, name: &str) -> gilt_store::OpenOptions {
        gilt_store::OpenOptions { s3: self.settings(), ..home.client(name) }
    }

    /// Makes a bucket and names a store in it.
    pub fn bucket(&self, name: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let authorization = "AWS4-HMAC-SHA256 Credential=S3RVER/20260101/us-east-1/s3/aws4_request, \
                             SignedHeaders=host, Signature=0";
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\
             Connection: close\r\nAuthorization: {authorization}\r\n\r\n",
            self.port
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        format!("s3://{name}/store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
