//! The filters of lists: labels, patterns, the newest.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::error::{Error, Result};

/// A map of words of the form `key=value`; `what` names them in an error.
pub(crate) fn pairs(words: &[String], what: &str) -> Result<BTreeMap<String, String>> {
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').filter(|(key, _)| !key.is_empty())?;
        Some((key.to_owned(), value.to_owned()))
    };
    words
        .iter()
        .map(|word| {
            pair(word).ok_or_else(|| Error::Usage(format!("{what} {word} is not of the form key=value")))
        })
        .collect()
}

/// A regular expression; none fits every text.
#[derive(Debug)]
pub(crate) struct Pattern(Option<Regex>);

impl Pattern {
    pub(crate) fn new(text: Option<&str>) -> Result<Self> {
        let compile = |text: &str| {
            Regex::new(text).map_err(|error| Error::Usage(format!("pattern {text} does not parse: {error}")))
        };
        Ok(Self(text.map(compile).transpose()?))
    }

    pub(crate) fn fits(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// The items from the newest to the oldest, limited to `count`; 0 is no limit.
pub(crate) fn newest<T>(mut items: Vec<T>, created: impl Fn(&T) -> i64, count: usize) -> Vec<T> {
    items.sort_by_key(|item| std::cmp::Reverse(created(item)));
    if count > 0 {
        items.truncate(count);
    }
    items
}

/// The limit that `--latest` and `--last` set; 0 is none.
pub(crate) fn count(latest: bool, last: Option<usize>) -> usize {
    last.unwrap_or(usize::from(latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_later_equal_signs() {
        assert_eq!(pairs(&["a=b=c".to_owned()], "label").unwrap().get("a").unwrap(), "b=c");
        assert!(pairs(&["a".to_owned()], "label").is_err());
        assert!(pairs(&["=a".to_owned()], "label").is_err());
    }

    #[test]
    fn patterns_match_anywhere() {
        assert!(Pattern::new(Some("^we")).unwrap().fits("web"));
        assert!(!Pattern::new(Some("x")).unwrap().fits("web"));
        assert!(Pattern::new(None).unwrap().fits(""));
        assert!(Pattern::new(Some("(")).is_err());
    }

    #[test]
    fn the_newest_come_first() {
        assert_eq!(newest(vec![1, 3, 2], |item| *item, 2), [3, 2]);
        assert_eq!(newest(vec![1, 3, 2], |item| *item, 0), [3, 2, 1]);
    }
}
