//! The command line: process types, and every setting as a flag.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::reader::Values;
use crate::config::settings::{GROUPS, Setting, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Serve,
    /// Applies migrations, or only says whether any are missing.
    Migrate {
        check: bool,
    },
    /// Asks a running web process on loopback.
    Healthcheck(&'static str),
    Openapi,
}

/// Reads the command line and the environment; prints usage errors and `--help` itself and then leaves the process.
pub fn parse() -> (Process, Values) {
    let matches = command().get_matches();
    let process = match matches.subcommand() {
        Some(("migrate", migrate)) => Process::Migrate { check: migrate.get_flag("check") },
        Some(("healthcheck", check)) => match check.get_one::<String>("which").map(String::as_str) {
            Some("live") => Process::Healthcheck("/health/live"),
            Some("health") => Process::Healthcheck("/health"),
            _ => Process::Healthcheck("/health/ready"),
        },
        Some(("openapi", _)) => Process::Openapi,
        _ => Process::Serve,
    };
    (process, values(&matches))
}

pub fn command() -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue);
    let check = check.help("Only exit with 1 when the schema is behind");
    let which = Arg::new("which").value_parser(["ready", "live", "health"]).default_value("ready").help("What to ask");
    let mut command = Command::new(env!("CARGO_PKG_NAME"))
        .version(crate::VERSION)
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(after_help())
        .subcommand(Command::new("serve").about("The web process (default)"))
        .subcommand(Command::new("migrate").about("Applies the migrations; safe when many start at once").arg(check))
        .subcommand(
            Command::new("healthcheck").about("Asks the running service on loopback; exits with 0 or 1").arg(which),
        )
        .subcommand(Command::new("openapi").about("Prints the OpenAPI document"));
    for group in GROUPS {
        for setting in group.settings.iter().filter(|setting| setting.source == Source::Flag) {
            let flag = Arg::new(setting.name).long(setting.flag()).env(setting.name).global(true);
            command = command.arg(flag.help_heading(group.title).help(help(setting)));
        }
    }
    command
}

fn help(setting: &Setting) -> String {
    match setting.default {
        "" => setting.help.to_owned(),
        default => format!("{} [default: {default}]", setting.help),
    }
}

/// What has no flag: secrets, which would show in process lists, and OpenTelemetry's own variables.
fn after_help() -> String {
    let mut text = String::from("Secrets (environment only; X_FILE names a file that holds X):\n");
    list(&mut text, Source::Secret);
    text.push_str("\nOpenTelemetry (environment only):\n");
    list(&mut text, Source::Environment);
    text
}

fn list(text: &mut String, source: Source) {
    for setting in GROUPS.iter().flat_map(|group| group.settings).filter(|setting| setting.source == source) {
        text.push_str(&format!("  {:<36} {}\n", setting.name, help(setting)));
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn values(matches: &ArgMatches) -> Values {
    let variable = |name: &str| std::env::var(name).ok().map(|value| (name.to_owned(), value));
    let pairs = GROUPS.iter().flat_map(|group| group.settings).flat_map(|setting| match setting.source {
        Source::Flag => {
            let flag = matches.get_one::<String>(setting.name);
            vec![flag.map(|value| (setting.name.to_owned(), value.clone()))]
        }
        Source::Secret => vec![variable(setting.name), variable(&format!("{}_FILE", setting.name))],
        Source::Environment => vec![variable(setting.name)],
    });
    Values::new(pairs.flatten())
}
