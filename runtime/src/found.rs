//! Reads the files of a sandbox or container back into its state: the fold of the events that they tell of.
//!
//! Nothing but the disk is asked here, so that a test can cut the files off between any two.

use crate::ContainerState;
use crate::end::{EndRecord, Loss};
use crate::life::{LifeEvent, PodEvent, PodState};
use crate::pod::FoundPod;
use crate::records::{ContainerRecord, Intent, PodFacts, PodRecord, StartRecord};
use crate::state::{Loaded, Place};
use slipway_disk::record::{Damage, Slot};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Files that were damaged and are whole again, each with what was wrong with it.
pub(crate) type Healed = Vec<(PathBuf, String)>;

/// A sandbox as its files tell of it.
#[derive(Debug)]
pub(crate) struct PodOnDisk {
    pub(crate) found: FoundPod,
    /// It is of another boot, and no daemon of this one has stopped it yet.
    pub(crate) is_of_another_boot: bool,
    pub(crate) healed: Healed,
}

/// Reads a sandbox; none where its record is absent.
///
/// # Errors
/// [`Damage`] of its record. Damage to its other files is told in the answer.
pub(crate) fn pod(place: &Place) -> Result<Option<PodOnDisk>, Damage> {
    let Some(loaded) = place.record().take_up::<PodRecord>()? else { return Ok(None) };
    let mut healed = Healed::new();
    note(&mut healed, &place.record(), &loaded);
    let this_boot = loaded.this_boot;
    let made = loaded.value;
    let (mut events, mut facts, mut damage) = (Vec::new(), PodFacts::default(), None);
    if let Some(former) = &made.former {
        events.extend(former.events());
        facts = former.facts.clone();
    }
    match place.ready().take_up::<PodFacts>() {
        Ok(Some(ready)) => {
            note(&mut healed, &place.ready(), &ready);
            events.push(PodEvent::Made);
            facts = ready.value;
        }
        Ok(None) => {}
        Err(torn) if torn.torn && !this_boot => {}
        // It was made, and nothing is to start in it: its addresses and its monitor's process are not known any more.
        Err(lost) => {
            events.extend([PodEvent::Made, PodEvent::MonitorLost]);
            damage = Some(lost);
        }
    }
    if place.has_pod_ended() {
        events.push(PodEvent::MonitorLost);
    }
    let wishes = intents(place, &mut healed);
    events.extend(wishes.events);
    let is_of_another_boot = !this_boot && !wishes.this_boot;
    if is_of_another_boot {
        events.push(PodEvent::Stop);
    }
    let state = PodState::folded(events);
    let found = FoundPod { made, state, facts, damage };
    Ok(Some(PodOnDisk { found, is_of_another_boot, healed }))
}

/// The wishes to stop and remove a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) events: Vec<PodEvent>,
    /// One of them is of this boot.
    pub(crate) this_boot: bool,
}

/// Reads the wishes to stop and remove a sandbox. A damaged one was one of both: stopping is written in its place.
pub(crate) fn intents(place: &Place, healed: &mut Healed) -> Wishes {
    let mut wishes = Wishes::default();
    for number in place.numbers("intent") {
        let slot = place.intent(number);
        match slot.take_up::<Intent>() {
            Ok(Some(intent)) => {
                note(healed, &slot, &intent);
                wishes.events.push(intent.value.event());
                wishes.this_boot |= intent.this_boot;
            }
            Ok(None) => {}
            Err(damage) => {
                wishes.events.push(PodEvent::Stop);
                wishes.this_boot |= slot.write(&Intent::Stop).is_ok();
                healed.push((damage.path, format!("{}; it is stopped", damage.reason)));
            }
        }
    }
    wishes
}

/// What is known of a container's start.
#[derive(Debug)]
pub(crate) enum Start {
    /// It was not started.
    Never,
    /// It was started with this.
    Known(Box<Loaded<StartRecord>>),
    /// It was started; with what, nobody knows.
    Damaged,
}

impl Start {
    pub(crate) fn known(&self) -> Option<&Loaded<StartRecord>> {
        match self {
            Self::Known(loaded) => Some(loaded),
            Self::Never | Self::Damaged => None,
        }
    }
}

/// The starts of a container, each by its number, and the last one.
#[derive(Debug)]
pub(crate) struct Starts {
    begun: Vec<(u32, Option<i64>)>,
    pub(crate) last: Start,
    pub(crate) healed: Healed,
}

/// Reads the starts of a container.
pub(crate) fn starts(place: &Place) -> Starts {
    let mut starts = Starts { begun: Vec::new(), last: Start::Never, healed: Healed::new() };
    for run in place.numbers("started") {
        let slot = place.started(run);
        match slot.take_up::<StartRecord>() {
            Ok(Some(start)) => {
                note(&mut starts.healed, &slot, &start);
                starts.begun.push((run, Some(start.value.at)));
                starts.last = Start::Known(Box::new(start));
            }
            Ok(None) => {}
            Err(damage) if damage.torn => {}
            Err(damage) => {
                tracing::error!(error = %damage, "what a container was started with is not known any more");
                starts.begun.push((run, None));
                starts.last = Start::Damaged;
            }
        }
    }
    starts
}

/// A container as its files tell of it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) state: ContainerState,
    /// The number of its present or next start.
    pub(crate) run: u32,
    /// The ends that were damaged, and what was written in their place.
    pub(crate) replaced: Vec<(Damage, EndRecord)>,
}

/// Reads the ends of a container, and folds its starts and ends into its state.
///
/// `seen` is its end by its exit file, which is asked where the record of its end is damaged.
pub(crate) fn life(
    place: &Place,
    record: &ContainerRecord,
    this_boot: bool,
    starts: &Starts,
    seen: impl Fn() -> Option<EndRecord>,
) -> Life {
    let created_at = record.created_at;
    let (mut events, mut replaced) = (Vec::new(), Vec::new());
    let ends = place.numbers("ended");
    let runs: BTreeSet<u32> = starts.begun.iter().map(|(run, _)| *run).chain(ends).collect();
    for run in &runs {
        if events.iter().any(|event| matches!(event, LifeEvent::Ended(_))) {
            events.push(LifeEvent::Renewed { owner: record.request.owner, created_at });
        }
        let begun = starts.begun.iter().find(|(begun, _)| begun == run).map(|(_, at)| *at);
        let at = begun.flatten().unwrap_or(created_at);
        if begun.is_some() {
            events.push(LifeEvent::StartFound { at });
        }
        match place.read_end::<EndRecord>(*run) {
            Ok(Some(end)) => events.push(LifeEvent::Ended(end)),
            Ok(None) => {}
            Err(damage) if damage.torn && !this_boot => {}
            Err(damage) => {
                // It has ended, and is not to be started once more.
                let at = begun.flatten().unwrap_or_default();
                let end = seen().unwrap_or_else(|| EndRecord::lost(at, Loss::Record));
                write_end(place, *run, &end);
                replaced.push((damage, end.clone()));
                events.push(LifeEvent::Ended(end));
            }
        }
    }
    let run = runs.last().copied().unwrap_or(1);
    let mut state = ContainerState::folded(created_at, events);
    if let (false, ContainerState::Running { started_at, .. }) = (this_boot, &state) {
        let end = EndRecord::lost(*started_at, Loss::Machine);
        write_end(place, run, &end);
        state = end.state();
    }
    Life { state, run, replaced }
}

fn write_end(place: &Place, run: u32, end: &EndRecord) {
    if let Err(error) = place.write_end(run, end) {
        tracing::warn!(%error, "the end of a container can't be recorded");
    }
}

/// Notes that a record was written again from its copy.
pub(crate) fn note<T>(healed: &mut Healed, slot: &Slot, loaded: &Loaded<T>) {
    let path = slot.path().to_owned();
    let again = |reason: String| (path, format!("{reason}; it was written again from its copy"));
    healed.extend(loaded.healed.clone().map(again));
}

#[cfg(test)]
mod tests;
