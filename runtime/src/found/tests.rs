use super::*;
use crate::{ContainerId, ExitReason, Owner, RuntimeConfig, SandboxId, damage, state};
use proptest::prelude::*;
use slipway_disk::record::{boot_id, encode};
use std::fs;
use std::path::Path;

fn config(folder: &Path) -> RuntimeConfig {
    RuntimeConfig { root: folder.join("lib"), state: folder.join("run"), ..RuntimeConfig::default() }
}

/// Nothing of it is left, and removing it once more is fine.
fn is_removed(config: &RuntimeConfig, place: &Place, group: &str) {
    for _ in 0..2 {
        place.remove().unwrap();
        assert!(Place::ids(config, group).unwrap().is_empty());
        assert!(!place.directory.exists());
    }
}

fn pod_place(config: &RuntimeConfig) -> (Place, PodRecord) {
    let id = SandboxId::new("one").unwrap();
    let place = Place::pod(config, id.as_str());
    state::make_directory(&place.directory).unwrap();
    (place, PodRecord::new(&damage::unknown_config(&id), None, None))
}

fn container_place(config: &RuntimeConfig, owner: Owner) -> (Place, ContainerRecord) {
    let id = ContainerId::new("one").unwrap();
    let place = Place::container(config, id.as_str());
    state::make_directory(&place.directory).unwrap();
    let mut request = damage::unknown_request(&id, SandboxId::new("pod").unwrap());
    request.owner = owner;
    (place, ContainerRecord { request, created_at: 1, damage: None })
}

fn start(at: i64) -> StartRecord {
    let cgroup = serde_json::json!({"location": {"unified": true, "directories": []}});
    let cgroup = serde_json::from_value(cgroup).unwrap();
    StartRecord { cgroup, at, identity: None, sandbox: None }
}

fn end(code: i32) -> EndRecord {
    let (reason, message) = (ExitReason::Error, String::new());
    EndRecord { started_at: 1, finished_at: 2, code, reason, message }
}

fn read_container(place: &Place) -> Option<Life> {
    let on_disk = container(place).unwrap()?;
    Some(life(place, &on_disk.record, on_disk.this_boot, &starts(place), || None))
}

proptest! {
    /// The daemon may be killed between any two files.
    #[test]
    fn a_pod_whose_daemon_is_killed_after_any_event_is_read_in_the_state_that_it_had(
        events in prop::collection::vec(
            prop::sample::select(vec![PodEvent::Made, PodEvent::MonitorLost, PodEvent::Stop, PodEvent::Remove]),
            0..8,
        ),
        loses_copies in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (place, made) = pod_place(&config);
        prop_assert!(pod(&place).unwrap().is_none());
        place.record().write(&made).unwrap();
        let facts = PodFacts { addresses: vec!["10.0.0.2".parse().unwrap()], ..PodFacts::default() };
        let mut state = PodState::Creating;
        for event in events {
            let after = state.after(event).unwrap_or(state);
            if after != state {
                write(&place, event, &facts).unwrap();
            }
            state = after;
            if loses_copies {
                fs::remove_dir_all(folder.path().join("run")).unwrap();
            }
            let read = pod(&place).unwrap().unwrap();
            prop_assert_eq!(read.found.state, state);
            prop_assert!(!read.is_of_another_boot && read.healed.is_empty() && read.found.damage.is_none());
            let addresses = read.found.facts.addresses.len();
            prop_assert_eq!(addresses, usize::from(place.ready().path().exists()));
        }
        is_removed(&config, &place, "pods");
    }

    #[test]
    fn a_container_whose_daemon_is_killed_after_any_event_is_read_in_the_state_that_it_had(
        steps in prop::collection::vec(0..3_u8, 0..8),
        owner in prop::sample::select(vec![Owner::Cri, Owner::Run, Owner::Build, Owner::Cluster]),
        cut in 0..3_u8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (place, record) = container_place(&config, owner);
        prop_assert!(read_container(&place).is_none());
        place.record().write(&record).unwrap();
        let (mut run, mut state) = (1, ContainerState::Created { at: 1 });
        for (at, step) in (10..).zip(steps) {
            let event = match step {
                0 => LifeEvent::StartFound { at },
                1 => LifeEvent::Ended(end(i32::try_from(at).unwrap())),
                _ => LifeEvent::Renewed { owner, created_at: 1 },
            };
            let Ok(after) = state.clone().after(event.clone()) else { continue };
            match event {
                LifeEvent::StartFound { at } if matches!(state, ContainerState::Created { .. }) => {
                    place.started(run).write(&start(at)).unwrap();
                }
                LifeEvent::Ended(end) if after != state => place.write_end(run, &end).unwrap(),
                LifeEvent::Renewed { .. } => {
                    run += 1;
                    state = after;
                    // Until its start is written it is the container that has ended.
                    continue;
                }
                _ => continue,
            }
            state = after;
            let read = read_container(&place).unwrap();
            prop_assert_eq!((&read.state, read.run), (&state, run));
            prop_assert!(read.replaced.is_empty());
        }
        // A removal, too, may be cut off: what is left is a container that was not started, or none.
        if cut > 0 {
            fs::remove_dir_all(folder.path().join("run")).unwrap();
        }
        if cut > 1 {
            for run in place.numbers("started") {
                place.started(run).remove().unwrap();
            }
            let read = read_container(&place).unwrap();
            prop_assert!(!matches!(read.state, ContainerState::Running { .. }), "{:?}", read.state);
        }
        is_removed(&config, &place, "containers");
    }
}

#[test]
fn a_second_start_of_a_container_that_is_not_run_s_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for (owner, runs) in
        [(Owner::Cri, false), (Owner::Build, false), (Owner::Cluster, false), (Owner::Run, true)]
    {
        let (place, record) = container_place(&config, owner);
        place.record().write(&record).unwrap();
        place.started(1).write(&start(5)).unwrap();
        place.write_end(1, &end(3)).unwrap();
        place.started(2).write(&start(6)).unwrap();
        let read = read_container(&place).unwrap();
        assert_eq!(
            matches!(read.state, ContainerState::Running { pid: 0, started_at: 6 }),
            runs,
            "{owner:?}"
        );
        assert_eq!(matches!(read.state, ContainerState::Exited { code: 3, .. }), !runs, "{owner:?}");
        place.remove().unwrap();
    }
}

#[test]
fn a_damaged_wish_stops_the_pod_and_damaged_facts_let_nothing_start_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for (file, state) in [("intent.1", PodState::Stopped), ("ready", PodState::Lost)] {
        let (place, made) = pod_place(&config);
        place.record().write(&made).unwrap();
        write(&place, PodEvent::Made, &PodFacts::default()).unwrap();
        if file == "intent.1" {
            write(&place, PodEvent::Remove, &PodFacts::default()).unwrap();
        }
        let copy = folder.path().join("run/copies/pods/one").join(file);
        // The copy alone is enough.
        fs::write(place.directory.join(file), "damaged").unwrap();
        let read = pod(&place).unwrap().unwrap();
        assert_eq!((read.healed.len(), read.found.damage.is_some()), (1, false), "{file}");
        for path in [&copy, &place.directory.join(file)] {
            fs::write(path, "damaged").unwrap();
        }
        let read = pod(&place).unwrap().unwrap();
        assert_eq!(read.found.state, state, "{file}");
        assert_eq!(read.found.damage.is_some(), file == "ready");
        is_removed(&config, &place, "pods");
    }
}

/// Records as earlier releases wrote them: `first` in the first form of records, `replaced` in today's form of records,
/// but each replaced with every change. Both are of a pod with three containers, a stopped pod, and a pod of `run`.
const FORMER: [&str; 2] = ["first", "replaced"];
const WEB: &str = "4d7e101f448656e5f3479d703ff4ab017e242f49e0ea3513be730ccb8bf05aea";
const STOPPED: &str = "8b825914ccf910d214cf21e2b981c9ebc99addc7cebe55be9a5c081e8dbed25b";
const RUNNING: &str = "4f5db3bfc09a5dbaff1c442918eb0ae052351bbf79e5411356563ae4bb577183";
const ENDED: &str = "29d136328d374e54beac3ed948f10ba209d8c90b35c269accb840b41210395a5";
const CREATED: &str = "75d522b3d33760647c0c801ebfea17c592ae4854cd40d84078ece42578878e62";

/// Copies the records of a release; with `now` they are of this boot.
fn former(release: &str, lib: &Path, now: bool) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records").join(release);
    for group in ["pods", "containers"] {
        for id in state::names(&top.join(group)).unwrap() {
            let to = lib.join(group).join(&id);
            state::make_directory(&to).unwrap();
            for file in state::names(&top.join(group).join(&id)).unwrap() {
                let bytes = fs::read(top.join(group).join(&id).join(&file)).unwrap();
                let bytes = if now { of_this_boot(&String::from_utf8(bytes).unwrap(), &id) } else { bytes };
                fs::write(to.join(file), bytes).unwrap();
            }
        }
    }
}

fn of_this_boot(record: &str, id: &str) -> Vec<u8> {
    let (first, rest) = record.split_once('\n').unwrap();
    if let Some(words) = first.strip_prefix("slipway-record 1 ") {
        let (_, sum) = words.split_once(' ').unwrap();
        return format!("slipway-record 1 {} {sum}\n{rest}", boot_id()).into_bytes();
    }
    let (header, body) = rest.split_once('\n').unwrap();
    encode(header.split(' ').next().unwrap(), id, boot_id(), body.as_bytes())
}

#[test]
fn records_of_earlier_releases_are_read_in_this_boot_and_in_another() {
    for (release, now) in FORMER.into_iter().flat_map(|release| [(release, true), (release, false)]) {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        former(release, &config.root, now);
        for id in Place::ids(&config, "pods").unwrap() {
            let read = pod(&Place::pod(&config, &id)).unwrap().unwrap();
            let state = if now && id != STOPPED { PodState::Ready } else { PodState::Stopped };
            assert_eq!((read.found.state, read.is_of_another_boot), (state, !now), "{release} {id}");
            assert_eq!(read.found.facts.addresses.len(), 1, "{release} {id}");
            assert_eq!(read.found.facts.monitor.is_some(), release == "replaced", "{release} {id}");
            assert!(read.found.made.cgroup.is_some() && read.found.facts.netns.is_some(), "{release} {id}");
            let config = &read.found.made.config;
            let owner = if config.hostname == "boat" { Owner::Run } else { Owner::Cri };
            assert!(
                config.owner == owner && !config.document.is_null(),
                "{release} {id}: {:?}",
                config.owner
            );
        }
        for (id, wanted) in [(RUNNING, "running"), (ENDED, "exited"), (CREATED, "created")] {
            let read = read_container(&Place::container(&config, id)).unwrap();
            let wanted = if !now && wanted == "running" { "exited" } else { wanted };
            assert_eq!(read.state.name(), wanted, "{release} {id}");
            let on_disk = container(&Place::container(&config, id)).unwrap().unwrap();
            assert!(!on_disk.is_removing && on_disk.record.damage.is_none(), "{release} {id}");
            let request = &on_disk.record.request;
            assert!(request.owner == Owner::Cri && !request.document.is_null(), "{release} {id}");
        }
    }
}

#[test]
fn a_request_that_an_earlier_release_recorded_and_that_is_damaged_or_absent_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    former("replaced", &config.root, true);
    let (pod_place, container_place) = (Place::pod(&config, WEB), Place::container(&config, RUNNING));
    for (bytes, damaged) in [(Some("damaged"), true), (Some("{}"), true), (Some(""), false), (None, false)] {
        for place in [&pod_place, &container_place] {
            let slot = place.former_request();
            slot.remove().unwrap();
            if let Some(bytes) = bytes {
                fs::write(slot.path(), bytes).unwrap();
            }
        }
        let read = pod(&pod_place).unwrap().unwrap().found;
        assert_eq!((read.state, read.damage.is_some()), (PodState::Ready, damaged), "{bytes:?}");
        assert!(read.made.config.document.is_null(), "{bytes:?}");
        let read = container(&container_place).unwrap().unwrap().record;
        assert_eq!((read.damage.is_some(), read.request.document.is_null()), (damaged, true), "{bytes:?}");
    }
    // A pod that the earlier release was removing is still being removed.
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records/replaced/pods").join(WEB).join("request"),
    );
    let body = text.unwrap().lines().last().unwrap().replace(r#""phase":"live""#, r#""phase":"removing""#);
    fs::write(pod_place.former_request().path(), encode("pod-request", WEB, boot_id(), body.as_bytes()))
        .unwrap();
    assert_eq!(pod(&pod_place).unwrap().unwrap().found.state, PodState::Removing);
}

#[test]
fn a_pod_of_an_earlier_release_goes_on_in_files_of_its_own_and_is_removed_with_them() {
    for release in FORMER {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        former(release, &config.root, true);
        let place = Place::pod(&config, WEB);
        let before = pod(&place).unwrap().unwrap().found;
        assert_eq!(before.state, PodState::Ready);
        let record = fs::read(place.record().path()).unwrap();
        write(&place, PodEvent::Stop, &before.facts).unwrap();
        let after = pod(&place).unwrap().unwrap().found;
        assert_eq!((after.state, &after.facts), (PodState::Stopped, &before.facts));
        assert_eq!(fs::read(place.record().path()).unwrap(), record, "it is not written again");
        // A damaged record is written again whole, with the stage that the earlier release recorded.
        fs::write(place.record().path(), "damaged").unwrap();
        assert_eq!(pod(&place).unwrap().unwrap().found.facts, before.facts);
        place.remove().unwrap();
        assert!(!place.directory.exists());
        let place = Place::container(&config, CREATED);
        place.started(1).write(&start(7)).unwrap();
        assert!(matches!(
            read_container(&place).unwrap().state,
            ContainerState::Running { started_at: 7, .. }
        ));
        place.remove().unwrap();
    }
}
