//! The image by itself: what it says, what it may, what is in it.

use devkit::{Cleanup, versions, wait_until};
use serde_json::{Value, json};

use crate::support::{
    COMMIT, CREATED, Container, LIMIT, VERSION, build, client, docker, image, output, succeeded, unique,
};

/// How the image is meant to be run.
const HARDENED: [&str; 7] = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--init",
    "--pids-limit=256",
    "--memory=256m",
];

#[tokio::test]
async fn the_image_says_what_it_is_and_runs_as_an_unprivileged_user() {
    let config: Value =
        serde_json::from_str(&docker(&["inspect", "--format", "{{json .Config}}", image().await]).await).unwrap();

    assert_eq!(config["User"], "1001:1001");
    assert_eq!(config["Entrypoint"], json!(["/plinth"]));
    assert_eq!(config["ExposedPorts"], json!({"3000/tcp": {}}));
    let seconds = |count: u64| json!(count * 1_000_000_000);
    let health = &config["Healthcheck"];
    assert_eq!(health["Test"], json!(["CMD", "/plinth", "healthcheck"]));
    let times = ["Interval", "Timeout", "StartPeriod", "StartInterval"].map(|name| health[name].clone());
    assert_eq!((times, &health["Retries"]), ([seconds(30), seconds(3), seconds(5), seconds(1)], &json!(3)));
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default();
    assert_eq!([label("version"), label("revision"), label("created")], [VERSION, COMMIT, CREATED]);
    assert_eq!([label("title"), label("licenses")], ["plinth", env!("CARGO_PKG_LICENSE")]);
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    let version = docker(&["run", "--rm", image().await, "--version"]).await;
    assert_eq!(version, format!("plinth {VERSION}"));
}

#[tokio::test]
async fn the_image_is_small_and_has_nothing_to_start_but_the_service() {
    let size: u64 = docker(&["inspect", "--format", "{{.Size}}", image().await]).await.parse().unwrap();
    // With the profile `release` it is smaller still.
    assert!(size < 26_000_000, "{size} bytes");

    // Symbolic links in archives are written as `name -> target`.
    let list = exported("tar -tv").await;
    let programs: Vec<&str> = list
        .lines()
        .filter(|line| line.starts_with("-") && line[..10].contains('x') && !line.contains(".so"))
        .map(|line| line.rsplit(' ').next().unwrap())
        // What Docker puts there, and a script of Debian's that nothing here could run.
        .filter(|path| !["etc/", "dev/", ".dockerenv"].iter().any(|other| path.starts_with(other)))
        .collect();
    assert_eq!(programs, ["plinth"]);
    let shell = output(&["run", "--rm", "--entrypoint=/bin/sh", image().await]).await;
    assert_eq!(shell.status.code(), Some(127));
}

/// What a shell's command makes of the archive of the image's files.
async fn exported(command: &str) -> String {
    let name = unique();
    let _cleanup = Cleanup::new(&format!("docker rm {name}")).unwrap();
    docker(&["create", "--name", &name, image().await]).await;
    let mut export = tokio::process::Command::new("sh");
    export.args(["-c", &format!("docker export {name} | {command}")]);
    succeeded(&mut export, LIMIT).await
}

#[tokio::test]
async fn the_image_has_certificates_and_what_its_program_needs_and_lists_just_those_packages() {
    let environment = docker(&["inspect", "--format", "{{json .Config.Env}}", image().await]).await;
    let files = exported("tar -t").await;
    let packages = exported("tar -xO --wildcards 'var/lib/dpkg/status.d/*'").await;

    let bundle = "etc/ssl/certs/ca-certificates.crt";
    assert!(environment.contains(&format!("\"SSL_CERT_FILE=/{bundle}\"")), "{environment}");
    assert!(files.lines().any(|file| file == bundle), "{files}");
    let listed = |package: &str| packages.lines().any(|line| line == format!("Package: {package}"));
    let there = |library: &str| files.lines().any(|file| file.contains(&format!("/{library}.so.")));
    for (package, library) in [("libc6", "libc"), ("libgcc-s1", "libgcc_s")] {
        assert!(listed(package) && there(library), "{package} is missing");
    }
    let unused = [
        ("libssl3t64", "libssl"),
        ("libssl3t64", "libcrypto"),
        ("libstdc++6", "libstdc++"),
        ("libgomp1", "libgomp"),
        ("libzstd1", "libzstd"),
        ("zlib1g", "libz"),
    ];
    for (package, library) in unused {
        assert!(!listed(package) && !there(library), "{package} is there");
    }
}

#[tokio::test]
async fn the_program_lists_its_crates_for_scanners_and_has_no_symbols() {
    let name = unique();
    let folder = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup::new(&format!("docker rm {name}")).unwrap();
    docker(&["create", "--name", &name, image().await]).await;
    let copy = folder.path().join("plinth");
    docker(&["cp", &format!("{name}:/plinth"), copy.to_str().unwrap()]).await;

    let program = std::fs::read(copy).unwrap();

    // As the table of section names has them.
    let has = |section: &str| program.windows(section.len()).any(|bytes| bytes == section.as_bytes());
    assert!(has("\0.dep-v0\0"), "cargo auditable's section");
    assert!(!has("\0.symtab\0") && !has("\0.debug_line\0"));
}

/// Postgres, and the service in its network with `arguments`, ready.
async fn serving(arguments: &[&str]) -> (Container, Container) {
    let postgres = versions::image("POSTGRES").unwrap();
    let trust = ["--env", "POSTGRES_HOST_AUTH_METHOD=trust", "--publish", "127.0.0.1::3000", postgres];
    let database = Container::run(&trust).await;
    let network = format!("--network=container:{}", database.name);
    let settings = ["--env=DATABASE_URL=postgres://postgres@127.0.0.1/postgres", "--env=MIGRATE_ON_START=true"];
    let service = Container::run(&[&[network.as_str()], arguments, &settings, &[image().await]].concat()).await;
    let ready = async || output(&["exec", &service.name, "/plinth", "healthcheck"]).await.status.success();
    wait_until("the service is ready", LIMIT, ready).await.unwrap();
    (database, service)
}

#[tokio::test]
async fn a_hardened_container_serves_and_can_write_nowhere_but_in_tmp() {
    let (database, service) = serving(&HARDENED).await;

    let url = format!("http://{}", database.address(3000).await);
    let health: Value = client().get(format!("{url}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&health["status"], &health["version"]), (&json!("healthy"), &json!(VERSION)));
    assert_eq!(client().get(format!("{url}/api/test")).send().await.unwrap().status(), 200);
    // Its files as the same user sees them, from a container that has a shell.
    let process = format!("--pid=container:{}", service.name);
    let look = async |script: &str| {
        let root = "cd /proc/1/root/ && ";
        let script = format!("{root}{script}");
        let run = ["run", "--rm", &process, "--user=1001:1001", "--cap-drop=ALL", "--entrypoint=sh"];
        docker(&[&run[..], &[versions::image("POSTGRES").unwrap(), "-c", &script]].concat()).await
    };
    assert_eq!(look("find . -xdev -writable 2>/dev/null || true").await, "./tmp");
    assert_eq!(look("touch tmp/x && ls tmp").await, "x");
    assert_eq!(look("touch x 2>/dev/null || echo refused").await, "refused");
}

#[tokio::test]
async fn a_container_stops_cleanly_within_its_drain_delay() {
    let (_database, service) = serving(&[&HARDENED[..], &["--env=DRAIN_DELAY=1s"]].concat()).await;

    docker(&["stop", "--time=30", &service.name]).await;

    assert_eq!(service.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}").await, "0 false");
    let log = docker(&["logs", &service.name]).await;
    assert!(log.contains(r#""phase":"Stopped""#), "{log}");
}

#[tokio::test]
async fn as_many_threads_answer_as_the_quota_has_whole_cores() {
    // It listens before it has a database.
    let settings = ["--cpus=1.5", "--env=DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing", image().await];
    let service = Container::run(&settings).await;
    let listens = async || docker(&["logs", &service.name]).await.contains("server.listening");
    wait_until("the service listens", LIMIT, listens).await.unwrap();

    let threads = docker(&["top", &service.name, "-L", "-o", "pid,comm"]).await;

    // What the kernel keeps of the server's name for them.
    assert_eq!(threads.matches("actix-server wo").count(), 1, "{threads}");
}

#[tokio::test]
async fn the_debug_image_has_the_same_program_with_symbols_and_tools_to_look_into_it() {
    // The same build: only its stage differs.
    image().await;
    let tag = "plinth:test-debug";
    build(tag, &["--target=debug"]).await;
    let run = async |script: &str| docker(&["run", "--rm", "--entrypoint=sh", tag, "-c", script]).await;

    for tool in ["htop", "curl", "tcpdump", "strace", "gdb", "valgrind", "ss", "netstat-nat", "perf"] {
        assert!(!run(&format!("command -v {tool} || echo {tool} >&2")).await.is_empty(), "{tool} is missing");
    }
    assert_eq!(run("id -u").await, "1001");
    assert_eq!(docker(&["run", "--rm", tag, "--version"]).await, format!("plinth {VERSION}"));
    let line = run("gdb -batch -ex 'info line src/main.rs:70' /plinth").await;
    assert!(line.contains("/build/src/main.rs"), "{line}");
}
