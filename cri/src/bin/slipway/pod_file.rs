//! crictl's files: the configuration of a pod, and of a container.

use std::path::Path;

use prost::Message;
use serde_json::Value;
use slipway_proto::runtime::v1::{ContainerConfig, PodSandboxConfig};

use crate::error::{Error, Result};
use crate::output;
use crate::protojson::Registry;

/// A pod's file. A pod without a uid gets one.
pub(crate) fn pod(path: &Path) -> Result<PodSandboxConfig> {
    let mut config: PodSandboxConfig = load(path, "runtime.v1.PodSandboxConfig")?;
    let refuse = |reason: &str| Error::Parse { path: path.to_owned(), reason: reason.to_owned() };
    let metadata = config.metadata.as_mut().ok_or_else(|| refuse("metadata is not set"))?;
    if metadata.name.is_empty() || metadata.namespace.is_empty() {
        return Err(refuse("metadata needs a name and a namespace"));
    }
    if metadata.uid.is_empty() {
        let source = Path::new("/proc/sys/kernel/random/uuid");
        let uid = std::fs::read_to_string(source)
            .map_err(|error| Error::Read { path: source.into(), source: error })?;
        metadata.uid = uid.trim().to_owned();
    }
    Ok(config)
}

/// A container's file.
pub(crate) fn container(path: &Path) -> Result<ContainerConfig> {
    let config: ContainerConfig = load(path, "runtime.v1.ContainerConfig")?;
    let refuse = |reason: &str| Error::Parse { path: path.to_owned(), reason: reason.to_owned() };
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(refuse("metadata needs a name"));
    }
    if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
        return Err(refuse("image.image is not set"));
    }
    Ok(config)
}

fn load<M: Message + Default>(path: &Path, name: &str) -> Result<M> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let value = parse(&text).map_err(|reason| Error::Parse { path: path.into(), reason })?;
    let parsed = Registry::load()?.parse(name, &value, path)?;
    for key in parsed.unknown {
        output::note(format_args!("warning: {}: {key} is not known and has no effect", path.display()));
    }
    Ok(parsed.message)
}

fn parse(text: &str) -> std::result::Result<Value, String> {
    serde_json::from_str(text).map_err(|error| {
        if text.trim_start().starts_with('{') {
            format!("not JSON: {error}")
        } else {
            "only JSON is read: convert YAML first".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_pod_without_a_uid_gets_one() {
        let file = file(r#"{"metadata": {"name": "a", "namespace": "b"}}"#);
        assert_eq!(pod(file.path()).unwrap().metadata.unwrap().uid.len(), 36);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(pod(file("{}").path()).unwrap_err().to_string().contains("metadata"));
        assert!(
            container(file(r#"{"metadata": {"name": "a"}}"#).path())
                .unwrap_err()
                .to_string()
                .contains("image")
        );
        assert!(pod(file("{\"metadata\": ").path()).unwrap_err().to_string().contains("not JSON"));
    }
}
