//! Which tables can be followed, and as what.

use tiered_cache::{CacheKey, Change, Changed};

use super::{Setup, hash, insert, whole};

#[tokio::test]
async fn a_table_with_keys_of_any_kind_can_be_followed() {
    let mut setup = Setup::new().await;
    setup
        .run(
            r#"
        create table "Of Teams" ("the key" uuid primary key);
        select follow('"Of Teams"', 'team of ''KIND''', 'the key');
        create table notes (slug text primary key, about bigint, version bigint not null default 9);
        select follow('notes', 'note', 'slug');
        select follow('notes', 'shelf', 'about');
        create schema "Other";
        create table "Other".notes (about bigint, version bigint not null default 9);
        select follow('"Other".notes', 'topic', 'about')"#,
        )
        .await;
    setup.read().await;
    setup
        .run(
            r#"
        insert into "Of Teams" values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
        insert into notes values ('x ''y" z', 7);
        insert into "Other".notes values (8), (null)"#,
        )
        .await;
    let team = CacheKey::builder("team of 'KIND'").param("the key", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").build();
    let note = CacheKey::builder("note").param("slug", "x 'y\" z").build();
    let shelf = CacheKey::builder("shelf").param("about", 7).build();
    let topic = CacheKey::builder("topic").param("about", 8).build();
    let mut wanted =
        [team, note, shelf, topic].map(|key| key.hash()).map(|hash| Change { what: Changed::Key(hash), version: 0 });
    let mut told = setup.changes().await;
    told.sort_by_key(hash);
    wanted.sort_by_key(hash);
    assert_eq!(told, wanted, "versions that nobody counts up are none");
}

#[tokio::test]
async fn what_is_cached_of_several_tables_is_named_by_each_and_their_versions_are_not_compared() {
    let mut setup = Setup::new().await;
    setup
        .run(
            "create table members (user_id bigint primary key, version bigint not null default 0, updated_at timestamptz);
             create trigger members_version before insert or update on members
                 for each row execute function bump_row_version();
             select follow('members', 'user', 'user_id', 'id')",
        )
        .await;
    setup.read().await;
    setup.run("insert into members values (7)").await;
    let user = CacheKey::builder("user").param("id", 7).build();
    assert_eq!(setup.changes().await, [Change { what: Changed::Key(user.hash()), version: 0 }]);
}

#[tokio::test]
async fn where_no_column_names_what_is_cached_each_change_names_the_kind() {
    let mut setup = Setup::new().await;
    setup.run("select follow('users', 'page of users', null)").await;
    setup.read().await;
    for change in [&insert("1, 2"), "update users set id = 7 where id = 1", "delete from users where id = 7"] {
        setup.run(change).await;
        assert!(setup.changes().await.contains(&whole("page of users")), "{change}");
    }
    setup.run("set session_replication_role = replica; update users set name = 'b'").await;
    assert!(setup.changes().await.contains(&whole("page of users")));
    setup.run("update users set name = 'c' where id = 99").await;
    assert_eq!(setup.changes().await, [], "nothing changed");
}

/// The service may see a followed table through a view alone.
#[tokio::test]
async fn who_may_not_use_the_schema_of_a_followed_table_reads_the_log_all_the_same() {
    let setup = Setup::new().await;
    let role = format!("guest_of_{}", setup.database.name().to_lowercase());
    let seen = format!(
        "create schema secret; create table secret.things (id bigint primary key);
         select follow('secret.things', 'thing', 'id'); create role {role};
         grant select on cache_log_triggers to {role}; set role {role}"
    );
    setup.run(&seen).await;
    let row = setup.sql.query_one("select unfollowed, triggers from cache_log_triggers", &[]).await.unwrap();
    assert!(row.get::<_, Option<String>>(0).is_none() && row.get::<_, Option<i64>>(1).is_some());
    setup.run(&format!("reset role; drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn tables_whose_changes_would_not_be_seen_are_refused() {
    let setup = Setup::new().await;
    setup
        .run(
            "create table parent (id bigint primary key);
             create table child () inherits (parent);
             create table times (at timestamptz primary key);
             create unlogged table lost_by_a_crash (id bigint primary key)",
        )
        .await;
    for (table, key, why) in [
        ("parent", "id", "inherits"),
        ("child", "id", "inherits"),
        ("times", "at", "no number"),
        ("times", "nothing", "no number"),
        ("lost_by_a_crash", "id", "no ordinary table"),
    ] {
        let refused = setup.sql.execute(&format!("select follow('{table}', 'thing', '{key}')"), &[]).await.unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains(why), "{table}, {key}: {refused:?}");
    }
}

#[tokio::test]
async fn columns_may_be_called_like_the_variables_of_a_trigger() {
    let mut setup = Setup::new().await;
    setup
        .run(
            "create table odd (rows bigint primary key, found bool, new text, old text, few int);
             select follow('odd', 'odd', 'rows')",
        )
        .await;
    setup.read().await;
    setup.run("insert into odd values (1); update odd set rows = 2; delete from odd").await;
    let [one, two] = [1, 2].map(|id| CacheKey::builder("odd").param("rows", id).build().hash());
    let told: std::collections::BTreeSet<u128> = setup.changes().await.iter().filter_map(hash).collect();
    assert_eq!(told, [one, two].into());
}

#[tokio::test]
async fn nobody_uses_the_versions_up() {
    let setup = Setup::new().await;
    let refused = setup.sql.execute("select row_version_above(9223372036854775806)", &[]).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("no version"), "{refused:?}");
    setup.run(&insert("1, 1")).await;
}

#[tokio::test]
async fn a_publication_of_all_tables_keeps_no_entry_from_being_removed() {
    let setup = Setup::new().await;
    setup.run("create publication everything for all tables").await;
    setup.run("delete from cache_log").await;
    setup.run("drop publication everything").await;
}
