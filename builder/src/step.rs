//! The instructions that may make a layer: taken from the cache, or made.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use slipway_image::{DiffId, Digest};

use crate::build::Build;
use crate::cache::{self, Entry, Key};
use crate::clock;
use crate::context::OpenContext;
use crate::copy::{self, Chmod, Draft, Origin, Request, Sockets, archive};
use crate::dockerfile::{Command, Copy, Heredoc, Instruction, Step};
use crate::error::{Error, Result};
use crate::flight::{Made, Mine, Turn};
use crate::graph::{self, Source};
use crate::ignore::Ignore;
use crate::lowers::directories;
use crate::progress::Progress;
use crate::run::{self, Process, Sandbox};
use crate::stage::{self, State};
use crate::tree::Tree;

impl Build<'_> {
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

    /// The result of a step: from the cache, from a build under way that makes it, or made here; also says whether it was
    /// there. A build without the cache waits for no other: it is to run everything.
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
            let owner = (!user.is_empty()).then(|| copy::user::owner(draft.tree(), &user)).transpose()?;
            let made = draft.make_directory(Path::new(&path), owner)?;
            let upper = draft.finish()?;
            Ok(made.then_some(upper))
        })
    }

    fn run(&mut self, command: &Command, (step, number): (&Step, u32), state: &mut State) -> Result<bool> {
        let argv = argv(state, command);
        let (env, user, cwd) =
            (state.variables.clone(), state.config.user().clone().unwrap_or_default(), state.workdir());
        let mut key = Key::new("run", &state.layers);
        key.list(argv.iter().cloned());
        key.list(env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().into_iter());
        key.text(&user);
        key.text(&cwd);
        if let Command::Script { text, .. } = command {
            key.text(text);
        }
        self.cached(&key, step, state, |build, state| {
            let lowers = build.lowers(&state.layers)?;
            let draft = build.draft(&lowers)?;
            let lowers = run::with_mount_points(draft, lowers, &cwd)?;
            let env = build.environment(env);
            let script = build.script(command)?;
            let process = Process { argv, env, cwd, user, lowers, script };
            build.execute(&process, number).map(Some)
        })
    }

    /// The environment of a command, with the proxies that are not in scope. The runtime finds its HOME, also where it is
    /// empty.
    fn environment(&self, mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (name, value) in stage::proxies(&self.request.build_args) {
            env.entry(name).or_insert(value);
        }
        env.retain(|name, value| name != "HOME" || !value.is_empty());
        env
    }

    /// A directory with the file that a heredoc is run as.
    fn script(&mut self, command: &Command) -> Result<Option<PathBuf>> {
        let Command::Script { name, text } = command else { return Ok(None) };
        let folder = self.folder()?;
        write_file(&folder.join(name), text, 0o755)?;
        Ok(Some(folder))
    }

    /// A directory of the build's own that everyone may read.
    fn folder(&mut self) -> Result<PathBuf> {
        self.drafts = self.drafts.saturating_add(1);
        let folder = self.scratch.join(self.drafts.to_string());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        set_mode(&folder, 0o755)?;
        Ok(folder)
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
        let option = |word: &Option<String>| {
            let text = word.as_ref().map(expand).transpose()?;
            Ok::<_, Error>(text.filter(|text| !text.is_empty()))
        };
        let (chown, chmod) = (option(&copy.chown)?, option(&copy.chmod)?);
        let mut found = copy::select(&origin, &sources)?;
        let mut sockets = copy::take_sockets(&mut found);
        if found.is_empty() && copy.inline.is_empty() {
            let message = format!("line {}: {} matches nothing", step.line, sources.join(" "));
            (self.session.progress)(Progress::Warning { message });
        }
        let unpacks = matches!(step.instruction, Instruction::Add(_));
        let archives = if unpacks { archive::take(&origin, &mut found)? } else { Vec::new() };
        let inline = inline(copy, step.line, state)?;
        let mut key = Key::new(if unpacks { "add" } else { "copy" }, &state.layers);
        key.text(&destination);
        key.list(chown.iter().cloned().collect::<Vec<_>>().into_iter());
        key.list(chmod.iter().cloned().collect::<Vec<_>>().into_iter());
        for selections in [&found, &archives] {
            key.bytes(&copy::hash(&origin, selections, copy.from.is_some(), &mut sockets)?);
        }
        self.leave_out(&sockets, step.line);
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
            let request = Request { sources: written, destination, owner, chmod, archive: None };
            draft.copy(&origin, &found, &request)?;
            for found in &archives {
                archive::unpack(build.store, &origin, found, (&mut draft, &request))?;
            }
            build.write_inline(&inline, (&mut draft, &request))?;
            draft.finish().map(Some)
        })
    }

    /// Tells of sockets, which no image can hold.
    fn leave_out(&self, sockets: &Sockets, line: usize) {
        let Some(first) = &sockets.first else { return };
        let more = match sockets.count.saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("line {line}: {}{more}: sockets are left out", first.display());
        (self.session.progress)(Progress::Warning { message });
    }

    fn write_inline(
        &mut self,
        files: &[(String, String)],
        (draft, request): (&mut Draft, &Request),
    ) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let folder = self.folder()?;
        for (name, text) in files {
            write_file(&folder.join(name), text, 0o644)?;
        }
        let tree = Tree::open(&[folder])?;
        // Its files are nobody's of the host: the image's root gets them.
        let (ignore, cancel) = (Ignore::default(), self.session.cancel);
        let origin = Origin { tree: &tree, ignore: Some(&ignore), place: "the Dockerfile".into(), cancel };
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        draft.copy(&origin, &copy::named(&origin, &names)?, request)
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

/// A command's words, with the shell that its form asks for.
pub(crate) fn argv(state: &State, command: &Command) -> Vec<String> {
    let text = match command {
        Command::Exec(words) => return words.clone(),
        Command::Shell(text) => text.clone(),
        Command::Script { name, .. } => format!("{}/{name}", run::SCRIPTS),
    };
    state.shell.iter().cloned().chain([text]).collect()
}

/// The files that stand in the Dockerfile: their names and texts.
fn inline(copy: &Copy, line: usize, state: &State) -> Result<Vec<(String, String)>> {
    let file = |heredoc: &Heredoc| {
        let text = heredoc.text();
        let text = if heredoc.expand { state.expand_text(line, &text)? } else { text };
        Ok((heredoc.name.clone(), text))
    };
    copy.inline.iter().map(file).collect()
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io("write", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

fn parse_mode(text: &str) -> Result<Chmod> {
    let bad = || Error::Invalid(format!("--chmod={text} is no mode: write 644, or u=rwX,go=rX"));
    Chmod::parse(text).ok_or_else(bad)
}
