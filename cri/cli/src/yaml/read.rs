//! One YAML document as a JSON value, in bounded memory however its aliases multiply. Plain words have the meaning of YAML
//! 1.1, as in Go's parsers: `yes` and `on` are true.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// The greatest depth to which values may nest.
const MAX_DEPTH: usize = 100;
/// The greatest weight of all values together, each alias counted as its value.
const MAX_WEIGHT: usize = 16 << 20;
/// The weight of a value besides its text.
const NODE_WEIGHT: usize = 32;

/// Parses a text; an error has its line.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| at(error.marker().line(), error.info()))?;
        builder.take(event, &span).map_err(|reason| at(span.start.line(), &reason))?;
    }
    builder.root.ok_or_else(|| "the file is empty".to_owned())
}

fn at(line: usize, reason: &str) -> String {
    format!("line {line}: {reason}")
}

/// A value and its weight.
type Weighed = (Value, usize);

/// A list or mapping that is not closed yet.
struct Open {
    items: Items,
    anchor: usize,
    weight_before: usize,
}

enum Items {
    List(Vec<Value>),
    Mapping { pairs: Map<String, Value>, merged: Vec<Value>, key: Option<Key> },
}

enum Key {
    Name(String),
    /// `<<`: the value's pairs are merged into the mapping, whose own pairs take precedence.
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Weighed>,
    weight: usize,
    root: Option<Value>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, _span: &Span) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err("a second document begins here: keep one in a file".to_owned())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                if let Some(key) = self.missing_key() {
                    *key =
                        Some(if plain && text == "<<" { Key::Merge } else { Key::Name(text.into_owned()) });
                    return self.weigh(NODE_WEIGHT);
                }
                let weight = NODE_WEIGHT.saturating_add(text.len());
                self.weigh(weight)?;
                let value = if plain { word(&text) } else { Value::String(text.into_owned()) };
                self.put(value, anchor, weight)
            }
            Event::Alias(anchor) => {
                let (value, weight) = self.anchors.get(&anchor).ok_or("the alias has no anchor above it")?;
                let (value, weight) = (value.clone(), *weight);
                self.weigh(weight)?;
                if let Some(key) = self.missing_key() {
                    let Value::String(name) = value else { return Err("a key must be a word".to_owned()) };
                    *key = Some(Key::Name(name));
                    return Ok(());
                }
                self.put(value, 0, weight)
            }
            Event::SequenceStart(anchor, _) => self.begin(Items::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => {
                self.begin(Items::Mapping { pairs: Map::new(), merged: Vec::new(), key: None }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    /// Adds to the weight of all values; to be called before a value is copied.
    fn weigh(&mut self, weight: usize) -> Result<(), String> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_WEIGHT {
            return Err(format!("the values take more than {} MiB, aliases counted", MAX_WEIGHT >> 20));
        }
        Ok(())
    }

    /// The place of the next scalar, if that is a mapping's key.
    fn missing_key(&mut self) -> Option<&mut Option<Key>> {
        match self.open.last_mut().map(|open| &mut open.items) {
            Some(Items::Mapping { key, .. }) if key.is_none() => Some(key),
            _ => None,
        }
    }

    fn begin(&mut self, items: Items, anchor: usize) -> Result<(), String> {
        if self.missing_key().is_some() {
            return Err("a key must be a word, not a list or mapping".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("values nest more than {MAX_DEPTH} deep"));
        }
        let weight_before = self.weight;
        self.open.push(Open { items, anchor, weight_before });
        self.weigh(NODE_WEIGHT)
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { items, anchor, weight_before }) = self.open.pop() else { return Ok(()) };
        let value = match items {
            Items::List(items) => Value::Array(items),
            Items::Mapping { mut pairs, merged, .. } => {
                for source in merged {
                    let Value::Object(source) = source else {
                        return Err("<< wants a mapping, or a list of mappings".to_owned());
                    };
                    source.into_iter().for_each(|(name, value)| {
                        pairs.entry(name).or_insert(value);
                    });
                }
                Value::Object(pairs)
            }
        };
        self.put(value, anchor, self.weight.saturating_sub(weight_before))
    }

    fn put(&mut self, value: Value, anchor: usize, weight: usize) -> Result<(), String> {
        if anchor != 0 {
            self.weigh(weight)?;
            self.anchors.insert(anchor, (value.clone(), weight));
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(value),
            Some(Items::List(items)) => items.push(value),
            Some(Items::Mapping { pairs, merged, key }) => match (key.take(), value) {
                (Some(Key::Name(name)), value) => {
                    pairs.insert(name, value);
                }
                (Some(Key::Merge), Value::Array(sources)) => merged.extend(sources),
                (Some(Key::Merge), source) => merged.push(source),
                (None, _) => return Err("a value has no key".to_owned()),
            },
        }
        Ok(())
    }
}

/// The meaning of a word without quotes.
pub(super) fn word(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let figure = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let number = if figure { number(&text.replace('_', "")) } else { None };
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    let octal = || {
        let old = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        if old { u64::from_str_radix(digits, 8).ok() } else { None }
    };
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)).or_else(octal);
    if let Some(whole) = whole {
        return match text.starts_with('-') {
            true => i64::try_from(whole).ok()?.checked_neg().map(Number::from),
            false => Some(whole.into()),
        };
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = unsigned.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = unsigned.parse::<u64>() {
        return Some(whole.into());
    }
    let fits = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if digits.chars().all(fits) && digits.contains(|c: char| c.is_ascii_digit()) {
        return text.parse::<f64>().ok().and_then(Number::from_f64);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_forms_that_configurations_use_are_read() {
        let text = "# a pod\nmetadata:\n  name: web\n  attempt: 1\n  uid: '12'\nlabels: {a: \"b\", c: yes}\ncommand:\n- sh\n- -c\n- |\n  echo 1\n  echo 2\nnone:\nratio: 1.5\nmode: 0644\nlong: 1_000\nsize: 0x10\nminus: -3\nversion: 1.2.3\n";
        let expected = json!({
            "metadata": {"name": "web", "attempt": 1, "uid": "12"}, "labels": {"a": "b", "c": true},
            "command": ["sh", "-c", "echo 1\necho 2\n"], "none": null, "ratio": 1.5, "mode": 420, "long": 1000, "size": 16,
            "minus": -3, "version": "1.2.3",
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("{\"a\": [1, true]}").unwrap(), json!({"a": [1, true]}));
    }

    #[test]
    fn aliases_and_merges_are_followed() {
        let text = "base: &base {a: 1, b: 2}\nmore:\n  <<: *base\n  b: 3\nlist: [*base]\n";
        let expected =
            json!({"base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}, "list": [{"a": 1, "b": 2}]});
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn aliases_of_aliases_stay_within_the_limit() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..30 {
            let item = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{item}]\n"));
        }
        let refused = parse(&bomb).unwrap_err();
        assert!(refused.contains("more than 16 MiB") && refused.starts_with("line "), "{refused}");
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(1000));
        assert!(parse(&long).unwrap_err().contains("16 MiB"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\n", "line 3: "),
            ("a: 1\n b: 2\n", "line 2: "),
            ("a: *none\n", "line 1: "),
            ("? [a]\n: b\n", "line 1: "),
            ("a: 1\n---\nb: 2\n", "line 2: "),
            ("<<: 1\n", "line "),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.starts_with(line) && !refused.contains('\n'), "{text:?}: {refused}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("recursion limit"));
        let deep = (0..120).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
        assert!(parse(&deep).unwrap_err().contains("100 deep"));
        assert_eq!(parse("# nothing\n").unwrap_err(), "the file is empty");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_with_its_line_or_read(text in "[a-z0-9 \n:,\\[\\]{}&*<>|!'\"#?~.-]{0,120}") {
            if let Err(reason) = parse(&text) {
                prop_assert!(reason.starts_with("line ") || reason == "the file is empty", "{}", reason);
            }
        }
    }
}
