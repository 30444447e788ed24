//! Three dialects of wildcards on one matcher: Go's `filepath.Match` (COPY), moby's patternmatcher (.dockerignore), and
//! the shell's (`${v#pattern}`).

use std::str::Chars;

/// A part of a compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// One character that is no `/`.
    One,
    /// Any one character.
    Any,
    /// One of a class; the flag turns it around.
    Class(bool, Vec<(char, char)>),
    /// Any characters but `/`, also none.
    Star,
    /// Any characters, also none.
    All,
    /// Nothing, or anything that ends with `/`.
    Directories,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    /// Go's `filepath.Match`, for one component of a path. None when the pattern is malformed.
    pub(crate) fn component(text: &str) -> Option<Self> {
        Self::parse(text, |_| Token::Star)
    }

    /// moby's patternmatcher, for a whole path. None when the pattern is malformed.
    pub(crate) fn ignore(text: &str) -> Option<Self> {
        Self::parse(text, |rest| {
            if !rest.as_str().starts_with('*') {
                return Token::Star;
            }
            rest.next();
            if rest.as_str().starts_with('/') {
                rest.next();
            }
            if rest.as_str().is_empty() { Token::All } else { Token::Directories }
        })
    }

    /// `star` says what a star means, of which it sees what follows.
    fn parse(text: &str, star: impl Fn(&mut Chars<'_>) -> Token) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => star(&mut chars),
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Literal(chars.next()?),
                c => Token::Literal(c),
            });
        }
        Some(Self { tokens })
    }

    /// Whether the whole text matches. Time is bounded by the product of both lengths.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let mut states = vec![false; self.tokens.len().saturating_add(1)];
        self.reach(&mut states, 0);
        let mut after = states.clone();
        for c in text.chars() {
            after.fill(false);
            let live = self.tokens.iter().enumerate().filter(|(at, _)| states.get(*at) == Some(&true));
            for (at, token) in live {
                let next = at.saturating_add(1);
                match token {
                    Token::Star if c != '/' => self.reach(&mut after, at),
                    Token::All => self.reach(&mut after, at),
                    Token::Directories => {
                        mark(&mut after, at);
                        if c == '/' {
                            self.reach(&mut after, next);
                        }
                    }
                    token if token.takes(c) => self.reach(&mut after, next),
                    _ => {}
                }
            }
            std::mem::swap(&mut states, &mut after);
        }
        states.last() == Some(&true)
    }

    /// Marks a position and those that are reached from it without a character.
    fn reach(&self, states: &mut [bool], from: usize) {
        let mut at = from;
        mark(states, at);
        while let Some(Token::Star | Token::All | Token::Directories) = self.tokens.get(at) {
            at = at.saturating_add(1);
            mark(states, at);
        }
    }
}

fn mark(states: &mut [bool], at: usize) {
    if let Some(state) = states.get_mut(at) {
        *state = true;
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(wanted) => *wanted == c,
            Self::One => c != '/',
            Self::Any => true,
            Self::Class(negated, ranges) => {
                c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
            Self::Star | Self::All | Self::Directories => false,
        }
    }
}

fn class(chars: &mut Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    loop {
        let from = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class(negated, ranges)),
            ']' | '-' => return None,
            '\\' => chars.next()?,
            c => c,
        };
        let mut to = from;
        if chars.as_str().starts_with('-') {
            chars.next();
            to = match chars.next()? {
                '\\' => chars.next()?,
                ']' | '-' => return None,
                c => c,
            };
        }
        ranges.push((from, to));
    }
}

/// The shell's patterns in `${v#p}`: `*`, `?` and escapes; `/` is nothing special.
pub(crate) fn shell(pattern: &str, text: &str) -> bool {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::All,
            '?' => Token::Any,
            '\\' => Token::Literal(chars.next().unwrap_or('\\')),
            c => Token::Literal(c),
        });
    }
    Pattern { tokens }.matches(text)
}

/// Whether a path has wildcards that are not escaped.
pub(crate) fn is_wild(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_component_matches_as_go_says() {
        for (pattern, text, expected) in [
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*/b", "a/b", true),
            ("*", "a/b", false),
            ("a?", "ab", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*.t?t", "a.b.txt", true),
        ] {
            let compiled = Pattern::component(pattern).unwrap();
            assert_eq!(compiled.matches(text), expected, "{pattern} {text}");
        }
        for bad in ["[", "[]a]", "a\\", "[a-]", "[-a]"] {
            assert!(Pattern::component(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn two_stars_cross_directories() {
        for (pattern, text, expected) in [
            ("**", "a/b", true),
            ("**/b", "b", true),
            ("**/b", "x/y/b", true),
            ("**/b", "xb", false),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/x/y/c", true),
            ("a/**/c", "a/xc", false),
            ("**/*.go", "a/b.go", true),
            ("a*", "a/b", false),
        ] {
            let compiled = Pattern::ignore(pattern).unwrap();
            assert_eq!(compiled.matches(text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[-a\\[\\]^*?/\\\\]{0,20}", text in "[a/]{0,20}") {
            if let Some(pattern) = Pattern::component(&pattern) { pattern.matches(&text); }
            if let Some(pattern) = Pattern::ignore(&pattern) { pattern.matches(&text); }
            shell(&pattern, &text);
        }
    }
}
