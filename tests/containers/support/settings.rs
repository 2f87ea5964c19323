//! What `plinth --help` says that it can be told.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::process::Command;

use super::docker::succeeded;

/// The service's variables.
pub struct Settings {
    all: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// The program under test with nothing of the caller's settings.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.env_clear();
    command
}

impl Settings {
    pub async fn of_help() -> Self {
        let help = succeeded(program().arg("--help"), Duration::from_secs(60)).await;
        let (flags, rest) = help.split_once("\nSecrets (").expect("a section of secrets");
        let (secrets, others) = rest.split_once("\n\n").expect("a section after the secrets");
        // Lines are wrapped where the terminal ends.
        let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
        let flags = flags.split("[env: ").skip(1).map(|rest| rest.split('=').next().unwrap().to_owned());
        let secrets: BTreeSet<String> = listed(secrets).collect();
        let all: BTreeSet<String> = flags.chain(listed(others)).chain(secrets.iter().cloned()).collect();
        for known in ["PORT", "DRAIN_DELAY", "DATABASE_URL", "API_TOKEN", "OTEL_TRACES_SAMPLER"] {
            assert!(all.contains(known), "{known} isn't in {all:?}");
        }
        Self { all, secrets }
    }

    /// Asserts that the service reads this variable, and that no secret stands in it.
    pub fn assert_known(&self, name: &str, place: &str) {
        let secret = name.strip_suffix("_FILE").unwrap_or(name);
        assert!(self.all.contains(name) || self.secrets.contains(secret), "{place}: no setting {name}");
        assert!(!self.secrets.contains(name), "{place}: the secret {name} belongs into a file");
    }
}

/// Names at the begin of lines, indented by two.
fn listed(section: &str) -> impl Iterator<Item = String> + '_ {
    let names = section.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let upper = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    names.filter(upper).map(str::to_owned)
}
