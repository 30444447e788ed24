//! Push and pull against the registry that Debian packages, on loopback. Without `docker-registry` the tests say so and
//! are over.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails loudly")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use slipway_image::{
    Credentials, Digest, Error, Image, PruneOptions, PullProgress, Reference, Store, StoreConfig,
};

/// A registry of a test's own; dropped, it is stopped.
struct Registry {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn start(password: Option<(&str, &str)>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = folder.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            root.display()
        );
        if let Some((user, password)) = password {
            let output = Command::new("htpasswd").args(["-nbB", user, password]).output().ok()?;
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, output.stdout).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display()));
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = spawned else {
            println!("skipped: docker-registry is not installed");
            return None;
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { process, port, _folder: folder })
    }

    fn reference(&self, name: &str) -> Reference {
        format!("127.0.0.1:{}/{name}", self.port).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn store(folder: &Path) -> Store {
    Store::open(StoreConfig::new(folder.join("store"))).unwrap()
}

fn quiet(_: PullProgress) {}

/// Two layers, the first from a tar and the second from an upper directory.
fn build(store: &Store, folder: &Path, name: &Reference) -> Image {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(100_000);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1_000_000_000);
    builder.append_data(&mut header, "data", vec![7_u8; 100_000].as_slice()).unwrap();
    let below = store.import_layer(builder.into_inner().unwrap().as_slice(), &[]).unwrap();
    let upper = folder.join("upper");
    std::fs::create_dir_all(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/motd"), "ahoy\n").unwrap();
    std::fs::hard_link(upper.join("etc/motd"), upper.join("etc/same")).unwrap();
    std::os::unix::fs::symlink("motd", upper.join("etc/link")).unwrap();
    let above = store.commit_layer(&upper, &slipway_disk::walker::never).unwrap();
    let config = oci_spec::image::ImageConfiguration::default();
    store.commit_image(&config, &[below.diff_id, above.diff_id], std::slice::from_ref(name)).unwrap()
}

struct Hashing(Vec<u8>);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn rebuild_all(store: &Store, image: &Image) {
    for layer in &image.layers {
        let mut tar = Hashing(Vec::new());
        store.layer_tar(layer, &mut tar).unwrap();
        assert_eq!(Digest::of(&tar.0), layer.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_image_goes_there_and_comes_back() {
    let Some(registry) = Registry::start(None) else { return };
    let (folder, none) = (tempfile::tempdir().unwrap(), Credentials::Anonymous);
    let name = registry.reference("app/one:v1");
    let first = store(folder.path());
    let image = build(&first, folder.path(), &name);
    assert!(image.pinned);
    rebuild_all(&first, &image);
    let digest = first.push(&name, &none, &quiet).await.unwrap();
    assert_eq!(first.push(&name, &none, &quiet).await.unwrap(), digest, "a push is stable");
    assert_eq!(first.resolve(&format!("{}@{digest}", name.name())).unwrap().id, image.id);

    let removed = first.remove(&name.to_string()).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name.clone()], Some(image.id)));
    assert!(first.images().is_empty());
    let layers = folder.path().join("store/layers");
    assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 0, "nothing reaches the layers");

    let (one, two) = tokio::join!(first.pull(&name, &none, &quiet), first.pull(&name, &none, &quiet));
    let (pulled, two) = (one.unwrap().image, two.unwrap().image);
    assert_eq!(two.id, image.id);
    assert_eq!((pulled.id, &pulled.layers, pulled.pinned), (image.id, &image.layers, false));
    rebuild_all(&first, &pulled);
    assert_eq!(first.check().unwrap().findings, []);
    assert_eq!(std::fs::read_dir(folder.path().join("store/blobs/partial")).unwrap().count(), 0);

    let other = registry.reference("app/two:v1");
    first.tag(&pulled.id, &other).unwrap();
    assert_eq!(
        first.push(&other, &none, &quiet).await.unwrap(),
        digest,
        "a pulled image is pushed as it was"
    );

    drop(first);
    let again = store(folder.path());
    assert_eq!(again.resolve(&other.to_string()).unwrap().id, image.id);
    let lease = again.lease(&image.id).unwrap();
    assert!(matches!(again.remove(&other.to_string()), Err(Error::ImageInUse { .. })));
    assert_eq!(again.prune(PruneOptions { all: true }).unwrap().images, []);
    drop(lease);
    assert_eq!(again.prune(PruneOptions { all: true }).unwrap().images, [image.id]);
    assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 0);
    assert_eq!(again.usage().unwrap().bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_passwords_lets_in_who_has_one() {
    let Some(registry) = Registry::start(Some(("sailor", "ahoy"))) else { return };
    let folder = tempfile::tempdir().unwrap();
    let name = registry.reference("app:v1");
    let store = store(folder.path());
    build(&store, folder.path(), &name);
    let basic = |password: &str| Credentials::Basic { username: "sailor".into(), password: password.into() };
    for credentials in [Credentials::Anonymous, basic("wrong")] {
        let refused = store.push(&name, &credentials, &quiet).await;
        assert!(
            matches!(refused.as_ref().map_err(Error::cause), Err(Error::Unauthorized { .. })),
            "{refused:?}"
        );
    }
    store.push(&name, &basic("ahoy"), &quiet).await.unwrap();
    store.remove(&name.to_string()).unwrap();
    let refused = store.pull(&name, &Credentials::Anonymous, &quiet).await;
    assert!(matches!(refused.as_ref().map_err(Error::cause), Err(Error::Unauthorized { .. })), "{refused:?}");
    store.pull(&name, &basic("ahoy"), &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_apart() {
    let Some(registry) = Registry::start(None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = (store(folder.path()), Credentials::Anonymous);
    let missing = store.pull(&registry.reference("no/such:tag"), &none, &quiet).await;
    assert!(
        matches!(missing.as_ref().map_err(Error::cause), Err(Error::NotFoundInRegistry { .. })),
        "{missing:?}"
    );
    let name = registry.reference("down:v1");
    drop(registry);
    let down = store.pull(&name, &none, &quiet).await;
    assert!(
        matches!(down.as_ref().map_err(Error::cause), Err(Error::RegistryUnavailable { .. })),
        "{down:?}"
    );
    assert!(!down.unwrap_err().to_string().contains('\n'));
    assert!(store.images().is_empty());
}

/// Another client reads what Slipway pushed, and Slipway what that client made of it: Docker's manifest and media types.
#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_what_was_pushed_and_its_docker_form_is_pulled() {
    let Some(registry) = Registry::start(None) else { return };
    let (folder, none) = (tempfile::tempdir().unwrap(), Credentials::Anonymous);
    let (name, docker) = (registry.reference("app:oci"), registry.reference("app:docker"));
    let store = store(folder.path());
    let image = build(&store, folder.path(), &name);
    store.push(&name, &none, &quiet).await.unwrap();
    let copied = Command::new("skopeo")
        .args(["copy", "-q", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([format!("docker://{name}"), format!("docker://{docker}")])
        .status();
    let Ok(status) = copied else {
        println!("skipped: skopeo is not installed");
        return;
    };
    assert!(status.success());
    store.remove(&name.to_string()).unwrap();
    let pulled = store.pull(&docker, &none, &quiet).await.unwrap().image;
    assert_eq!(pulled.layers, image.layers);
    rebuild_all(&store, &pulled);
    assert_eq!(store.check().unwrap().findings, []);
}
