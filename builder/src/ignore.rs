//! .dockerignore, with the rules of moby's patternmatcher: the last match wins, a match on a parent covers what is below.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::glob::Pattern;

/// The rules of what stays out of the build context.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
    /// The last path that was asked for, so that a walk compares each name once and not each of its parents again.
    last: Mutex<Vec<Verdict>>,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    includes: bool,
}

/// The verdict of the rules on a path: its last component stands here, its parents in the verdicts before.
#[derive(Debug)]
struct Verdict {
    name: OsString,
    /// The rules that match it or one of its parents.
    matched: Vec<bool>,
    excluded: bool,
}

impl Ignore {
    /// Reads a .dockerignore; `name` is what its errors call it.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let mut rules = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let trimmed = raw.trim();
            if raw.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let rule = rule(trimmed).ok_or_else(|| {
                let line = index.saturating_add(1);
                let reason = "this is no pattern: close its [ and write something after ! and \\";
                Error::Invalid(format!("{name} line {line}: {trimmed}: {reason}"))
            })?;
            rules.push(rule);
        }
        Ok(Self { rules, last: Mutex::default() })
    }

    /// Whether this path, relative to the context and without links, stays out.
    pub(crate) fn excludes(&self, path: &Path) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let mut verdicts = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&OsStr> = path.iter().collect();
        let known = verdicts.iter().zip(&names).take_while(|(verdict, name)| verdict.name == **name).count();
        verdicts.truncate(known);
        for (at, name) in names.iter().enumerate().skip(known) {
            let path: Vec<_> =
                names.iter().take(at.saturating_add(1)).map(|name| name.to_string_lossy()).collect();
            let verdict = self.verdict(name, &path.join("/"), verdicts.last());
            verdicts.push(verdict);
        }
        verdicts.last().is_some_and(|verdict| verdict.excluded)
    }

    fn verdict(&self, name: &OsStr, path: &str, parent: Option<&Verdict>) -> Verdict {
        let mut matched = vec![false; self.rules.len()];
        let mut excluded = false;
        for (at, (rule, matched)) in self.rules.iter().zip(&mut matched).enumerate() {
            let of_parent = parent.and_then(|parent| parent.matched.get(at)).copied().unwrap_or_default();
            // A rule that would change nothing is not looked at, and counts for nothing below either.
            *matched = of_parent || (rule.includes == excluded && rule.pattern.matches(path));
            if *matched {
                excluded = !rule.includes;
            }
        }
        Verdict { name: name.to_owned(), matched, excluded }
    }

    /// Whether something below an excluded directory may come back in.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.includes)
    }
}

/// A line without blanks around it. None when it is no pattern.
fn rule(line: &str) -> Option<Rule> {
    let (includes, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if pattern.is_empty() {
        return None;
    }
    let cleaned = clean(pattern);
    let cleaned = cleaned.trim();
    // A pattern that begins with ! only now, behind a slash, is an exception to moby too.
    let (includes, cleaned) = match cleaned.strip_prefix('!') {
        Some(rest) if !includes => (true, rest),
        _ => (includes, cleaned),
    };
    Pattern::ignore(cleaned).filter(|_| !cleaned.is_empty()).map(|pattern| Rule { pattern, includes })
}

/// Go's `filepath.Clean`, then without the leading `/`.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if pattern.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        Ignore::parse(".dockerignore", rules.as_bytes()).unwrap().excludes(Path::new(path))
    }

    #[test]
    fn the_last_match_wins_and_parents_cover_their_children() {
        for (rules, path, expected) in [
            ("docs", "docs/a/b", true),
            ("docs\n!docs/keep", "docs/keep/x", false),
            ("docs\n!docs/keep\ndocs/keep/x", "docs/keep/x", true),
            ("*\n!src", "src/main.c", false),
            ("*\n!src", "other", true),
            ("/a/", "a/b", true),
            ("*.md", "a.md", true),
            ("*.md", "x/a.md", false),
            ("**/*.md", "x/a.md", true),
            ("*/b", "a/b/c", true),
            ("  a  ", "a", true),
            (" # a", "# a", true),
            ("#a", "#a", false),
            ("\u{feff}a", "a", true),
            ("a/../b", "b", true),
            ("! a\na", "a", true),
            ("[^a]x", "bx", true),
            (".", "a", false),
            ("**.md", "x/y/a.md", true),
            ("/!a\n", "a", false),
            ("*\n/!a", "a", false),
            ("*\n!!a", "!a", false),
            ("\\!a", "!a", true),
            ("a /", "a", true),
            ("a\n!a/b\na/b/c\n!a", "a/b/c/d", false),
            ("!a\na/b\n!a/b/f", "a/b/f", false),
            ("!a\na/b\n!a/b/f", "a/b/g", true),
            ("*\n!a", "b/a", true),
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn what_was_asked_before_changes_no_answer() {
        let ignore = Ignore::parse(".dockerignore", b"a\n!a/b\na/b/c\n").unwrap();
        let paths = ["a", "a/b", "a/b/c", "a/b/d", "a/e", "b", "a/b/c/x", "a/b/x/c"];
        let fresh = |path: &str| excluded("a\n!a/b\na/b/c\n", path);
        for (first, second) in paths.iter().flat_map(|a| paths.iter().map(move |b| (a, b))) {
            assert_eq!(ignore.excludes(Path::new(first)), fresh(first), "{first}");
            assert_eq!(ignore.excludes(Path::new(second)), fresh(second), "{second} after {first}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_told_with_its_line() {
        let message = Ignore::parse(".dockerignore", b"a\n!\n").unwrap_err().to_string();
        assert!(message.starts_with(".dockerignore line 2: !: "), "{message}");
        assert!(Ignore::parse(".dockerignore", b"[a\n").is_err());
    }
}
