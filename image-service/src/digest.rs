//! The digests that name things of the store, each with a type of its own, so that one is not taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
pub use slipway_reference::Digest;

use crate::error::{Error, Result};

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 digits without the algorithm.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Ok(Self(text.parse()?))
            }
        }
    };
}

digest_of! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}

digest_of! {
    /// An image's identity: the digest of its configuration.
    ImageId
}

digest_of! {
    /// The digest of a layer and everything below it, as the OCI image specification computes it.
    ChainId
}

impl ChainId {
    /// The chain ids of these layers, bottom first.
    pub(crate) fn of(layers: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(layers.len());
        for layer in layers {
            chain.push(match chain.last() {
                None => Self(layer.0),
                Some(below) => Self(Digest::of(format!("{below} {layer}").as_bytes())),
            });
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chain_id_is_the_diff_id() {
        let (one, two) = (DiffId(Digest::of(b"1")), DiffId(Digest::of(b"2")));
        let chain = ChainId::of(&[one, two]);
        assert_eq!(chain.first().map(|id| id.0), Some(one.0));
        assert_ne!(chain.get(1).map(|id| id.0), Some(two.0));
    }
}
