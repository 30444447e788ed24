//! The ways an instruction's arguments fall into words: flags, JSON arrays, quoted words, `name=value` pairs.

use crate::error::{Error, Result};

/// Cuts the `--name=value` flags off the front; quotes and escapes in them are resolved.
pub(super) fn flags(line: usize, rest: &str, escape: char) -> Result<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    let mut rest = rest.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        let end = word_end(after, escape);
        let (flag, tail) = after.split_at_checked(end).unwrap_or((after, ""));
        rest = tail.trim_start();
        if flag.is_empty() {
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, unquoted(line, value, escape)?),
            None => (flag, String::new()),
        };
        found.push((name.to_owned(), value));
    }
    Ok((found, rest))
}

/// The words behind the flags.
pub(super) fn after_flags(rest: &str, escape: char) -> &str {
    let mut rest = rest.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        rest = after.split_at_checked(word_end(after, escape)).map_or("", |(_, tail)| tail).trim_start();
    }
    rest
}

/// Whether a text is a JSON array.
pub(super) fn is_json(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(serde_json::Value::Array(_)))
}

/// A JSON array of strings, when the text is one. An array of other things is an error; what is no JSON is not.
pub(super) fn json(line: usize, rest: &str) -> Result<Option<Vec<String>>> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(serde_json::Value::Array(values)) = serde_json::from_str(rest) else { return Ok(None) };
    let texts = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) if !text.contains('\0') => Ok(text),
        other => Err(Error::dockerfile(line, format!("{other} in the JSON form: put it in double quotes"))),
    });
    texts.collect::<Result<Vec<_>>>().map(Some)
}

/// Words divided by blanks that stand outside of quotes; quotes and escapes stay for the expansion.
pub(super) fn quoted(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, tail) = rest.split_at_checked(word_end(rest, escape)).unwrap_or((rest, ""));
        words.push(word);
        rest = tail.trim_start();
    }
    words
}

/// The pairs of ENV and LABEL: `a=b c="d e"`, or the old `name the rest`.
pub(super) fn pairs(line: usize, keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>> {
    let words = quoted(rest, escape);
    let first = words.first().copied().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if value.is_empty() {
            return Err(Error::dockerfile(
                line,
                format!("{keyword} {name} has no value: write {name}=value"),
            ));
        }
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &&str| match word.split_once('=') {
        Some(("", _)) => Err(Error::dockerfile(line, format!("{word}: a name must stand before the ="))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::dockerfile(
            line,
            format!("{word:?} in {keyword} is no name=value: put quotes around a value with blanks"),
        )),
    };
    words.iter().map(pair).collect()
}

/// A duration as Go writes it, such as `1m30s` or `500ms`, in nanoseconds.
pub(super) fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (figure, tail) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(figure.parse::<u64>().ok()?.checked_mul(scale)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Where the first word of the text ends.
pub(super) fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            Some('\'') => {}
            _ if c == escape => {
                chars.next();
            }
            _ => {}
        }
    }
    text.len()
}

fn unquoted(line: usize, value: &str, escape: char) -> Result<String> {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            Some('\'') => text.push(c),
            _ if c == escape => text.extend(chars.next()),
            _ => text.push(c),
        }
    }
    match quote {
        Some(open) => Err(Error::dockerfile(line, format!("{value}: the quote {open} is not closed"))),
        None => Ok(text),
    }
}
