//! crictl's files: the configuration of a pod and of a container.

use std::io::Read as _;
use std::path::Path;

use prost::Name;
use serde_json::Value;
use slipway_proto::runtime::v1::{ContainerConfig, PodSandboxConfig};

use crate::error::{Error, Result};
use crate::output;
use crate::protojson::Registry;
use crate::yaml;

/// The greatest length of a configuration, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// A pod's file. A pod without a uid gets one.
pub(crate) fn pod(path: &Path) -> Result<PodSandboxConfig> {
    let mut config: PodSandboxConfig = load(path)?;
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

/// A container's file. Its image is the one that the user has named.
pub(crate) fn container(path: &Path) -> Result<ContainerConfig> {
    let mut config: ContainerConfig = load(path)?;
    let refuse = |reason: &str| Error::Parse { path: path.to_owned(), reason: reason.to_owned() };
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(refuse("metadata needs a name"));
    }
    match &mut config.image {
        Some(image) if !image.image.is_empty() => image.user_specified_image.clone_from(&image.image),
        _ => return Err(refuse("image.image is not set")),
    }
    Ok(config)
}

fn load<M: Name + Default>(path: &Path) -> Result<M> {
    let fail = |source| Error::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(fail)?;
    let value = parse(&text).map_err(|reason| Error::Parse { path: path.into(), reason })?;
    let parsed = Registry::load()?.parse(&value, path)?;
    for key in parsed.unknown {
        output::note(format_args!("warning: {}: {key} is not known and has no effect", path.display()));
    }
    Ok(parsed.message)
}

/// The value of a text in JSON, or else in YAML, which has almost all of JSON's syntax.
fn parse(text: &str) -> std::result::Result<Value, String> {
    let as_json = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    yaml::parse(text).map_err(|reason| {
        if text.trim_start().starts_with('{') {
            format!("not JSON: line {}: {as_json}", as_json.line())
        } else {
            format!("not YAML: {reason}")
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
    fn yaml_is_read_like_json() {
        let yaml = file(
            "metadata:\n  name: a\n  namespace: b\n  uid: 12\nlabels: {x: z, number: 1e3, on: yes, none: ~}\n",
        );
        let config = pod(yaml.path()).unwrap();
        assert_eq!(config.metadata.unwrap().uid, "12");
        let labels = [("x", "z"), ("number", "1000"), ("on", "true"), ("none", "")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(config.labels, labels.into());
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
        let refused = pod(file("{\"metadata\": ").path()).unwrap_err().to_string();
        assert!(refused.contains("not JSON: line 1: "), "{refused}");
        let refused = pod(file("metadata:\n  name: [\n").path()).unwrap_err().to_string();
        assert!(refused.contains("not YAML: line "), "{refused}");
    }
}
