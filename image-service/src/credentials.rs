//! Credentials for a registry.

use std::fmt;

/// Credentials for one registry; they are sent to the registry of the reference and its token service, never elsewhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// None at all.
    #[default]
    Anonymous,
    /// A user name and its password.
    Basic {
        /// The user.
        username: String,
        /// The password or personal token.
        password: String,
    },
    /// A refresh token that the token service exchanges for an access token.
    IdentityToken(String),
    /// An access token, sent to the registry as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let basic = Credentials::Basic { username: "me".into(), password: "hunter2".into() };
        assert!(!format!("{basic:?}").contains("hunter2"));
        assert!(!format!("{:?}", Credentials::IdentityToken("hunter2".into())).contains("hunter2"));
    }
}
