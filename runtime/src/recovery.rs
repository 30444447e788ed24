//! After a restart: records are read, and what they say holds until each pod's monitor has been heard of.
//!
//! The cgroup of a record whose monitor is proven dead is killed and the record is exited; a directory whose record is
//! absent is garbage, and one that can't be read is reported and kept. No monitor is asked here: that is
//! [`Shared::adopt`]'s, once the daemon serves.

use crate::link::Contact;
use crate::pod::{Container, ContainerRecord, EndRecord, Loss, Pod, PodRecord, Stage, StartRecord, lock};
use crate::runtime::Shared;
use crate::state::Loaded;
use crate::{ContainerId, ContainerState, Result, SandboxId, state};
use slipway_monitor::exit_file;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads what earlier daemons left, without asking a monitor.
pub(crate) fn recover(shared: &Shared) -> Result<()> {
    let ended = load_pods(shared)?;
    load_containers(shared)?;
    let containers: Vec<_> = lock(&shared.containers).values().cloned().collect();
    for container in containers.iter().filter(|container| container.is_only_recorded()) {
        let pod = shared.find_pod(&container.record.request.sandbox);
        if let Some(end) = pod.and_then(|pod| filed(&pod, container)) {
            shared.finish(container, &end);
        }
    }
    // Nothing of another boot runs or answers any more: what it held is free before the first request comes.
    for pod in &ended {
        if let Err(error) = shared.tear_down(pod) {
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

/// Loads the sandboxes; gives those of another boot, which have ended with it.
fn load_pods(shared: &Shared) -> Result<Vec<Arc<Pod>>> {
    let mut ended = Vec::new();
    let directory = shared.config.root.join("pods");
    for name in state::names(&directory)? {
        let Ok(id) = SandboxId::new(name.clone()) else { continue };
        let root = directory.join(&name);
        let own = shared.config.state.join("pods").join(&name);
        match state::read::<PodRecord>(&root.join("record")) {
            Ok(Some(loaded)) => {
                let contact = match loaded.value.stage {
                    Stage::Ready | Stage::Lost if loaded.this_boot => Contact::Pending,
                    Stage::Ready | Stage::Lost | Stage::Creating | Stage::Stopped => Contact::Answering,
                };
                let pod = Arc::new(Pod::new(root, own, loaded.value, contact));
                if !loaded.this_boot {
                    state::make_directory(&pod.state)?;
                    pod.end(Stage::Stopped);
                    ended.push(Arc::clone(&pod));
                }
                lock(&shared.pods).insert(id, pod);
            }
            Ok(None) => stays(state::remove_directory(&own).and_then(|()| state::remove_directory(&root))),
            Err(error) => tracing::error!(%error, "a sandbox is left alone"),
        }
    }
    Ok(ended)
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
        // Its monitor will say whether it does.
        (None, Some(started)) => ContainerState::Running { pid: 0, started_at: started.value.at },
        (None, None) => ContainerState::Created { at: loaded.value.created_at },
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

/// A monitor is proven dead. If nobody asked it to end, its containers are killed and have ended with it.
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

/// Ends a container whose monitor is dead: what is left is killed, its end is what its exit file says.
pub(crate) fn settle(shared: &Shared, pod: &Pod, container: &Container) {
    if matches!(container.state(), ContainerState::Exited { .. }) {
        return;
    }
    let Ok(Some(started)) = container.start_record() else { return };
    if let Err(error) = started.cgroup.kill(&shared.features) {
        // What may live has not ended.
        tracing::warn!(container = %container.record.request.id, %error, "not killed");
        return;
    }
    let end = filed(pod, container).unwrap_or_else(|| EndRecord::lost(started.at, Loss::Monitor));
    shared.finish(container, &end);
}

/// The end that a container's exit file tells; none where there is no such file.
fn filed(pod: &Pod, container: &Container) -> Option<EndRecord> {
    let file = pod.state.join(exit_file::name(container.record.request.id.as_str()));
    let text = std::fs::read_to_string(file).ok()?;
    exit_file::parse(&text).as_ref().map(EndRecord::seen)
}
