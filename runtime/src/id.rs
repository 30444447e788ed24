//! Ids of sandboxes and containers: names of directories, sockets and cgroups, so their characters are limited.

use crate::{Error, Result};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $kind:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a name of letters, digits, `-`, `_` and `.`, which begins with a letter or digit.
            ///
            /// # Errors
            /// [`Error::Invalid`] for anything else, and for more than 128 characters.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                if is_valid(&id) { Ok(Self(id)) } else { Err(Error::Invalid(format!("{} id {id:?}: use at most 128 letters, digits, -, _ and .", $kind))) }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(id: String) -> Result<Self> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id! {
    /// Names a sandbox (a pod).
    SandboxId, "sandbox"
}
id! {
    /// Names a container.
    ContainerId, "container"
}

fn is_valid(id: &str) -> bool {
    id.len() <= 128
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leaves_its_directory() {
        for bad in ["", ".", "..", "a/b", "-a", "a b", "ä"] {
            assert!(SandboxId::new(bad).is_err(), "{bad}");
        }
        assert!(ContainerId::new("c1-x_y.z").is_ok());
    }
}
