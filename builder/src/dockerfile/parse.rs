//! Logical lines to instructions. What this builder does not do is refused by its name.

use super::heredoc::{self, Heredoc};
use super::instruction::{Command, Copy, Dockerfile, From, Healthcheck, Instruction, Stage, Step};
use super::lex::{self, Line};
use super::words;
use crate::error::{Error, Result};

/// Parses a Dockerfile.
///
/// # Errors
/// [`Error::Dockerfile`] with the line and what to do; never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Dockerfile> {
    let lexed = lex::lines(bytes)?;
    let mut dockerfile = Dockerfile { escape: lexed.escape, args: Vec::new(), stages: Vec::new() };
    for line in &lexed.lines {
        let parts = Parts::of(line, lexed.escape)?;
        match (parts.keyword.as_str(), dockerfile.stages.last_mut()) {
            ("FROM", _) => {
                let from = parts.from()?;
                dockerfile.stages.push(Stage {
                    line: line.number,
                    text: parts.shown(),
                    from,
                    steps: Vec::new(),
                });
            }
            ("ARG", None) => {
                let args = parts.args()?.into_iter();
                dockerfile.args.extend(args.map(|(name, value)| (line.number, name, value)));
            }
            (keyword, None) => {
                let reason = format!("{keyword} stands before the first FROM: begin with FROM (or ARG)");
                return Err(Error::dockerfile(line.number, reason));
            }
            (_, Some(stage)) => {
                let instruction = parts.instruction()?;
                stage.steps.push(Step { line: line.number, text: parts.shown(), instruction });
            }
        }
    }
    if dockerfile.stages.is_empty() {
        return Err(Error::Invalid("the Dockerfile has no FROM: an image begins with one".into()));
    }
    Ok(dockerfile)
}

/// Parses an instruction that ONBUILD has kept, in an image or in a stage. The line is that of the FROM that it stands
/// for. Its escapes are `\`, whatever the file's are that meets it.
pub(crate) fn trigger(line: usize, text: &str) -> Result<Step> {
    let lexed = lex::lines(text.as_bytes()).map_err(|error| match error {
        Error::Dockerfile { reason, .. } => Error::dockerfile(line, format!("ONBUILD {text}: {reason}")),
        other => other,
    })?;
    let [logical] = lexed.lines.as_slice() else {
        return Err(Error::dockerfile(line, format!("ONBUILD {text}: it must be one instruction")));
    };
    let logical = Line { number: line, ..logical.clone() };
    let parts = Parts::of(&logical, lexed.escape)?;
    if matches!(parts.keyword.as_str(), "FROM" | "MAINTAINER" | "ONBUILD") {
        return Err(Error::dockerfile(line, format!("ONBUILD {} can't be kept for later", parts.keyword)));
    }
    Ok(Step { line, text: parts.shown(), instruction: parts.instruction()? })
}

/// A line taken apart.
struct Parts<'a> {
    line: usize,
    escape: char,
    keyword: String,
    flags: Vec<(String, String)>,
    rest: &'a str,
    whole: &'a str,
    heredocs: &'a [Heredoc],
}

impl<'a> Parts<'a> {
    fn of(line: &'a Line, escape: char) -> Result<Self> {
        let (keyword, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
        let keyword = keyword.to_ascii_uppercase();
        let rest = rest.trim();
        if rest.is_empty() {
            let reason = if is_known(&keyword) {
                format!("{keyword} has no arguments: write what it is for, or remove the line")
            } else {
                unknown(&keyword)
            };
            return Err(Error::dockerfile(line.number, reason));
        }
        let (flags, after) = words::flags(line.number, rest, escape)?;
        let heredocs = &line.heredocs;
        Ok(Self { line: line.number, escape, keyword, flags, rest: after, whole: rest, heredocs })
    }

    fn error<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(Error::dockerfile(self.line, reason))
    }

    fn shown(&self) -> String {
        let blanks: Vec<&str> = self.whole.split_whitespace().collect();
        format!("{} {}", self.keyword, blanks.join(" "))
    }

    fn instruction(&self) -> Result<Instruction> {
        let known = match self.keyword.as_str() {
            "COPY" => return self.copy().map(Instruction::Copy),
            "ADD" => return self.add().map(Instruction::Add),
            "RUN" => return self.run().map(Instruction::Run),
            "HEALTHCHECK" => return self.healthcheck().map(Instruction::Healthcheck),
            "ONBUILD" => {
                let bodies = self.heredocs.iter().map(|found| format!("\n{}{}", found.body, found.name));
                let text: String = [self.whole.to_owned()].into_iter().chain(bodies).collect();
                trigger(self.line, &text)?;
                return Ok(Instruction::OnBuild(text));
            }
            known => known,
        };
        if let Some((name, _)) = self.flags.first() {
            return self.error(format!("{known} has no flag --{name}: remove it"));
        }
        Ok(match known {
            "ARG" => Instruction::Arg(self.args()?),
            "CMD" => Instruction::Cmd(self.command()?),
            "ENTRYPOINT" => Instruction::Entrypoint(self.command()?),
            "ENV" => Instruction::Env(words::pairs(self.line, known, self.rest, self.escape)?),
            "EXPOSE" => Instruction::Expose(self.rest.split_whitespace().map(str::to_owned).collect()),
            "LABEL" => Instruction::Label(words::pairs(self.line, known, self.rest, self.escape)?),
            "MAINTAINER" => Instruction::Maintainer(self.rest.to_owned()),
            "SHELL" => Instruction::Shell(self.shell()?),
            "STOPSIGNAL" => Instruction::StopSignal(self.rest.to_owned()),
            "USER" => Instruction::User(self.rest.to_owned()),
            "VOLUME" => Instruction::Volume(self.volumes()?),
            "WORKDIR" => Instruction::Workdir(self.rest.to_owned()),
            other => return self.error(unknown(other)),
        })
    }

    fn from(&self) -> Result<From> {
        let mut platform = None;
        for (name, value) in &self.flags {
            match name.as_str() {
                "platform" => platform = Some(value.clone()),
                other => return self.error(format!("FROM has no flag --{other}: only --platform")),
            }
        }
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        let (base, name) = match words.as_slice() {
            [base] => (*base, None),
            [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (*base, Some(name.to_ascii_lowercase())),
            _ => return self.error("expected FROM image, or FROM image AS name"),
        };
        if let Some(name) = name.as_deref().filter(|name| !is_stage_name(name)) {
            let reason = format!(
                "the stage name {name:?} can't be used: begin with a letter, then letters, digits, - _ ."
            );
            return self.error(reason);
        }
        Ok(From { platform, base: base.to_owned(), name })
    }

    fn args(&self) -> Result<Vec<(String, Option<String>)>> {
        let arg = |word: &str| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word, None),
            };
            if name.is_empty() {
                return self.error(format!("{word:?} is no ARG: write name or name=default"));
            }
            Ok((name.to_owned(), value))
        };
        words::quoted(self.rest, self.escape).into_iter().map(arg).collect()
    }

    fn copy(&self) -> Result<Copy> {
        let (mut from, mut chown, mut chmod) = (None, None, None);
        for (name, value) in &self.flags {
            let slot = match name.as_str() {
                "from" if self.keyword == "COPY" => &mut from,
                "chown" => &mut chown,
                "chmod" => &mut chmod,
                "link" | "parents" | "exclude" | "checksum" | "keep-git-dir" | "unpack" => {
                    return self.error(format!("{} --{name} is not supported yet: remove it", self.keyword));
                }
                other => return self.error(format!("{} has no flag --{other}: remove it", self.keyword)),
            };
            if value.is_empty() {
                return self.error(format!("--{name} has no value: write --{name}=…"));
            }
            *slot = Some(value.clone());
        }
        let mut words = match words::json(self.line, self.rest)? {
            Some(words) => words,
            None => heredoc::split(self.rest, self.escape).into_iter().map(str::to_owned).collect(),
        };
        let destination = words.pop().unwrap_or_default();
        let of_heredoc = |word: &String| self.heredocs.iter().any(|heredoc| heredoc.word == *word);
        if self.heredocs.iter().any(|heredoc| heredoc.word == destination) {
            return self.error(format!("expected {} <<NAME destination", self.keyword));
        }
        words.retain(|word| !of_heredoc(word));
        let inline = self.heredocs.to_vec();
        if (words.is_empty() && inline.is_empty())
            || words.iter().any(String::is_empty)
            || destination.is_empty()
        {
            return self.error(format!("expected {} source … destination", self.keyword));
        }
        Ok(Copy { from, chown, chmod, sources: words, inline, destination })
    }

    fn add(&self) -> Result<Copy> {
        let copy = self.copy()?;
        for source in &copy.sources {
            if source.starts_with("git@") || source.contains("://") {
                return self
                    .error(format!("ADD {source} is not supported yet: fetch it before and use COPY"));
            }
        }
        Ok(copy)
    }

    fn run(&self) -> Result<Command> {
        for (name, value) in &self.flags {
            match (name.as_str(), value.as_str()) {
                ("network", "default") | ("security", "sandbox") => {}
                ("network" | "security" | "mount", _) => {
                    return self.error(format!("RUN --{name}={value} is not supported yet: remove it"));
                }
                (other, _) => return self.error(format!("RUN has no flag --{other}: remove it")),
            }
        }
        let [first, ..] = self.heredocs else { return self.command() };
        if self.rest != first.word {
            // The shell reads them as it reads its own.
            let bodies = self.heredocs.iter().map(|found| format!("\n{}{}", found.body, found.name));
            return Ok(Command::Shell([self.rest.to_owned()].into_iter().chain(bodies).collect()));
        }
        let text = first.text();
        if text.starts_with("#!") {
            return Ok(Command::Script { name: first.name.clone(), text });
        }
        Ok(Command::Shell(text))
    }

    fn healthcheck(&self) -> Result<Healthcheck> {
        let mut found = Healthcheck::default();
        for (name, value) in &self.flags {
            let key = match name.as_str() {
                "interval" => "Interval",
                "timeout" => "Timeout",
                "start-period" => "StartPeriod",
                "start-interval" => "StartInterval",
                "retries" => {
                    let retries = value.parse().ok().filter(|retries| *retries > 0);
                    let Some(retries) = retries else {
                        return self.error(format!("--retries={value} is no number from 1 on"));
                    };
                    found.retries = Some(retries);
                    continue;
                }
                other => return self.error(format!("HEALTHCHECK has no flag --{other}: remove it")),
            };
            let Some(nanos) = words::duration(value) else {
                return self.error(format!("--{name}={value} is no duration: write 30s, or 1m30s"));
            };
            found.durations.push((key, nanos));
        }
        let (kind, command) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
        found.test = match (kind.to_ascii_uppercase().as_str(), words::json(self.line, command.trim())?) {
            ("NONE", _) if command.is_empty() && self.flags.is_empty() => vec!["NONE".to_owned()],
            ("CMD", Some(words)) if !words.is_empty() => [vec!["CMD".to_owned()], words].concat(),
            ("CMD", None) if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.trim().to_owned()],
            _ => return self.error("expected HEALTHCHECK CMD command, or HEALTHCHECK NONE"),
        };
        Ok(found)
    }

    fn command(&self) -> Result<Command> {
        match words::json(self.line, self.rest)? {
            Some(words) => Ok(Command::Exec(words)),
            None => Ok(Command::Shell(self.rest.to_owned())),
        }
    }

    fn shell(&self) -> Result<Vec<String>> {
        match words::json(self.line, self.rest)? {
            Some(words) if !words.is_empty() => Ok(words),
            _ => self.error("SHELL wants its JSON form: SHELL [\"/bin/sh\", \"-c\"]"),
        }
    }

    fn volumes(&self) -> Result<Vec<String>> {
        let paths = match words::json(self.line, self.rest)? {
            Some(words) => words,
            None => self.rest.split_whitespace().map(str::to_owned).collect(),
        };
        if paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
            return self.error("VOLUME has an empty path: write VOLUME /path");
        }
        Ok(paths)
    }
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn is_known(keyword: &str) -> bool {
    KEYWORDS.contains(&keyword)
}

fn unknown(keyword: &str) -> String {
    let shown: String = keyword.chars().take(40).collect();
    let near = KEYWORDS.iter().find(|known| is_near(known, &shown));
    match near {
        Some(known) => format!("{shown} is no instruction: did you mean {known}?"),
        None => format!("{shown} is no instruction: is a \\ missing at the end of the line before?"),
    }
}

/// Whether two words differ by one letter: another, one more, one less.
fn is_near(known: &str, said: &str) -> bool {
    let same = |(a, b): &(char, char)| a == b;
    let (long, short) = (known.len().max(said.len()), known.len().min(said.len()));
    let front = known.chars().zip(said.chars()).take_while(same).count();
    let back = known.chars().rev().zip(said.chars().rev()).take_while(same).count();
    short > 2 && front.saturating_add(back).min(short).saturating_add(1) >= long
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests;
