//! What operators wish of a canary, and what is seen while it waits for them.

use std::time::Duration;

use super::site::{Site, order};
use crate::cli::wish;
use crate::deploy::machine::{Order, Undecided};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::state::journal::{Deploy, Phase, Strategy};
use crate::state::wish::{Wish, Wishes};

/// How often the canary has begun to wait.
fn pauses(site: &Site) -> usize {
    let lines = site.state.audited().unwrap().0;
    lines.iter().filter(|line| line.detail.as_ref().is_some_and(|detail| detail.starts_with("paused"))).count()
}

async fn until_paused(site: &Site, times: usize) -> Deploy {
    while pauses(site) < times {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    site.state.deploy().unwrap().unwrap()
}

/// Runs a canary to its end while somebody `acts`.
async fn canary(site: &Site, edit: impl FnOnce(&mut Order), acts: impl Future<Output = ()>) -> Result<(), Failure> {
    let deploy = site.plan(Strategy::Canary).await;
    let mut order = order(&deploy.id);
    edit(&mut order);
    tokio::join!(site.run(deploy, &order), acts).0.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_paused_canary_stays_at_its_step_until_it_is_resumed() {
    let site = Site::new();
    site.state.wish(Wish::Pause).unwrap();
    let acts = async {
        until_paused(&site, 1).await;
        let later = tokio::time::Instant::now() + Duration::from_secs(300);
        tokio::time::sleep_until(later).await;
        let deploy = site.state.deploy().unwrap().unwrap();
        assert_eq!((deploy.phase, deploy.share), (Phase::Step, 10));
        assert!(site.state.wish(Wish::Go).unwrap());
    };
    canary(&site, |_| {}, acts).await.unwrap();
    assert_eq!(pauses(&site), 1);
    site.assert_settled("resumed");
}

#[tokio::test(start_paused = true)]
async fn a_paused_canary_is_undone_when_somebody_aborts_it() {
    let site = Site::new();
    site.state.wish(Wish::Pause).unwrap();
    let acts = async {
        until_paused(&site, 1).await;
        site.state.wish(Wish::Abort).unwrap();
    };
    let failure = canary(&site, |_| {}, acts).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Interrupted);
    site.assert_settled("aborted");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_nobody_can_judge_is_held_and_goes_on_when_it_is_resumed() {
    let site = Site::new();
    site.fake.world().traffic = 0;
    let acts = async {
        assert_eq!(until_paused(&site, 1).await.share, 10);
        assert!(site.state.wish(Wish::Go).unwrap());
        assert_eq!(until_paused(&site, 2).await.share, 50);
        assert!(site.state.wish(Wish::Go).unwrap());
    };
    canary(&site, |order| order.canary.inconclusive = Undecided::Hold, acts).await.unwrap();
    assert_eq!(site.fake.serving(), ["new"; 3]);
    site.assert_settled("held and resumed");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_nobody_can_judge_is_promoted_where_that_is_wanted() {
    let site = Site::new();
    site.fake.world().traffic = 0;
    canary(&site, |order| order.canary.inconclusive = Undecided::Promote, async {}).await.unwrap();
    assert_eq!((site.fake.serving(), pauses(&site)), (vec!["new".to_owned(); 3], 0));
}

#[test]
fn nothing_is_wished_over_an_abort_until_the_next_deploy() {
    let folder = tempfile::tempdir().unwrap();
    let state = crate::state::State::new(folder.path());
    let wishes = Wishes::new(&state);
    assert!(state.wish(Wish::Pause).unwrap() && state.wish(Wish::Abort).unwrap());
    assert!(!state.wish(Wish::Pause).unwrap(), "as a canary that nobody can judge does");
    assert!(!state.wish(Wish::Go).unwrap());
    assert_eq!(wishes.now(), Wish::Abort);
    state.forget_wishes().unwrap();
    assert_eq!(wishes.now(), Wish::Go);
}

#[tokio::test]
async fn only_what_can_still_be_undone_is_aborted() {
    let site = Site::new();
    let mut deploy = site.plan(Strategy::Canary).await;
    for (phase, aborted, answer) in [
        (Phase::Step, true, Ok(Exit::Done)),
        (Phase::Baking, true, Ok(Exit::Done)),
        (Phase::Draining, false, Err("the new version serves; use `ops rollback`")),
        (Phase::Done, false, Err("no deploy is under way")),
        (Phase::RollingBack, false, Ok(Exit::Done)),
        (Phase::NeedsOperator, false, Err("undoing it failed; `ops reconcile` tries again")),
    ] {
        site.state.forget_wishes().unwrap();
        deploy.phase = phase;
        site.state.save(&mut deploy).unwrap();

        let answered = wish(&site.state, Wish::Abort, &Output::new(false)).map_err(|failure| failure.message);

        assert_eq!(answered, answer.map_err(str::to_owned), "{phase:?}");
        assert_eq!(Wishes::new(&site.state).now() == Wish::Abort, aborted, "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_seen_before_the_first_look_and_while_paused() {
    let panics = |site: &Site| site.fake.world().panics = ("app:new".to_owned(), 1);
    let early = Site::new();
    panics(&early);
    let failure = canary(&early, |_| {}, async {}).await.unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::GateFailed, "1 panics"));

    let paused = Site::new();
    paused.state.wish(Wish::Pause).unwrap();
    let acts = async {
        until_paused(&paused, 1).await;
        panics(&paused);
    };
    let failure = canary(&paused, |_| {}, acts).await.unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::GateFailed, "3 panics"), "one of each");
    paused.assert_settled("panicked while paused");
}
