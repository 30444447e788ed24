//! Credentials for a registry: from crictl's flags, or from Docker's configuration file.

mod basic;
mod docker_config;

use slipway_proto::runtime::v1::AuthConfig;
use slipway_proto::slipway::v1::Credentials;

use crate::error::{Error, Result};
use crate::output;

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// User and password for the registry (or CRICTL_CREDS)
    #[arg(long, value_name = "USER[:PASSWORD]", conflicts_with = "auth")]
    creds: Option<String>,
    /// The same, encoded in base64 (or CRICTL_AUTH)
    #[arg(long, value_name = "BASE64")]
    auth: Option<String>,
    /// User for the registry; the password is asked for, or read from standard input
    #[arg(long, value_name = "USER", conflicts_with_all = ["auth", "creds"])]
    username: Option<String>,
}

impl Args {
    fn user_and_password(&self) -> Result<Option<(String, String)>> {
        if let Some(user) = self.username.clone().filter(|user| !user.is_empty()) {
            return Ok(Some((user, password()?)));
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (creds, auth) = match (&self.creds, &self.auth) {
            (None, None) => (variable("CRICTL_CREDS"), variable("CRICTL_AUTH")),
            typed => (typed.0.clone(), typed.1.clone()),
        };
        match (creds, auth) {
            (Some(creds), _) => basic::divided(&creds).map(Some),
            (None, Some(auth)) => basic::divided(&basic::decoded(&auth)?).map(Some),
            (None, None) => Ok(None),
        }
    }

    pub(crate) fn for_cri(&self) -> Result<Option<AuthConfig>> {
        let found = self.user_and_password()?;
        Ok(found.map(|(username, password)| AuthConfig { username, password, ..AuthConfig::default() }))
    }

    /// For an image: from the flags, or else what Docker's configuration file has for its registry.
    pub(crate) fn for_slipway(&self, image: &str) -> Result<Option<Credentials>> {
        match self.user_and_password()? {
            Some((username, password)) => {
                Ok(Some(Credentials { username, password, ..Credentials::default() }))
            }
            None => docker_config::credentials(image),
        }
    }
}

/// Reads one line of standard input, with the terminal's echo off.
fn password() -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let fail = |source| Error::Read { path: "standard input".into(), source };
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).ok();
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(|errno| fail(errno.into()))?;
        output::note("password:");
    }
    let mut line = String::new();
    let read = std::io::BufRead::read_line(&mut stdin.lock(), &mut line);
    if let Some(shown) = &shown {
        tcsetattr(&stdin, OptionalActions::Now, shown).map_err(|errno| fail(errno.into()))?;
    }
    read.map_err(fail)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let creds = Args { creds: Some("me:a:b".to_owned()), ..Args::default() };
        let auth = Args { auth: Some("bWU6YTpi".to_owned()), ..Args::default() };
        let expected = Some(("me".to_owned(), "a:b".to_owned()));
        assert_eq!(creds.user_and_password().unwrap(), expected);
        assert_eq!(auth.user_and_password().unwrap(), expected);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Args { auth: Some("!".to_owned()), ..Args::default() }.user_and_password().is_err());
        assert!(Args { creds: Some(":x".to_owned()), ..Args::default() }.user_and_password().is_err());
    }
}
