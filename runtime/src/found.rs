//! Writes the events of a sandbox as files, and reads the files of a sandbox or container back into its state: the fold of
//! the events that they tell of.
//!
//! Nothing but the disk is asked here, so that a test can cut the files off between any two.

use crate::clock::now;
use crate::end::{EndRecord, Loss};
use crate::life::{LifeEvent, PodEvent, PodState};
use crate::records::{ContainerRecord, Intent, PodEnd, PodFacts, PodRecord, StartRecord};
use crate::state::{Healed, Loaded, Place, note};
use crate::{ContainerState, former};
use slipway_disk::record::Damage;
use std::collections::BTreeSet;

/// A sandbox as it was found, or as it is about to be made.
#[derive(Debug)]
pub(crate) struct FoundPod {
    pub(crate) made: PodRecord,
    pub(crate) state: PodState,
    pub(crate) facts: PodFacts,
    pub(crate) damage: Option<Damage>,
}

impl FoundPod {
    /// A sandbox that is about to be made.
    pub(crate) fn new(made: PodRecord) -> Self {
        Self { made, state: PodState::Creating, facts: PodFacts::default(), damage: None }
    }
}

/// The life of a container as it was found.
#[derive(Debug)]
pub(crate) struct FoundLife {
    pub(crate) state: ContainerState,
    /// The number of its present or next start.
    pub(crate) run: u32,
    /// Its removal was begun.
    pub(crate) is_removing: bool,
}

impl FoundLife {
    /// The life of a container that is about to be created.
    pub(crate) fn new(created_at: i64) -> Self {
        Self { state: ContainerState::Created { at: created_at }, run: 1, is_removing: false }
    }
}

/// Writes an event of a sandbox; the facts are those of one that is made.
///
/// # Errors
/// When the disk takes no file.
pub(crate) fn write(place: &Place, event: PodEvent, facts: &PodFacts) -> crate::Result<()> {
    match event {
        PodEvent::Made => place.ready().write(facts)?,
        PodEvent::MonitorLost => place.pod_ended().write(&PodEnd { at: now() })?,
        PodEvent::Stop => intend(place, Intent::Stop)?,
        PodEvent::Remove => intend(place, Intent::Remove)?,
    }
    Ok(())
}

fn intend(place: &Place, intent: Intent) -> crate::Result<()> {
    let last = place.numbers("intent").last().copied().unwrap_or_default();
    Ok(place.intent(last.saturating_add(1)).write(&intent)?)
}

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
    let mut made = loaded.value;
    let (mut events, mut facts, mut damage) = (Vec::new(), PodFacts::default(), None);
    if let Some(former) = &made.former {
        events.extend(former.events());
        facts = former.facts.clone();
        match former::request(place, &mut healed) {
            Ok(Some((request, document))) => {
                (made.config.owner, made.config.document) = (request.owner, document);
                events.extend(request.phase.event());
            }
            Ok(None) => {}
            Err(lost) => damage = Some(lost),
        }
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
    // A damaged one says it, too.
    if !matches!(place.pod_ended().take_up::<PodEnd>(), Ok(None)) {
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

/// The last start of a container, as far as it is known.
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

/// A container's record, and whether it is of this boot.
#[derive(Debug)]
pub(crate) struct ContainerOnDisk {
    pub(crate) record: ContainerRecord,
    pub(crate) this_boot: bool,
    /// Its removal was begun.
    pub(crate) is_removing: bool,
    pub(crate) healed: Healed,
}

/// Reads a container's record; none where it is absent.
///
/// # Errors
/// [`Damage`] of the record.
pub(crate) fn container(place: &Place) -> Result<Option<ContainerOnDisk>, Damage> {
    let Some(loaded) = place.record().take_up::<ContainerRecord>()? else { return Ok(None) };
    let mut healed = Healed::new();
    note(&mut healed, &place.record(), &loaded);
    let (mut record, this_boot) = (loaded.value, loaded.this_boot);
    let mut is_removing = !place.numbers("intent").is_empty();
    if record.request.document.is_null() {
        match former::request(place, &mut healed) {
            Ok(Some((request, document))) => {
                (record.request.owner, record.request.document) = (request.owner, document);
                is_removing |= request.phase == former::Phase::Removing;
            }
            Ok(None) => {}
            Err(lost) => record.damage = Some(lost),
        }
    }
    Ok(Some(ContainerOnDisk { record, this_boot, is_removing, healed }))
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

#[cfg(test)]
mod tests;
