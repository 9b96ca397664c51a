//! A small client of QEMU's monitor protocol (QMP), spoken over the child's stdin and stdout.
//!
//! Standard streams instead of a socket: no path that is too long, nothing left in the file
//! system, nobody else can connect.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{mpsc, oneshot},
};

use crate::error::{Error, Result};

/// A command that has not been answered for this long means a stuck QEMU.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

type Answer = std::result::Result<Value, String>;
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// Something QEMU tells on its own.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub name: String,
    #[serde(default)]
    pub data: Value,
}

/// A connection whose capabilities have been negotiated.
#[derive(Clone)]
pub struct Qmp {
    writer: Arc<tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>>,
    waiting: Waiting,
    next_id: Arc<AtomicU64>,
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Qmp")
    }
}

impl Qmp {
    /// Takes over both directions. Events go to the receiver, which ends with the connection.
    pub async fn connect(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        limit: Duration,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let gone =
            |reason: &str| Error::Monitor { command: "the greeting".into(), reason: reason.into() };
        let mut lines = BufReader::new(reader).lines();
        let greeting = tokio::time::timeout(limit, lines.next_line())
            .await
            .map_err(|_| gone("none came"))?
            .map_err(|e| gone(&e.to_string()))?
            .ok_or_else(|| gone("QEMU ended"))?;
        if !greeting.contains("\"QMP\"") {
            return Err(gone(&format!("this is no monitor: {greeting:.100}")));
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (event_sender, events) = mpsc::unbounded_channel();
        let for_reader = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                dispatch(&line, &for_reader, &event_sender);
            }
            // Whoever still waits learns that no answer will come.
            if let Ok(mut waiting) = for_reader.lock() {
                *waiting = None;
            }
        });
        let qmp = Self {
            writer: Arc::new(tokio::sync::Mutex::new(Box::new(writer))),
            waiting,
            next_id: Arc::new(AtomicU64::new(1)),
        };
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok((qmp, events))
    }

    /// Runs one command and waits for its answer.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let refused = |reason: String| Error::Monitor { command: command.into(), reason };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match self.waiting.lock() {
            Ok(mut waiting) => match waiting.as_mut() {
                Some(waiting) => waiting.insert(id, sender),
                None => return Err(refused("QEMU has ended".into())),
            },
            Err(_) => return Err(refused("the monitor's reader failed".into())),
        };
        let mut request = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        tracing::trace!(%request, "qmp");
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        {
            let mut writer = self.writer.lock().await;
            writer.write_all(&line).await.map_err(|e| refused(e.to_string()))?;
            writer.flush().await.map_err(|e| refused(e.to_string()))?;
        }
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(reason))) => Err(refused(reason)),
            Ok(Err(_)) => Err(refused("QEMU has ended".into())),
            Err(_) => Err(refused(format!("no answer in {} s", ANSWER_LIMIT.as_secs()))),
        }
    }

    /// Runs a command and reads its answer as a type.
    pub async fn query<T: for<'a> Deserialize<'a>>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T> {
        let value = self.execute(command, arguments).await?;
        serde_json::from_value(value).map_err(|e| Error::Monitor {
            command: command.into(),
            reason: format!("unexpected answer: {e}"),
        })
    }

    /// `running`, `paused`, `postmigrate`, …
    pub async fn status(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Status {
            status: String,
        }
        Ok(self.query::<Status>("query-status", Value::Null).await?.status)
    }

    pub async fn stop(&self) -> Result<()> {
        self.execute("stop", Value::Null).await.map(drop)
    }

    pub async fn cont(&self) -> Result<()> {
        self.execute("cont", Value::Null).await.map(drop)
    }

    /// State of a migration in either direction: status and, when it failed, why.
    pub async fn migration(&self) -> Result<(String, Option<String>)> {
        #[derive(Deserialize)]
        struct Migration {
            #[serde(default)]
            status: String,
            #[serde(rename = "error-desc")]
            error: Option<String>,
        }
        let m: Migration = self.query("query-migrate", Value::Null).await?;
        Ok((m.status, m.error))
    }
}

fn dispatch(line: &str, waiting: &Waiting, events: &mpsc::UnboundedSender<Event>) {
    let Ok(mut message) = serde_json::from_str::<Value>(line) else {
        tracing::warn!(line, "not a monitor message");
        return;
    };
    if message.get("event").is_some() {
        if let Ok(event) = serde_json::from_value(message) {
            // Nobody may listen any more.
            let _ = events.send(event);
        }
        return;
    }
    let Some(id) = message.get("id").and_then(Value::as_u64) else {
        tracing::warn!(line, "an answer nobody asked for");
        return;
    };
    let answer = match message.get("error") {
        Some(error) => Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
        None => Ok(message["return"].take()),
    };
    if let Ok(mut waiting) = waiting.lock()
        && let Some(sender) = waiting.as_mut().and_then(|w| w.remove(&id))
    {
        let _ = sender.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};

    #[tokio::test]
    async fn answers_find_their_questions_and_an_end_is_told_to_all() {
        let (ours, theirs) = duplex(4096);
        let (reader, writer) = tokio::io::split(ours);
        let server = tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            let mut ids = Vec::new();
            for count in 0..3 {
                let line = lines.next_line().await.unwrap().unwrap();
                let v: Value = serde_json::from_str(&line).unwrap();
                if count == 0 {
                    writer.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
                } else {
                    ids.push((v["execute"].as_str().unwrap().to_owned(), v["id"].clone()));
                }
            }
            // In the other order, with an event between.
            for (name, id) in ids.iter().rev() {
                let reply = if name == "bad" {
                    json!({"id": id, "error": {"class": "GenericError", "desc": "no such thing"}})
                } else {
                    json!({"id": id, "return": {"status": "running"}})
                };
                let text =
                    format!("{{\"event\": \"RESET\", \"data\": {{\"guest\": true}}}}\n{reply}\n");
                writer.write_all(text.as_bytes()).await.unwrap();
            }
            let mut rest = [0; 16];
            let _ = lines.get_mut().read(&mut rest).await;
        });
        let (qmp, mut events) = Qmp::connect(reader, writer, ANSWER_LIMIT).await.unwrap();
        let (status, bad) = tokio::join!(qmp.status(), qmp.execute("bad", Value::Null));
        assert_eq!(status.unwrap(), "running");
        assert!(bad.unwrap_err().to_string().contains("bad: no such thing"));
        assert_eq!(events.recv().await.unwrap().name, "RESET");
        let last = qmp.stop().await.unwrap_err();
        assert!(last.to_string().contains("ended"), "{last}");
        server.await.unwrap();
    }
}
