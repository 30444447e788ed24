//! crictl's configuration file: the few keys of `/etc/crictl.yaml` that say where the runtime is. The file is one flat
//! mapping, so that its lines can be read one by one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::args::Dialect;
use crate::error::{Error, Result};

const DEFAULT_PATH: &str = "/etc/crictl.yaml";

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// The named file; or, when called crictl, the usual one if it exists.
    pub(crate) fn load(named: Option<&Path>, dialect: Dialect) -> Result<Self> {
        let from_environment = std::env::var_os("CRI_CONFIG_FILE").map(PathBuf::from);
        let path = match (named, dialect) {
            (Some(path), _) => path.to_owned(),
            (None, Dialect::Crictl) => from_environment.unwrap_or_else(|| DEFAULT_PATH.into()),
            (None, Dialect::Slipway) => return Ok(Self::default()),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|reason| Error::Parse { path, reason }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim_end();
            if line.is_empty() || line.starts_with('#') || line == "---" {
                continue;
            }
            let Some((key, value)) = line.split_once(':') else {
                return Err(format!("want `key: value` lines, not {line:?}"));
            };
            values.insert(key.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
        }
        Ok(Self { values })
    }

    /// The value of a key, unless it is empty.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.values.get(key).filter(|value| !value.is_empty()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_file_is_read() {
        let text =
            "# crictl\nruntime-endpoint: \"unix:///run/x.sock\" # here\nimage-endpoint: \"\"\ntimeout: 10\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.value("runtime-endpoint").as_deref(), Some("unix:///run/x.sock"));
        assert_eq!(config.value("image-endpoint"), None);
        assert_eq!(config.value("timeout").as_deref(), Some("10"));
    }

    #[test]
    fn a_line_that_is_no_mapping_is_refused() {
        assert!(Config::parse("hello").is_err());
    }
}
