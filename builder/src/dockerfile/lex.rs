//! Text to logical lines: parser directives, comments, continuations.

use super::heredoc::{self, Heredoc};
use crate::error::{Error, Result};

/// A Dockerfile larger than this is a mistake.
const MAX_BYTES: usize = 1 << 22;

/// One instruction's text, its continuation lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins, from 1.
    pub(crate) number: usize,
    /// The text without surrounding blanks.
    pub(crate) text: String,
    /// The heredocs that the `<<words` in it stand for, in order.
    pub(crate) heredocs: Vec<Heredoc>,
}

/// All logical lines and the escape character that was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// `\`, or the backtick that `# escape=` has asked for.
    pub(crate) escape: char,
    /// The instructions in order.
    pub(crate) lines: Vec<Line>,
}

/// Splits a Dockerfile into logical lines.
pub(crate) fn lines(bytes: &[u8]) -> Result<Lines> {
    let text = text(bytes)?;
    let escape = directives(text)?;
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    let mut source = text.lines().enumerate();
    while let Some((index, raw)) = source.next() {
        let number = index.saturating_add(1);
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (part, continues) = continuation(if open.is_some() { raw } else { raw.trim_start() }, escape);
        let line = open.get_or_insert_with(|| Line { number, text: String::new(), heredocs: Vec::new() });
        line.text.push_str(part);
        if continues {
            continue;
        }
        if let Some(mut line) = open.take() {
            line.heredocs = heredoc::opened(&line.text, escape);
            for heredoc in &mut line.heredocs {
                heredoc.read(line.number, source.by_ref().map(|(_, raw)| raw))?;
            }
            lines.push(line);
        }
    }
    lines.extend(open);
    for line in &mut lines {
        line.text = line.text.trim().to_owned();
    }
    lines.retain(|line| !line.text.is_empty());
    Ok(Lines { escape, lines })
}

fn text(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::Invalid(format!(
            "the Dockerfile has {} bytes, more than {MAX_BYTES}: is it the right file?",
            bytes.len()
        )));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        Error::dockerfile(line, "this is not UTF-8 text: save the file as UTF-8")
    })
}

/// Reads the directives at the top; they end with the first line that is not of their form.
fn directives(text: &str) -> Result<char> {
    let mut escape = None;
    let mut seen: Vec<String> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let Some((key, value)) = directive(raw) else { break };
        if !matches!(key.as_str(), "escape" | "syntax" | "check") {
            continue;
        }
        let number = index.saturating_add(1);
        if seen.contains(&key) {
            return Err(Error::dockerfile(number, format!("the directive {key} appears twice: remove one")));
        }
        if key == "escape" {
            escape = Some(match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(Error::dockerfile(number, format!("escape={other}: it must be \\ or `")));
                }
            });
        }
        seen.push(key);
    }
    Ok(escape.unwrap_or('\\'))
}

fn directive(raw: &str) -> Option<(String, &str)> {
    let (key, value) = raw.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    named.then(|| (key.to_ascii_lowercase(), value))
}

/// Cuts a trailing escape character off and says whether there was one. A doubled one is text.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(usize, String)> {
        lines(text.as_bytes()).unwrap().lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn comments_and_blank_lines_inside_a_continuation_are_dropped() {
        let text = "# top\nFROM x\n\nRUN a && \\\n  # why\n\n  b \\\n  && c\nCMD d \\";
        assert_eq!(
            split(text),
            [(2, "FROM x".into()), (4, "RUN a &&   b   && c".into()), (9, "CMD d".into())]
        );
    }

    #[test]
    fn the_escape_directive_counts_only_at_the_top() {
        let top = lines(b"# syntax=docker/dockerfile:1\n# Escape = `\nRUN a `\n b\\\n").unwrap();
        assert_eq!((top.escape, top.lines.len()), ('`', 1));
        assert_eq!(lines(b"# hello\n# escape=`\nRUN a\n").unwrap().escape, '\\');
    }

    #[test]
    fn a_wrong_or_repeated_directive_is_named_with_its_line() {
        for (text, message) in [
            ("# escape=x\n", "Dockerfile line 1: escape=x: it must be \\ or `"),
            ("#escape=`\n#escape=`\n", "Dockerfile line 2: the directive escape appears twice: remove one"),
        ] {
            assert_eq!(lines(text.as_bytes()).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_doubled_escape_is_text() {
        assert_eq!(split("RUN a \\\\\nRUN b"), [(1, "RUN a \\\\".into()), (2, "RUN b".into())]);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let error = lines(b"FROM x\nRUN \xff\n").unwrap_err().to_string();
        assert!(error.starts_with("Dockerfile line 2: "), "{error}");
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_no_content() {
        assert_eq!(
            split("\u{feff}FROM x\r\nRUN a \\\r\n b\r\n"),
            [(1, "FROM x".into()), (2, "RUN a  b".into())]
        );
    }
}
