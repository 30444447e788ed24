//! A document of the caller's, kept in the record of the sandbox or container that it is about.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::sync::Arc;

/// Any JSON value, which the runtime does not look into; null where the caller keeps nothing. Clones share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document(Arc<Value>);

impl Document {
    /// The document that has these contents.
    ///
    /// # Errors
    /// When they are no JSON.
    pub fn of<T: Serialize>(contents: &T) -> serde_json::Result<Self> {
        serde_json::to_value(contents).map(Self::from)
    }

    /// Its contents.
    ///
    /// # Errors
    /// When they are of another form.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        T::deserialize(&*self.0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self(Arc::new(value))
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}
