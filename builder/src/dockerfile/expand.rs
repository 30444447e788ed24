//! Variables in an instruction's words: `$v ${v} ${v:-w} - :+ + :? ? # ## % %% / //`, quotes and escapes.

use crate::glob;

/// How deep `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 20;

/// Looks a variable up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands a word: quotes are resolved, variables replaced. The error is a reason for the line's message.
pub(crate) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut scan =
        Scan { chars: word.chars().collect(), at: 0, escape, lookup, depth: 0, whole: word.to_owned() };
    scan.until(None)
}

/// Expands the text of a heredoc: quotes are text there, and an escape counts before `$` and itself alone.
pub(crate) fn expand_text(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut scan =
        Scan { chars: text.chars().collect(), at: 0, escape, lookup, depth: 0, whole: text.to_owned() };
    let mut expanded = String::new();
    while let Some(c) = scan.next() {
        match c {
            '$' => expanded.push_str(&scan.dollar()?),
            c if c == escape => match scan.peek() {
                Some(next) if next == '$' || next == escape => expanded.extend(scan.next()),
                _ => expanded.push(c),
            },
            c => expanded.push(c),
        }
    }
    Ok(expanded)
}

struct Scan<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
    whole: String,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at = self.at.saturating_add(1);
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Expands up to an unquoted `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == stop => return Ok(text),
                '\'' => self.single(&mut text)?,
                '"' => self.double(&mut text)?,
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => text.extend(self.next()),
                c => text.push(c),
            }
        }
        match stop {
            Some(stop) => Err(format!("{}: {stop:?} is missing", self.whole)),
            None => Ok(text),
        }
    }

    fn single(&mut self, text: &mut String) -> Result<(), String> {
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(());
            }
            text.push(c);
        }
        Err(format!("{}: the quote ' is not closed", self.whole))
    }

    fn double(&mut self, text: &mut String) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(()),
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        text.extend(self.next());
                    }
                    _ => text.push(c),
                },
                c => text.push(c),
            }
        }
        Err(format!("{}: the quote \" is not closed", self.whole))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.next();
                }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.push(c);
                self.next();
            }
            _ => {}
        }
        name
    }

    fn dollar(&mut self) -> Result<String, String> {
        if !self.take('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(format!("{}: ${{}} nested more than {MAX_DEPTH} deep", self.whole));
        }
        let value = self.braced();
        self.depth = self.depth.saturating_sub(1);
        value
    }

    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err(format!("{}: ${{…}} without a name", self.whole));
        }
        let value = (self.lookup)(&name);
        let (colon, operator) = match self.next() {
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(':') => (true, self.next()),
            other => (false, other),
        };
        let is_set = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match operator {
            Some('-') => {
                let other = self.until(Some('}'))?;
                Ok(value.filter(|_| is_set).unwrap_or(other))
            }
            Some('+') => {
                let other = self.until(Some('}'))?;
                Ok(if is_set { other } else { String::new() })
            }
            Some('?') => {
                let message = self.until(Some('}'))?;
                let said = if message.is_empty() { "it is not set" } else { &message };
                value.filter(|_| is_set).ok_or_else(|| format!("{name}: {said}"))
            }
            Some(side @ ('#' | '%')) if !colon => {
                let longest = self.take(side);
                let pattern = self.raw_until(&['}'])?.0;
                Ok(cut(&value.unwrap_or_default(), &pattern, side == '#', longest))
            }
            Some('/') if !colon => {
                let all = self.take('/');
                let (pattern, end) = self.raw_until(&['/', '}'])?;
                let with = if end == '/' { self.until(Some('}'))? } else { String::new() };
                Ok(replace(&value.unwrap_or_default(), &pattern, &with, all))
            }
            _ => Err(format!("{}: ${{{name}…}} is not closed or has an unknown operator", self.whole)),
        }
    }

    /// A pattern: variables are expanded, an escape stays for the pattern, one of `stops` ends it.
    fn raw_until(&mut self, stops: &[char]) -> Result<(String, char), String> {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if stops.contains(&c) => return Ok((text, c)),
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => {
                    text.push('\\');
                    text.extend(self.next());
                }
                c => text.push(c),
            }
        }
        Err(format!("{}: '}}' is missing", self.whole))
    }
}

/// Cuts the shortest or longest match off one end.
fn cut(value: &str, pattern: &str, front: bool, longest: bool) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if front == longest {
        cuts.reverse();
    }
    for at in cuts {
        let (head, tail) = value.split_at_checked(at).unwrap_or((value, ""));
        let (gone, kept) = if front { (head, tail) } else { (tail, head) };
        if glob::shell(pattern, gone) {
            return kept.to_owned();
        }
    }
    value.to_owned()
}

/// Replaces the first match, or all; a match is the leftmost and longest.
fn replace(value: &str, pattern: &str, with: &str, all: bool) -> String {
    let mut result = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).skip(1);
        let longest = ends
            .filter(|end| rest.get(..*end).is_some_and(|part| glob::shell(pattern, part)))
            .last()
            .and_then(|end| rest.get(end..));
        if let Some(tail) = longest {
            result.push_str(with);
            rest = tail;
            if !all {
                break;
            }
        } else {
            let mut chars = rest.chars();
            result.extend(chars.next());
            rest = chars.as_str();
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "v" => Some("value".into()),
            "empty" => Some(String::new()),
            "path" => Some("/a/b.tar.gz".into()),
            _ => None,
        }
    }

    #[test]
    fn every_operator_does_what_a_shell_does() {
        for (word, expected) in [
            ("$v-${v}x", "value-valuex"),
            ("$none|${none}", "|"),
            ("\\$v", "$v"),
            ("'$v' \"$v\" \"\\$v\" \"a\\b\"", "$v value $v a\\b"),
            ("${none:-d} ${empty:-d} ${empty-d} ${v:-d}", "d d  value"),
            ("${v:+a}${empty:+b}${empty+c}${none+d}", "ac"),
            ("${none:-${v}}", "value"),
            ("${path#*/} ${path##*/}", "a/b.tar.gz b.tar.gz"),
            ("${path%.*} ${path%%.*}", "/a/b.tar /a/b"),
            ("${path/./-} ${path//./-} ${path//\\/}", "/a/b-tar.gz /a/b-tar-gz ab.tar.gz"),
            ("${v/a*/X}", "vX"),
            ("$", "$"),
            ("a$", "a$"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn quotes_are_text_in_a_heredoc() {
        let expanded = expand_text("it's \"$v\" \\$v \\n ${none:-d}\n", '\\', &lookup);
        assert_eq!(expanded.as_deref(), Ok("it's \"value\" $v \\n d\n"));
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for word in ["'a", "\"a", "${v", "${", "${}", "${v:-a", "${v!x}", "${none:?say why}", "${v#a"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
        assert_eq!(expand("${none:?say why}", '\\', &lookup), Err("none: say why".into()));
    }

    proptest! {
        #[test]
        fn no_word_makes_the_expansion_panic(word in "[$a-c{}:#%/?*+'\"\\\\-]{0,40}") {
            let _ = expand(&word, '\\', &lookup);
        }
    }
}
