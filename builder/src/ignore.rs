//! .dockerignore, with the rules of moby's patternmatcher: the last match wins, a match on a parent covers what is below.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::glob::Pattern;

/// What stays out of the build context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

/// Which rules match a path or one of its parents, and whether the path stays out by that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    rules: Vec<bool>,
    /// It stays out.
    pub(crate) excluded: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    includes: bool,
}

impl Ignore {
    /// Reads a .dockerignore; `name` is what its errors call it.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let mut rules = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            if raw.starts_with('#') || raw.trim().is_empty() {
                continue;
            }
            let trimmed = raw.trim();
            let (includes, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            let cleaned = clean(pattern);
            let Some(compiled) = Pattern::ignore(&cleaned).filter(|_| !pattern.is_empty()) else {
                let line = index.saturating_add(1);
                let reason = "this is no pattern: close its [ and write something after ! and \\";
                return Err(Error::Invalid(format!("{name} line {line}: {trimmed}: {reason}")));
            };
            rules.push(Rule { pattern: compiled, includes });
        }
        Ok(Self { rules })
    }

    /// Whether this path, relative to the context, stays out.
    pub(crate) fn excludes(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let mut excluded = false;
        for rule in &self.rules {
            if rule.includes == excluded && covers(&rule.pattern, &text) {
                excluded = !rule.includes;
            }
        }
        excluded
    }

    /// What the rules say of a path of which nothing is known yet.
    pub(crate) fn matched(&self, path: &Path) -> Matched {
        let mut so_far = PathBuf::new();
        let mut matched = Matched::default();
        for name in path {
            so_far.push(name);
            matched = self.below(&matched, &so_far);
        }
        matched
    }

    /// What the rules say of a path, by what they say of its parent: so that the time does not grow with the depth.
    pub(crate) fn below(&self, parent: &Matched, path: &Path) -> Matched {
        let text = path.to_string_lossy();
        let mut matched = Matched::default();
        for (at, rule) in self.rules.iter().enumerate() {
            let matches = parent.rules.get(at) == Some(&true) || rule.pattern.matches(&text);
            if matches {
                matched.excluded = !rule.includes;
            }
            matched.rules.push(matches);
        }
        matched
    }

    /// Whether something below an excluded directory may come back in.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.includes)
    }
}

fn covers(pattern: &Pattern, path: &str) -> bool {
    let parents = path.char_indices().filter(|(_, c)| *c == '/').filter_map(|(at, _)| path.get(..at));
    pattern.matches(path) || parents.into_iter().any(|parent| pattern.matches(parent))
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
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} {path}");
            let ignore = Ignore::parse(".dockerignore", rules.as_bytes()).unwrap();
            assert_eq!(ignore.matched(Path::new(path)).excluded, expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_told_with_its_line() {
        let message = Ignore::parse(".dockerignore", b"a\n!\n").unwrap_err().to_string();
        assert!(message.starts_with(".dockerignore line 2: !: "), "{message}");
        assert!(Ignore::parse(".dockerignore", b"[a\n").is_err());
    }
}
