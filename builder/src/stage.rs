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

/// What marks the history of steps that were made here.
const COMMENT: &str = "slipway";

const SHELL: [&str; 2] = ["/bin/sh", "-c"];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage is so far. A stage that is built on it starts with a clone.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Layers, bottom first.
    pub(crate) layers: Vec<DiffId>,
    /// The image's settings.
    pub(crate) config: Config,
    /// What has happened.
    pub(crate) history: Vec<History>,
    /// The time of the last step that made something.
    pub(crate) created: Option<String>,
    /// MAINTAINER.
    pub(crate) author: Option<String>,
    /// The shell of shell forms.
    pub(crate) shell: Vec<String>,
    /// Settings that Docker's images have and the OCI's don't: `Shell`, `Healthcheck`.
    pub(crate) more: BTreeMap<String, Value>,
    /// What ONBUILD has kept for who builds on this.
    pub(crate) triggers: Vec<String>,
    /// ARGs in scope, by name.
    pub(crate) args: BTreeMap<String, String>,
    /// Whether CMD was set in this stage, so that ENTRYPOINT leaves it.
    pub(crate) own_cmd: bool,
    /// Keeps the layers.
    pub(crate) leases: Vec<Lease>,
}

impl State {
    /// Nothing.
    pub(crate) fn scratch() -> Self {
        Self {
            layers: Vec::new(),
            config: Config::default(),
            history: Vec::new(),
            created: None,
            author: None,
            shell: SHELL.map(str::to_owned).to_vec(),
            more: BTreeMap::new(),
            triggers: Vec::new(),
            args: BTreeMap::new(),
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
            ..Self::scratch()
        }
    }

    /// The state that a stage built on this one starts with.
    pub(crate) fn child(&self) -> Self {
        Self { args: BTreeMap::new(), own_cmd: false, ..self.clone() }
    }

    /// The value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        let list = self.config.env().as_deref().unwrap_or_default();
        list.iter()
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, v)| v.to_owned())
    }

    /// Expands a word by environment, then ARGs.
    pub(crate) fn expand(&self, line: usize, escape: char, word: &str) -> Result<String> {
        let lookup = |name: &str| self.env(name).or_else(|| self.args.get(name).cloned());
        expand::expand(word, escape, &lookup).map_err(|reason| Error::dockerfile(line, reason))
    }

    /// Sets environment variables; order stays, a known name changes in place.
    pub(crate) fn set_env(&mut self, pairs: &[(String, String)]) {
        let mut list = self.config.env().clone().unwrap_or_default();
        for (name, value) in pairs {
            let text = format!("{name}={value}");
            let known = list.iter_mut().find(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name));
            match known {
                Some(pair) => *pair = text,
                None => list.push(text),
            }
        }
        self.config.set_env(Some(list));
    }

    /// Sets labels.
    pub(crate) fn set_labels(&mut self, pairs: Vec<(String, String)>) {
        let mut labels: HashMap<String, String> = self.config.labels().clone().unwrap_or_default();
        labels.extend(pairs);
        self.config.set_labels(Some(labels));
    }

    /// Declares an ARG: a build argument wins over the default, that over a global ARG.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        default: Option<String>,
        build_args: &BTreeMap<String, String>,
        globals: &BTreeMap<String, String>,
    ) {
        let given = build_args.get(name).cloned().or(default).or_else(|| globals.get(name).cloned());
        if let Some(value) = given {
            self.args.insert(name.to_owned(), value);
        }
    }

    /// Expands the text of a heredoc.
    pub(crate) fn expand_text(&self, line: usize, escape: char, text: &str) -> Result<String> {
        let lookup = |name: &str| self.env(name).or_else(|| self.args.get(name).cloned());
        expand::expand_text(text, escape, &lookup).map_err(|reason| Error::dockerfile(line, reason))
    }

    /// The working directory.
    pub(crate) fn workdir(&self) -> String {
        copy::normal(self.config.working_dir().as_deref().unwrap_or("/"))
    }

    /// The environment of a RUN: ARGs, then ENV over them, a PATH if there is none.
    pub(crate) fn run_env(&self) -> BTreeMap<String, String> {
        let mut env = self.args.clone();
        let own = self.config.env().as_deref().unwrap_or_default();
        env.extend(
            own.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        env.entry("PATH".into()).or_insert_with(|| PATH.into());
        env
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

/// The proxy arguments that were given: for RUN's environment, never for the cache's key.
pub(crate) fn proxies(build_args: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_proxy = |name: &str| PROXIES.contains(&name.to_ascii_uppercase().as_str());
    build_args.iter().filter(|(name, _)| is_proxy(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The build arguments that no ARG has asked for.
pub(crate) fn unused(build_args: &BTreeMap<String, String>, declared: &BTreeSet<String>) -> Vec<String> {
    let proxies = proxies(build_args);
    let known = |name: &&String| !declared.contains(*name) && !proxies.contains_key(*name);
    build_args.keys().filter(known).cloned().collect()
}
