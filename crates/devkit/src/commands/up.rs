//! `cargo dev up`.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::service::{Service, exit_code};
use super::signals::Signals;
use super::workspace::Workspace;
use super::{install, sample};
use crate::port::loopback;
use crate::say::say;
use crate::settings::{Source, allowed, var};
use crate::{Postgres, Redis, given};

/// What the service needs; the servers end with it.
struct Ready {
    workspace: Workspace,
    program: PathBuf,
    database_url: String,
    redis_url: Option<String>,
    _postgres: Postgres,
    _redis: Option<Redis>,
}

/// Runs the service with everything it needs until it is asked to stop or dies.
pub(super) async fn run(port: Option<u16>, release: bool, yes: bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let port = free(port)?;
    let ready = tokio::select! {
        biased;
        () = signals.next() => return Ok(ExitCode::SUCCESS),
        ready = prepare(release, yes) => ready?,
    };

    let token = Token::choose();
    let mut service = Service::start(&ready.program, |command| {
        command.current_dir(&ready.workspace.root).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        command.env("PORT", port.to_string()).env("DATABASE_URL", &ready.database_url);
        command.env_remove("REDIS_URL").envs(ready.redis_url.as_ref().map(|url| ("REDIS_URL", url)));
        command.envs(token.random.as_ref().map(|random| ("API_TOKEN", random)));
        let defaults = [("LOG_FORMAT", "pretty"), ("DRAIN_DELAY", "0s")];
        command.envs(defaults.into_iter().filter(|(name, _)| var(name).is_none()));
    })?;
    let announce = async {
        until_ready(management_port(port)).await;
        print(port, &ready, &token);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = signals.next() => {}
        status = service.ended() => {
            let status = status?;
            say(format_args!("the service ended by itself ({status})"));
            return Ok(exit_code(status));
        }
        () = announce => {}
    }
    say("stopping …");
    service.stop(&mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// The port to serve on, if nobody else does.
fn free(flag: Option<u16>) -> anyhow::Result<u16> {
    let given =
        var("PORT").map(|port| port.parse().with_context(|| format!("PORT={port} isn't a port"))).transpose()?;
    let port: u16 = flag.or(given).unwrap_or(3000);
    let address = var("BIND_ADDRESS").unwrap_or_else(|| "0.0.0.0".to_owned());
    let address: IpAddr = address.parse().with_context(|| format!("BIND_ADDRESS={address} isn't an address"))?;
    match TcpListener::bind((address, port)) {
        Ok(_) => Ok(port),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} is taken: stop what listens there, or choose another one with --port")
        }
        Err(error) => Err(error).with_context(|| format!("can't listen on {address} port {port}")),
    }
}

async fn prepare(release: bool, yes: bool) -> anyhow::Result<Ready> {
    let workspace = Workspace::find().await?;
    let given = var("REDIS_URL").filter(|_| allowed("REDIS", Source::Url));
    if let Some(url) = &given {
        given::check_redis(url, yes)?;
    }
    let postgres = Postgres::given_or_start(yes).await?;
    let redis = if given.is_none() && install::redis(yes).await? { Some(Redis::start().await?) } else { None };
    let redis_url = given.or_else(|| redis.as_ref().map(Redis::url));

    let program = workspace.build(release).await?;
    let database_url = postgres.own_url().to_owned();
    let mut migrate = tokio::process::Command::new(&program);
    migrate.arg("migrate").env("DATABASE_URL", &database_url).current_dir(&workspace.root).kill_on_drop(true);
    migrate.env("LOG_FORMAT", var("LOG_FORMAT").unwrap_or_else(|| "pretty".to_owned()));
    let status = migrate.status().await.context("can't run the service to migrate")?;
    if !status.success() {
        bail!("the migration failed ({status})");
    }
    sample::load(&database_url).await?;
    Ok(Ready { workspace, program, database_url, redis_url, _postgres: postgres, _redis: redis })
}

/// What writes are authorized with.
struct Token {
    /// Ours, when none was given.
    random: Option<String>,
    /// How a shell gets it.
    shell: String,
}

impl Token {
    fn choose() -> Self {
        if var("API_TOKEN").is_some() {
            // Several may be given, with commas; not printed, since it may be a real one.
            return Self { random: None, shell: "${API_TOKEN%%,*}".to_owned() };
        }
        if var("API_TOKEN_FILE").is_some() {
            return Self { random: None, shell: r#"$(cut -d, -f1 "$API_TOKEN_FILE")"#.to_owned() };
        }
        let random = format!("{:032x}", rand::random::<u128>());
        Self { shell: random.clone(), random: Some(random) }
    }
}

/// Where health is served.
fn management_port(port: u16) -> u16 {
    var("MANAGEMENT_PORT").and_then(|port| port.parse().ok()).unwrap_or(port)
}

async fn until_ready(port: u16) {
    let mut tries = 0_u32;
    while !matches!(tokio::time::timeout(Duration::from_secs(2), is_ready(port)).await, Ok(Ok(true))) {
        tries += 1;
        if tries.is_multiple_of(600) {
            say("still waiting for /health/ready to answer 200 …");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(loopback(port)).await?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(&answer == b"HTTP/1.1 200")
}

fn print(port: u16, ready: &Ready, token: &Token) {
    let (service, management) = (format!("http://localhost:{port}"), management_port(port));
    let auth = &token.shell;
    say(format_args!("\nservice   {service}"));
    say(format_args!("docs      {service}/docs"));
    say(format_args!("metrics   http://localhost:{management}/metrics"));
    say(format_args!("postgres  {}", ready.database_url));
    let redis = ready.redis_url.as_deref().unwrap_or("none: the service caches in its own memory only (L1)");
    say(format_args!("redis     {redis}"));
    if let Some(random) = &token.random {
        say(format_args!("token     {random}"));
    }
    say(format_args!("\ntry       curl {service}/api/users/1"));
    say(format_args!(
        "          curl -X POST {service}/api/users -H \"Authorization: Bearer {auth}\" \
         -H 'Content-Type: application/json' -d '{{\"name\":\"Ada\",\"email\":\"ada@example.com\"}}'"
    ));
    say("\nCtrl-C stops it all.");
}
