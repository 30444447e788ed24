//! `build`: an image from a Dockerfile and its context. The daemon opens the context itself, and checks by its device and
//! inode that it is the same directory.

mod progress;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use slipway_proto::slipway::v1::build_start::{Context, Dockerfile};
use slipway_proto::slipway::v1::{BuildRequest, BuildStart, ContextPath, build_request::Message};

use self::progress::Progress;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

/// The greatest length of a Dockerfile, or of its .dockerignore, that goes by its text, in bytes.
const DOCKERFILE_LIMIT: u64 = 4 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// The Dockerfile, or - for standard input (default: Dockerfile in the context)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Build this stage
    #[arg(long, value_name = "STAGE", default_value = "", hide_default_value = true)]
    target: String,
    /// Set an ARG; without a value, to that of this program's variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Run every step, without the build cache
    #[arg(long)]
    no_cache: bool,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Directory that COPY copies from
    context: PathBuf,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let quiet = args.quiet;
    let request = BuildRequest { message: Some(Message::Start(start(args)?)) };
    let answer = session.slipway().await?.build(tokio_stream::once(request)).await;
    let mut events = answer.map_err(Error::call("build"))?.into_inner();
    let mut progress = Progress::new(quiet);
    while let Some(event) = events.message().await.map_err(Error::call("build"))? {
        if let Some(built) = event.event.and_then(|event| progress.show(event)) {
            return output::line(built.image_id);
        }
    }
    Err(Error::Ended { action: "build".to_owned() })
}

fn start(args: Args) -> Result<BuildStart> {
    let context =
        args.context.canonicalize().map_err(|source| Error::Read { path: args.context.clone(), source })?;
    let metadata = context.metadata().map_err(|source| Error::Read { path: context.clone(), source })?;
    if !metadata.is_dir() {
        return Err(Error::Usage(format!("context {} is not a directory", context.display())));
    }
    let (dockerfile, dockerignore_contents) = match &args.file {
        Some(file) => dockerfile(file, &context)?,
        None => (None, None),
    };
    let path = text(&context)?;
    Ok(BuildStart {
        context: Some(Context::Path(ContextPath { path, device: metadata.dev(), inode: metadata.ino() })),
        dockerfile,
        dockerignore_contents,
        tags: args.tag,
        target: args.target,
        build_args: build_args(&args.build_arg)?,
        no_cache: args.no_cache,
    })
}

/// The Dockerfile as the request names it: a file in the context by its path there, any other by its text, with that of the
/// .dockerignore beside it.
fn dockerfile(file: &Path, context: &Path) -> Result<(Option<Dockerfile>, Option<Vec<u8>>)> {
    let fail = |source| Error::Read { path: file.to_owned(), source };
    if file == Path::new("-") {
        let mut contents = Vec::new();
        std::io::stdin().lock().take(DOCKERFILE_LIMIT).read_to_end(&mut contents).map_err(fail)?;
        return Ok((Some(Dockerfile::DockerfileContents(contents)), None));
    }
    let in_context = context.join(file);
    let found = if file.exists() || !in_context.exists() { file.to_owned() } else { in_context };
    let found = found.canonicalize().map_err(fail)?;
    match found.strip_prefix(context) {
        Ok(relative) => Ok((Some(Dockerfile::DockerfilePath(text(relative)?)), None)),
        Err(_) => {
            let contents = limited(&found)?;
            let ignore = match limited(&beside(&found)) {
                Ok(rules) => Some(rules),
                Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            Ok((Some(Dockerfile::DockerfileContents(contents)), ignore))
        }
    }
}

/// The file of rules that belongs to a Dockerfile alone.
fn beside(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(".dockerignore");
    PathBuf::from(name)
}

/// A file's bytes, of which there may be as many as the daemon takes.
fn limited(path: &Path) -> Result<Vec<u8>> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).map_err(fail)?.take(DOCKERFILE_LIMIT + 1);
    file.read_to_end(&mut bytes).map_err(fail)?;
    if file.limit() == 0 {
        return Err(Error::Usage(format!("{} has more than {DOCKERFILE_LIMIT} bytes", path.display())));
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Usage(format!("path {} is not UTF-8", path.display())))
}

/// The build arguments by name; a word without a value takes that of this program's variable, if it is set.
fn build_args(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut args = BTreeMap::new();
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), std::env::var(word).ok()),
        };
        if name.is_empty() {
            return Err(Error::Usage(format!("build argument {word} has no name")));
        }
        if let Some(value) = value {
            args.insert(name.to_owned(), value);
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_in_the_context_goes_by_path_and_any_other_by_text() {
        let context = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let root = context.path().canonicalize().unwrap();
        for dir in [&root, &elsewhere.path().to_owned()] {
            std::fs::write(dir.join("D"), b"FROM scratch").unwrap();
        }
        let by_path = (Some(Dockerfile::DockerfilePath("D".to_owned())), None);
        std::fs::write(root.join("D.dockerignore"), b"x").unwrap();
        assert_eq!(dockerfile(&root.join("D"), &root).unwrap(), by_path);
        assert_eq!(dockerfile(Path::new("D"), &root).unwrap(), by_path);
        let by_text = |rules| (Some(Dockerfile::DockerfileContents(b"FROM scratch".to_vec())), rules);
        assert_eq!(dockerfile(&elsewhere.path().join("D"), &root).unwrap(), by_text(None));
        std::fs::write(elsewhere.path().join("D.dockerignore"), b"y").unwrap();
        assert_eq!(dockerfile(&elsewhere.path().join("D"), &root).unwrap(), by_text(Some(b"y".to_vec())));
        assert!(dockerfile(Path::new("missing"), &root).is_err());
    }

    #[test]
    fn build_arguments_need_a_name() {
        assert_eq!(build_args(&["A=b=c".to_owned()]).unwrap().get("A").unwrap(), "b=c");
        assert!(build_args(&["SURELY_NOT_SET_ANYWHERE".to_owned()]).unwrap().is_empty());
        assert!(build_args(&["=x".to_owned()]).is_err());
    }
}
