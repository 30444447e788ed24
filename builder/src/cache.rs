//! The build cache: a step's key, and what the step has made.

use serde::{Deserialize, Serialize};
use slipway_image::{DiffId, Digest, Lease, Store};

use crate::error::Result;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its layer; none when it changed nothing.
    pub(crate) layer: Option<DiffId>,
    /// When, as the image's history says it.
    pub(crate) created: String,
}

/// The parts of a key, each with its length, so that no two lists give one text.
#[derive(Debug)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// A key of a kind of step on these layers.
    pub(crate) fn new(kind: &str, layers: &[DiffId]) -> Self {
        let mut key = Self(Vec::new());
        key.text("slipway build cache 1");
        key.text(kind);
        key.list(layers.iter().map(ToString::to_string));
        key
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.extend(bytes);
    }

    /// Adds a list of texts.
    pub(crate) fn list(&mut self, texts: impl ExactSizeIterator<Item = String>) {
        self.0.extend(u64::try_from(texts.len()).unwrap_or(u64::MAX).to_le_bytes());
        for text in texts {
            self.text(&text);
        }
    }

    /// The key.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// The earlier result of a step, with a lease on its layer; none when any of it is gone.
pub(crate) fn get(store: &Store, key: &Digest) -> Option<(Entry, Option<Lease>)> {
    let entry: Entry = serde_json::from_slice(&store.cache_get(key)?).ok()?;
    match entry.layer {
        None => Some((entry, None)),
        Some(layer) => store.lease_layers(&[layer]).ok().map(|lease| (entry, Some(lease))),
    }
}

/// Remembers what a step has made.
pub(crate) fn put(store: &Store, key: &Digest, entry: &Entry) -> Result<()> {
    let value = serde_json::to_vec(entry).unwrap_or_default();
    let layers: Vec<DiffId> = entry.layer.into_iter().collect();
    Ok(store.cache_put(key, &layers, &value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_give_one_key() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("run", &[]);
            key.list(parts.iter().map(|part| (*part).to_owned()));
            key.digest()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
