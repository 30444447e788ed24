//! How to prove oneself to a registry, as crictl's flags have it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slipway_proto::runtime::v1::AuthConfig;
use slipway_proto::slipway::v1::Credentials;

use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// User and password for the registry (or CRICTL_CREDS)
    #[arg(long, value_name = "USER[:PASSWORD]", conflicts_with = "auth")]
    creds: Option<String>,
    /// The same, encoded in base64 (or CRICTL_AUTH)
    #[arg(long, value_name = "BASE64")]
    auth: Option<String>,
}

impl Args {
    fn user_and_password(&self) -> Result<Option<(String, String)>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (creds, auth) = match (&self.creds, &self.auth) {
            (None, None) => (variable("CRICTL_CREDS"), variable("CRICTL_AUTH")),
            typed => (typed.0.clone(), typed.1.clone()),
        };
        let text = match (creds, auth) {
            (Some(creds), _) => creds,
            (None, Some(auth)) => STANDARD
                .decode(auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| Error::Usage("auth is not base64 of user:password".to_owned()))?,
            (None, None) => return Ok(None),
        };
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        if user.is_empty() {
            return Err(Error::Usage("the credentials have no user name".to_owned()));
        }
        Ok(Some((user.to_owned(), password.to_owned())))
    }

    pub(crate) fn for_cri(&self) -> Result<Option<AuthConfig>> {
        let found = self.user_and_password()?;
        Ok(found.map(|(username, password)| AuthConfig { username, password, ..AuthConfig::default() }))
    }

    pub(crate) fn for_own(&self) -> Result<Option<Credentials>> {
        let found = self.user_and_password()?;
        Ok(found.map(|(username, password)| Credentials { username, password, ..Credentials::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let creds = Args { creds: Some("me:a:b".to_owned()), auth: None };
        let auth = Args { creds: None, auth: Some("bWU6YTpi".to_owned()) };
        let expected = Some(("me".to_owned(), "a:b".to_owned()));
        assert_eq!(creds.user_and_password().unwrap(), expected);
        assert_eq!(auth.user_and_password().unwrap(), expected);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Args { creds: None, auth: Some("!".to_owned()) }.user_and_password().is_err());
        assert!(Args { creds: Some(":x".to_owned()), auth: None }.user_and_password().is_err());
    }
}
