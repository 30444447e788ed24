//! The form of states for `inspect`, `inspectp`, `inspecti` and `info`: an object for one, an array for several, with the
//! runtime's verbose texts beside the state.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::format::Format;
use crate::{output, time};

const NEVER: &str = "0001-01-01T00:00:00Z";

/// The state with the texts. A text that is a JSON object is shown as such, any other as a string, as crictl does.
pub(crate) fn with_info(status: Value, info: &BTreeMap<String, String>) -> Value {
    let mut object = Map::new();
    object.insert("status".to_owned(), status);
    for (name, text) in info {
        let value = if text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
        object.insert(name.clone(), value.unwrap_or_else(|| text.trim_matches('"').into()));
    }
    Value::Object(object)
}

/// A state with these times in RFC 3339 in place of nanoseconds.
pub(crate) fn with_readable_times(mut status: Value, names: &[&str]) -> Value {
    for name in names {
        if let Some(value) = status.get_mut(*name) {
            let nanos = value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            // An event that has not happened has Go's zero time.
            *value = if nanos == 0 { NEVER.into() } else { time::rfc3339(nanos).into() };
        }
    }
    status
}

/// The flags for the form of states.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct How {
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "json")]
    pub(crate) output: Format,
    /// Leave the runtime's verbose texts out
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// States to be shown: a table is printed at once, objects are collected and printed together.
#[derive(Debug)]
pub(crate) struct States {
    how: How,
    objects: Vec<Value>,
}

impl States {
    pub(crate) fn new(how: How) -> Self {
        Self { how, objects: Vec::new() }
    }

    /// Whether the runtime is to be asked for its verbose texts.
    pub(crate) fn verbose(&self) -> bool {
        !self.how.quiet
    }

    pub(crate) fn are_tables(&self) -> bool {
        self.how.output == Format::Table
    }

    /// Shows a state, in whichever of its two forms is asked for, with the runtime's verbose texts.
    pub(crate) fn show(
        &mut self,
        info: &BTreeMap<String, String>,
        table: impl FnOnce() -> Result<()>,
        object: impl FnOnce() -> Result<Value>,
    ) -> Result<()> {
        if !self.are_tables() {
            self.push(with_info(object()?, info));
            return Ok(());
        }
        table()?;
        if self.verbose() { output::line(info_line(info)) } else { Ok(()) }
    }

    pub(crate) fn push(&mut self, object: Value) {
        self.objects.push(object);
    }

    /// Prints the objects: one by itself, several in an array, nothing for none.
    pub(crate) fn print(mut self) -> Result<()> {
        match (self.objects.len(), self.objects.pop()) {
            (_, None) => Ok(()),
            (1, Some(only)) => output::value(self.how.output, &only),
            (_, Some(last)) => {
                self.objects.push(last);
                output::value(self.how.output, &Value::Array(self.objects))
            }
        }
    }
}

/// The runtime's verbose texts on one line, as crictl's tables have them.
fn info_line(info: &BTreeMap<String, String>) -> String {
    let texts: Vec<String> = info.iter().map(|(name, text)| format!("{name}:{text}")).collect();
    format!("Info: map[{}]", texts.join(" "))
}

/// Labels and annotations under their titles; an empty title is left out.
pub(crate) fn print_maps(maps: [(&str, &BTreeMap<String, String>); 2]) -> Result<()> {
    for (title, values) in maps.into_iter().filter(|(_, values)| !values.is_empty()) {
        output::line(title)?;
        values.iter().try_for_each(|(key, value)| output::line(format_args!("\t{key} -> {value}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_are_json_are_shown_as_such() {
        let info = [("a", "{\"x\": 1}"), ("b", "\"plain\"")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let view = with_info(json!({"id": "1"}), &info.into());
        assert_eq!(view, json!({"status": {"id": "1"}, "a": {"x": 1}, "b": "plain"}));
    }

    #[test]
    fn times_become_readable() {
        let status = with_readable_times(json!({"createdAt": "0", "id": "1"}), &["createdAt", "startedAt"]);
        assert_eq!(status, json!({"createdAt": "0001-01-01T00:00:00Z", "id": "1"}));
    }
}
