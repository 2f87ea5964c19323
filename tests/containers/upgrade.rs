//! A volume of Postgres 15 becomes one of Postgres 18 by `docker/upgrade-postgres.sh`, whatever ends it on the way.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};

use devkit::{Cleanup, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{Container, LIMIT, Project, checkout, client, docker, output, succeeded, unique};

/// Besides what the service has: texts that quoting could break, another database, a role with settings, a sequence
/// that went on, large objects (one with gaps, one empty), changed settings (two that locales sort otherwise than bytes),
/// and a table that takes 18 three seconds to load.
const FILL: [&str; 7] = [
    r#"create database "odd=name""#,
    "alter system set work_mem = '7MB'",
    "alter system set ssl = off",
    "alter system set ssl_min_protocol_version = 'TLSv1.3'",
    "alter system set port = 6000",
    "alter system set max_prepared_transactions = 5",
    r#"
    create role "Odd role" login password 'of the odd role';
    alter role "Odd role" set work_mem = '5MB';
    alter database "odd=name" owner to "Odd role";
    create sequence invoices;
    select setval('invoices', 4711);
    create table odd ("x y" text, "json" jsonb, bytes bytea, at timestamptz default now());
    insert into odd select E'tab\t, line\n, \\. and ''quotes" ü ' || n, '{"ä": [1, null]}', decode('ff00', 'hex')
        from generate_series(1, 50000) as n;
    insert into odd values (null, null, null, '-infinity'), ('', '{}', '', null);
    create index on odd ("x y");
    select lo_from_bytea(0, 'of a large object');
    select lo_put(lo_create(4242), 1000000, 'x');
    select lo_put(4242, 0, 'abc');
    select lo_create(4243);
    alter large object 4243 owner to "Odd role";
    alter database plinth set default_transaction_read_only = on;
    create function slow() returns boolean language plpgsql as $$ begin
        perform pg_sleep(0.03) where current_setting('server_version_num')::int >= 180000;
        return true;
    end $$;
    create table slow (n int check (slow()));
    insert into slow select generate_series(1, 100);
    "#,
];

/// The same in both versions when nothing was lost.
const SNAPSHOT: &str = r#"
    select rolname, rolpassword, rolsuper from pg_authid where rolname !~ '^pg_' order by 1;
    select setrole::regrole, setconfig from pg_db_role_setting order by setrole;
    select datname, datdba::regrole, pg_encoding_to_char(encoding), datcollate, datctype from pg_database
        where datname <> 'template0' order by 1;
    select last_value, is_called from invoices;
    select count(*), md5(string_agg(odd::text, '' order by odd::text collate "C")) from odd;
    select sum(n) from slow;
    select oid, lomowner::regrole, md5(lo_get(oid)) from pg_largeobject_metadata order by oid;
    show default_transaction_read_only;
"#;

/// The image that made the volumes of old; there is no test without it.
async fn old_image() -> &'static str {
    let image = devkit::versions::image("POSTGRES_OLD").unwrap();
    let here = output(&["image", "inspect", image]).await.status.success();
    assert!(here || output(&["pull", image]).await.status.success(), "{image} isn't here, and can't be pulled");
    image
}

fn new_image() -> &'static str {
    devkit::versions::image("POSTGRES").unwrap()
}

/// What a command said, and how it ended.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part)).concat();
        Self { code: output.status.code(), text }
    }

    #[track_caller]
    fn assert(&self, code: i32, part: &str) {
        assert!(self.code == Some(code) && self.text.contains(part), "{code} {part:?}: {:?} {}", self.code, self.text);
    }
}

fn script(args: &[&str]) -> Command {
    let mut command = Command::new(checkout("docker/upgrade-postgres.sh"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn ended(command: &mut Command) -> Output {
    tokio::time::timeout(LIMIT * 2, command.output()).await.expect("an upgrade of so little is done soon").unwrap()
}

async fn upgrade(args: &[&str]) -> Said {
    Said::of(&ended(&mut script(args)).await)
}

async fn sql(container: &str, database: &str, text: &str) -> String {
    let psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "plinth", "-d", database, "-c", text];
    docker(&[&["exec", container], &psql[..]].concat()).await
}

/// A volume that goes with all containers which an ended script has left.
struct Volume {
    name: String,
    _cleanup: Cleanup,
}

impl Volume {
    async fn empty() -> Self {
        let name = unique();
        let ours = format!("docker ps --all --quiet --filter label=plinth.upgrade-postgres={name}");
        let removal =
            format!("for one in $({ours}); do docker rm --force --volumes $one; done; docker volume rm {name}");
        let cleanup = Cleanup::new(&removal).unwrap();
        docker(&["volume", "create", &name]).await;
        Self { name, _cleanup: cleanup }
    }

    /// As Postgres 15 left it.
    async fn old() -> Self {
        let volume = Self::empty().await;
        let server = volume.server(old_image().await, "/data").await;
        for text in FILL {
            sql(&server.name, "plinth", text).await;
        }
        volume.stop(server).await;
        volume
    }

    /// A server as compose would have it, with the volume at this place below `/var/lib/postgresql`.
    async fn server(&self, image: &str, place: &str) -> Container {
        let volume = format!("{}:/var/lib/postgresql{place}", self.name);
        let tmpfs = ["--tmpfs", "/tmp", "--tmpfs", "/var/run/postgresql:uid=999,gid=999"];
        let rights = ["--init", "--read-only", "--cap-drop", "ALL", "--user", "postgres", "--network", "none"];
        let user = ["--env", "POSTGRES_USER=plinth", "--env", "POSTGRES_PASSWORD=of-15", "--volume", &volume, image];
        let port = ["postgres", "-c", "port=5432"];
        let server = Container::run(&[&rights[..], &tmpfs, &user, &port].concat()).await;
        let ready = ["exec", &server.name, "pg_isready", "--quiet", "--host=127.0.0.1"];
        wait_until("the server", LIMIT, async || output(&ready).await.status.success()).await.unwrap();
        server
    }

    async fn stop(&self, server: Container) {
        docker(&["stop", &server.name]).await;
    }

    /// What a server of 15 or 18 finds in it.
    async fn snapshot(&self, of_18: bool) -> String {
        let server = match of_18 {
            true => self.server(new_image(), "").await,
            false => self.server(old_image().await, "/data").await,
        };
        let found = sql(&server.name, "plinth", SNAPSHOT).await;
        self.stop(server).await;
        found
    }

    /// Containers of a script that work on it; or also those that it left.
    async fn at_work(&self, left: bool) -> Vec<String> {
        let label = format!("label=plinth.upgrade-postgres={}", self.name);
        let running = ["ps", "--filter", &label, "--format", "{{.Names}}"];
        let names = docker(&[&running[..], if left { &["--all"] } else { &[] }].concat()).await;
        names.lines().map(str::to_owned).collect()
    }

    /// After a kill nobody else ends them.
    async fn all_ended(&self) {
        wait_until("all containers end", LIMIT, async || self.at_work(false).await.is_empty()).await.unwrap();
    }

    /// What this query says of the new database while a script fills and compares it.
    async fn of_the_new(&self, query: &str) -> String {
        let Some(new) = self.at_work(false).await.into_iter().find(|name| name.ends_with("-18")) else {
            return String::new();
        };
        let psql = ["psql", "-XAtq", "-p", "5433", "-U", "plinth", "-d", "plinth", "-c", query];
        String::from_utf8(output(&[&["exec", &new], &psql[..]].concat()).await.stdout).unwrap()
    }

    /// A script in a group of its own, as soon as rows flow.
    async fn copying(&self, command: &mut Command) -> Child {
        let running = command.process_group(0).spawn().unwrap();
        let flow = async || self.of_the_new("select count(*) from pg_stat_progress_copy").await == "1\n";
        wait_until("rows flow", LIMIT, flow).await.unwrap();
        running
    }
}

/// A `docker` that does something else when the script calls it to run `step`; then the real one's path is `$DOCKER`
/// and the step's container `$2`.
fn disturbed(volume: &Volume, step: &str, instead: &str) -> (Command, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("docker");
    let text = format!("#!/bin/sh\ncase \"$*\" in *\" bash {step}\"*) {instead} ;; esac\nexec \"$DOCKER\" \"$@\"\n");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let real = devkit::find("docker").unwrap();
    let mut command = script(&[&volume.name]);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.path().display());
    command.env("PATH", path).env("DOCKER", real).process_group(0);
    (command, folder)
}

/// A signal to a script in a group of its own and to all that it has started, as a terminal's keys send it.
async fn signal(running: &Child, signal: &str) {
    let group = format!("-{}", running.id().unwrap());
    succeeded(Command::new("kill").args([signal, "--", &group]), LIMIT).await;
}

const KILL: &str = "kill -KILL 0";

#[tokio::test]
async fn a_volume_of_the_old_compose_file_is_upgraded_and_the_service_finds_everything() {
    let old = tempfile::tempdir().unwrap();
    let file = old.path().join("old.yaml");
    let image = old_image().await;
    let text = format!(
        "services:\n  database:\n    image: {image}\n    volumes: !override\n      \
         - database:/var/lib/postgresql/data\n      - secrets-database:/run/secrets:ro\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut project = Project::up(&[("COMPOSE_FILE", &format!("compose.yaml:{}", file.display()))]).await;
    let volume = format!("{}_database", project.name);
    project.compose(&["run", "--rm", "sample"]).await;
    let token = project.token().await;
    let post = async |project: &Project, name: &str| {
        let url = format!("http://{}/api/users", project.address().await);
        let user = json!({"name": name, "email": format!("{}@example.com", rand::random::<u32>())});
        let answer = client().post(url).bearer_auth(&token).json(&user).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json::<Value>().await.unwrap()["user"]["id"].as_i64().unwrap()
    };
    let last = post(&project, "Zoë \"\\.\" O'Hara 🦀").await;
    let all = "
        select users from users order by id; select h from refinery_schema_history h order by version;
        select last_value from row_version; select rolname, rolpassword from pg_authid where rolname = 'plinth'";
    let before = sql(&project.container("database").await, "plinth", all).await;
    upgrade(&[&volume]).await.assert(1, "is in use by");
    project.compose(&["down"]).await;

    project.set("COMPOSE_FILE", "compose.yaml");
    project.compose(&["up", "--detach", "--no-build", "database"]).await;
    let refused = async || project.compose(&["logs", "database"]).await.contains("PostgreSQL data in");
    wait_until("18 refuses the volume", LIMIT, refused).await.unwrap();
    project.compose(&["stop", "database"]).await;
    upgrade(&[&volume]).await.assert(0, "is of Postgres 18");
    project.start().await;

    let database = project.container("database").await;
    assert!(sql(&database, "plinth", "show server_version").await.starts_with("18"));
    assert_eq!(sql(&database, "plinth", all).await, before);
    assert_eq!(sql(&database, "plinth", "show data_checksums").await, "on");
    project.compose(&["run", "--rm", "--no-deps", "migrate", "migrate", "--check"]).await;
    assert_eq!(post(&project, "Ada").await, last + 1);
    // Who isn't in its container needs the password.
    let stranger = "psql -w -U plinth -h $(hostname -i) -c 'select 1'";
    let stranger = Said::of(&output(&["exec", &database, "bash", "-c", stranger]).await);
    stranger.assert(2, "no password supplied");
    // While it serves.
    upgrade(&[&volume]).await.assert(0, "nothing to do");
    upgrade(&["--remove-old", &volume]).await.assert(0, "bytes are free");
    assert_eq!(docker(&["exec", &database, "ls", "-A", "/var/lib/postgresql"]).await, "18");
    post(&project, "Grace").await;
}

#[tokio::test]
async fn an_upgrade_that_is_killed_loses_nothing_and_is_begun_again() {
    let volume = Volume::old().await;
    let before = volume.snapshot(false).await;

    let mut running = volume.copying(script(&[&volume.name]).stdout(Stdio::null())).await;
    signal(&running, "-KILL").await;
    assert!(running.wait().await.unwrap().signal().is_some());
    volume.all_ended().await;
    assert_eq!(volume.snapshot(false).await, before, "after a kill while rows flow");

    // Everything is done but the rename.
    let (mut command, _folder) = disturbed(&volume, "accept", KILL);
    assert!(ended(&mut command).await.status.signal().is_some());
    volume.all_ended().await;
    assert_eq!(volume.snapshot(false).await, before, "after a kill before the rename");

    let (mut command, _folder) = disturbed(&volume, "accept", &format!("\"$DOCKER\" \"$@\"; {KILL}"));
    assert!(ended(&mut command).await.status.signal().is_some());
    upgrade(&[&volume.name]).await.assert(0, "nothing to do");
    assert_eq!(volume.snapshot(true).await, before);
    assert_eq!(volume.at_work(true).await, Vec::<String>::new());
    let mount = format!("{}:/volume", volume.name);
    let files = docker(&["run", "--rm", "--volume", &mount, new_image(), "ls", "-A", "/volume"]).await;
    assert!(files.contains("PG_VERSION") && !files.contains(".upgrade-"), "{files}");
}

#[tokio::test]
async fn an_upgrade_that_is_interrupted_accepts_nothing_and_has_the_volume_to_itself() {
    let volume = Volume::old().await;
    let before = volume.snapshot(false).await;

    let mut running = volume.copying(script(&[&volume.name]).stdout(Stdio::null())).await;
    signal(&running, "-INT").await;
    assert_eq!(running.wait().await.unwrap().code(), Some(130));
    assert_eq!(volume.at_work(true).await, Vec::<String>::new());

    // It compares until somebody lets go of a table.
    let writing = "PGOPTIONS='-c default_transaction_read_only=off' psql -p 5433 -U plinth -d plinth";
    let lock = "-c 'begin' -c 'lock table odd' -c 'select pg_sleep(300)'";
    let locks = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 'odd'::regclass";
    let hold = format!(
        "\"$DOCKER\" exec --detach \"$2\" bash -c \"{writing} {lock}\"
        until \"$DOCKER\" exec \"$2\" psql -At -p 5433 -U plinth -d plinth -c \"{locks}\" | grep 1; do :; done"
    );
    let (mut command, _folder) = disturbed(&volume, "compare_database plinth", &hold);
    let mut running = command.stdout(Stdio::null()).spawn().unwrap();
    let waiting = "select count(*) from pg_locks where not granted";
    wait_until("it compares", LIMIT, async || volume.of_the_new(waiting).await == "1\n").await.unwrap();
    let at_work = volume.at_work(false).await;
    for args in [&[&volume.name[..]][..], &["--remove-old", &volume.name]] {
        upgrade(args).await.assert(1, "is under way");
    }
    assert_eq!(volume.at_work(false).await, at_work);
    signal(&running, "-INT").await;
    assert_eq!(running.wait().await.unwrap().code(), Some(130));
    assert_eq!(volume.snapshot(false).await, before);

    // What `docker exec` says when a signal ends it; and a list that can't be made keeps nobody from upgrading.
    let (mut command, _folder) = disturbed(&volume, "compare_database plinth", "exit 0");
    Said::of(&ended(&mut command).await).assert(1, "compare_database plinth: not done");
    let (mut command, _folder) = disturbed(&volume, "settings", "exit 1");
    Said::of(&ended(&mut command).await).assert(0, "couldn't be compared");
    assert_eq!(volume.snapshot(true).await, before);
}

/// Nobody reads what it says any more.
#[tokio::test]
async fn an_upgrade_whose_terminal_is_gone_ends_its_servers() {
    let volume = Volume::old().await;
    let mut running = volume.copying(script(&[&volume.name]).stdout(Stdio::piped()).stderr(Stdio::piped())).await;
    drop((running.stdout.take(), running.stderr.take()));
    signal(&running, "-TERM").await;
    assert_eq!(running.wait().await.unwrap().code(), Some(143));
    assert_eq!(volume.at_work(true).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_that_differs_is_not_taken_and_a_volume_that_is_not_fit_is_refused() {
    upgrade(&[&unique()]).await.assert(1, "there is no volume");
    let empty = Volume::empty().await;
    upgrade(&[&empty.name]).await.assert(1, "holds no data");
    let write = format!("{}:/volume", empty.name);
    docker(&["run", "--rm", "--volume", &write, new_image(), "bash", "-c", "echo 14 >/volume/PG_VERSION"]).await;
    upgrade(&[&empty.name]).await.assert(1, "data of Postgres 14, not of 15");

    let volume = Volume::old().await;
    let before = volume.snapshot(false).await;
    upgrade(&["--remove-old", &volume.name]).await.assert(1, "isn't upgraded");
    let server = volume.server(old_image().await, "/data").await;
    sql(&server.name, "postgres", "begin; create table half (); prepare transaction 'of nobody'").await;
    volume.stop(server).await;
    upgrade(&[&volume.name]).await.assert(1, "'of nobody' in the database postgres");
    let server = volume.server(old_image().await, "/data").await;
    sql(&server.name, "postgres", "rollback prepared 'of nobody'").await;
    volume.stop(server).await;
    Said::of(&ended(script(&[&volume.name]).env("POSTGRES_USER", "somebody")).await).assert(1, "set POSTGRES_USER");
    // As 18 makes it where it is started once as it comes, without compose.
    let write = format!("{}:/volume", volume.name);
    let folder = "mkdir -p /volume/18/docker && touch /volume/18/docker/file";
    docker(&["run", "--rm", "--user", "root", "--volume", &write, new_image(), "bash", "-c", folder]).await;
    upgrade(&[&volume.name]).await.assert(1, "the folder 18");
    docker(&["run", "--rm", "--user", "root", "--volume", &write, new_image(), "rm", "/volume/18/docker/file"]).await;

    let change = "PGOPTIONS='-c default_transaction_read_only=off' psql -p 5433 -U plinth -d plinth";
    let change = format!("\"$DOCKER\" exec \"$2\" bash -c \"{change} -c 'update slow set n = n + 1 where n = 7'\"");
    let (mut command, _folder) = disturbed(&volume, "compare_database plinth", &change);
    Said::of(&ended(&mut command).await).assert(1, "15 (<) and 18 (>) differ:");
    assert_eq!(volume.at_work(true).await, Vec::<String>::new());
    assert_eq!(volume.snapshot(false).await, before);

    upgrade(&[&volume.name]).await.assert(0, "ssl_min_protocol_version = TLSv1.3\nwork_mem = 7MB");
    assert_eq!(volume.snapshot(true).await, before);
    // Back to 15: each has then what the other lacks, and nobody but a person can choose.
    volume.snapshot(false).await;
    for args in [&[&volume.name[..]][..], &["--remove-old", &volume.name]] {
        upgrade(args).await.assert(1, "Postgres 15 ran on");
    }
    assert_eq!(volume.snapshot(true).await, before);
}
