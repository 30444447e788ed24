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
    /// One of a class.
    Class {
        /// It is one of all others.
        negated: bool,
        /// Whether it may be a `/`.
        slash: bool,
        /// From, and to including.
        ranges: Vec<(char, char)>,
    },
    /// Any characters but `/`, also none.
    Star,
    /// Any characters, also none.
    All,
    /// Nothing, or anything that ends with `/`.
    Directories,
    /// The beginning of the text.
    Start,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    /// Go's `filepath.Match`, for one component of a path. None when the pattern is malformed.
    pub(crate) fn component(text: &str) -> Option<Self> {
        Self::parse(text, &Token::Literal('^'), |_| Token::Star)
    }

    /// moby's patternmatcher, for a whole path. None when the pattern is malformed.
    ///
    /// `**` is not one thing there: at the end it is anything; in front of a text without any other special character it
    /// is anything too, so that `**.md` takes `a.md` and `d/a.md`; elsewhere it is directories, also none.
    pub(crate) fn ignore(text: &str) -> Option<Self> {
        let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
        let mut is_first = true;
        // moby makes a regular expression of a pattern with wildcards, and leaves the ^ in it.
        let is_plain = |part: Option<&str>| part.is_some_and(|part| !part.contains(is_special));
        let is_text =
            [Some(text), text.strip_prefix("**"), text.strip_suffix("**")].into_iter().any(is_plain);
        let caret = if is_text { Token::Literal('^') } else { Token::Start };
        let mut pattern = Self::parse(text, &caret, |rest| {
            let is_first =
                std::mem::take(&mut is_first) && rest.as_str().len().saturating_add(1) == text.len();
            if !rest.as_str().starts_with('*') {
                return Token::Star;
            }
            rest.next();
            let has_slash = rest.as_str().starts_with('/');
            if has_slash {
                rest.next();
            }
            let is_plain = is_first && !has_slash && !rest.as_str().contains(is_special);
            if rest.as_str().is_empty() || is_plain { Token::All } else { Token::Directories }
        })?;
        for token in &mut pattern.tokens {
            if let Token::Class { slash, .. } = token {
                *slash = true;
            }
        }
        Some(pattern)
    }

    /// `star` says what a star means, of which it sees what follows.
    fn parse(text: &str, caret: &Token, mut star: impl FnMut(&mut Chars<'_>) -> Token) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => star(&mut chars),
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Literal(chars.next()?),
                '^' => caret.clone(),
                c => Token::Literal(c),
            });
        }
        // Stars in a row are one: what they cost is bounded by what they mean.
        tokens.dedup_by(|after, before| *after == Token::Star && *before == Token::Star);
        Some(Self { tokens })
    }

    /// Whether the whole text matches. Time is bounded by the product of both lengths.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let mut states = vec![false; self.tokens.len().saturating_add(1)];
        self.begin(&mut states);
        let mut after = states.clone();
        for c in text.chars() {
            self.step(&states, c, &mut after);
            std::mem::swap(&mut states, &mut after);
        }
        states.last() == Some(&true)
    }

    /// The positions that are reached by a character.
    fn step(&self, states: &[bool], c: char, after: &mut [bool]) {
        after.fill(false);
        let live = self.tokens.iter().enumerate().filter(|(at, _)| states.get(*at) == Some(&true));
        for (at, token) in live {
            let next = at.saturating_add(1);
            match token {
                Token::Star if c != '/' => self.reach(after, at),
                Token::All => self.reach(after, at),
                Token::Directories => {
                    mark(after, at);
                    if c == '/' {
                        self.reach(after, next);
                    }
                }
                token if token.takes(c) => self.reach(after, next),
                _ => {}
            }
        }
    }

    /// Marks the positions before the first character.
    fn begin(&self, states: &mut [bool]) {
        self.reach(states, 0);
        for (at, token) in self.tokens.iter().enumerate() {
            if *token == Token::Start && states.get(at) == Some(&true) {
                self.reach(states, at.saturating_add(1));
            }
        }
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
            Self::Class { negated, slash, ranges } => {
                let is_listed = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                (*slash || c != '/') && is_listed != *negated
            }
            Self::Star | Self::All | Self::Directories | Self::Start => false,
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
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, slash: false, ranges }),
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

impl Pattern {
    /// The shell's patterns in `${v#p}`: `*`, `?` and escapes; `/` is nothing special.
    pub(crate) fn shell(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::All,
                '?' => Token::Any,
                '\\' => Token::Literal(chars.next().unwrap_or('\\')),
                c => Token::Literal(c),
            });
        }
        tokens.dedup_by(|after, before| *after == Token::All && *before == Token::All);
        Self { tokens }
    }

    /// The same from its end to its beginning. Only a shell's pattern means the same then.
    pub(crate) fn reversed(mut self) -> Self {
        self.tokens.reverse();
        self
    }

    /// Where the shortest and the longest match that begins with the text ends, in characters; and whether more text
    /// could have made a match. Time is bounded by the product of both lengths.
    pub(crate) fn begins(&self, text: impl Iterator<Item = char>) -> Begins {
        let mut states = vec![false; self.tokens.len().saturating_add(1)];
        self.reach(&mut states, 0);
        let mut after = states.clone();
        let mut found = Begins { shortest: None, longest: None, is_open: true };
        for (at, c) in text.map(Some).chain([None]).enumerate() {
            if states.last() == Some(&true) {
                found.shortest.get_or_insert(at);
                found.longest = Some(at);
            }
            let Some(c) = c else { break };
            self.step(&states, c, &mut after);
            std::mem::swap(&mut states, &mut after);
            if !states.contains(&true) {
                found.is_open = false;
                break;
            }
        }
        found
    }
}

/// Matches at the beginning of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begins {
    /// The end of the shortest.
    pub(crate) shortest: Option<usize>,
    /// The end of the longest.
    pub(crate) longest: Option<usize>,
    /// The text ended before the pattern could be ruled out.
    pub(crate) is_open: bool,
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
            ("**.md", "a.md", true),
            ("**.md", "x/a.md", true),
            ("**.md", ".md", true),
            ("**.md", "a.mdx", false),
            ("**a.md*", "xa.md", false),
            ("**a.md*", "x/a.mdx", true),
            ("**", "a", true),
            ("***", "a/b", true),
            ("a/**", "a", false),
            ("a**", "ab/c", true),
            ("a**b", "axb", false),
            ("a**b", "a/x/b", true),
            ("a**b", "ax/b", true),
            ("a*/**", "ab/c/d", true),
            ("a[^x]b", "a/b", true),
            ("^a*", "ab", true),
            ("^a*", "^ab", false),
            ("a^*", "a^b", false),
            ("**^a", "x^a", true),
            ("a^b", "a^b", true),
            ("\\^a*", "^ab", true),
        ] {
            let compiled = Pattern::ignore(pattern).unwrap();
            assert_eq!(compiled.matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_their_product_with_the_text() {
        let text = "a/".repeat(400);
        for pattern in ["*a".repeat(800), "**/a".repeat(401), "*".repeat(800) + "b"] {
            assert!(!Pattern::ignore(&pattern).unwrap().matches(&text));
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[-a\\[\\]^*?/\\\\]{0,20}", text in "[a/]{0,20}") {
            if let Some(pattern) = Pattern::component(&pattern) { pattern.matches(&text); }
            if let Some(pattern) = Pattern::ignore(&pattern) { pattern.matches(&text); }
            Pattern::shell(&pattern).begins(text.chars());
        }
    }
}
