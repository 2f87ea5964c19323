//! A volume of Postgres 15 becomes one of Postgres 18 by `docker/upgrade-postgres.sh`, whatever ends it on the way.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};

use devkit::{Cleanup, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{Container, LIMIT, Project, checkout, client, docker, output, succeeded, unique};

/// Besides what the service has: texts that quoting could break, another database, a role with settings, a sequence
/// that went on, a large object, a changed setting, and a table that takes 18 three seconds to load.
const FILL: [&str; 3] = [
    r#"create database "odd=name""#,
    "alter system set work_mem = '7MB'",
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
    select convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata;
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
        let server = Container::run(&[&rights[..], &tmpfs, &user].concat()).await;
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

    /// Containers of a script that work on it.
    async fn at_work(&self) -> Vec<String> {
        let label = format!("label=plinth.upgrade-postgres={}", self.name);
        let names = docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]).await;
        names.lines().map(str::to_owned).collect()
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

    // While rows flow; the servers go with it, as in a loss of power.
    let mut running = script(&[&volume.name]).stdout(Stdio::null()).process_group(0).spawn().unwrap();
    let group = running.id().unwrap();
    let flows = async || {
        let Some(new) = volume.at_work().await.into_iter().find(|name| name.ends_with("-18")) else { return false };
        let psql = ["psql", "-XAtq", "-p", "5433", "-U", "plinth", "-d", "plinth", "-c"];
        let asked =
            output(&[&["exec", &new], &psql[..], &["select count(*) from pg_stat_progress_copy"]].concat()).await;
        asked.stdout.starts_with(b"1")
    };
    wait_until("rows flow", LIMIT, flows).await.unwrap();
    succeeded(Command::new("kill").args(["-KILL", "--", &format!("-{group}")]), LIMIT).await;
    assert!(running.wait().await.unwrap().signal().is_some());
    for one in volume.at_work().await {
        docker(&["kill", &one]).await;
    }
    assert_eq!(volume.snapshot(false).await, before, "after a kill while rows flow");

    // Its servers run on.
    let (mut command, _folder) = disturbed(&volume, "compare_database plinth", KILL);
    assert!(ended(&mut command).await.status.signal().is_some());
    assert_eq!(volume.at_work().await.len(), 2);

    // Everything is done but the rename.
    let (mut command, _folder) = disturbed(&volume, "accept", KILL);
    assert!(ended(&mut command).await.status.signal().is_some());
    assert_eq!(volume.snapshot(false).await, before, "after a kill before the rename");

    let (mut command, _folder) = disturbed(&volume, "accept", &format!("\"$DOCKER\" \"$@\"; {KILL}"));
    assert!(ended(&mut command).await.status.signal().is_some());
    upgrade(&[&volume.name]).await.assert(0, "nothing to do");
    assert_eq!(volume.snapshot(true).await, before);
    assert_eq!(volume.at_work().await, Vec::<String>::new());
    let mount = format!("{}:/volume", volume.name);
    let files = docker(&["run", "--rm", "--volume", &mount, new_image(), "ls", "-A", "/volume"]).await;
    assert!(files.contains("PG_VERSION") && !files.contains(".upgrade-"), "{files}");
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
    let change = "PGOPTIONS='-c default_transaction_read_only=off' psql -p 5433 -U plinth -d plinth";
    let change = format!("\"$DOCKER\" exec \"$2\" bash -c \"{change} -c 'update slow set n = n + 1 where n = 7'\"");
    let (mut command, _folder) = disturbed(&volume, "compare_database plinth", &change);
    Said::of(&ended(&mut command).await).assert(1, "15 (<) and 18 (>) differ:");
    assert_eq!(volume.at_work().await, Vec::<String>::new());
    assert_eq!(volume.snapshot(false).await, before);

    upgrade(&[&volume.name]).await.assert(0, "work_mem = 7MB");
    assert_eq!(volume.snapshot(true).await, before);
    // Back to 15: each has then what the other lacks, and nobody but a person can choose.
    volume.snapshot(false).await;
    for args in [&[&volume.name[..]][..], &["--remove-old", &volume.name]] {
        upgrade(args).await.assert(1, "Postgres 15 ran on");
    }
    assert_eq!(volume.snapshot(true).await, before);
}
