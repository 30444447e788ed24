//! The daemon's program: arguments, log, signals; the rest is `slipway_cri::daemon`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use slipway_cri::config::{Arguments, Config};
use slipway_cri::{Error, Result, daemon};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    raise_open_files();
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|source| Error::Io { action: "start", path: "threads".into(), source })?;
    let outcome = threads.block_on(serve(config));
    // A call that hangs does not keep the daemon from ending.
    threads.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
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

async fn serve(config: Config) -> Result<()> {
    let _locks = daemon::lock(&config)?;
    let listener = daemon::bind(&config.socket())?;
    let watch =
        |kind| signal(kind).map_err(|source| Error::Io { action: "watch", path: "signals".into(), source });
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: work under way is finished first");
    };
    Box::pin(daemon::serve(config, listener, shutdown)).await
}
