//! Back to what is still here, and to what ran before.

use super::site::{Site, order};
use crate::deploy::parts::{Admin, Seen};
use crate::deploy::rollback::{self, Args, Way, same_image, way};
use crate::exit::Exit;
use crate::state::journal::{Deploy, Phase, Strategy};

/// Version "new" runs, and "old" was kept.
async fn deployed() -> Site {
    let site = Site::new();
    let deploy = site.plan(Strategy::BlueGreen).await;
    let order = order(&deploy.id);
    site.run(deploy, &order).await.unwrap().unwrap();
    site
}

fn to(version: Option<&str>) -> Args {
    Args { version: version.map(str::to_owned), allow_contract: false, dry_run: false }
}

async fn wake(site: &Site) -> Deploy {
    match way(&to(None), &site.fake, &site.fake, &site.state).await.unwrap() {
        Way::Wake(deploy) => *deploy,
        Way::Redeploy(args) => panic!("{args:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_replicas_suffered_before_does_not_keep_them_from_coming_back() {
    let site = deployed().await;
    {
        let mut world = site.fake.world();
        let old = |one: &&mut Seen| one.version == "old";
        world.containers.iter_mut().filter(old).for_each(|one| (one.out_of_memory, one.restarts) = (true, 2));
    }
    let deploy = wake(&site).await;
    let order = rollback::order(order(&deploy.id).recipe);

    site.run(deploy, &order).await.unwrap().unwrap();

    assert_eq!(site.fake.serving(), ["old"; 3]);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_somebody_has_opened_by_hand_are_not_woken_over_themselves() {
    let site = deployed().await;
    for slot in &mut site.fake.world().slots {
        slot.admin = if slot.name.starts_with("blue") { Admin::Ready } else { Admin::Drain };
    }

    let failure = way(&to(None), &site.fake, &site.fake, &site.state).await.unwrap_err();

    assert_eq!(failure.exit, Exit::Precondition);
    assert!(failure.message.contains("already takes traffic"), "{failure}");
}

#[test]
fn what_replicas_suffer_while_they_are_woken_counts() {
    let before = Seen { name: "one".to_owned(), running: true, restarts: 2, ..Seen::default() };
    let again = Seen { restarts: 3, exit_code: 1, ..before.clone() };
    assert_eq!(again.since(Some(&before)).broken().unwrap(), "one restarted; it had ended with exit code 1");
    let killed = Seen { restarts: 3, out_of_memory: true, ..before.clone() };
    assert!(killed.since(Some(&before)).broken().unwrap().contains("OOM-killed"));
    // The engine counts anew for a container that had been stopped.
    let stopped = Seen { running: false, out_of_memory: true, ..before.clone() };
    let started = Seen { restarts: 0, out_of_memory: true, ..before };
    assert_eq!(started.clone().since(Some(&stopped)).broken(), None);
    assert!(Seen { restarts: 1, ..started }.since(Some(&stopped)).broken().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_after_a_failed_deploy_finds_what_was_kept_before_it() {
    let site = deployed().await;
    let next = site.plan_of("newer", 3, Strategy::BlueGreen).await;
    let order = order(&next.id);
    let call = site.fake.world().calls + 1;
    site.fake.world().trouble = Some((call, super::fake::Trouble::Fails));
    site.run(next, &order).await.unwrap().unwrap_err();

    let deploy = wake(&site).await;

    assert_eq!((deploy.version.as_str(), deploy.new.len()), ("old", 3));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_may_need_what_a_later_one_took_away_comes_back_only_when_that_is_said() {
    let site = Site::new();
    let migrations = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (version, names) in [("old", &[][..]), ("new", &["V3__contract_drop_name", "V4__index"])] {
        let mut deploy = site.plan_of(version, 3, Strategy::BlueGreen).await;
        (deploy.phase, deploy.migrations) = (Phase::Done, migrations(names));
        site.state.audit(&deploy, None).unwrap();
    }
    let back = async |args: &Args| way(args, &site.fake, &site.fake, &site.state).await;

    let failure = back(&to(Some("old"))).await.unwrap_err();

    assert_eq!(failure.exit, Exit::Precondition);
    assert!(failure.message.contains("since: V3__contract_drop_name;"), "{failure}");
    back(&Args { allow_contract: true, ..to(Some("old")) }).await.unwrap();
    back(&to(Some("new"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_taken_from_is_known_by_its_image_where_all_have_one_name() {
    let site = Site::new();
    let audit = async |image_id: &str, migrations: &[&str]| {
        let mut deploy = site.plan_of("dev", 3, Strategy::BlueGreen).await;
        deploy.phase = Phase::Done;
        deploy.migrations = migrations.iter().map(|name| (*name).to_owned()).collect();
        deploy.new.iter_mut().for_each(|one| one.image_id = image_id.to_owned());
        site.state.audit(&deploy, None).unwrap();
    };
    audit("sha256:old", &[]).await;
    audit("sha256:new", &["V3__contract_drop_name"]).await;
    site.fake.world().containers.iter_mut().for_each(|one| one.version = "dev".to_owned());
    let kept = |id: &str| {
        let mut deploy = site.state.deploy().unwrap().unwrap();
        deploy.kept.iter_mut().for_each(|one| one.image_id = id.to_owned());
        site.state.save(&mut deploy).unwrap();
    };
    let mut deploy = site.plan_of("dev", 3, Strategy::BlueGreen).await;
    deploy.new.iter_mut().for_each(|one| one.image_id = "sha256:new".to_owned());
    let order = order(&deploy.id);
    site.run(deploy, &order).await.unwrap().unwrap();
    let back = async || way(&to(None), &site.fake, &site.fake, &site.state).await;

    kept("sha256:old");
    let failure = back().await.unwrap_err();

    assert!(failure.message.contains("since: V3__contract_drop_name;"), "{failure}");
    kept("sha256:new");
    back().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_containers_are_gone_comes_back_as_many_and_the_same_as_it_was() {
    let site = Site::new();
    let mut deploy = site.plan_of("new", 2, Strategy::BlueGreen).await;
    deploy.new.iter_mut().for_each(|one| one.image_id = "sha256:ran".to_owned());
    deploy.phase = Phase::Done;
    site.state.audit(&deploy, None).unwrap();

    let Way::Redeploy(args) = way(&to(Some("new")), &site.fake, &site.fake, &site.state).await.unwrap() else {
        panic!("nothing of it is here")
    };

    assert_eq!((args.replicas, args.version.as_deref()), (2, Some("new")));
    let images = |pairs: &[(&str, &str)]| {
        site.fake.world().images = pairs.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
    };
    images(&[("app:new", "sha256:another"), ("sha256:ran", "sha256:ran")]);
    assert_eq!(same_image(&site.fake, &args).await.unwrap(), "sha256:ran");
    images(&[("app:new", "sha256:ran")]);
    assert_eq!(same_image(&site.fake, &args).await.unwrap(), "sha256:ran", "it was pulled");
    images(&[("app:new", "sha256:another")]);
    let failure = same_image(&site.fake, &args).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Precondition);
    assert!(failure.message.contains("app:new is another image than sha256:ran"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_baseline_is_the_image_that_runs_and_not_what_its_tag_is_now() {
    let site = Site::new();
    site.fake.world().containers.iter_mut().for_each(|one| one.image_id = "sha256:runs".to_owned());

    let deploy = site.plan(Strategy::Canary).await;

    assert_eq!(deploy.baseline.unwrap().image, "sha256:runs");
    assert_eq!(deploy.new[0].image, "app:new");
}
