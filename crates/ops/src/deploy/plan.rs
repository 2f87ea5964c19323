//! Chooses slots: nothing is asked or changed here.

use super::parts::{Replica, Seen, Slot, color};
use crate::exit::{Exit, Failure, Result};
use crate::state::journal::{Deploy, Strategy, Timing};

/// What is to be deployed, and how.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub strategy: Strategy,
    pub image: String,
    pub version: String,
    pub replicas: usize,
    pub timing: Timing,
}

/// The replicas in slots that take traffic now. One that is between two restarts is among them: it will be back, and
/// its slot must be closed like the others'. Those that run come first.
pub fn active(slots: &[Slot], seen: &[Seen]) -> Vec<Replica> {
    let here = |slot: &Slot| {
        let all = || seen.iter().filter(|one| one.slot == slot.name);
        all().find(|one| one.running).or_else(|| all().next()).map(|one| (!one.running, replica(slot, one)))
    };
    let mut active: Vec<_> = slots.iter().filter(|slot| slot.takes_traffic()).filter_map(here).collect();
    active.sort_by_key(|(stopped, _)| *stopped);
    active.into_iter().map(|(_, one)| one).collect()
}

/// A container that is in a slot.
pub fn replica(slot: &Slot, seen: &Seen) -> Replica {
    Replica {
        slot: slot.name.clone(),
        address: slot.address,
        container: seen.name.clone(),
        image: seen.image.clone(),
        image_id: seen.image_id.clone(),
        version: seen.version.clone(),
    }
}

/// A deploy of new replicas in the slots of the other colour, and of a baseline in one that is free.
pub fn plan(slots: &[Slot], seen: &[Seen], wanted: &Wanted) -> Result<Deploy> {
    let id = format!("{:08x}", rand::random::<u32>());
    let old = active(slots, seen);
    let current = old.first().map(|one| color(&one.slot).to_owned());
    let mixed = old.iter().any(|one| Some(color(&one.slot)) != current.as_deref());
    if mixed {
        let message = "slots of two colours take traffic; say `ops status`, and close those of one colour";
        return Err(Failure::new(Exit::Precondition, message));
    }
    let make = |slot: &Slot, image: &str, version: &str| Replica {
        slot: slot.name.clone(),
        address: slot.address,
        container: format!("{}-{id}", slot.name),
        image: image.to_owned(),
        image_id: String::new(),
        version: version.to_owned(),
    };
    let other = slots.iter().filter(|slot| Some(color(&slot.name)) != current.as_deref());
    let target = other.clone().next().map(|slot| color(&slot.name).to_owned()).unwrap_or_default();
    let free: Vec<_> = other.filter(|slot| color(&slot.name) == target).collect();
    if wanted.replicas == 0 || free.len() < wanted.replicas {
        let message = format!("{} replicas wanted, but there are {} slots in {target}", wanted.replicas, free.len());
        return Err(Failure::new(Exit::Precondition, message));
    }
    let new = free.iter().take(wanted.replicas).map(|slot| make(slot, &wanted.image, &wanted.version)).collect();
    let mut baseline = None;
    if wanted.strategy == Strategy::Canary {
        // The last: on Swarm it has a service of its own.
        let mut same = slots.iter().rev().filter(|slot| Some(color(&slot.name)) == current.as_deref());
        let slot = same.find(|slot| old.iter().all(|one| one.slot != slot.name));
        let running = old.first().ok_or_else(|| {
            Failure::new(
                Exit::Precondition,
                "nothing runs that a canary could be compared with; deploy blue-green first",
            )
        })?;
        let slot = slot.ok_or_else(|| {
            Failure::new(Exit::Precondition, format!("no slot of {} is free for the baseline", color(&running.slot)))
        })?;
        baseline = Some(make(slot, &running.image_id, &running.version));
    }
    let (image, version) = (wanted.image.clone(), wanted.version.clone());
    let planned = Deploy::planned(id, wanted.strategy, image, version, wanted.timing.clone());
    Ok(Deploy { old, new, baseline, ..planned })
}
