//! crictl's configuration file: the keys of `/etc/crictl.yaml` that name the sockets. The file is one flat mapping, so that
//! its lines can be read one by one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A place to look for the file when no flag names one.
#[derive(Debug)]
pub(crate) struct Place {
    /// The variable of the environment that names it.
    pub(crate) variable: &'static str,
    /// Its path when the variable is not set; it need not exist.
    pub(crate) path: &'static str,
}

/// The values of the file by their keys.
#[derive(Debug, Default)]
pub(crate) struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads the named file, which must exist, or else the one at the usual place if there is one.
    pub(crate) fn load(named: Option<&Path>, usual: Option<&Place>) -> Result<Self> {
        let path = match (named, usual) {
            (Some(path), _) => path.to_owned(),
            (None, Some(place)) => {
                std::env::var_os(place.variable).map_or_else(|| place.path.into(), PathBuf::from)
            }
            (None, None) => return Ok(Self::default()),
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
