//! Who gets which share of the traffic, as weights.

use super::parts::{Change, Replica};
use crate::state::journal::Deploy;

/// The largest weight that HAProxy knows.
const LARGEST: f64 = 256.0;
/// A slot's weight when all have the same.
pub const FULL: u32 = 100;
/// Up to this share one canary serves it alone, so that it works as hard as its baseline.
const ALONE: u32 = 25;

/// New replicas that take part at this share.
pub fn canaries(deploy: &Deploy, share: u32) -> &[Replica] {
    match deploy.new.get(..1) {
        Some(one) if share <= ALONE && deploy.baseline.is_some() => one,
        _ => &deploy.new,
    }
}

/// The weights of all slots when the new version has `share` percent. The baseline gets what one canary gets, so that
/// their caches and pools see the same; the old replicas share the rest.
pub fn weights(deploy: &Deploy, share: u32) -> Vec<(String, u32)> {
    let active = canaries(deploy, share);
    let (share, count) =
        (f64::from(share), |replicas: &[Replica]| u32::try_from(replicas.len()).map_or(1.0, f64::from));
    let each_new = share / count(active);
    let rest = 100.0 - share;
    let baseline = if deploy.baseline.is_some() { each_new.min(rest / 2.0) } else { 0.0 };
    let each_old = (rest - baseline) / count(&deploy.old);
    let scale = LARGEST / each_new.max(baseline).max(each_old);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 256")]
    let weight = |share: f64| if share > 0.0 { ((share * scale).round() as u32).max(1) } else { 0 };
    let new = deploy.new.iter().map(|one| (one, if active.contains(one) { each_new } else { 0.0 }));
    let old = deploy.old.iter().map(|one| (one, each_old));
    let baseline = deploy.baseline.iter().map(|one| (one, baseline));
    // Those that get more come first: at no moment does nobody take anything.
    let mut all: Vec<_> =
        new.chain(baseline).chain(old).map(|(one, share)| (one.slot.clone(), weight(share))).collect();
    all.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    all
}

/// Gives the traffic to one side and takes it from the other.
pub fn switch<'a>(to: &[Replica], from: impl Iterator<Item = &'a Replica>) -> Vec<Change> {
    let open = to.iter().flat_map(|one| [Change::Weight(one.slot.clone(), FULL), Change::Ready(one.slot.clone())]);
    open.chain(from.map(|one| Change::Drain(one.slot.clone()))).collect()
}
