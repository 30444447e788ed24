//! The daemon's program: arguments, log, signals; the rest is `slipway_cri::daemon`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use slipway_cri::config::{Arguments, Config};
use slipway_cri::daemon::{self, DRAIN, Locks};
use slipway_cri::{Error, Result};
use slipway_runtime::Opener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// How much longer than its work under way the daemon may take to end, once it is told to.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// How many calls may wait in the kernel at once. A stop waits for its container's grace, an ExecSync for its process: a
/// node that is drained has one for each container, and the lists that kubelet judges the node by come after them.
const WAITING: usize = 16 << 10;

fn main() -> ExitCode {
    slipway_runtime::keep_heap_small();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
            {
                eprintln!("slipwayd: {}", error.chain());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = Config::load(arguments)?;
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| Error::Setting { key: "log", reason: error.to_string() })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if arguments.dismantle {
        return daemon::dismantle(&config);
    }
    // A copy of a process without threads and with nothing open.
    let opener = Opener::begin().unwrap_or_else(|error| {
        tracing::warn!(%error, "host paths and logs are opened by the daemon itself: one that hangs may keep it from ending");
        Opener::default()
    });
    raise_open_files();
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|source| Error::Io { action: "start", path: "threads".into(), source })?;
    let locks = Arc::new(daemon::lock(&config)?);
    let shutdown = watch_signals(Arc::clone(&locks))?;
    let outcome = threads.block_on(async {
        let listener = daemon::bind(&config)?;
        // One whose thread is lost would not hear of signals any more: it ends, too.
        let shutdown = async { drop(shutdown.await) };
        Box::pin(daemon::serve(config, opener, listener, shutdown)).await
    });
    // A call that hangs does not keep the daemon from ending, nor the next one from beginning.
    threads.shutdown_timeout(Duration::from_secs(1));
    locks.release();
    outcome
}

/// Waits for SIGTERM or SIGINT on a thread that does nothing else, and makes the daemon end some time after it, whatever
/// its other threads wait for: each of them, those that serve included, may hang in a system call.
fn watch_signals(locks: Arc<Locks>) -> Result<oneshot::Receiver<()>> {
    let failed = |source| Error::Io { action: "watch", path: "signals".into(), source };
    let alone = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _entered = alone.enter();
        let watch = |kind| signal(kind).map_err(failed);
        (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?)
    };
    let (told, shutdown) = oneshot::channel();
    let wait = move || {
        alone.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        tracing::info!("ending: work under way is finished first");
        // A daemon that has ended by itself is gone with this thread.
        let _ = told.send(());
        std::thread::sleep(DRAIN + LAST_STEPS);
        tracing::warn!("a call hangs: ending without it");
        locks.release();
        #[expect(clippy::exit, reason = "what hangs can't be unwound")]
        std::process::exit(0);
    };
    let spawned = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    spawned.map(drop).map_err(|source| Error::Io {
        action: "start thread",
        path: "signals".into(),
        source,
    })?;
    Ok(shutdown)
}

/// The soft limit, often 1024, is for programs that use select(2); each pod and each host port needs descriptors here
/// and in its monitor, which inherits it. Containers have limits of their own.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}
