//! After a restart: live monitors are adopted, and what a dead daemon or monitor left half-made is ended.
//!
//! The cgroup of a record without a live monitor is killed and the record is exited; a directory whose record is
//! absent is garbage, and one that can't be read is reported and kept.

use crate::monitor_client::{Connection, PROMPT};
use crate::pod::{Container, ContainerRecord, EndRecord, Loss, Pod, PodRecord, Stage, StartRecord, lock};
use crate::runtime::Shared;
use crate::state::Loaded;
use crate::{ContainerId, ContainerState, Result, SandboxId, state};
use slipway_monitor::exit_file;
use slipway_monitor::protocol::{Known, Reply, Request};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takes up everything that earlier daemons left.
pub(crate) fn recover(shared: &Arc<Shared>) -> Result<()> {
    load_pods(shared)?;
    load_containers(shared)?;
    let pods: Vec<_> = lock(&shared.pods).values().cloned().collect();
    for pod in &pods {
        let outcome = match pod.record().stage {
            Stage::Ready | Stage::Lost => adopt(shared, pod),
            Stage::Creating => {
                let id = pod.record().config.id;
                tracing::info!(sandbox = %id, "its creation was interrupted; removing it");
                shared.remove_sandbox(&id)
            }
            Stage::Stopped => shared.tear_down(pod),
        };
        if let Err(error) = outcome {
            tracing::warn!(sandbox = %pod.record().config.id, %error, "not recovered");
        }
    }
    // One whose record can't be read may run: its network is not taken away either.
    let live = state::names(&shared.config.root.join("pods"))?;
    let live: Vec<&str> = live.iter().map(String::as_str).collect();
    if let Err(error) = shared.network.recover(&live) {
        tracing::warn!(%error, "the network is not recovered");
    }
    Ok(())
}

fn load_pods(shared: &Shared) -> Result<()> {
    let directory = shared.config.root.join("pods");
    for name in state::names(&directory)? {
        let Ok(id) = SandboxId::new(name.clone()) else { continue };
        let root = directory.join(&name);
        let own = shared.config.state.join("pods").join(&name);
        match state::read::<PodRecord>(&root.join("record")) {
            Ok(Some(loaded)) => {
                let pod = Arc::new(Pod::new(root, own, loaded.value));
                if !loaded.this_boot {
                    state::make_directory(&pod.state)?;
                    pod.end(Stage::Stopped);
                }
                lock(&shared.pods).insert(id, pod);
            }
            Ok(None) => stays(state::remove_directory(&own).and_then(|()| state::remove_directory(&root))),
            Err(error) => tracing::error!(%error, "a sandbox is left alone"),
        }
    }
    Ok(())
}

fn load_containers(shared: &Shared) -> Result<()> {
    let directory = shared.config.root.join("containers");
    for name in state::names(&directory)? {
        let Ok(id) = ContainerId::new(name.clone()) else { continue };
        let path = directory.join(&name);
        match state::read::<ContainerRecord>(&path.join("record")) {
            Ok(Some(loaded)) => {
                let container = load_container(path, loaded)?;
                lock(&shared.containers).insert(id, Arc::new(container));
            }
            Ok(None) => stays(state::remove_directory(&path)),
            Err(error) => tracing::error!(%error, "a container is left alone"),
        }
    }
    Ok(())
}

fn load_container(path: PathBuf, loaded: Loaded<ContainerRecord>) -> Result<Container> {
    let ended = match state::read::<EndRecord>(&path.join("ended")) {
        Ok(ended) => ended.map(|loaded| loaded.value),
        Err(error) => {
            // It has ended, and is not to be started once more.
            tracing::error!(%error, "how a container has ended is not known any more");
            Some(EndRecord::lost(0, Loss::Record))
        }
    };
    let started = state::read::<StartRecord>(&path.join("started")).unwrap_or_else(|error| {
        tracing::error!(%error, "what a container was started with is not known any more");
        None
    });
    let identity = started.as_ref().and_then(|started| started.value.identity.clone());
    let state = match (ended, started) {
        (Some(end), _) => end.state(),
        (None, Some(started)) if !loaded.this_boot => {
            let end = EndRecord::lost(started.value.at, Loss::Machine);
            state::write(&path.join("ended"), &end)?;
            end.state()
        }
        _ => ContainerState::Created { at: loaded.value.created_at },
    };
    if !loaded.this_boot && loaded.value.request.rootfs.volatile {
        stays(discard_upper(&path));
    }
    let container = Container::new(path, loaded.value, state);
    container.runs_as(identity);
    Ok(container)
}

/// Reports what can't be removed: everything else is served.
fn stays(removed: Result<()>) {
    if let Err(error) = removed {
        let error = crate::chain(&error);
        tracing::error!(error, "it can't be removed and stays: mend that, the next start tries again");
    }
}

/// What was written without waiting for the disk is not to be trusted once the machine has gone down.
fn discard_upper(path: &Path) -> Result<()> {
    let volatile = |name: &String| name == "upper" || name.starts_with("work-");
    let mut names = state::names(path)?.into_iter().filter(volatile);
    names.try_for_each(|name| state::remove_directory(&path.join(name)))
}

/// Listens to a live monitor and takes over what it knows; without one the pod is lost.
fn adopt(shared: &Arc<Shared>, pod: &Arc<Pod>) -> Result<()> {
    let record = pod.record();
    let known = shared.watch(pod).and_then(|()| known(shared, pod));
    let Ok(known) = known else {
        monitor_lost(shared, pod);
        return Ok(());
    };
    for container in shared.containers_of(&record.config.id) {
        let id = container.record.request.id.as_str();
        match known.iter().find(|known| known.container == id) {
            Some(Known { exit: Some(exit), .. }) => shared.finish(&container, &EndRecord::seen(exit)),
            Some(Known { pid, started_at, .. }) if *pid > 0 => container.running(*pid, *started_at),
            _ => unstarted(shared, &container)?,
        }
    }
    Ok(())
}

fn known(shared: &Shared, pod: &Pod) -> Result<Vec<Known>> {
    let connection: Connection = shared.connect(pod)?;
    match connection.request(&Request::List {}, &[], PROMPT)?.reply {
        Reply::Containers { containers } => Ok(containers.0),
        other => Err(connection.unexpected(&other)),
    }
}

/// A start that its monitor never heard of has left a cgroup at most.
fn unstarted(shared: &Shared, container: &Container) -> Result<()> {
    if matches!(container.state(), ContainerState::Exited { .. }) {
        return Ok(());
    }
    if let Some(started) = container.start_record()? {
        started.cgroup.kill(&shared.features)?;
        started.cgroup.remove()?;
        let _ = std::fs::remove_file(container.directory.join("started"));
    }
    Ok(())
}

/// A monitor has ended. If nobody asked it to, its containers are killed and have ended with it.
pub(crate) fn monitor_lost(shared: &Shared, pod: &Pod) {
    if pod.record().stage != Stage::Ready && pod.record().stage != Stage::Lost {
        return;
    }
    tracing::warn!(sandbox = %pod.record().config.id, "its monitor is gone; its containers are killed");
    pod.end(Stage::Lost);
    for container in shared.containers_of(&pod.record().config.id) {
        settle(shared, pod, &container);
    }
    if let Some(pause) = pod.record().pause {
        let _ = pause.kill(&shared.features);
    }
    if let Some(monitor) = lock(&pod.monitor).take() {
        monitor.kill();
        monitor.wait();
    }
}

/// Ends a container that nobody watches any more: what is left is killed, its end is what its exit file says.
pub(crate) fn settle(shared: &Shared, pod: &Pod, container: &Container) {
    if matches!(container.state(), ContainerState::Exited { .. }) {
        return;
    }
    let Ok(Some(started)) = container.start_record() else { return };
    if let Err(error) = started.cgroup.kill(&shared.features) {
        tracing::warn!(container = %container.record.request.id, %error, "not killed");
    }
    let file = pod.state.join(exit_file::name(container.record.request.id.as_str()));
    let seen = std::fs::read_to_string(file).ok().and_then(|text| exit_file::parse(&text));
    let end = seen.as_ref().map_or_else(|| EndRecord::lost(started.at, Loss::Monitor), EndRecord::seen);
    shared.finish(container, &end);
}
