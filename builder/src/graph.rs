//! The stages that a target needs, in the order to build them.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{Dockerfile, Instruction, Step, expand};
use crate::error::{Error, Result};

/// The origin of a stage or a `COPY --from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing.
    Scratch,
    /// The stage of this index.
    Stage(usize),
    /// An image by name.
    Image(String),
}

/// The platform of this machine in the field's words: `amd64`, `arm64`.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The ARGs that are there without a default: the platform and the target.
fn predefined(target: &str) -> BTreeMap<String, String> {
    let mut args = BTreeMap::from([("TARGETSTAGE".to_owned(), target.to_owned())]);
    for side in ["TARGET", "BUILD"] {
        args.insert(format!("{side}PLATFORM"), format!("linux/{}", architecture()));
        args.insert(format!("{side}OS"), "linux".to_owned());
        args.insert(format!("{side}OSVERSION"), String::new());
        args.insert(format!("{side}ARCH"), architecture().to_owned());
        args.insert(format!("{side}VARIANT"), String::new());
    }
    args
}

/// The global ARGs' values: a build argument wins over a default.
pub(crate) fn global_args(
    file: &Dockerfile,
    target: Option<&str>,
    build_args: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let last = file.stages.last().and_then(|stage| stage.from.name.as_deref());
    let mut values = predefined(target.or(last).unwrap_or("default"));
    for (name, value) in &mut values {
        build_args.get(name).into_iter().for_each(|given| value.clone_from(given));
    }
    for (line, name, default) in &file.args {
        let value = match (build_args.get(name), default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => expand::expand(default, file.escape, &|name| values.get(name).cloned())
                .map_err(|reason| Error::dockerfile(*line, reason))?,
            (None, None) => continue,
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// The stages of a build.
#[derive(Debug)]
pub(crate) struct Graph {
    /// The origin of each stage.
    pub(crate) bases: Vec<Source>,
    /// The stage to build.
    target: usize,
}

impl Graph {
    /// Finds what the target needs.
    pub(crate) fn of(
        file: &Dockerfile,
        target: Option<&str>,
        args: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut bases = Vec::new();
        for (index, stage) in file.stages.iter().enumerate() {
            let expand = |text: &str| {
                expand::expand(text, file.escape, &|name| args.get(name).cloned())
                    .map_err(|reason| Error::dockerfile(stage.line, reason))
            };
            if let Some(platform) = &stage.from.platform {
                native(stage.line, &expand(platform)?)?;
            }
            let base = expand(&stage.from.base)?;
            if base.is_empty() {
                let reason = format!("FROM {} is empty: give its ARG a default", stage.from.base);
                return Err(Error::dockerfile(stage.line, reason));
            }
            bases.push(match named(file, &base, index, false) {
                Some(found) => Source::Stage(found),
                None if base == "scratch" => Source::Scratch,
                None => Source::Image(base),
            });
        }
        let target = match target.filter(|target| !target.is_empty()) {
            None => file.stages.len().saturating_sub(1),
            Some(wanted) => {
                named(file, wanted, file.stages.len(), true).ok_or_else(|| no_target(file, wanted))?
            }
        };
        Ok(Self { bases, target })
    }

    /// The stages that the target needs, in order; the last one is the target. `triggers` are the instructions that
    /// stages begin with because what they are built on says so, as far as that is known.
    pub(crate) fn order(
        &self,
        file: &Dockerfile,
        triggers: &BTreeMap<usize, Vec<Step>>,
    ) -> Result<Vec<usize>> {
        let mut needed = BTreeSet::new();
        let mut todo = vec![self.target];
        while let Some(index) = todo.pop() {
            if !needed.insert(index) {
                continue;
            }
            if let Some(Source::Stage(base)) = self.bases.get(index) {
                todo.push(*base);
            }
            let own = file.stages.get(index).map(|stage| stage.steps.as_slice()).unwrap_or_default();
            for step in triggers.get(&index).into_iter().flatten().chain(own) {
                let Instruction::Copy(copy) = &step.instruction else { continue };
                let Some(from) = &copy.from else { continue };
                if let Source::Stage(source) = copy_source(file, from, index, step.line)? {
                    todo.push(source);
                }
            }
        }
        Ok(needed.into_iter().collect())
    }
}

/// The origin that `--from` of a COPY in this stage names.
pub(crate) fn copy_source(file: &Dockerfile, from: &str, index: usize, line: usize) -> Result<Source> {
    if let Some(found) = named(file, from, index, true) {
        return Ok(Source::Stage(found));
    }
    if from.eq_ignore_ascii_case("scratch") || named(file, from, file.stages.len(), false).is_some() {
        let reason = format!("--from={from}: a stage can be copied from only after it; move that stage up");
        return Err(Error::dockerfile(line, reason));
    }
    if from.parse::<usize>().is_ok() {
        return Err(Error::dockerfile(
            line,
            format!("--from={from}: there are {index} stages before this one"),
        ));
    }
    Ok(Source::Image(from.to_owned()))
}

/// The stage before `before` with this name, or (where allowed) index. Of two with one name the later counts.
fn named(file: &Dockerfile, name: &str, before: usize, by_index: bool) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    let stages = file.stages.iter().enumerate().take(before);
    let by_name = stages.rev().find(|(_, stage)| stage.from.name.as_deref() == Some(&lower));
    by_name.map(|(index, _)| index).or_else(|| name.parse().ok().filter(|index| by_index && *index < before))
}

fn native(line: usize, platform: &str) -> Result<()> {
    let ours = format!("linux/{}", architecture());
    let same = platform == ours || platform == architecture() || platform == "linux" || platform.is_empty();
    let variant = platform.strip_prefix(&ours).is_some_and(|rest| rest.starts_with('/'));
    if same || variant {
        return Ok(());
    }
    Err(Error::dockerfile(
        line,
        format!("--platform={platform} can't be built on this machine: it is {ours}"),
    ))
}

fn no_target(file: &Dockerfile, wanted: &str) -> Error {
    let names: Vec<&str> = file.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
    let list = if names.is_empty() { "no stage has a name".to_owned() } else { names.join(", ") };
    Error::Invalid(format!("the Dockerfile has no stage {wanted}: choose one of its stages ({list})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn order(text: &str, target: Option<&str>) -> Result<Vec<usize>> {
        let file = parse(text.as_bytes())?;
        let args = global_args(&file, target, &BTreeMap::new())?;
        Graph::of(&file, target, &args)?.order(&file, &BTreeMap::new())
    }

    #[test]
    fn only_stages_that_the_target_needs_are_built() {
        let text = "ARG V=3\nFROM a:$V AS one\nFROM b AS unused\nFROM one AS two\nFROM scratch\nCOPY --from=two x y\nCOPY --from=busybox x y\n";
        assert_eq!(order(text, None).unwrap(), [0, 2, 3]);
        assert_eq!(order(text, Some("ONE")).unwrap(), [0]);
        assert_eq!(order(text, Some("2")).unwrap(), [0, 2]);
    }

    #[test]
    fn a_trigger_needs_the_stages_that_it_copies_from() {
        let file = parse(b"FROM a AS x\nFROM b AS y\nFROM c\n").unwrap();
        let graph = Graph::of(&file, None, &BTreeMap::new()).unwrap();
        let copy = |from: &str| crate::dockerfile::trigger(3, &format!("COPY --from={from} a b")).unwrap();
        let order = |from: &str| graph.order(&file, &BTreeMap::from([(2, vec![copy(from)])]));
        assert_eq!(order("y").unwrap(), [1, 2]);
        assert_eq!(order("0").unwrap(), [0, 2]);
        assert_eq!(order("image").unwrap(), [2]);
        assert!(order("2").is_err());
    }

    #[test]
    fn a_stage_that_is_not_there_is_told() {
        for (text, target, message) in [
            ("FROM a AS x", Some("y"), "the Dockerfile has no stage y: choose one of its stages (x)"),
            (
                "FROM a\nCOPY --from=b x y\nFROM c AS b",
                Some("0"),
                "Dockerfile line 2: --from=b: a stage can be copied from only after it; move that stage up",
            ),
            ("ARG V\nFROM $V", None, "Dockerfile line 2: FROM $V is empty: give its ARG a default"),
        ] {
            assert_eq!(order(text, target).unwrap_err().to_string(), message);
        }
    }
}
