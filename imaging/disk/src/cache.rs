//! A small cache of equal-sized tables or clusters; the least recently used goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub struct Cache<T: ?Sized> {
    inner: Mutex<Inner<T>>,
    max_entries: usize,
}

struct Inner<T: ?Sized> {
    clock: u64,
    entries: HashMap<u64, (u64, Arc<T>)>,
}

impl<T: ?Sized> Cache<T> {
    pub fn new(max_entries: usize) -> Self {
        let inner = Inner { clock: 0, entries: HashMap::new() };
        Self { inner: Mutex::new(inner), max_entries: max_entries.max(1) }
    }

    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        let (used, value) = inner.entries.get_mut(&key)?;
        *used = now;
        Some(value.clone())
    }

    pub fn put(&self, key: u64, value: Arc<T>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        if inner.entries.len() >= self.max_entries && !inner.entries.contains_key(&key) {
            let oldest = inner.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                inner.entries.remove(&oldest);
            }
        }
        inner.entries.insert(key, (now, value));
    }
}
