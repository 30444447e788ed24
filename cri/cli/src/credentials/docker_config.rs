//! `~/.docker/config.json` (or that of the folder in DOCKER_CONFIG), in which `docker login` and its like store credentials.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use slipway_proto::slipway::v1::Credentials;
use slipway_reference::Reference;

use super::basic::{decoded, divided};
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: String,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// The file's credentials for an image's registry; none when there is no file or nothing for it.
pub(super) fn credentials(image: &str) -> Result<Option<Credentials>> {
    // The daemon refuses a name that does not parse, and says why.
    let Ok(reference) = image.parse::<Reference>() else { return Ok(None) };
    match path() {
        Some(path) => of(&path, reference.domain()),
        None => Ok(None),
    }
}

fn path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

fn of(path: &Path, registry: &str) -> Result<Option<Credentials>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let refuse = |reason: String| Error::Parse { path: path.to_owned(), reason };
    let file: File = serde_json::from_slice(&text)
        .map_err(|error| refuse(format!("not Docker's configuration: line {}: {error}", error.line())))?;
    let is_it =
        |key: &&String| host(key) == registry || (registry == "docker.io" && host(key) == "index.docker.io");
    let Some(entry) = file.auths.keys().find(is_it).and_then(|key| file.auths.get(key)) else {
        if !file.store.is_empty() || file.helpers.contains_key(registry) {
            let place = path.display();
            output::note(format_args!(
                "warning: {place} keeps passwords with a helper program, which is not called: use --creds"
            ));
        }
        return Ok(None);
    };
    let mut found = Credentials {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identity_token.clone(),
        registry_token: entry.registry_token.clone(),
    };
    if !entry.auth.is_empty() {
        let told = |error: Error| refuse(format!("auths.{registry}: {error}"));
        (found.username, found.password) =
            decoded(&entry.auth).and_then(|text| divided(&text)).map_err(told)?;
    }
    Ok((found != Credentials::default()).then_some(found))
}

/// The host of a key, which may be an address: `https://index.docker.io/v1/`.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_the_image_decides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(of(&path, "a.example").unwrap(), None);
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6cHc="}, "a.example:5000": {"identitytoken": "t"},
            "b.example": {"auth": "!"}}, "unknown": 1}"#;
        std::fs::write(&path, text).unwrap();
        let hub = of(&path, "docker.io").unwrap().unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("me", "pw"));
        assert_eq!(of(&path, "a.example:5000").unwrap().unwrap().identity_token, "t");
        assert_eq!(of(&path, "a.example").unwrap(), None);
        assert!(of(&path, "b.example").unwrap_err().to_string().contains("auths.b.example"));
        std::fs::write(&path, "{\n{").unwrap();
        assert!(of(&path, "a.example").unwrap_err().to_string().contains("line 2"));
    }
}
