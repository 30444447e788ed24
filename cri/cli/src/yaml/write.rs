//! A JSON value as YAML in the layout of Go's encoders: lists are not indented below their key, a word with a meaning of its
//! own (`yes`, `12`) gets double quotes, a word with punctuation that needs quotes single ones.

use serde_json::Value;

use super::read;

/// The text, which ends with a newline.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(pairs) if !pairs.is_empty() => mapping(&mut out, pairs, 0, false),
        Value::Array(items) if !items.is_empty() => list(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

/// `inline`: the first key stands behind a `- ` that is written already.
fn mapping(out: &mut String, pairs: &serde_json::Map<String, Value>, indent: usize, inline: bool) {
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 || !inline {
            pad(out, indent);
        }
        if key.contains('\n') {
            out.push_str(&Value::from(key.as_str()).to_string())
        } else {
            string(out, key, None)
        }
        out.push(':');
        match value {
            Value::Object(pairs) if !pairs.is_empty() => {
                out.push('\n');
                mapping(out, pairs, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(out, items, indent);
            }
            other => {
                out.push(' ');
                scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        pad(out, indent);
        nested_item(out, item, indent);
    }
}

fn nested_item(out: &mut String, item: &Value, indent: usize) {
    out.push_str("- ");
    match item {
        Value::Object(pairs) if !pairs.is_empty() => mapping(out, pairs, indent + 2, true),
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    pad(out, indent + 2);
                }
                nested_item(out, item, indent + 2);
            }
        }
        other => {
            scalar(out, other, indent + 2);
            out.push('\n');
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) => string(out, text, Some(indent)),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
}

/// `indent` is where a value's further lines stand; a key has one line.
fn string(out: &mut String, text: &str, indent: Option<usize>) {
    let printable = |c: char| {
        c == '\n' || !(c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
    };
    if means_something(text) || !text.chars().all(printable) {
        out.push_str(&Value::from(text).to_string());
    } else if text.contains('\n') {
        block(out, text, indent.unwrap_or_default());
    } else if needs_quotes(text) {
        out.push('\'');
        folded(out, &text.replace('\'', "''"), indent);
        out.push('\'');
    } else {
        folded(out, text, indent);
    }
}

/// The text, broken at the first single blank beyond the width that Go's writers keep to.
fn folded(out: &mut String, text: &str, indent: Option<usize>) {
    const WIDTH: usize = 80;
    let mut column = out.rsplit('\n').next().unwrap_or_default().chars().count();
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        let single = c == ' ' && before != ' ' && chars.peek().is_some_and(|next| *next != ' ');
        before = c;
        match indent {
            Some(indent) if single && column > WIDTH => {
                out.push('\n');
                pad(out, indent);
                column = indent;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
}

/// Whether a reader would take the bare word for something that is no text.
fn means_something(text: &str) -> bool {
    let year = text.get(..5).and_then(|head| head.strip_suffix('-'));
    let dated = year.is_some_and(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
    let special =
        matches!(text.trim_start_matches(['-', '+']), ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    dated || special || text == "<<" || !read::word(text).is_string()
}

fn needs_quotes(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next().unwrap_or(' ');
    let indicator = ",[]{}#&*!|>'\"%@`".contains(first) || ("-?:".contains(first) && second == ' ');
    let document = text.starts_with("---") || text.starts_with("...");
    let blanks = text.starts_with(' ') || text.ends_with(' ');
    indicator || document || blanks || text.contains(": ") || text.contains(" #") || text.ends_with(':')
}

/// A text of several lines; the sign behind `|` says how it ends, a digit that it begins with blanks.
fn block(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.ends_with('\n') || body.is_empty() => out.push('+'),
        Some(_) => {}
    }
    for line in body.unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent.max(2));
            out.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn lists_stand_at_their_keys_and_words_are_quoted_where_they_must_be() {
        let value = json!({
            "a": [{"b": 1, "c": ["x", "y"]}, [1, [2]], []], "d": {}, "number": "12", "truth": "yes", "empty": "",
            "time": "2026-01-02T03:04:05Z", "sign": "a: b", "star": "*a", "quote": "it's", "none": null,
            "lines": "one\ntwo\n", "command": "echo hi >&2",
        });
        let expected = "a:\n- b: 1\n  c:\n  - x\n  - \"y\"\n- - 1\n  - - 2\n- []\ncommand: echo hi >&2\nd: {}\nempty: \"\"\nlines: |\n  one\n  two\nnone: null\nnumber: \"12\"\nquote: it's\nsign: 'a: b'\nstar: '*a'\ntime: \"2026-01-02T03:04:05Z\"\ntruth: \"yes\"\n";
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn a_long_value_is_broken_at_a_single_blank_and_a_key_is_not() {
        let long = "word ".repeat(20) + "end  and: more";
        let written = text(&json!({"k": long, "l": [long]}));
        assert!(written.contains(" word\n  word"), "{written}");
        assert!(written.contains("end  and"), "{written}");
        assert_eq!(read::parse(&written), Ok(json!({"k": long, "l": [long]})));
        let key = "key ".repeat(25) + "end";
        assert_eq!(text(&json!({ &key: 1 })), format!("{key}: 1\n"));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for odd in [
            "",
            " ",
            "a ",
            " a",
            "\n",
            "a\n\n",
            "a\nb",
            "\n a\n",
            "\ta",
            "a\tb",
            "-",
            "- a",
            "?x",
            "#",
            "a #b",
            "a:",
            ":a",
            "\u{1}",
            "é\u{2028}",
            "'",
            "\"",
            "\\",
            "%",
            "---",
            "null",
            "~",
            "0x1",
            "1e3",
            ".5",
            "<<",
            "{a}",
            "=",
            "1_000",
            "  a\n  b",
        ] {
            let value = json!({"k": odd, "l": [odd, {"m": odd}], odd: 1});
            let written = text(&value);
            assert_eq!(read::parse(&written).as_ref(), Ok(&value), "{odd:?}:\n{written}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text =
            prop_oneof!["\\PC{0,90}", "[ -~\n\t]{0,40}", "(yes|no|~|0x1f|1e3|- a|a: b|#|<<|'|\"){1,3}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_reads_back_as_it_was(value in any_value()) {
            let written = text(&value);
            let back = read::parse(&written);
            prop_assert_eq!(back.as_ref(), Ok(&value), "{}", written);
        }
    }
}
