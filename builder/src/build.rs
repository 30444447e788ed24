//! A build from request to image: open the context, walk the stages, commit the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use slipway_image::{Image, Leased, Reference, Store};
use slipway_runtime::Runtime;

use crate::cancel::Cancellation;
use crate::context::{Context, OpenContext, Texts};
use crate::dockerfile::{self, Dockerfile, Instruction, Step};
use crate::error::{Error, Result};
use crate::flight::{Flights, Telling};
use crate::graph::{self, Graph, Source};
use crate::progress::Progress;
use crate::run::Sandbox;
use crate::stage::{self, State};

/// A request to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The files.
    pub context: Context,
    /// The Dockerfile's path in the context; `Dockerfile` when absent.
    pub dockerfile: Option<PathBuf>,
    /// The Dockerfile's text, when it lies outside of the context.
    pub dockerfile_contents: Option<Vec<u8>>,
    /// The text of the file `NAME.dockerignore` beside such a Dockerfile `NAME`; it replaces the context's.
    pub dockerignore_contents: Option<Vec<u8>>,
    /// Names for the image.
    pub tags: Vec<String>,
    /// The stage to build; the last one when absent.
    pub target: Option<String>,
    /// Values for ARGs.
    pub build_args: BTreeMap<String, String>,
    /// Run everything, whatever the cache has.
    pub no_cache: bool,
}

/// The client's side of a build.
pub struct Session<'a> {
    /// Hears of every event; must not block for long.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Brings an image that is not here.
    pub pull: &'a (dyn Fn(&Reference) -> slipway_image::Result<Leased> + Sync),
    /// Stops the build.
    pub cancel: &'a Cancellation,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("cancel", self.cancel).finish_non_exhaustive()
    }
}

/// The outcome of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
}

/// The instructions that stages begin with, by their indices.
type Triggers = BTreeMap<usize, Vec<Step>>;

/// The images that stages are built on, by the stages' indices.
type Bases = BTreeMap<usize, State>;

/// The triggers that the ONBUILDs of a stage keep for those that are built on it.
fn kept_triggers(file: &Dockerfile, index: usize) -> Vec<String> {
    let steps = file.stages.get(index).map(|stage| stage.steps.as_slice()).unwrap_or_default();
    let text = |step: &Step| match &step.instruction {
        Instruction::OnBuild(text) => Some(text.clone()),
        _ => None,
    };
    steps.iter().filter_map(text).collect()
}

/// A stage as its steps are told: by its name, by its number where there are several.
fn title(file: &Dockerfile, index: usize) -> String {
    match file.stages.get(index).and_then(|stage| stage.from.name.as_ref()) {
        Some(name) => format!("{name} "),
        None if file.stages.len() > 1 => format!("stage-{index} "),
        None => String::new(),
    }
}

/// How many steps are told of, the FROM among them.
fn numbered(steps: &[Step]) -> usize {
    steps.iter().filter(|step| step.instruction.is_numbered()).count().saturating_add(1)
}

/// A build under way.
pub(crate) struct Build<'a> {
    pub(crate) store: &'a Store,
    pub(crate) runtime: &'a Runtime,
    pub(crate) flights: &'a Flights,
    pub(crate) request: &'a BuildRequest,
    pub(crate) session: &'a Session<'a>,
    pub(crate) id: String,
    pub(crate) scratch: PathBuf,
    pub(crate) drafts: usize,
    pub(crate) steps: u32,
    pub(crate) sandbox: Option<Sandbox>,
    /// While a step is made that others may wait for.
    pub(crate) telling: Option<Telling>,
    pub(crate) done: BTreeMap<usize, State>,
    pub(crate) declared: BTreeSet<String>,
    pub(crate) globals: BTreeMap<String, String>,
}

impl Build<'_> {
    /// Makes the image and names it.
    pub(crate) fn whole(mut self, tags: &[Reference]) -> Result<Image> {
        let context = self.load()?;
        let state = self.stages(&context)?;
        self.commit(&state, tags)
    }

    /// Does a step's work between its two events. The work says whether the cache had it.
    pub(crate) fn step<T>(
        &mut self,
        name: String,
        work: impl FnOnce(&mut Self, u32) -> Result<(T, bool)>,
    ) -> Result<T> {
        self.session.cancel.check()?;
        self.steps = self.steps.saturating_add(1);
        let (step, begun) = (self.steps, Instant::now());
        (self.session.progress)(Progress::StepStarted { step, name });
        match work(self, step) {
            Ok((value, cached)) => {
                (self.session.progress)(Progress::StepDone { step, cached, elapsed: begun.elapsed() });
                Ok(value)
            }
            Err(error) => {
                let told = slipway_runtime::chain(&error);
                (self.session.progress)(Progress::StepFailed { step, error: told, elapsed: begun.elapsed() });
                Err(error)
            }
        }
    }

    fn load(&mut self) -> Result<OpenContext> {
        let request = self.request;
        let file = request.dockerfile.as_deref();
        let shown = file.unwrap_or(Path::new("Dockerfile")).display();
        self.step(format!("[internal] load build definition from {shown}"), |_, _| {
            let texts = Texts {
                dockerfile: request.dockerfile_contents.as_deref(),
                dockerignore: request.dockerignore_contents.as_deref(),
            };
            Ok((OpenContext::open(&request.context, file, texts)?, false))
        })
    }

    fn stages(&mut self, context: &OpenContext) -> Result<State> {
        let file = &context.dockerfile;
        let target = self.request.target.as_deref();
        self.globals = graph::global_args(file, target, &self.request.build_args)?;
        self.declared.extend(file.args.iter().map(|(_, name, _)| name.clone()));
        let graph = Graph::of(file, target, &self.globals)?;
        let (order, mut triggers, mut images) = self.needed(context, &graph)?;
        let mut last = State::scratch();
        for index in order {
            let Some(base) = graph.bases.get(index) else { continue };
            let state = match images.remove(&index) {
                Some(image) => image,
                None => self.base(base, file, index)?,
            };
            last = self.stage(context, index, (state, &triggers.remove(&index).unwrap_or_default()))?;
            self.done.insert(index, last.clone());
        }
        for name in stage::unused(&self.request.build_args, &self.declared) {
            let message = format!("build argument {name} is used by no ARG: check its name");
            (self.session.progress)(Progress::Warning { message });
        }
        Ok(last)
    }

    /// The stages to build, what each has to do first because its base says so, and the images among the bases: an
    /// image's triggers are known when it is here, and may need further stages.
    fn needed(&mut self, context: &OpenContext, graph: &Graph) -> Result<(Vec<usize>, Triggers, Bases)> {
        let file = &context.dockerfile;
        let (mut triggers, mut images) = (Triggers::new(), Bases::new());
        loop {
            let order = graph.order(file, &triggers)?;
            let new: Vec<usize> =
                order.iter().copied().filter(|index| !triggers.contains_key(index)).collect();
            if new.is_empty() {
                return Ok((order, triggers, images));
            }
            for index in new {
                let texts = match graph.bases.get(index) {
                    Some(Source::Stage(base)) => kept_triggers(file, *base),
                    Some(base @ Source::Image(_)) => {
                        let mut state = self.base(base, file, index)?;
                        let texts = std::mem::take(&mut state.triggers);
                        images.insert(index, state);
                        texts
                    }
                    Some(Source::Scratch) | None => Vec::new(),
                };
                let line = file.stages.get(index).map_or(0, |stage| stage.line);
                let steps = texts.iter().map(|text| dockerfile::trigger(line, text));
                triggers.insert(index, steps.collect::<Result<_>>()?);
            }
        }
    }

    fn stage(
        &mut self,
        context: &OpenContext,
        index: usize,
        (mut state, triggers): (State, &[Step]),
    ) -> Result<State> {
        let file = &context.dockerfile;
        let Some(stage) = file.stages.get(index) else { return Ok(state) };
        let title = title(file, index);
        state.triggers.clear();
        self.steps(context, index, (triggers, &format!("{title}onbuild ")), &mut state)?;
        self.steps(context, index, (&stage.steps, &title), &mut state)?;
        Ok(state)
    }

    /// Does steps one after another. The FROM counts among those of a stage, and a trigger's stands for it.
    fn steps(
        &mut self,
        context: &OpenContext,
        index: usize,
        (steps, title): (&[Step], &str),
        state: &mut State,
    ) -> Result<()> {
        let total = numbered(steps);
        let mut number = 1_usize;
        for step in steps {
            self.session.cancel.check()?;
            let told = |error: Error| error.in_step(step.line, &step.text);
            if !step.instruction.is_numbered() {
                self.set(state, context.dockerfile.escape, step).map_err(told)?;
                continue;
            }
            number = number.saturating_add(1);
            let name = format!("[{title}{number}/{total}] {}", step.text);
            self.step(name, |build, number| Ok(((), build.make(context, index, (step, number), state)?)))
                .map_err(told)?;
        }
        Ok(())
    }

    /// The state that a stage is built on.
    fn base(&mut self, base: &Source, file: &Dockerfile, index: usize) -> Result<State> {
        let Some(stage) = file.stages.get(index) else { return Ok(State::scratch()) };
        match base {
            Source::Scratch => Ok(State::scratch()),
            Source::Stage(other) => {
                let none = || Error::dockerfile(stage.line, format!("stage {other} is not built"));
                self.done.get(other).map(State::child).ok_or_else(none)
            }
            Source::Image(image) => {
                let name = format!("[{}1/{}] {}", title(file, index), numbered(&stage.steps), stage.text);
                self.step(name, |build, _| build.image(image))
                    .map_err(|error| error.in_step(stage.line, &format!("FROM {image}")))
            }
        }
    }

    /// An image from the store, pulled when it is not there; says whether it was.
    pub(crate) fn image(&self, name: &str) -> Result<(State, bool)> {
        let (Leased { image, lease }, was_here) = match self.store.hold(name) {
            Ok(held) => (held, true),
            Err(slipway_image::Error::ImageMissing { .. }) => {
                let reference: Reference = name.parse()?;
                ((self.session.pull)(&reference)?, false)
            }
            Err(error) => return Err(error.into()),
        };
        let written = self.store.written_config(&image.id)?;
        Ok((State::image(&image, &written, lease), was_here))
    }

    fn commit(&mut self, state: &State, tags: &[Reference]) -> Result<Image> {
        let store = self.store;
        self.step("exporting to image".to_owned(), |build, step| {
            let state = build.dated(state)?;
            let image = store.commit_image(&state.configuration()?, &state.layers, tags)?;
            let mut text = format!("writing image {}\n", image.id);
            tags.iter().for_each(|tag| text.push_str(&format!("naming to {tag}\n")));
            let stream = crate::progress::Stream::Stdout;
            (build.session.progress)(Progress::Output { step, stream, bytes: text.into_bytes() });
            Ok((image, false))
        })
    }
}
