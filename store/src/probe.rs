//! Asks a backend to keep the promises the store is built on, before anything is trusted to it.

use bytes::Bytes;
use futures::future::join_all;

use crate::backend::{Backend, Created};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Writers that race for one key, and how often they do. A server that checks, then writes, lets
/// two win in most rounds.
const RACERS: usize = 16;
const ROUNDS: usize = 4;

/// Large enough that the upload has several parts.
const LARGE: usize = 33 << 20;

/// Creates, races, reads, lists and deletes scratch objects below `probe/`.
pub(crate) async fn probe(backend: &Backend) -> Result<()> {
    let folder = format!("probe/{}", uuid::Uuid::new_v4());
    let outcome = promises(backend, &folder).await;
    for object in backend.list(&folder).await.unwrap_or_default() {
        let _ = backend.delete(&object.key).await;
    }
    outcome
}

async fn promises(backend: &Backend, folder: &str) -> Result<()> {
    let lies = |promise: &'static str, seen: String| {
        Err(Error::BackendLies { url: backend.url().to_owned(), promise, seen })
    };
    let key = format!("{folder}/once");
    backend.create(&key, Bytes::from_static(b"first")).await?;
    let promise = "an object that exists is not created again";
    if backend.create(&key, Bytes::from_static(b"second")).await? != Created::Exists {
        return lies(promise, "a second create of one key was accepted".into());
    }
    let promise = "what was written is what is read";
    let read = backend.get(&key).await?;
    if read != b"first".as_slice() {
        return lies(
            promise,
            format!("wrote \"first\", read {:?}", String::from_utf8_lossy(&read)),
        );
    }

    for round in 0..ROUNDS {
        let key = format!("{folder}/race-{round}");
        let body = |racer: usize| Bytes::from(format!("racer {racer}"));
        let races = (0..RACERS).map(|racer| backend.create(&key, body(racer)));
        let mut winners = Vec::new();
        for (racer, outcome) in join_all(races).await.into_iter().enumerate() {
            if outcome? == Created::New {
                winners.push(racer);
            }
        }
        let promise = "of several writers that create one key, one wins";
        let [winner] = winners[..] else {
            return lies(promise, format!("{} of {RACERS} were told they won", winners.len()));
        };
        let read = backend.get(&key).await?;
        if read != body(winner) {
            let seen =
                format!("racer {winner} won, but {:?} is stored", String::from_utf8_lossy(&read));
            return lies(promise, seen);
        }
    }

    let listed = backend.names(folder).await?;
    if listed.len() != 1 + ROUNDS {
        let seen = format!("{} of {} objects listed", listed.len(), 1 + ROUNDS);
        return lies("what was written is listed", seen);
    }

    if !backend.is_local() {
        let large: Bytes = (0..LARGE / 8).flat_map(|n| (n as u64).to_le_bytes()).collect();
        let key = format!("{folder}/{}", Digest::of(&large).hex());
        backend.create_addressed(&key, large.clone()).await?;
        let promise = "an upload in parts is put together whole, and ranges of it can be read";
        if backend.size(&key).await? != Some(large.len() as u64) {
            return lies(promise, format!("uploaded {} bytes, found another size", large.len()));
        }
        let range = (16 << 20) - 1000..(16 << 20) + 1000;
        let read = backend.get_range(&key, range.start as u64..range.end as u64).await?;
        if read != large.slice(range) {
            return lies(promise, "a range across two parts has other bytes".into());
        }
    }

    backend.delete(&key).await?;
    if backend.size(&key).await?.is_some() {
        return lies("what was deleted is gone", "a deleted object is still there".into());
    }
    Ok(())
}
