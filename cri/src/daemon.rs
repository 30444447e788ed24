//! The wiring: config -> build -> serve -> drain.

use std::fs::{self, DirBuilder, Permissions};
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipway_disk::{Lock, atomic};
use slipway_image::Store;
use slipway_proto::http2;
use slipway_proto::runtime::v1::image_service_server::ImageServiceServer;
use slipway_proto::runtime::v1::runtime_service_server::RuntimeServiceServer;
use slipway_proto::slipway::v1::slipway_server::SlipwayServer;
use slipway_runtime::{Opener, Runtime};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};

use crate::config::Config;
use crate::deadline::Deadlines;
use crate::error::{Error, Result};
use crate::node::{Node, locked};
use crate::own::run;
use crate::recovery::{self, Strangers};
use crate::service::{image::Images, runtime::Pods, slipway::Verbs};

/// How long the first request waits until the daemon has connected to the monitors of running pods, usually
/// milliseconds: the answer is then the present state and not the recorded one.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause after a failed `accept(2)`.
const NO_ROOM: Duration = Duration::from_millis(100);
/// The file in each directory that its daemon locks.
const LOCK: &str = "slipwayd.lock";
/// How long requests in flight may take once the daemon is told to end.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Locks on the root and the state directory, held until they are released or dropped.
#[derive(Debug)]
pub struct Locks {
    files: Mutex<Vec<Lock>>,
}

impl Locks {
    /// Releases the locks, so that the next daemon can start. Without it a thread that hangs in a system call
    /// would keep this process's descriptors open beyond its end, and the locks with them.
    pub fn release(&self) {
        locked(&self.files).clear();
    }
}

/// Makes both directories and locks them, so that two daemons never share one.
pub fn lock(config: &Config) -> Result<Locks> {
    let mut files = Vec::new();
    for directory in [&config.root, &config.state] {
        make_directory(directory)?;
        // Images hold setuid programs: whoever made the directory, nobody else may come through it.
        fs::set_permissions(directory, Permissions::from_mode(0o700))
            .map_err(Error::io("change mode of", directory))?;
        let path = directory.join(LOCK);
        let lock = Lock::take(&path).map_err(Error::io("lock", &path))?;
        files.push(lock.ok_or_else(|| Error::Busy { path: directory.clone() })?);
        atomic::remove_unfinished(directory);
    }
    Ok(Locks { files: Mutex::new(files) })
}

/// Binds the socket: mode 0600, in a directory of mode 0700 if it is made here. The socket of a dead daemon is
/// replaced; any other file of that name in the state directory, which belongs to the daemon, is renamed. To be
/// called with the locks held.
pub fn bind(config: &Config) -> Result<UnixListener> {
    let socket = config.socket();
    let path = socket.as_path();
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).map_err(Error::io("replace socket", path))?;
        }
        Ok(_) if path.parent() == Some(&config.state) => {
            let aside = atomic::set_aside(path)?;
            tracing::error!(aside = %aside.display(), "it stood in the place of the socket and was renamed");
        }
        Ok(_) => {
            let reason = format!("{} exists and is no socket", path.display());
            return Err(Error::Setting { key: "listen", reason });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", path)(error)),
    }
    let listener = UnixListener::bind(path).map_err(Error::io("bind socket", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(Error::io("change mode of", path))?;
    Ok(listener)
}

/// Serves on the listener until `shutdown` completes, then drains: requests in flight have [`DRAIN`] to end.
pub async fn serve(
    config: Config,
    opener: Opener,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let socket = config.socket();
    let (node, strangers) = build(config, opener).await?;
    let node = Arc::new(node);
    // Subscribe to exit events before recovery, so that no exit between the two is missed.
    watch_ends(&node)?;
    node.tasks.spawn(recovery::resume(node.clone(), strangers));
    let runtime = node.runtime.clone();
    node.blocking(move || runtime.adopt(SETTLE)).await?;
    tracing::info!(socket = %socket.display(), "serving");
    let server = http2::server()
        .layer(Deadlines)
        .add_service(
            RuntimeServiceServer::new(Pods::new(node.clone()))
                .max_decoding_message_size(http2::MESSAGE_MAX)
                .max_encoding_message_size(http2::MESSAGE_MAX),
        )
        .add_service(
            ImageServiceServer::new(Images::new(node.clone()))
                .max_decoding_message_size(http2::MESSAGE_MAX)
                .max_encoding_message_size(http2::MESSAGE_MAX),
        );
    let server = server.add_service(
        SlipwayServer::new(Verbs::new(node.clone()))
            .max_decoding_message_size(http2::MESSAGE_MAX)
            .max_encoding_message_size(http2::MESSAGE_MAX),
    );
    let (told, mut ending) = oneshot::channel::<Instant>();
    let ending_node = node.clone();
    let serving = server.serve_with_incoming_shutdown(incoming(listener), async {
        shutdown.await;
        ending_node.end();
        let _ = told.send(Instant::now());
    });
    let over = tokio::select! {
        outcome = serving => {
            outcome.map_err(|source| Error::Serve { path: socket.clone(), source })?;
            ending.try_recv().unwrap_or_else(|_| Instant::now()) + DRAIN
        }
        latest = latest(&mut ending) => {
            tracing::warn!("clients are still connected: ending without them");
            latest
        }
    };
    drain(&node, over).await;
    remove_socket(&socket);
    Ok(())
}

/// Removes the bridge, the nftables table, the cgroups and the state directory, which a daemon leaves on the node
/// for the next one; images stay.
pub fn dismantle(config: &Config) -> Result<()> {
    let locks = lock(config)?;
    Runtime::dismantle(&config.runtime())?;
    for path in [config.socket(), config.state.join(LOCK)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove", path)(error));
            }
            _ => {}
        }
    }
    drop(locks);
    match fs::remove_dir(&config.state) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(directory = %config.state.display(), %error, "the state directory stays");
        }
        _ => {}
    }
    tracing::info!(images = %config.root.display(), "dismantled: what is left are images and records");
    Ok(())
}

async fn build(config: Config, opener: Opener) -> Result<(Node, Strangers)> {
    let done = tokio::task::spawn_blocking(move || {
        let store = Store::open(config.store())?;
        let runtime = Runtime::open(config.runtime(), opener)?;
        let node = Node::new(config, store, runtime)?;
        let strangers = recovery::load(&node)?;
        Ok((node, strangers))
    });
    done.await.map_err(|_| Error::Lost { what: "start".to_owned() })?
}

/// Starts a thread that handles each exit event of a container, as long as the daemon lives.
fn watch_ends(node: &Arc<Node>) -> Result<()> {
    let (events, node) = (node.runtime.events(), Arc::downgrade(node));
    let tasks = tokio::runtime::Handle::current();
    let watch = move || {
        for event in events {
            let Some(node) = node.upgrade() else { return };
            tasks.spawn(async move { run::ended(&node, &event).await });
        }
    };
    let spawned = std::thread::Builder::new().name("ends".to_owned()).spawn(watch);
    spawned.map(drop).map_err(Error::io("start thread", "ends"))
}

/// The stream of a listener's connections. An accept that fails, for want of descriptors, is retried after
/// [`NO_ROOM`], so that it does not spin.
fn incoming(listener: UnixListener) -> impl Stream<Item = std::io::Result<UnixStream>> {
    UnixListenerStream::new(listener).then(|accepted| async {
        if accepted.is_err() {
            tokio::time::sleep(NO_ROOM).await;
        }
        accepted
    })
}

/// Waits until [`DRAIN`] has passed since the shutdown; returns that deadline.
async fn latest(ending: &mut oneshot::Receiver<Instant>) -> Instant {
    // A sender that was dropped unused means that serving has ended, too.
    let latest = ending.await.unwrap_or_else(|_| Instant::now()) + DRAIN;
    tokio::time::sleep_until(latest).await;
    latest
}

async fn drain(node: &Node, latest: Instant) {
    node.tasks.close();
    if tokio::time::timeout_at(latest, node.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = node.tasks.len(), "work is still under way: the next start takes it up");
    }
}

fn remove_socket(socket: &PathBuf) {
    if let Err(error) = fs::remove_file(socket) {
        tracing::debug!(socket = %socket.display(), %error, "the socket stays");
    }
}

fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::io("create directory", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_never_share_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let config = |state: &str| Config {
            root: folder.path().join("root"),
            state: folder.path().join(state),
            ..Config::default()
        };
        let first = lock(&config("one")).unwrap();
        assert!(matches!(lock(&config("two")), Err(Error::Busy { .. })));
        drop(first);
        assert!(lock(&config("two")).is_ok());
    }

    #[test]
    fn a_directory_that_others_could_enter_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            root: folder.path().join("root"),
            state: folder.path().join("state"),
            ..Config::default()
        };
        DirBuilder::new().mode(0o755).create(&config.root).unwrap();
        drop(lock(&config).unwrap());
        assert_eq!(fs::metadata(&config.root).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = |listen: &str| Config {
            listen: Some(folder.path().join(listen).display().to_string()),
            state: folder.path().join("run"),
            ..Config::default()
        };
        let inside = config("run/s.sock");
        drop(bind(&inside).unwrap());
        drop(bind(&inside).unwrap());
        let (path, mode) = (inside.socket(), |path: &Path| fs::metadata(path).unwrap().permissions().mode());
        assert_eq!((mode(&path) & 0o777, mode(&inside.state) & 0o777), (0o600, 0o700));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(bind(&inside).is_ok(), "nothing there is anyone else's");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(bind(&config("file")).is_err(), "it may be anyone's");
    }
}
