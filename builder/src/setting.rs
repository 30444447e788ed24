//! The instructions that change the image's settings alone.

use serde_json::Value;

use crate::build::Build;
use crate::dockerfile::{Healthcheck, Instruction, Step};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::stage::State;
use crate::step::argv;

impl Build<'_> {
    /// An instruction that changes settings alone.
    pub(crate) fn set(&mut self, state: &mut State, escape: char, step: &Step) -> Result<()> {
        let expand = |state: &State, word: &String| state.expand(step.line, escape, word);
        let expand_all = |state: &State, words: &[String]| {
            words.iter().map(|word| expand(state, word)).collect::<Result<Vec<_>>>()
        };
        let expand_pairs = |state: &State, pairs: &[(String, String)]| {
            let pair = |(name, value): &(String, String)| Ok((expand(state, name)?, expand(state, value)?));
            pairs.iter().map(pair).collect::<Result<Vec<_>>>()
        };
        match &step.instruction {
            Instruction::Arg(args) => self.declare(state, escape, (step.line, args))?,
            Instruction::Env(pairs) => state.set_env(&expand_pairs(state, pairs)?)?,
            Instruction::Label(pairs) => state.set_labels(expand_pairs(state, pairs)?),
            Instruction::Cmd(command) => {
                state.config.set_cmd(Some(argv(state, command)));
                state.own_cmd = true;
            }
            Instruction::Entrypoint(command) => {
                state.config.set_entrypoint(Some(argv(state, command)));
                if !state.own_cmd {
                    state.config.set_cmd(None);
                }
            }
            Instruction::Expose(ports) => {
                let ports = expand_all(state, ports)?;
                expose(state, step.line, &ports)?;
            }
            Instruction::Volume(paths) => {
                let paths = expand_all(state, paths)?;
                let volumes = add(state.config.volumes(), paths);
                state.config.set_volumes(Some(volumes));
            }
            Instruction::User(user) => {
                let user = expand(state, user)?;
                state.config.set_user(Some(user));
            }
            Instruction::StopSignal(signal) => {
                let signal = expand(state, signal)?;
                if slipway_runtime::signal::parse(&signal).is_none() {
                    let reason =
                        format!("STOPSIGNAL {signal:?} is no signal: write SIGTERM, 15 or SIGRTMIN+3");
                    return Err(Error::dockerfile(step.line, reason));
                }
                state.config.set_stop_signal(Some(signal));
            }
            Instruction::Shell(words) => {
                state.shell.clone_from(words);
                state.more.insert("Shell".to_owned(), words.clone().into());
            }
            Instruction::Healthcheck(check) => {
                state.more.insert("Healthcheck".to_owned(), healthcheck(check));
            }
            Instruction::OnBuild(text) => state.triggers.push(text.clone()),
            Instruction::Maintainer(author) => state.author = Some(author.clone()),
            Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_) => {}
        }
        state.record(&step.text, false);
        Ok(())
    }

    /// ARG: a build argument wins over the default, that over a global ARG. One sees those before it.
    fn declare(
        &mut self,
        state: &mut State,
        escape: char,
        (line, args): (usize, &[(String, Option<String>)]),
    ) -> Result<()> {
        for (name, default) in args {
            if name.contains(['$', '"', '\'']) {
                let message = format!(
                    "line {line}: the name of ARG {name} is taken as it stands: nothing in it is replaced"
                );
                (self.session.progress)(Progress::Warning { message });
            }
            let value = match (self.request.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(state.expand(line, escape, default)?),
                (None, None) => self.globals.get(name).cloned(),
            };
            state.declare(name, value)?;
            self.declared.insert(name.clone());
        }
        Ok(())
    }
}

fn add(known: &Option<Vec<String>>, new: Vec<String>) -> Vec<String> {
    let mut all = known.clone().unwrap_or_default();
    all.extend(new);
    all.sort();
    all.dedup();
    all
}

fn expose(state: &mut State, line: usize, words: &[String]) -> Result<()> {
    let mut ports = Vec::new();
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let protocol = protocol.to_ascii_lowercase();
        let (Ok(first), Ok(last), true) =
            (first.parse::<u16>(), last.parse::<u16>(), matches!(protocol.as_str(), "tcp" | "udp" | "sctp"))
        else {
            return Err(Error::dockerfile(line, format!("{word} is no port: write 80, 80/udp or 8000-8010")));
        };
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    let all = add(state.config.exposed_ports(), ports);
    state.config.set_exposed_ports(Some(all));
    Ok(())
}

/// As Docker's images have it.
fn healthcheck(check: &Healthcheck) -> Value {
    let mut value = serde_json::json!({ "Test": check.test });
    for (name, nanos) in &check.durations {
        value[*name] = (*nanos).into();
    }
    if let Some(retries) = check.retries {
        value["Retries"] = retries.into();
    }
    value
}
