//! The owner of a sandbox and of its containers: the interface that made them, and whose life they follow.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// The interface that a sandbox was made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The CRI: its client alone starts, stops and removes them.
    Cri,
    /// `slipway run`: one container, whose end stops its sandbox.
    Run,
    /// A build: removed with the daemon that ran it.
    Build,
    /// The node's own cluster.
    Cluster,
}

/// The prefix of the ids of builds' sandboxes, by which a record without an owner is known to be a build's.
const OF_BUILDS: &str = "build-";

impl Owner {
    /// The owner of a sandbox whose record names none. Which of the others are those of `slipway run` is not said by
    /// their ids.
    pub(crate) fn of_unnamed(sandbox: &str) -> Self {
        if sandbox.starts_with(OF_BUILDS) { Self::Build } else { Self::Cri }
    }
}

/// Reads a request that has an `owner`. Earlier records have none; the sandbox's id is in `id_field`.
pub(crate) fn read_owned<'de, T, D>(deserializer: D, id_field: &str) -> Result<T, D::Error>
where
    T: de::DeserializeOwned,
    D: Deserializer<'de>,
{
    let mut request = Value::deserialize(deserializer)?;
    if let Value::Object(fields) = &mut request
        && !fields.contains_key("owner")
    {
        let sandbox = fields.get(id_field).and_then(Value::as_str).unwrap_or_default();
        let owner = serde_json::to_value(Owner::of_unnamed(sandbox)).map_err(de::Error::custom)?;
        fields.insert("owner".to_owned(), owner);
    }
    serde_json::from_value(request).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Request {
        sandbox: String,
        owner: Owner,
    }

    fn read(text: &str) -> Result<Owner, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        read_owned::<Request, _>(&mut deserializer, "sandbox").map(|request| request.owner)
    }

    #[test]
    fn a_record_without_an_owner_is_a_build_s_by_its_sandbox_s_id_and_a_recorded_owner_counts_whatever_the_id()
     {
        assert_eq!(read(r#"{"sandbox":"build-1"}"#).unwrap(), Owner::Build);
        assert_eq!(read(r#"{"sandbox":"4f"}"#).unwrap(), Owner::Cri);
        assert_eq!(read(r#"{"sandbox":"build-1","owner":"run"}"#).unwrap(), Owner::Run);
        for damaged in [r#"{"sandbox":"4f","owner":"nobody"}"#, r#"{"sandbox":"4f","owner":null}"#, "[]", "7"]
        {
            assert!(read(damaged).is_err(), "{damaged}");
        }
    }
}
