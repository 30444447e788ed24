//! Variables in an instruction's words: `$v ${v} ${v:-w} - :+ + :? ? # ## % %% / //`, quotes and escapes.

use crate::glob::Pattern;

/// How deep `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 20;

/// How many bytes the values in one word may have: a few lines of `ENV a=$a$a` would fill any memory.
const MAX_BYTES: usize = 1 << 20;

/// Looks a variable up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands a word: quotes are resolved, variables replaced. The error is a reason for the line's message.
pub(crate) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    Scan::new(word, escape, true, lookup).until(None)
}

/// Expands the text of a heredoc: quotes are text there, and a `\` goes, whatever stands behind it.
pub(crate) fn expand_text(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    Scan::new(text, '\\', false, lookup).until(None)
}

struct Scan<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    /// Whether quotes are resolved.
    quotes: bool,
    lookup: Lookup<'a>,
    depth: usize,
    /// How many bytes the values may still have.
    room: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &str, escape: char, quotes: bool, lookup: Lookup<'a>) -> Self {
        Self { chars: text.chars().collect(), at: 0, escape, quotes, lookup, depth: 0, room: MAX_BYTES }
    }

    /// The word as messages show it.
    fn whole(&self) -> String {
        self.chars.iter().take(200).collect()
    }

    /// A variable's value, which the expansion has to have room for.
    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = (self.lookup)(name);
        self.take_room(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), String> {
        let room = self.room.checked_sub(bytes);
        self.room = room.ok_or_else(|| {
            format!("{}: its variables have more than {MAX_BYTES} bytes: shorten their values", self.whole())
        })?;
        Ok(())
    }

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
                '\'' if self.quotes => self.single(&mut text)?,
                '"' if self.quotes => self.double(&mut text)?,
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => text.extend(self.next()),
                c => text.push(c),
            }
        }
        match stop {
            Some(stop) => Err(format!("{}: {stop:?} is missing", self.whole())),
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
        Err(format!("{}: the quote ' is not closed", self.whole()))
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
        Err(format!("{}: the quote \" is not closed", self.whole()))
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
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.next();
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
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
            return if name.is_empty() { Ok("$".into()) } else { Ok(self.value(&name)?.unwrap_or_default()) };
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(format!("{}: ${{}} nested more than {MAX_DEPTH} deep", self.whole()));
        }
        let value = self.braced();
        self.depth = self.depth.saturating_sub(1);
        value
    }

    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err(format!("{}: ${{…}} without a name", self.whole()));
        }
        let value = self.value(&name)?;
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
                let pattern = Pattern::shell(&self.raw_until(&['}'])?.0);
                Ok(cut(&value.unwrap_or_default(), pattern, side == '#', longest))
            }
            Some('/') if !colon => {
                let all = self.take('/');
                let (pattern, end) = self.raw_until(&['/', '}'])?;
                let with = if end == '/' { self.until(Some('}'))? } else { String::new() };
                let value = value.unwrap_or_default();
                let parts = kept(&value, &Pattern::shell(&pattern), all);
                self.take_room(with.len().saturating_mul(parts.len().saturating_sub(1)))?;
                Ok(parts.join(&with))
            }
            _ => Err(format!("{}: ${{{name}…}} is not closed or has an unknown operator", self.whole())),
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
        Err(format!("{}: '}}' is missing", self.whole()))
    }
}

/// Cuts the shortest or longest match off one end.
fn cut(value: &str, pattern: Pattern, front: bool, longest: bool) -> String {
    let found =
        if front { pattern.begins(value.chars()) } else { pattern.reversed().begins(value.chars().rev()) };
    let Some(length) = (if longest { found.longest } else { found.shortest }) else {
        return value.to_owned();
    };
    if front {
        value.chars().skip(length).collect()
    } else {
        value.chars().take(value.chars().count().saturating_sub(length)).collect()
    }
}

/// The parts of the text around the first match, or around all; a match is the leftmost and longest.
fn kept(value: &str, pattern: &Pattern, all: bool) -> Vec<String> {
    let chars: Vec<char> = value.chars().collect();
    let mut parts = Vec::new();
    let (mut part, mut at) = (String::new(), 0);
    loop {
        let rest = chars.get(at..).unwrap_or_default();
        let found = pattern.begins(rest.iter().copied());
        // Nothing is only a match where there is nothing else.
        let is_match = |length: &usize| *length > 0 || chars.is_empty();
        if let Some(length) = found.longest.filter(is_match) {
            parts.push(std::mem::take(&mut part));
            at = at.saturating_add(length);
            if all && length > 0 && at < chars.len() {
                continue;
            }
        } else if let (false, Some(c)) = (found.is_open, rest.first()) {
            part.push(*c);
            at = at.saturating_add(1);
            continue;
        }
        // A pattern that did not match in all that is left does not match in less of it.
        part.extend(chars.get(at..).unwrap_or_default());
        parts.push(part);
        return parts;
    }
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
            ("${empty/*/X} ${none#*} ${v//*/X} ${v/zz*/X} ${v//[/X}", "X  X value value"),
            ("${path%/*} ${path%%/*} ${path##*} ${path#*} ${path%?gz}", "/a   /a/b.tar.gz /a/b.tar"),
            ("$10-${12}", "-"),
            ("$", "$"),
            ("a$", "a$"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn quotes_are_text_in_a_heredoc() {
        let expanded = expand_text("it's \"$v\" \\$v \\n \\\\ ${none:-d}\n", &lookup);
        assert_eq!(expanded.as_deref(), Ok("it's \"value\" $v n \\ d\n"));
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for word in ["'a", "\"a", "${v", "${", "${}", "${v:-a", "${v!x}", "${none:?say why}", "${v#a"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
        assert_eq!(expand("${none:?say why}", '\\', &lookup), Err("none: say why".into()));
    }

    #[test]
    fn values_that_fill_the_memory_are_refused() {
        let long = "x".repeat(MAX_BYTES);
        let lookup = |name: &str| (name == "a").then(|| long.clone());
        assert_eq!(expand("$a", '\\', &lookup).as_ref(), Ok(&long));
        for word in ["$a$a", "${b:-$a$a}", "${a//x/xx}"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
    }

    #[test]
    fn a_pattern_takes_no_longer_than_its_product_with_the_value() {
        let long = "a".repeat(10_000);
        let lookup = |_: &str| Some(long.clone());
        for word in ["${v//a*b/x}", "${v//a*a*b*c/x}", "${v%%b*}", "${v##*b}", "${v/?????b/x}"] {
            assert_eq!(expand(word, '\\', &lookup).as_ref(), Ok(&long), "{word}");
        }
    }

    proptest! {
        #[test]
        fn no_word_makes_the_expansion_panic(word in "[$a-c{}:#%/?*+'\"\\\\-]{0,40}") {
            let _ = expand(&word, '\\', &lookup);
        }
    }
}
