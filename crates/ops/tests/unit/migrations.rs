//! What a deploy does about the database.

use super::site::{Site, order};
use crate::deploy::args::Args;
use crate::deploy::migrations::{check, pending};
use crate::deploy::parts::Ended;
use crate::exit::Exit;
use crate::state::journal::Strategy;

/// The database as `migrate --check` tells of it.
const CURRENT: (i64, &str) = (0, "schema: Current");
const BEHIND: (i64, &str) = (1, r#"schema: Behind(["V3__add_index"])"#);
const CONTRACT: (i64, &str) = (1, r#"schema: Behind(["V3__add_index", "V4__contract_drop_name"])"#);
const TOO_NEW: (i64, &str) = (1, r#"schema: TooNew("V9__contract_drop_email")"#);
const MIGRATED: (i64, &str) = (0, "applied: V3__add_index");

const CHECK: &str = "migrate --check";

/// Its exit and message, all commands that were run, and the migrations that were begun.
type Checked = (Option<(Exit, String)>, Vec<String>, Vec<String>);

async fn checked(migrate: bool, allow_contract: bool, answers: &[(i64, &str)]) -> Checked {
    let site = Site::new();
    checked_at(&site, migrate, allow_contract, answers).await
}

async fn checked_at(site: &Site, migrate: bool, allow_contract: bool, answers: &[(i64, &str)]) -> Checked {
    let ended = |(code, output): &(i64, &str)| Ended { code: *code, output: (*output).to_owned() };
    site.fake.world().answers = answers.iter().map(ended).collect();
    let args = Args { migrate, allow_contract, ..Args::of("app:new".to_owned()).unwrap() };
    let mut deploy = site.plan(Strategy::BlueGreen).await;
    let recipe = order(&deploy.id).recipe;
    let failure = check(&site.fake, &site.state, &args, &recipe, &mut deploy).await.err();
    let asked = site.fake.world().asked.clone();
    (failure.map(|failure| (failure.exit, failure.message)), asked, deploy.migrations)
}

#[track_caller]
fn assert_refused((failure, asked, applied): Checked, message: &str) {
    let (exit, said) = failure.unwrap();
    assert_eq!(exit, Exit::Precondition);
    assert!(said.contains(message), "{said}");
    assert_eq!((asked, applied), (vec![CHECK.to_owned()], Vec::new()), "nothing was migrated");
}

#[tokio::test]
async fn a_version_that_fits_the_database_is_deployed_without_migrating() {
    assert_eq!(checked(true, true, &[CURRENT]).await, (None, vec![CHECK.to_owned()], Vec::new()));
}

#[tokio::test]
async fn pending_migrations_are_applied_only_when_that_is_wanted() {
    assert_refused(checked(false, false, &[BEHIND]).await, "V3__add_index; apply them with --migrate");
    let (failure, asked, applied) = checked(true, false, &[BEHIND, MIGRATED]).await;
    assert_eq!((failure, asked), (None, vec![CHECK.to_owned(), "migrate".to_owned()]));
    assert_eq!(applied, pending(BEHIND.1));
}

#[tokio::test]
async fn what_takes_something_away_needs_both_words() {
    for (migrate, allow, message) in
        [(false, false, "--allow-contract"), (true, false, "--allow-contract"), (false, true, "--migrate")]
    {
        assert_refused(checked(migrate, allow, &[CONTRACT]).await, message);
    }
    let (failure, _, applied) = checked(true, true, &[CONTRACT, MIGRATED]).await;
    assert_eq!((failure, applied), (None, pending(CONTRACT.1)));
}

#[tokio::test]
async fn a_version_that_needs_what_was_taken_away_is_refused_whatever_is_said() {
    for said in [false, true] {
        assert_refused(checked(said, said, &[TOO_NEW]).await, "needs what V9__contract_drop_email took away");
    }
}

#[tokio::test]
async fn a_migration_that_fails_is_remembered_and_an_image_that_can_not_say_is_refused() {
    let (failure, _, applied) = checked(true, true, &[CONTRACT, (1, "V4 failed: locked")]).await;
    assert_eq!(failure, Some((Exit::Precondition, "migrations failed: V4 failed: locked".to_owned())));
    assert_eq!(applied, pending(CONTRACT.1), "some of them may be there");
    assert_refused(checked(true, true, &[(1, "can't connect to the database")]).await, "can't say whether");
}

#[tokio::test]
async fn the_history_knows_of_migrations_before_they_begin() {
    let site = Site::new();
    checked_at(&site, true, true, &[CONTRACT, MIGRATED]).await;
    assert_eq!(site.state.audited().unwrap().0[0].migrations, pending(CONTRACT.1));

    let silent = Site::new();
    std::fs::create_dir(silent.folder.path().join("audit.jsonl")).unwrap();
    let (failure, asked, _) = checked_at(&silent, true, true, &[CONTRACT, MIGRATED]).await;
    assert_eq!((failure.unwrap().0, asked), (Exit::OperatorNeeded, vec![CHECK.to_owned()]));
}
