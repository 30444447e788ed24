//! Uninstalls the runtime from its node: removes the bridge, tables and cgroups that a daemon leaves for its successor.

use crate::network::Network;
use crate::runtime::network_config;
use crate::{Error, Result, RuntimeConfig, state};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The cgroups that daemons of this boot made, below the state directory.
const CGROUPS: &str = "cgroups";

/// Records cgroups that this daemon made, for [`dismantle`]: a later daemon finds them made and can't tell by whom.
pub(crate) fn remember(state: &Path, made: &[PathBuf]) -> Result<()> {
    let path = state.join(CGROUPS);
    // A damaged record loses the cgroups of earlier daemons: they are never removed, but the node works.
    let found = remembered(&path).inspect_err(|error| {
        tracing::warn!(%error, "which cgroups earlier daemons made is not known any more");
    });
    let damaged = found.is_err();
    let mut known = found.unwrap_or_default();
    let before = known.len();
    known.extend(made.iter().cloned());
    known.sort();
    known.dedup();
    if known.len() == before && !damaged {
        return Ok(());
    }
    Ok(state::CGROUPS.write(&path, CGROUPS, &known)?)
}

fn remembered(path: &Path) -> Result<Vec<PathBuf>> {
    let found = state::absent_if_torn(state::CGROUPS.read(path, CGROUPS))?;
    Ok(found.map_or_else(Vec::new, |loaded| loaded.value))
}

/// Removes the bridge, the nftables table, the cgroups and what is in the state directory. Records and images stay.
pub(crate) fn dismantle(config: &RuntimeConfig) -> Result<()> {
    let pods = state::Place::ids(config, "pods")?;
    if let Some(first) = pods.first() {
        return Err(Error::InUse(format!(
            "{} pods exist, {first} among them; remove them first: crictl rmp -f -a, slipway rm -f NAME",
            pods.len()
        )));
    }
    let network = Network::open(network_config(config)?)?;
    let mut outcome = network.recover(&[]).and_then(|()| network.dismantle());
    let mut cgroups = remembered(&config.state.join(CGROUPS))?;
    // Remove children before their parents.
    cgroups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in &cgroups {
        outcome = outcome.and(remove_cgroup(path));
    }
    outcome?;
    for name in ["pods", "netns", "copies/pods", "copies/containers", "copies"] {
        remove_empty(&config.state.join(name))?;
    }
    match std::fs::remove_file(config.state.join(CGROUPS)) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: config.state.join(CGROUPS), source })
        }
        _ => Ok(()),
    }
}

fn remove_cgroup(path: &Path) -> Result<()> {
    remove_empty(path).map_err(|error| match error {
        Error::Io { path, source, .. } => Error::Io { action: "remove cgroup", path, source },
        other => other,
    })
}

fn remove_empty(path: &Path) -> Result<()> {
    match std::fs::remove_dir(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Io { action: "remove directory", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_daemons_made_is_remembered_once() {
        let state = tempfile::tempdir().unwrap();
        let path = |name: &str| PathBuf::from(name);
        remember(state.path(), &[path("/b"), path("/a")]).unwrap();
        remember(state.path(), &[path("/a"), path("/a/c")]).unwrap();
        let known = remembered(&state.path().join(CGROUPS)).unwrap();
        assert_eq!(known, [path("/a"), path("/a/c"), path("/b")]);
    }

    #[test]
    fn a_pod_that_exists_is_named_and_nothing_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = RuntimeConfig {
            root: folder.path().join("lib"),
            state: folder.path().join("run"),
            ..RuntimeConfig::default()
        };
        std::fs::create_dir_all(config.root.join("pods/web")).unwrap();
        std::fs::create_dir_all(config.state.join("netns")).unwrap();
        let error = dismantle(&config).unwrap_err();
        assert!(matches!(&error, Error::InUse(text) if text.contains("web")), "{error}");
        assert!(config.state.join("netns").exists());
    }
}
