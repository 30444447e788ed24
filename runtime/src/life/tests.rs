use super::*;
use crate::ExitReason;
use proptest::prelude::*;
use std::fmt::Write as _;

const PODS: [PodState; 5] =
    [PodState::Creating, PodState::Ready, PodState::Lost, PodState::Stopped, PodState::Removing];
const POD_EVENTS: [(&str, PodEvent); 4] = [
    ("made", PodEvent::Made),
    ("monitor lost", PodEvent::MonitorLost),
    ("stop", PodEvent::Stop),
    ("remove", PodEvent::Remove),
];
const REFUSED: &str = "–";

fn end(code: i32) -> EndRecord {
    let (reason, message) = (ExitReason::Error, String::new());
    EndRecord { started_at: 1, finished_at: 2, code, reason, message }
}

fn container_events() -> Vec<(&'static str, LifeEvent)> {
    let renewed = |owner| LifeEvent::Renewed { owner, created_at: 1 };
    vec![
        ("start", LifeEvent::Start),
        ("start found", LifeEvent::StartFound { at: 5 }),
        ("started", LifeEvent::Started { pid: 7, at: 6 }),
        ("never started", LifeEvent::NeverStarted { created_at: 1 }),
        ("ended", LifeEvent::Ended(end(3))),
        ("renewed, of `run`", renewed(Owner::Run)),
        ("renewed, of others", renewed(Owner::Cri)),
    ]
}

fn containers() -> [ContainerState; 4] {
    [
        ContainerState::Created { at: 1 },
        ContainerState::Running { pid: 0, started_at: 5 },
        ContainerState::Running { pid: 7, started_at: 6 },
        end(3).state(),
    ]
}

/// A container that is only recorded to run is told from one that is known to.
fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Running { pid: 0, .. } => "recorded",
        ContainerState::Created { .. } | ContainerState::Running { .. } | ContainerState::Exited { .. } => {
            state.name()
        }
    }
}

fn table(kind: &str, events: &[&str], rows: &[(&str, Vec<&str>)]) -> String {
    let mut text = format!("| {kind} | {} |\n|---|{}\n", events.join(" | "), "---|".repeat(events.len()));
    for (state, after) in rows {
        let _ = writeln!(text, "| {state} | {} |", after.join(" | "));
    }
    text
}

#[test]
fn the_tables_in_the_architecture_are_these() {
    let architecture = include_str!("../../../ARCHITECTURE.md");
    let after = |state: PodState| {
        POD_EVENTS.iter().map(|(_, event)| state.after(*event).map_or(REFUSED, PodState::name)).collect()
    };
    let pods = PODS.map(|state| (state.name(), after(state)));
    let pods = table("pod", &POD_EVENTS.map(|(name, _)| name), &pods);
    let events = container_events();
    let after = |state: &ContainerState| {
        let after =
            |event: &LifeEvent| state.clone().after(event.clone()).map_or(REFUSED, |state| word(&state));
        events.iter().map(|(_, event)| after(event)).collect()
    };
    let states = containers();
    let rows: Vec<_> = states.iter().map(|state| (word(state), after(state))).collect();
    let names: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    let containers = table("container", &names, &rows);
    for table in [pods, containers] {
        assert!(architecture.contains(&table), "ARCHITECTURE.md has another table:\n{table}");
    }
}

fn any_container_event() -> impl Strategy<Value = LifeEvent> {
    let owner = prop::sample::select(vec![Owner::Cri, Owner::Run, Owner::Build, Owner::Cluster]);
    prop_oneof![
        Just(LifeEvent::Start),
        (0..9_i64).prop_map(|at| LifeEvent::StartFound { at }),
        (1..9, 0..9_i64).prop_map(|(pid, at)| LifeEvent::Started { pid, at }),
        Just(LifeEvent::NeverStarted { created_at: 1 }),
        (0..9).prop_map(|code| LifeEvent::Ended(end(code))),
        owner.prop_map(|owner| LifeEvent::Renewed { owner, created_at: 1 }),
    ]
}

proptest! {
    #[test]
    fn the_first_end_of_a_container_stays_until_run_starts_it_again(
        events in prop::collection::vec(any_container_event(), 0..30),
    ) {
        let mut state = ContainerState::Created { at: 1 };
        for event in events {
            let before = state.clone();
            let renewed = matches!(event, LifeEvent::Renewed { owner: Owner::Run, .. });
            state = before.clone().after(event).unwrap_or(before.clone());
            if matches!(before, ContainerState::Exited { .. }) {
                let again = renewed && matches!(state, ContainerState::Created { .. });
                prop_assert!(state == before || again, "{before:?} -> {state:?}");
            }
        }
    }

    #[test]
    fn a_pod_becomes_ready_once_at_most_and_a_removal_is_never_taken_back(
        events in prop::collection::vec(prop::sample::select(POD_EVENTS.to_vec()), 0..30),
    ) {
        let mut states = vec![PodState::Creating];
        for (_, event) in events {
            let before = states[states.len() - 1];
            states.push(before.after(event).unwrap_or(before));
        }
        states.dedup();
        let times = |wanted| states.iter().filter(|state| **state == wanted).count();
        prop_assert!(PODS.iter().all(|state| times(*state) <= 1), "{states:?}");
        let removing = states.iter().position(|state| *state == PodState::Removing);
        prop_assert!(removing.is_none_or(|at| at + 1 == states.len()), "{states:?}");
    }
}
