//! After a restart: records are read, and what they say holds until each pod's monitor has been heard of.
//!
//! The cgroup of a record whose monitor is proven dead is killed and the record is exited; a directory whose record is
//! absent is garbage, unless a process of it lives. A damaged record is written again from its copy; without one a
//! stand-in takes its place. Nothing that is found keeps the daemon from serving. No monitor is asked here: that is
//! [`Shared::adopt`]'s, once the daemon serves.

use crate::end::Loss;
use crate::found::{self, Start};
use crate::life::PodEvent;
use crate::link::Contact;
use crate::pod::{Container, EndRecord, FoundLife, Pod, lock};
use crate::runtime::Shared;
use crate::state::Place;
use crate::{ContainerId, ContainerRequest, ContainerState, Result, SandboxId, state};
use slipway_disk::atomic;
use slipway_disk::record::Damage;
use slipway_monitor::exit_file;
use std::path::Path;
use std::sync::Arc;

/// Reads what earlier daemons left, without asking a monitor.
pub(crate) fn recover(shared: &Shared) -> Result<()> {
    let ended = load_pods(shared)?;
    load_containers(shared)?;
    let containers: Vec<_> = lock(&shared.containers).values().cloned().collect();
    for container in containers.iter().filter(|container| container.is_only_recorded()) {
        if let Some(end) = seen(shared, &container.record.request) {
            shared.finish(container, &end);
        }
    }
    // Nothing of another boot runs or answers any more: what it held is free before the first request comes.
    for pod in &ended {
        if let Err(error) = shared.tear_down(pod) {
            tracing::warn!(sandbox = %pod.record().config.id, %error, "not recovered");
        }
    }
    restore_addresses(shared);
    // One whose record can't be read may run: its network is not taken away either.
    let live = Place::ids(&shared.config, "pods")?;
    let live: Vec<&str> = live.iter().map(String::as_str).collect();
    if let Err(error) = shared.network.recover(&live) {
        tracing::warn!(%error, "the network is not recovered");
    }
    Ok(())
}

/// Pods that may live hold what their records say, whatever the records of addresses say.
fn restore_addresses(shared: &Shared) {
    let pods: Vec<_> = lock(&shared.pods).values().cloned().collect();
    for record in pods.iter().map(|pod| pod.record()) {
        if let (crate::Network::Pod { ports }, false) = (&record.config.network, record.addresses.is_empty())
            && record.state.has_monitor()
            && let Err(error) = shared.network.restore(record.config.id.as_str(), &record.addresses, ports)
        {
            tracing::warn!(sandbox = %record.config.id, %error, "the record of its addresses is damaged");
        }
    }
}

/// Loads the sandboxes; gives those of another boot, which have ended with it.
fn load_pods(shared: &Shared) -> Result<Vec<Arc<Pod>>> {
    let mut ended = Vec::new();
    for name in Place::ids(&shared.config, "pods")? {
        let Ok(id) = SandboxId::new(name.clone()) else { continue };
        let place = Place::pod(&shared.config, &name);
        let directory = place.directory.clone();
        match load_pod(shared, &id, place) {
            Ok(Some((pod, is_of_another_boot))) => {
                let pod = Arc::new(pod);
                if is_of_another_boot {
                    ended.push(Arc::clone(&pod));
                }
                lock(&shared.pods).insert(id, pod);
            }
            Ok(None) => {}
            Err(error) => shared.damages.left(&directory, &error),
        }
    }
    Ok(ended)
}

/// A pod, and whether no daemon of this boot has known it yet.
fn load_pod(shared: &Shared, id: &SandboxId, place: Place) -> Result<Option<(Pod, bool)>> {
    let own = shared.config.state.join("pods").join(id.as_str());
    atomic::remove_unfinished(&place.directory);
    let slot = place.record();
    let absent = || Damage { path: slot.path().into(), reason: "it is absent".into(), torn: true };
    let damage = match found::pod(&place).and_then(|found| found.ok_or_else(absent)) {
        Ok(on_disk) => {
            shared.damages.healed(&on_disk.healed);
            if let Some(damage) = &on_disk.found.damage {
                tracing::error!(%damage, "the addresses and the monitor of a pod are not known any more");
            }
            let waits = !on_disk.is_of_another_boot && on_disk.found.state.has_monitor();
            let contact = if waits { Contact::Pending } else { Contact::Answering };
            let pod = Pod::new(place, own, on_disk.found, contact);
            if on_disk.is_of_another_boot {
                state::make_directory(&pod.state)?;
                pod.restarted();
            }
            return Ok(Some((pod, on_disk.is_of_another_boot)));
        }
        Err(damage) => damage,
    };
    // It was being made or removed, unless its monitor's directory is there: that is made later and goes before.
    if damage.torn && !own.exists() {
        stays(place.remove());
        return Ok(None);
    }
    // Whether it is of this boot is decided there: it has a monitor then.
    shared.stand_in_pod(id, place, damage).map(|pod| Some((pod, false)))
}

fn load_containers(shared: &Shared) -> Result<()> {
    for name in Place::ids(&shared.config, "containers")? {
        let Ok(id) = ContainerId::new(name.clone()) else { continue };
        let place = Place::container(&shared.config, &name);
        match load_container(shared, &id, &place) {
            Ok(Some(container)) => drop(lock(&shared.containers).insert(id, Arc::new(container))),
            Ok(None) => {}
            Err(error) => shared.damages.left(&place.directory, &error),
        }
    }
    Ok(())
}

fn load_container(shared: &Shared, id: &ContainerId, place: &Place) -> Result<Option<Container>> {
    atomic::remove_unfinished(&place.directory);
    let starts = found::starts(place);
    shared.damages.healed(&starts.healed);
    let slot = place.record();
    let absent = || Damage { path: slot.path().into(), reason: "it is absent".into(), torn: true };
    let (record, this_boot, is_removing) =
        match found::container(place).and_then(|found| found.ok_or_else(absent)) {
            Ok(on_disk) => {
                shared.damages.healed(&on_disk.healed);
                (on_disk.record, on_disk.this_boot, on_disk.is_removing)
            }
            // It was being made or removed: one that was started is killed before it is removed.
            Err(damage) if damage.torn && !matches!(&starts.last, Start::Known(known) if known.this_boot) => {
                stays(place.remove());
                return Ok(None);
            }
            Err(damage) => {
                let known = starts.last.known();
                // A reboot leaves no cgroup.
                let has_cgroup = || shared.cgroups.find(id.as_str()).is_some();
                let this_boot = known.map_or_else(has_cgroup, |loaded| loaded.this_boot);
                let start = known.map(|loaded| &loaded.value);
                let is_removing = !place.numbers("intent").is_empty();
                (Shared::stand_in_container(id, place, start, damage)?, this_boot, is_removing)
            }
        };
    let life = found::life(place, &record, this_boot, &starts, || seen(shared, &record.request));
    for (damage, end) in &life.replaced {
        shared.damages.replaced_end(damage, end);
    }
    let identity = starts.last.known().and_then(|start| start.value.identity.clone());
    let found = FoundLife { state: life.state, run: life.run, is_removing };
    let container = Container::new(place.clone(), record, found);
    container.runs_as(identity);
    if !this_boot && container.record.request.rootfs.volatile {
        stays(discard_upper(&place.directory));
    }
    Ok(Some(container))
}

/// Reports what can't be removed: everything else is served.
fn stays(removed: Result<()>) {
    if let Err(error) = removed {
        let error = crate::chain(&error);
        tracing::error!(error, "it can't be removed and stays: mend that, the next start tries again");
    }
}

/// Removes the data that was written without a sync: it is not to be trusted once the machine has gone down.
fn discard_upper(path: &Path) -> Result<()> {
    let volatile = |name: &String| name == "upper" || name.starts_with("work-");
    let mut names = state::names(path)?.into_iter().filter(volatile);
    names.try_for_each(|name| Ok(slipway_disk::remove_tree(&path.join(name))?))
}

/// A monitor is proven dead. If nobody asked it to end, its containers are killed and have ended with it.
pub(crate) fn monitor_lost(shared: &Shared, pod: &Pod) {
    if !pod.state().has_monitor() {
        return;
    }
    tracing::warn!(sandbox = %pod.record().config.id, "its monitor is gone; its containers are killed");
    pod.end(PodEvent::MonitorLost);
    for container in shared.containers_of(&pod.record().config.id) {
        settle(shared, &container);
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
pub(crate) fn settle(shared: &Shared, container: &Container) {
    if matches!(container.state(), ContainerState::Exited { .. }) {
        return;
    }
    let Some(started) = shared.start_record(container) else { return };
    if let Err(error) = started.cgroup.kill(&shared.features) {
        // Its processes may live: then it has not ended.
        tracing::warn!(container = %container.record.request.id, %error, "not killed");
        return;
    }
    let end =
        seen(shared, &container.record.request).unwrap_or_else(|| EndRecord::lost(started.at, Loss::Monitor));
    shared.finish(container, &end);
}

/// The end of a container by its exit file.
fn seen(shared: &Shared, request: &ContainerRequest) -> Option<EndRecord> {
    let text = exit_text(shared, request)?;
    exit_file::parse(request.id.as_str(), &text).as_ref().map(EndRecord::seen)
}

/// The exit file of a container, as far as it can be read.
pub(crate) fn exit_text(shared: &Shared, request: &ContainerRequest) -> Option<String> {
    let pod = shared.config.state.join("pods").join(request.sandbox.as_str());
    let path = pod.join(exit_file::name(request.id.as_str()));
    String::from_utf8(atomic::read_regular(&path, exit_file::LONGEST).ok()?).ok()
}
