//! Heredocs: `<<NAME` in a RUN, COPY or ADD, and the lines below it up to one that says NAME.

use super::words;
use crate::error::{Error, Result};

/// One heredoc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word as it stands in the instruction.
    pub word: String,
    /// The name that ends it, and that a file made of it has.
    pub name: String,
    /// `<<-`: tabs at the beginnings of its lines fall away.
    pub strip: bool,
    /// The name has no quotes: variables in the text are replaced.
    pub expand: bool,
    /// The lines as they are, each with its end.
    pub body: String,
}

impl Heredoc {
    /// The lines, without leading tabs where they fall away.
    #[must_use]
    pub fn text(&self) -> String {
        if !self.strip {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Takes the lines up to the one that ends it.
    pub(super) fn read<'a>(&mut self, number: usize, lines: impl Iterator<Item = &'a str>) -> Result<()> {
        for line in lines {
            let said = if self.strip { line.trim_start_matches('\t') } else { line };
            if said == self.name {
                return Ok(());
            }
            self.body.push_str(line);
            self.body.push('\n');
        }
        let name = &self.name;
        Err(Error::dockerfile(number, format!("<<{name} is not closed: write {name} alone on a line below")))
    }
}

/// The heredocs that an instruction opens, their bodies yet to be read.
pub(super) fn opened(text: &str, escape: char) -> Vec<Heredoc> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        let kept = rest.trim_start();
        let is_nested = kept.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("ONBUILD"));
        return if is_nested { Vec::new() } else { opened(kept, escape) };
    }
    let takes = ["RUN", "COPY", "ADD"].iter().any(|known| keyword.eq_ignore_ascii_case(known));
    let arguments = words::after_flags(rest, escape);
    if !takes || (arguments.starts_with('[') && words::is_json(arguments)) {
        return Vec::new();
    }
    split(arguments, escape).into_iter().filter_map(of_word).collect()
}

/// Words divided by blanks, where a `<<` and the name behind its blanks are one word.
pub(super) fn split(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut end = words::word_end(rest, escape);
        let (word, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let name = tail.trim_start_matches([' ', '\t']);
        if is_mark(word) && !name.is_empty() {
            let blanks = tail.len().saturating_sub(name.len());
            end = end.saturating_add(blanks).saturating_add(words::word_end(name, escape));
        }
        let (word, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        words.push(word);
        rest = tail.trim_start();
    }
    words
}

/// `<<` alone, a number of a descriptor before it.
fn is_mark(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()) == "<<"
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, a number of a descriptor before it, blanks behind the `<<`.
fn of_word(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip, quoted) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest.trim_start()),
    };
    let name: String = quoted.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    if name.is_empty() || name.contains(['<', '/']) || matches!(name.as_str(), "." | "..") {
        return None;
    }
    let expand = !quoted.contains(['"', '\'']);
    Some(Heredoc { word: word.to_owned(), name, strip, expand, body: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, bool, bool)> {
        opened(text, '\\').into_iter().map(|found| (found.name, found.strip, found.expand)).collect()
    }

    #[test]
    fn only_words_that_open_one_are_taken() {
        assert_eq!(names("RUN <<EOF"), [("EOF".into(), false, true)]);
        assert_eq!(
            names("run cat <<-'A B' 3<<\"C\" >x"),
            [("A B".into(), true, false), ("C".into(), false, false)]
        );
        assert_eq!(names("RUN cat << EOF >x"), [("EOF".into(), false, true)]);
        assert_eq!(names("RUN [ -e a ] && cat <<\\E"), [("E".into(), false, true)]);
        assert_eq!(names("onbuild  Run <<E"), [("E".into(), false, true)]);
        for none in [
            "RUN echo $((1<<2))",
            "RUN a <<< b",
            "RUN [\"<<EOF\"]",
            "ENV a <<EOF",
            "RUN echo '<<EOF'",
            "RUN a <<- b",
            "RUN << a/b",
            "RUN a <<",
            "ONBUILD ONBUILD RUN <<b",
        ] {
            assert_eq!(names(none), [], "{none}");
        }
    }

    #[test]
    fn tabs_fall_away_only_where_that_is_asked_for() {
        let mut kept = Heredoc { name: "E".into(), ..Heredoc::default() };
        kept.read(1, ["\ta", "\tE", "E", "rest"].into_iter()).unwrap();
        assert_eq!(kept.text(), "\ta\n\tE\n");
        let mut cut = Heredoc { name: "E".into(), strip: true, ..Heredoc::default() };
        cut.read(1, ["\ta", "\tE"].into_iter()).unwrap();
        assert_eq!((cut.text().as_str(), cut.body.as_str()), ("a\n", "\ta\n"));
        let refused = cut.read(7, ["x"].into_iter()).unwrap_err().to_string();
        assert_eq!(refused, "Dockerfile line 7: <<E is not closed: write E alone on a line below");
    }
}
