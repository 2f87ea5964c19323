//! Slots and weights.

use std::time::Duration;

use super::fake::Fake;
use crate::deploy::parts::{Admin, Balancer, Change, Engine};
use crate::deploy::plan::{Wanted, plan};
use crate::deploy::traffic::weights;
use crate::exit::Exit;
use crate::state::journal::{Strategy, Timing};

fn wanted(strategy: Strategy, replicas: usize) -> Wanted {
    let timing = Timing { drain: Duration::ZERO, grace: Duration::ZERO, keep_warm: Duration::ZERO };
    Wanted { strategy, image: "app:new".to_owned(), version: "new".to_owned(), replicas, timing }
}

fn percent(weights: &[(String, u32)], of: impl Fn(&str) -> bool) -> f64 {
    let all: u32 = weights.iter().map(|(_, weight)| weight).sum();
    let some: u32 = weights.iter().filter(|(slot, _)| of(slot)).map(|(_, weight)| weight).sum();
    100.0 * f64::from(some) / f64::from(all)
}

#[tokio::test]
async fn a_canary_has_its_share_and_its_baseline_as_much_per_replica() {
    let fake = Fake::new();
    let slots = fake.slots().await.unwrap();
    let seen = fake.containers(&slots).await.unwrap();
    let deploy = plan(&slots, &seen, &wanted(Strategy::Canary, 3)).unwrap();
    assert_eq!(deploy.baseline.as_ref().unwrap().slot, "blue4");
    for share in [1, 5, 10, 25, 50, 75, 99] {
        let weights = weights(&deploy, share);
        let found = percent(&weights, |slot| slot.starts_with("green"));
        assert!((found - f64::from(share)).abs() < 0.6, "{share} % wanted, {found} % given: {weights:?}");
        assert!(weights.iter().all(|(_, weight)| *weight <= 256));
        let of = |slot: &str| weights.iter().find(|(name, _)| name == slot).unwrap().1;
        if share <= 50 {
            assert!(of("green1").abs_diff(of("blue4")) <= 1, "{share} %: {weights:?}");
        }
        let alone = if share <= 25 { 0 } else { of("green1") };
        assert_eq!(of("green2"), alone, "{share} %: {weights:?}");
    }
}

#[tokio::test]
async fn a_baseline_gets_the_last_slot_which_on_a_swarm_has_a_service_of_its_own() {
    let fake = Fake::new();
    fake.stop("first-blue3", Duration::ZERO).await.unwrap();
    fake.apply(&[Change::Maint("blue3".to_owned())]).await.unwrap();
    let slots = fake.slots().await.unwrap();
    let seen = fake.containers(&slots).await.unwrap();

    let deploy = plan(&slots, &seen, &wanted(Strategy::Canary, 3)).unwrap();

    assert_eq!(deploy.old.len(), 2);
    assert_eq!(deploy.baseline.unwrap().slot, "blue4");
}

#[tokio::test]
async fn a_plan_that_does_not_fit_the_slots_is_refused() {
    let fake = Fake::new();
    let slots = fake.slots().await.unwrap();
    let seen = fake.containers(&slots).await.unwrap();
    for (strategy, replicas) in [(Strategy::BlueGreen, 5), (Strategy::BlueGreen, 0), (Strategy::Canary, 5)] {
        let failure = plan(&slots, &seen, &wanted(strategy, replicas)).unwrap_err();
        assert_eq!(failure.exit, Exit::Precondition);
    }
}

#[tokio::test]
async fn two_colours_with_traffic_are_refused() {
    let fake = Fake::new();
    {
        let mut world = fake.world();
        let one = world.containers[0].clone();
        world.containers.push(crate::deploy::parts::Seen { slot: "green1".to_owned(), ..one });
        world.slots.iter_mut().filter(|slot| slot.name == "green1").for_each(|slot| slot.admin = Admin::Ready);
    }
    let slots = fake.slots().await.unwrap();
    let seen = fake.containers(&slots).await.unwrap();
    let failure = plan(&slots, &seen, &wanted(Strategy::BlueGreen, 3)).unwrap_err();
    assert!(failure.message.contains("two colours"), "{failure}");
}
