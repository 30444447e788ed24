//! BuildKit as the judge of Dockerfiles: a daemon of a test's own, and the images that it builds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::image::{self, Files};
use crate::{Output, busybox};

/// A running buildkitd with the image `busybox:1`.
#[derive(Debug)]
pub struct Buildkit {
    directory: TempDir,
    daemon: Child,
    programs: PathBuf,
    base: Files,
}

impl Buildkit {
    /// Starts it from the programs of `tests/peers/build rivals`, whose answer is in `SLIPWAY_RIVALS`; none without it.
    ///
    /// # Panics
    /// When it does not start, or can't build busybox:1.
    #[must_use]
    pub fn start() -> Option<Self> {
        let rivals = std::env::var("SLIPWAY_RIVALS").ok().filter(|rivals| !rivals.is_empty())?;
        let folders: Vec<PathBuf> =
            rivals.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        let of = |name: &str| folders.iter().find(|path| path.join(name).exists()).cloned().expect("a rival");
        let (programs, runc) = (of("buildkitd"), of("runc"));
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory for BuildKit");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let daemon = Command::new(programs.join("buildkitd"))
            .args(["--addr", &socket(directory.path()), "--containerd-worker=false", "--oci-worker=true"])
            .args(["--oci-worker-net=host", "--oci-worker-snapshotter=overlayfs", "--root"])
            .arg(directory.path().join("root"))
            .arg(format!("--oci-worker-binary={}", runc.join("runc").display()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("buildkitd starts");
        let mut buildkit = Self { directory, daemon, programs, base: Files::new() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while buildkit.ctl(&["debug", "workers"]).status != 0 {
            assert!(Instant::now() < deadline, "buildkitd: {}", buildkit.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let context = buildkit.path("busybox");
        busybox::context(&context, "");
        let image = buildkit.build(&context, "Dockerfile", &[], &buildkit.path("base"));
        buildkit.base = image::files(&[image.expect("busybox:1 is built").1]);
        Some(buildkit)
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join("buildctl"));
        Output::of(command.args(["--addr", &socket(self.directory.path())]).args(arguments))
    }

    /// Builds a Dockerfile of a context with the arguments of `slipway build` on these base images besides busybox:1,
    /// each a name and the folder that it was built into: what it says when it fails, else its text.
    ///
    /// # Errors
    /// BuildKit's message when it fails.
    ///
    /// # Panics
    /// When an image can't be read.
    pub fn image(
        &self,
        context: &Path,
        dockerfile: &str,
        arguments: &[String],
        into: &Path,
    ) -> Result<String, String> {
        let (config, root) = self.build(context, dockerfile, arguments, into)?;
        Ok(image::text(&config, &image::files(&[root]), &self.base))
    }

    fn build(
        &self,
        context: &Path,
        dockerfile: &str,
        arguments: &[String],
        into: &Path,
    ) -> Result<(Value, PathBuf), String> {
        let _ = std::fs::remove_dir_all(into);
        std::fs::create_dir_all(into).expect("a folder for the image");
        let shown = |path: &Path| path.display().to_string();
        let mut flags: Vec<String> =
            ["build", "--progress", "plain", "--frontend", "dockerfile.v0", "--no-cache"]
                .map(str::to_owned)
                .to_vec();
        flags.extend(["--local".to_owned(), format!("context={}", shown(context))]);
        flags.extend(["--local".to_owned(), format!("dockerfile={}", shown(context))]);
        flags.extend(["--opt".to_owned(), format!("filename={dockerfile}")]);
        flags.extend([
            "--output".to_owned(),
            format!("type=oci,tar=false,dest={}", shown(&into.join("image"))),
        ]);
        flags.extend(["--output".to_owned(), format!("type=tar,dest={}", shown(&into.join("root.tar")))]);
        flags.extend(options(arguments));
        flags.extend(self.named_images(into));
        let output = self.ctl(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        if output.status != 0 {
            return Err(output.stderr);
        }
        let root = into.join("root");
        std::fs::create_dir(&root).expect("a folder for the files");
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "-xpf"]).arg(into.join("root.tar")).arg("-C").arg(&root);
        let _ = Output::of(&mut tar).ok();
        let manifest = blob(into, &json(&into.join("image/index.json"))["manifests"][0]["digest"]);
        Ok((blob(into, &manifest["config"]["digest"])["config"].clone(), root))
    }

    /// The images that were built into folders of the same parent and of `base`, by the folders' names.
    fn named_images(&self, into: &Path) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |folder: &Path, name: &str| {
            let index = folder.join("image/index.json");
            if folder == into || !index.exists() {
                return;
            }
            let digest = json(&index)["manifests"][0]["digest"].clone();
            let store = name.replace([':', '/'], "-");
            let image = folder.join("image").display().to_string();
            flags.extend(["--oci-layout".to_owned(), format!("{store}={image}")]);
            let digest = digest.as_str().expect("a digest");
            flags.extend(["--opt".to_owned(), format!("context:{name}=oci-layout://{store}@{digest}")]);
        };
        add(&self.directory.path().join("base"), "busybox:1");
        let others = into.parent().map(std::fs::read_dir).expect("a parent").expect("it is read");
        for entry in others.map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(':') {
                add(&entry.path(), &name);
            }
        }
        flags
    }
}

impl Drop for Buildkit {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", directory.join("socket").display())
}

/// Flags of `slipway build` as buildctl has them.
fn options(arguments: &[String]) -> Vec<String> {
    let mut flags = Vec::new();
    let mut words = arguments.iter();
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        let option = match flag.as_str() {
            "--build-arg" => format!("build-arg:{value}"),
            "--target" => format!("target={value}"),
            "-f" => format!("filename={value}"),
            other => panic!("{other} is no flag of a case"),
        };
        flags.extend(["--opt".to_owned(), option]);
    }
    flags
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn blob(into: &Path, digest: &Value) -> Value {
    let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    json(&into.join("image/blobs/sha256").join(hex))
}
