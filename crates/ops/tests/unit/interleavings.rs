//! Every way in which one call can fail, and every moment at which the process can be killed.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;

use super::fake::Trouble;
use super::site::{Site, order};
use crate::deploy::parts::Admin;
use crate::exit::Exit;
use crate::state::journal::{Phase, Strategy};
use crate::state::wish::Wish;

const TROUBLES: [Trouble; 6] = [
    Trouble::Fails,
    Trouble::AnswerLost,
    Trouble::KilledBefore,
    Trouble::KilledAfter,
    Trouble::DiskFull,
    Trouble::NotKept,
];

async fn calls_of(strategy: Strategy) -> u64 {
    let site = Site::new();
    let deploy = site.plan(strategy).await;
    let order = order(&deploy.id);
    site.run(deploy, &order).await.unwrap().unwrap();
    assert_eq!(site.fake.serving(), ["new"; 3]);
    site.assert_settled("undisturbed");
    site.fake.world().calls
}

async fn survive(strategy: Strategy, call: u64, trouble: Trouble) {
    let site = Site::new();
    let deploy = site.plan(strategy).await;
    let order = order(&deploy.id);
    site.fake.world().trouble = Some((call, trouble));
    let context = format!("{strategy:?}, {trouble:?} at call {call}");
    let ended = site.run(deploy, &order).await;
    {
        let mut world = site.fake.world();
        (world.trouble, world.killed) = (None, false);
    }
    assert_eq!(ended.is_none(), matches!(trouble, Trouble::KilledBefore | Trouble::KilledAfter), "{context}");
    if matches!(trouble, Trouble::DiskFull | Trouble::NotKept) {
        let serving = site.fake.serving();
        assert!(serving == ["new"; 3] || serving == ["old"; 3], "{context}: {serving:?} serve");
        site.fake.world().free_disk();
    }
    site.reconcile().await;
    site.assert_settled(&context);
    assert_eq!(site.fake.world().not_kept(), Vec::<&str>::new(), "{context}");
    let calls = site.fake.world().containers.clone();
    assert!(!site.reconcile().await, "{context}: a second time finds nothing to do");
    assert_eq!(site.fake.world().containers, calls, "{context}");
}

#[tokio::test(start_paused = true)]
async fn a_blue_green_deploy_survives_any_single_failure_and_any_kill() {
    for call in 3..=calls_of(Strategy::BlueGreen).await {
        for trouble in TROUBLES {
            survive(Strategy::BlueGreen, call, trouble).await;
        }
    }
}

/// Kills a deploy at a call, and disturbs the reconciliation at one of its own. False: it had ended before.
async fn survive_twice(killed: u64, call: u64, trouble: Trouble) -> bool {
    let context = format!("killed after call {killed}, then {trouble:?} at call {call}");
    let site = Site::new();
    let deploy = site.plan(Strategy::BlueGreen).await;
    let order = order(&deploy.id);
    site.fake.world().trouble = Some((killed, Trouble::KilledAfter));
    assert!(site.run(deploy, &order).await.is_none(), "{context}");
    let phase = site.state.deploy().unwrap().unwrap().phase;
    site.fake.world().killed = false;
    site.fake.world().trouble = Some((killed + call, trouble));
    let _ = site.try_reconcile().await;
    let reached = {
        let mut world = site.fake.world();
        (world.trouble, world.killed) = (None, false);
        world.free_disk();
        world.calls >= killed + call
    };
    site.reconcile().await;
    site.assert_settled(&context);
    let version = if phase < Phase::Promoted { "old" } else { "new" };
    assert_eq!(site.fake.serving(), [version; 3], "{context}, while {phase:?}");
    reached
}

#[tokio::test(start_paused = true)]
async fn a_reconciliation_survives_any_single_failure_and_any_kill() {
    // Not after every call: each is put right as often as there are calls to disturb.
    for killed in (3..=calls_of(Strategy::BlueGreen).await).step_by(3) {
        for trouble in TROUBLES {
            let mut call = 1;
            while survive_twice(killed, call, trouble).await {
                call += 1;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_is_not_promoted_again_although_that_could_not_be_written_down() {
    let mut drained = 0;
    for (full, killed) in (18..30).flat_map(|full| (full + 1..full + 8).map(move |killed| (full, killed))) {
        let context = format!("full at call {full}, killed after call {killed}");
        let site = Site::new();
        let deploy = site.plan(Strategy::BlueGreen).await;
        let order = order(&deploy.id);
        (site.fake.world().trouble, site.fake.world().then) =
            (Some((full, Trouble::DiskFull)), Some((killed, Trouble::KilledAfter)));
        if site.run(deploy, &order).await.is_some() {
            continue;
        }
        site.fake.world().killed = false;
        site.fake.world().free_disk();
        let given_back = site.fake.world().slots.iter().any(|slot| slot.name == "green1" && slot.admin == Admin::Drain);

        site.reconcile().await;

        site.assert_settled(&context);
        assert!(!given_back || site.fake.serving() == ["old"; 3], "{context}");
        drained += usize::from(given_back);
    }
    assert!(drained > 0);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_forgets_the_promotion_is_told_again() {
    for (strategy, forgets) in [Phase::Baking, Phase::Draining]
        .into_iter()
        .flat_map(|phase| [(Strategy::BlueGreen, phase), (Strategy::Canary, phase)])
    {
        let site = Site::new();
        let before = site.fake.world().slots.clone();
        let deploy = site.plan(strategy).await;
        let order = order(&deploy.id);
        let acts = async {
            while site.state.deploy().unwrap().is_none_or(|deploy| deploy.phase < Phase::Promoted) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // Requests that take their time, so that somebody sees the drain.
            site.fake.world().slots[0].sessions = 1;
            while site.state.deploy().unwrap().unwrap().phase != forgets {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut world = site.fake.world();
            for (slot, before) in world.slots.iter_mut().zip(&before) {
                (slot.admin, slot.weight) = (before.admin, before.weight);
            }
        };

        tokio::join!(site.run(deploy, &order), acts).0.unwrap().unwrap();

        site.assert_settled("told again");
        assert_eq!(site.fake.serving(), ["new"; 3], "{strategy:?}, {forgets:?}");
    }
}

/// Of a canary that nothing disturbs.
static CALLS: OnceLock<u64> = OnceLock::new();

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_canary_survives_failures_and_kills_at_random_calls(share in 0_u64..1000, kind in 0..TROUBLES.len()) {
        let trouble = TROUBLES[kind];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let calls = *CALLS.get_or_init(|| runtime.block_on(calls_of(Strategy::Canary)));
        runtime.block_on(survive(Strategy::Canary, 3 + (calls - 3) * share / 1000, trouble));
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_with_errors_is_rolled_back() {
    let site = Site::new();
    site.fake.world().errors = ("app:new".to_owned(), 50);
    let deploy = site.plan(Strategy::Canary).await;
    let order = order(&deploy.id);

    let failure = site.run(deploy, &order).await.unwrap().unwrap_err();

    assert_eq!(failure.exit, Exit::GateFailed, "{failure}");
    site.assert_settled("errors");
}

#[tokio::test(start_paused = true)]
async fn a_canary_without_traffic_is_inconclusive_and_rolled_back() {
    let site = Site::new();
    site.fake.world().traffic = 0;
    let deploy = site.plan(Strategy::Canary).await;
    let order = order(&deploy.id);

    let failure = site.run(deploy, &order).await.unwrap().unwrap_err();

    assert_eq!(failure.exit, Exit::Inconclusive, "{failure}");
    site.assert_settled("no traffic");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_never_gets_ready_gets_no_traffic() {
    for strategy in [Strategy::BlueGreen, Strategy::Canary] {
        let site = Site::new();
        site.fake.world().unready.insert("app:new".to_owned());
        let deploy = site.plan(strategy).await;
        let order = order(&deploy.id);

        let failure = site.run(deploy, &order).await.unwrap().unwrap_err();

        assert_eq!(failure.exit, Exit::NeverReady, "{failure}");
        assert!(failure.message.contains("/health/ready answers 503"), "{failure}");
        let untouched = |slot: &crate::deploy::parts::Slot| slot.counters.requests == 0;
        assert!(site.fake.world().slots.iter().filter(|slot| slot.name.starts_with("green")).all(untouched));
        site.assert_settled("never ready");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_is_undone_when_somebody_aborts_it() {
    let site = Site::new();
    site.state.wish(Wish::Abort).unwrap();
    let deploy = site.plan(Strategy::BlueGreen).await;
    let order = order(&deploy.id);

    let failure = site.run(deploy, &order).await.unwrap().unwrap_err();

    assert_eq!(failure.exit, Exit::Interrupted, "{failure}");
    site.assert_settled("aborted");
}

/// Deploys two versions, the second with two replicas and trouble at a call; says which versions serve in the end.
async fn deploy_twice(call: u64, trouble: Trouble) -> Vec<String> {
    let context = format!("{trouble:?} at call {call} of the second deploy");
    let site = Site::new();
    let first = site.plan(Strategy::BlueGreen).await;
    let order_of_first = order(&first.id);
    site.run(first, &order_of_first).await.unwrap().unwrap();
    let second = site.plan_of("newer", 2, Strategy::BlueGreen).await;
    let order_of_second = order(&second.id);
    let before = site.fake.world().calls;
    site.fake.world().trouble = Some((before + call, trouble));
    site.run(second, &order_of_second).await;
    {
        let mut world = site.fake.world();
        (world.trouble, world.killed) = (None, false);
    }
    site.reconcile().await;
    let mut deploy = site.state.deploy().unwrap().unwrap();
    let known = |name: &String| deploy.active().iter().chain(&deploy.kept).any(|one| one.container == *name);
    assert!(site.fake.running().iter().all(known), "{context}: {:?} run", site.fake.running());
    if deploy.warm_until.is_some() {
        deploy.warm_until = Some(1);
        site.state.save(&mut deploy).unwrap();
        site.reconcile().await;
    }
    let serving = site.fake.serving();
    assert_eq!(site.fake.running().len(), serving.len(), "{context}: {:?} run", site.fake.running());
    let world = site.fake.world();
    let checked = world.slots.iter().filter(|slot| slot.admin != Admin::Maint && world.at(&slot.name).is_none());
    let checked: Vec<_> = checked.map(|slot| slot.name.as_str()).collect();
    assert_eq!(checked, Vec::<&str>::new(), "{context}: checked for ever though nobody is there");
    assert_eq!(world.broken, Vec::<String>::new(), "{context}");
    serving
}

#[tokio::test(start_paused = true)]
async fn what_a_deploy_kept_warm_is_stopped_in_the_end_however_the_next_one_ends() {
    let mut ends = HashSet::new();
    // Each call until the slots are cleared, and some after.
    for call in (1..=12).chain([25, 79]) {
        for trouble in [Trouble::Fails, Trouble::KilledAfter] {
            ends.insert(deploy_twice(call, trouble).await);
        }
    }
    assert_eq!(ends, [vec!["new".to_owned(); 3], vec!["newer".to_owned(); 2]].into());
}

#[tokio::test(start_paused = true)]
async fn a_textfile_that_can_not_be_written_stops_nothing() {
    let mut site = Site::new();
    site.textfile = Some(site.folder.path().join("no-such-folder/ops.prom"));
    let deploy = site.plan(Strategy::BlueGreen).await;
    let order = order(&deploy.id);

    site.run(deploy, &order).await.unwrap().unwrap();

    assert_eq!(site.fake.serving(), ["new"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_between_two_restarts_gets_no_traffic_after_the_promotion() {
    let site = Site::new();
    let first = |site: &Site| site.fake.world().slots.iter().find(|slot| slot.name == "blue1").unwrap().admin;
    site.fake.world().containers[0].running = false;
    let deploy = site.plan(Strategy::BlueGreen).await;
    assert_eq!(deploy.old.len(), 3);
    assert_eq!(deploy.old[0].slot, "blue2", "new ones are made like one that runs");
    let order = order(&deploy.id);
    assert_eq!(first(&site), Admin::Ready);

    site.run(deploy, &order).await.unwrap().unwrap();

    assert_eq!(first(&site), Admin::Drain);
}

#[tokio::test(start_paused = true)]
async fn old_replicas_are_stopped_when_their_time_is_over() {
    let site = Site::new();
    let deploy = site.plan(Strategy::BlueGreen).await;
    let order = order(&deploy.id);
    site.run(deploy, &order).await.unwrap().unwrap();
    assert_eq!(site.fake.running().len(), 6, "the old ones are kept warm");
    let mut deploy = site.state.deploy().unwrap().unwrap();
    assert_eq!(deploy.phase, Phase::Done);
    deploy.warm_until = Some(1);
    site.state.save(&mut deploy).unwrap();

    assert!(site.reconcile().await);

    assert_eq!(site.fake.running().len(), 3);
    assert_eq!(site.fake.world().containers.len(), 6, "stopped ones wait for a rollback");
    site.assert_settled("after their time");
}
