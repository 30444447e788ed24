//! A stage under way: its layers and the configuration that its instructions have made so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oci_spec::image::{Arch, Config, History, HistoryBuilder, ImageConfiguration, Os};
use serde_json::Value;
use slipway_image::{DiffId, Image, Lease};

use crate::dockerfile::expand;
use crate::error::{Error, Result};
use crate::{copy, graph};

/// The ARGs that need no declaration.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// How many bytes the variables in scope may have: half of what Linux gives a program's arguments and environment.
const MAX_VARIABLES: usize = 1 << 20;

/// The mark in the history of steps that were made here.
const COMMENT: &str = "slipway";

const SHELL: [&str; 2] = ["/bin/sh", "-c"];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The state of a stage so far. A stage that is built on it starts with a clone.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Layers, bottom first.
    pub(crate) layers: Vec<DiffId>,
    /// The image's settings.
    pub(crate) config: Config,
    /// The history so far.
    pub(crate) history: Vec<History>,
    /// The time of the last step that made something.
    pub(crate) created: Option<String>,
    /// MAINTAINER.
    pub(crate) author: Option<String>,
    /// The shell of shell forms.
    pub(crate) shell: Vec<String>,
    /// Settings that Docker's images have and the OCI's don't: `Shell`, `Healthcheck`.
    pub(crate) more: BTreeMap<String, Value>,
    /// The instructions that ONBUILD has kept for builds on this.
    pub(crate) triggers: Vec<String>,
    /// ENVs and ARGs in scope, by name: of two with one name the later counts.
    pub(crate) variables: BTreeMap<String, String>,
    /// Whether CMD was set in this stage, so that ENTRYPOINT leaves it.
    pub(crate) own_cmd: bool,
    /// Keeps the layers.
    pub(crate) leases: Vec<Lease>,
}

impl State {
    /// Nothing.
    pub(crate) fn scratch() -> Self {
        let mut config = Config::default();
        config.set_working_dir(Some("/".to_owned()));
        Self { config, ..Self::empty() }.with_environment()
    }

    fn empty() -> Self {
        Self {
            layers: Vec::new(),
            config: Config::default(),
            history: Vec::new(),
            created: None,
            author: None,
            shell: SHELL.map(str::to_owned).to_vec(),
            more: BTreeMap::new(),
            triggers: Vec::new(),
            variables: BTreeMap::new(),
            own_cmd: false,
            leases: Vec::new(),
        }
    }

    /// An image, and its configuration as it was written.
    pub(crate) fn image(image: &Image, written: &Value, lease: Lease) -> Self {
        let config = written.get("config");
        let texts = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).ok();
        let list = |key: &str| config.and_then(|config| config.get(key)).and_then(texts).unwrap_or_default();
        let shell = Some(list("Shell")).filter(|shell| !shell.is_empty());
        let kept = ["Shell", "Healthcheck"].into_iter();
        let more = kept.filter_map(|key| Some((key.to_owned(), config?.get(key)?.clone())));
        Self {
            shell: shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec()),
            more: more.filter(|(_, value)| !value.is_null()).collect(),
            triggers: list("OnBuild"),
            layers: image.layers.clone(),
            config: image.config.config().clone().unwrap_or_default(),
            history: image.config.history().clone().unwrap_or_default(),
            created: image.config.created().clone(),
            author: image.config.author().clone(),
            leases: vec![lease],
            ..Self::empty()
        }
        .with_environment()
    }

    /// The state that a stage built on this one starts with: it inherits the ARGs too, but for those that hide an ENV.
    pub(crate) fn child(&self) -> Self {
        Self { own_cmd: false, ..self.clone() }.with_environment()
    }

    /// The environment of the configuration, which always has a PATH, brought into scope.
    fn with_environment(mut self) -> Self {
        let is_path = |pair: &String| pair.starts_with("PATH=");
        let mut list = self.config.env().clone().unwrap_or_default();
        if !list.iter().any(is_path) {
            list.push(format!("PATH={PATH}"));
        }
        let pairs = list.iter().filter_map(|pair| pair.split_once('='));
        self.variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self.config.set_env(Some(list));
        self
    }

    /// Expands a word by what is in scope.
    pub(crate) fn expand(&self, line: usize, escape: char, word: &str) -> Result<String> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        expand::expand(word, escape, &lookup).map_err(|reason| Error::dockerfile(line, reason))
    }

    /// Sets environment variables; order stays, a known name changes in place.
    pub(crate) fn set_env(&mut self, pairs: &[(String, String)]) -> Result<()> {
        let mut list = self.config.env().clone().unwrap_or_default();
        for (name, value) in pairs {
            self.set_variable(name, value.clone())?;
            let text = format!("{name}={value}");
            let known = list.iter_mut().find(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name));
            match known {
                Some(pair) => *pair = text,
                None => list.push(text),
            }
        }
        self.config.set_env(Some(list));
        Ok(())
    }

    /// Brings a variable into scope.
    fn set_variable(&mut self, name: &str, value: String) -> Result<()> {
        self.variables.insert(name.to_owned(), value);
        let bytes = self.variables.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        if bytes.fold(0, usize::saturating_add) > MAX_VARIABLES {
            return Err(Error::Invalid(format!(
                "the variables have more than {MAX_VARIABLES} bytes, more than a command can be given: remove some"
            )));
        }
        Ok(())
    }

    /// Sets labels.
    pub(crate) fn set_labels(&mut self, pairs: Vec<(String, String)>) {
        let mut labels: HashMap<String, String> = self.config.labels().clone().unwrap_or_default();
        labels.extend(pairs);
        self.config.set_labels(Some(labels));
    }

    /// Declares an ARG with its value, when it has one.
    pub(crate) fn declare(&mut self, name: &str, value: Option<String>) -> Result<()> {
        value.map_or(Ok(()), |value| self.set_variable(name, value))
    }

    /// Expands the text of a heredoc.
    pub(crate) fn expand_text(&self, line: usize, text: &str) -> Result<String> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        expand::expand_text(text, &lookup).map_err(|reason| Error::dockerfile(line, reason))
    }

    /// The working directory.
    pub(crate) fn workdir(&self) -> String {
        copy::normal(self.config.working_dir().as_deref().unwrap_or("/"))
    }

    /// Notes what an instruction did.
    pub(crate) fn record(&mut self, text: &str, layer: bool) {
        let entry = HistoryBuilder::default().created_by(text).comment(COMMENT).empty_layer(!layer);
        if let Ok(mut entry) = entry.build() {
            entry.set_created(self.created.clone());
            self.history.push(entry);
        }
    }

    /// Gives a date to the image, and to the steps before the first that made something.
    pub(crate) fn date(&mut self, created: String) {
        for entry in &mut self.history {
            if entry.created().is_none() && entry.comment().as_deref() == Some(COMMENT) {
                entry.set_created(Some(created.clone()));
            }
        }
        self.created = Some(created);
    }

    /// Takes a layer that a step has made.
    pub(crate) fn push(&mut self, layer: Option<DiffId>, created: String, lease: Option<Lease>, text: &str) {
        self.layers.extend(layer);
        self.leases.extend(lease);
        self.date(created);
        self.record(text, layer.is_some());
    }

    /// The image's configuration, with what Docker's images have besides.
    pub(crate) fn configuration(&self) -> Result<Value> {
        let refused =
            |error: serde_json::Error| Error::Invalid(format!("the image's configuration: {error}"));
        let mut written = serde_json::to_value(self.standard()).map_err(refused)?;
        let config = written.as_object_mut().map(|object| object.entry("config").or_insert(Value::Null));
        if let Some(config) = config {
            if config.is_null() {
                *config = Value::Object(serde_json::Map::new());
            }
            for (key, value) in &self.more {
                if let Some(object) = config.as_object_mut() {
                    object.insert(key.clone(), value.clone());
                }
            }
            if let (Some(object), false) = (config.as_object_mut(), self.triggers.is_empty()) {
                object.insert("OnBuild".to_owned(), self.triggers.clone().into());
            }
        }
        Ok(written)
    }

    fn standard(&self) -> ImageConfiguration {
        let mut configuration = ImageConfiguration::default();
        configuration.set_architecture(Arch::from(graph::architecture()));
        configuration.set_os(Os::Linux);
        configuration.set_created(self.created.clone());
        configuration.set_author(self.author.clone());
        configuration.set_config(Some(self.config.clone()));
        configuration.set_history(Some(self.history.clone()));
        configuration
    }
}

/// The proxy arguments that were given, each in capital and in small letters, as programs look for either: for RUN's
/// environment, never for the cache's key.
pub(crate) fn proxies(build_args: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_proxy = |name: &str| PROXIES.contains(&name.to_ascii_uppercase().as_str());
    let given = build_args.iter().filter(|(name, _)| is_proxy(name));
    let both = given.flat_map(|(name, value)| {
        [name.to_ascii_uppercase(), name.to_ascii_lowercase()].map(|name| (name, value.clone()))
    });
    both.collect()
}

/// The build arguments that no ARG has asked for.
pub(crate) fn unused(build_args: &BTreeMap<String, String>, declared: &BTreeSet<String>) -> Vec<String> {
    let proxies = proxies(build_args);
    let known =
        |name: &&String| !declared.contains(*name) && !proxies.contains_key(&name.to_ascii_uppercase());
    build_args.keys().filter(known).cloned().collect()
}
