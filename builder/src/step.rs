//! What each instruction does to a stage: settings at once, layers from the cache or made.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use slipway_image::{DiffId, Digest, Lower, Store};

use crate::build::Build;
use crate::cache::{self, Entry, Key};
use crate::clock;
use crate::context::OpenContext;
use crate::copy::{self, Chmod, Draft, Origin, Request, archive};
use crate::dockerfile::{Command, Copy, Healthcheck, Heredoc, Instruction, Step};
use crate::error::{Error, Result};
use crate::flight::{Made, Mine, Turn};
use crate::graph::{self, Source};
use crate::ignore::Ignore;
use crate::progress::Progress;
use crate::run::{self, Process, Sandbox};
use crate::stage::{self, State};
use crate::tree::Tree;

impl Build<'_> {
    /// An instruction that changes settings alone.
    pub(crate) fn set(&mut self, state: &mut State, escape: char, step: &Step) -> Result<()> {
        let before = state.clone();
        let expand = |word: &String| before.expand(step.line, escape, word);
        let expand_all = |words: &[String]| words.iter().map(expand).collect::<Result<Vec<_>>>();
        let expand_pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| Ok((expand(name)?, expand(value)?))).collect::<Result<Vec<_>>>()
        };
        match &step.instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let default =
                        default.as_ref().map(|word| state.expand(step.line, escape, word)).transpose()?;
                    state.declare(name, default, &self.request.build_args, &self.globals);
                    self.declared.insert(name.clone());
                }
            }
            Instruction::Env(pairs) => state.set_env(&expand_pairs(pairs)?),
            Instruction::Label(pairs) => state.set_labels(expand_pairs(pairs)?),
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
            Instruction::Expose(ports) => expose(state, step.line, &expand_all(ports)?)?,
            Instruction::Volume(paths) => {
                let paths = expand_all(paths)?;
                let volumes = add(state.config.volumes(), paths);
                state.config.set_volumes(Some(volumes));
            }
            Instruction::User(user) => {
                state.config.set_user(Some(expand(user)?));
            }
            Instruction::StopSignal(signal) => {
                state.config.set_stop_signal(Some(expand(signal)?));
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

    /// An instruction that may make a layer; says whether the cache had it.
    pub(crate) fn make(
        &mut self,
        context: &OpenContext,
        index: usize,
        (step, number): (&Step, u32),
        state: &mut State,
    ) -> Result<bool> {
        match &step.instruction {
            Instruction::Workdir(path) => {
                let path = state.expand(step.line, context.dockerfile.escape, path)?;
                self.workdir(&path, step, state)
            }
            Instruction::Run(command) => self.run(command, (step, number), state),
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                self.copy(context, index, (step, copy), state)
            }
            _ => Ok(false),
        }
    }

    /// Takes a step's layer from the cache, or makes and remembers it.
    fn cached(
        &mut self,
        key: &Key,
        step: &Step,
        state: &mut State,
        work: impl FnOnce(&mut Self, &State) -> Result<Option<PathBuf>>,
    ) -> Result<bool> {
        let (Made { entry, lease }, was_there) = self.once(&key.digest(), |build| work(build, state))?;
        state.push(entry.layer, entry.created, lease, &step.text);
        Ok(was_there)
    }

    /// What the cache has for a step, or a build that is under way makes for it, or what this one makes; says whether it
    /// was there. A build without the cache waits for no other: it is to run everything.
    fn once(
        &mut self,
        key: &Digest,
        work: impl FnOnce(&mut Self) -> Result<Option<PathBuf>>,
    ) -> Result<(Made, bool)> {
        if self.request.no_cache {
            return Ok((self.fresh(key, work)?, false));
        }
        let mine = match self.flights.join(key, self.session.cancel)? {
            Turn::Made(made) => return Ok((made, true)),
            Turn::Mine(mine) => Some(mine),
            Turn::Alone => None,
        };
        let known = cache::get(self.store, key);
        let was_there = known.is_some();
        self.telling = mine.as_ref().map(Mine::telling);
        let made = known.map_or_else(|| self.fresh(key, work), |(entry, lease)| Ok(Made { entry, lease }));
        self.telling = None;
        match (mine, &made) {
            (Some(mine), Ok(made)) => mine.made(made.clone()),
            // Given up by its drop.
            (Some(_), Err(Error::Cancelled)) | (None, _) => {}
            (Some(mine), Err(_)) => mine.failed(),
        }
        Ok((made?, was_there))
    }

    /// Makes a step's layer and remembers it.
    fn fresh(
        &mut self,
        key: &Digest,
        work: impl FnOnce(&mut Self) -> Result<Option<PathBuf>>,
    ) -> Result<Made> {
        let upper = work(self).map_err(|error| error.explained(&self.scratch))?;
        let stop = || self.session.cancel.is_cancelled();
        let record = upper.map(|upper| self.store.commit_layer(&upper, &stop)).transpose();
        // Whatever it says of an end that was asked for.
        self.session.cancel.check()?;
        let record = record?;
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.forget_last()?;
        }
        let entry = Entry { layer: record.as_ref().map(|record| record.diff_id), created: clock::now() };
        cache::put(self.store, key, &entry)?;
        Ok(Made { entry, lease: record.map(|record| record.lease) })
    }

    /// The state with a date: an image that no step has made anything for has that of the first build of its like.
    pub(crate) fn dated(&mut self, state: &State) -> Result<State> {
        let mut state = state.clone();
        if state.created.is_none() {
            let mut key = Key::new("image", &state.layers);
            key.text(&state.configuration()?.to_string());
            state.date(self.once(&key.digest(), |_| Ok(None))?.0.entry.created);
        }
        Ok(state)
    }

    fn workdir(&mut self, path: &str, step: &Step, state: &mut State) -> Result<bool> {
        let path = copy::absolute(&state.workdir(), path);
        let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
        state.config.set_working_dir(Some(path.clone()));
        let user = state.config.user().clone().unwrap_or_default();
        let mut key = Key::new("workdir", &state.layers);
        key.text(&path);
        key.text(&user);
        self.cached(&key, step, state, |build, state| {
            let lowers = build.lowers(&state.layers)?;
            let mut draft = build.draft(&lowers)?;
            let owner = if user.is_empty() { (0, 0) } else { copy::user::owner(draft.tree(), &user)? };
            let made = draft.make_directory(Path::new(&path), owner)?;
            let upper = draft.finish()?;
            Ok(made.then_some(upper))
        })
    }

    fn run(&mut self, command: &Command, (step, number): (&Step, u32), state: &mut State) -> Result<bool> {
        let argv = argv(state, command);
        let (env, user, cwd) =
            (state.run_env(), state.config.user().clone().unwrap_or_default(), state.workdir());
        let mut key = Key::new("run", &state.layers);
        key.list(argv.iter().cloned());
        key.list(env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().into_iter());
        key.text(&user);
        key.text(&cwd);
        self.cached(&key, step, state, |build, state| {
            let lowers = build.lowers(&state.layers)?;
            let draft = build.draft(&lowers)?;
            let lowers = run::with_mount_points(draft, lowers, &cwd)?;
            let process = build.process(argv, env, (user, cwd), lowers)?;
            build.execute(&process, number).map(Some)
        })
    }

    fn process(
        &self,
        argv: Vec<String>,
        mut env: BTreeMap<String, String>,
        (user, cwd): (String, String),
        lowers: Vec<PathBuf>,
    ) -> Result<Process> {
        for (name, value) in stage::proxies(&self.request.build_args) {
            env.entry(name).or_insert(value);
        }
        let home = copy::user::home(&Tree::open(&lowers)?, &user);
        env.entry("HOME".into()).or_insert_with(|| home.unwrap_or_else(|| "/root".into()));
        Ok(Process { argv, env, cwd, user, lowers })
    }

    fn execute(&mut self, process: &Process, step: u32) -> Result<PathBuf> {
        let sandbox = match &mut self.sandbox {
            Some(sandbox) => sandbox,
            empty => empty.insert(Sandbox::create(self.runtime, &self.id)?),
        };
        let progress = self.session.progress;
        let telling = self.telling.clone();
        let output = |stream, bytes| {
            let tell = || progress(Progress::Output { step, stream, bytes });
            match &telling {
                Some(telling) => telling.tell(tell),
                None => tell(),
            }
        };
        let (upper, code) = sandbox.run(process, self.session.cancel, &output)?;
        if code == 0 { Ok(upper) } else { Err(run::failed(&process.argv.join(" "), code)) }
    }

    fn copy(
        &mut self,
        context: &OpenContext,
        index: usize,
        (step, copy): (&Step, &Copy),
        state: &mut State,
    ) -> Result<bool> {
        let (escape, cancel) = (context.dockerfile.escape, self.session.cancel);
        let from;
        let origin = match &copy.from {
            None => {
                let (tree, ignore) = (&context.tree, Some(&context.ignore));
                Origin { tree, ignore, place: "the build context".into(), cancel }
            }
            Some(name) => {
                from = self.origin(context, name, index, step.line)?;
                Origin { tree: &from, ignore: None, place: format!("--from={name}"), cancel }
            }
        };
        let expand = |word: &String| state.expand(step.line, escape, word);
        let sources = copy.sources.iter().map(expand).collect::<Result<Vec<_>>>()?;
        let names = copy.inline.iter().map(|heredoc| heredoc.word.clone());
        let written = sources.iter().cloned().chain(names).collect::<Vec<_>>();
        let destination = copy::absolute(&state.workdir(), &expand(&copy.destination)?);
        let chown = copy.chown.as_ref().map(expand).transpose()?;
        let chmod = copy.chmod.as_ref().map(expand).transpose()?;
        let mut found = copy::select(&origin, &sources)?;
        if found.is_empty() && copy.inline.is_empty() {
            let message = format!("line {}: {} matches nothing", step.line, sources.join(" "));
            (self.session.progress)(Progress::Warning { message });
        }
        let unpacks = matches!(step.instruction, Instruction::Add(_));
        let archives = if unpacks { archive::take(&origin, &mut found)? } else { Vec::new() };
        let inline = self.inline(copy, (step.line, escape), state)?;
        let mut key = Key::new(if unpacks { "add" } else { "copy" }, &state.layers);
        key.text(&destination);
        key.list(chown.iter().cloned().collect::<Vec<_>>().into_iter());
        key.list(chmod.iter().cloned().collect::<Vec<_>>().into_iter());
        key.bytes(&copy::hash(&origin, &found, copy.from.is_some())?);
        key.bytes(&copy::hash(&origin, &archives, copy.from.is_some())?);
        key.list(
            inline
                .iter()
                .flat_map(|(name, text)| [name.clone(), text.clone()])
                .collect::<Vec<_>>()
                .into_iter(),
        );
        self.cached(&key, step, state, |build, state| {
            let lowers = build.lowers(&state.layers)?;
            let mut draft = build.draft(&lowers)?;
            let owner = chown.map(|text| copy::user::owner(draft.tree(), &text)).transpose()?;
            let chmod = chmod.map(|text| parse_mode(&text)).transpose()?;
            let request = Request { sources: written, destination, owner, chmod };
            draft.copy(&origin, &found, &request)?;
            for found in &archives {
                archive::unpack(build.store, &origin, found, (&mut draft, &request))?;
            }
            build.write_inline(&inline, (&mut draft, &request))?;
            draft.finish().map(Some)
        })
    }

    /// The files that stand in the Dockerfile: their names and texts.
    fn inline(
        &self,
        copy: &Copy,
        (line, escape): (usize, char),
        state: &State,
    ) -> Result<Vec<(String, String)>> {
        let file = |heredoc: &Heredoc| {
            let text = heredoc.text();
            let text = if heredoc.expand { state.expand_text(line, escape, &text)? } else { text };
            Ok((heredoc.name.clone(), text))
        };
        copy.inline.iter().map(file).collect()
    }

    fn write_inline(
        &mut self,
        files: &[(String, String)],
        (draft, request): (&mut Draft, &Request),
    ) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.drafts = self.drafts.saturating_add(1);
        let folder = self.scratch.join(self.drafts.to_string());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(Error::io("write", &path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
                .map_err(Error::io("set the mode of", &path))?;
        }
        let tree = Tree::open(&[folder])?;
        // Its files are nobody's of the host: the image's root gets them.
        let (ignore, cancel) = (Ignore::default(), self.session.cancel);
        let origin = Origin { tree: &tree, ignore: Some(&ignore), place: "the Dockerfile".into(), cancel };
        let names: Vec<String> = files.iter().map(|(name, _)| copy::literal(name)).collect();
        draft.copy(&origin, &copy::select(&origin, &names)?, request)
    }

    fn origin(&mut self, context: &OpenContext, name: &str, index: usize, line: usize) -> Result<Tree> {
        let state = match graph::copy_source(&context.dockerfile, name, index, line)? {
            Source::Stage(stage) => self.done.get(&stage).cloned(),
            Source::Image(image) => Some(self.image(&image)?.0),
            Source::Scratch => None,
        };
        let state = state.ok_or_else(|| Error::dockerfile(line, format!("--from={name} is not built")))?;
        let lowers = self.lowers(&state.layers)?;
        self.done.entry(usize::MAX).or_insert_with(State::scratch).leases.extend(state.leases);
        Tree::open(&lowers)
    }

    fn lowers(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>> {
        directories(self.store, layers)
    }

    fn draft(&mut self, lowers: &[PathBuf]) -> Result<Draft> {
        self.drafts = self.drafts.saturating_add(1);
        Draft::new(self.scratch.join(self.drafts.to_string()), lowers)
    }
}

/// The directories of layers, the topmost first.
pub(crate) fn directories(store: &Store, layers: &[DiffId]) -> Result<Vec<PathBuf>> {
    let directory = |lower| match lower {
        Lower::Directory(path) => Ok(path),
        other => Err(Error::Invalid(format!("a layer of another form can't be built on: {other:?}"))),
    };
    store.lowers(layers)?.lowers.into_iter().map(directory).collect()
}

fn argv(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => state.shell.iter().cloned().chain([text.clone()]).collect(),
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

fn parse_mode(text: &str) -> Result<Chmod> {
    let bad = || Error::Invalid(format!("--chmod={text} is no mode: write 644, or u=rwX,go=rX"));
    Chmod::parse(text).ok_or_else(bad)
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
