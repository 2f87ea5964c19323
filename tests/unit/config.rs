//! The pages about settings are made from the table and compared with the files here.

use std::time::Duration;

use telemetry::settings::TelemetryConfig;

use super::generated::assert_generated;
use crate::app::Policies;
use crate::config::Config;
use crate::config::reader::Values;
use crate::config::settings::{GROUPS, Setting, Source};

/// `docs/configuration.md`.
fn markdown() -> String {
    let mut page = String::from(
        "<!-- Made from src/config/settings.rs; `UPDATE=1 cargo test generated` writes it anew. -->\n\
         # Configuration\n\n\
         Settings come from environment variables; all but secrets and OpenTelemetry's can be given as flags, too, which win.\n\
         An empty variable counts as unset. Every secret `X` can be given as a file named by `X_FILE` instead.\n\
         A wrong value stops the process with exit code 2 and one message that names every bad variable.\n\
         Durations are written `500ms`, `30s`, `1h`; sizes in bytes or `64KiB`, `64MiB`; lists with commas.\n",
    );
    for group in GROUPS {
        page.push_str(&format!("\n## {}\n\n| variable | flag | default | meaning |\n|---|---|---|---|\n", group.title));
        for setting in group.settings {
            page.push_str(&row(setting));
        }
    }
    page
}

fn row(setting: &Setting) -> String {
    let flag = match setting.source {
        Source::Flag => format!("`--{}`", setting.flag()),
        Source::Secret => "secret".to_owned(),
        Source::Environment => String::new(),
    };
    let default = if setting.default.is_empty() { "unset".to_owned() } else { format!("`{}`", setting.default) };
    let name = setting.name;
    format!("| `{name}` | {flag} | {default} | {} |\n", setting.help)
}

/// `.env.example`.
fn env_example() -> String {
    let mut file = String::from(
        "# Made from src/config/settings.rs; copy to .env and change. Everything unset has the default shown.\n",
    );
    for group in GROUPS {
        file.push_str(&format!("\n# {}\n", group.title));
        for setting in group.settings {
            file.push_str(&format!("# {}\n#{}={}\n", setting.help, setting.name, sample(setting)));
        }
    }
    file
}

/// The default; where there is none, or one that only words can say, the example.
fn sample(setting: &Setting) -> &'static str {
    if setting.default.is_empty() || setting.default.contains(' ') || setting.default.contains('\'') {
        setting.example
    } else {
        setting.default
    }
}

#[test]
fn generated_files_are_up_to_date() {
    assert_generated("docs/configuration.md", &markdown());
    assert_generated(".env.example", &env_example());
}

#[test]
fn every_value_of_the_env_example_is_valid() {
    let file = env_example();
    let pairs = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.contains(' '));
    let values = Values::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(Config::read(&values).err().map(|error| error.to_string()), None);
}

#[test]
fn every_example_in_a_message_is_valid() {
    for setting in GROUPS.iter().flat_map(|group| group.settings) {
        let database = ("DATABASE_URL".to_owned(), "postgres://db/plinth".to_owned());
        let example = (setting.name.to_owned(), setting.example.to_owned());
        let config = Config::read(&Values::new([database, example]));
        assert_eq!(config.err().map(|error| error.to_string()), None, "{}", setting.name);
    }
}

fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
    let pairs = pairs.iter().chain(&[("DATABASE_URL", "postgres://db/plinth")]);
    let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(&Values::new(pairs)).map_err(|error| error.to_string())
}

/// What is read when there is a collector.
fn telemetry(pairs: &[(&str, &str)]) -> TelemetryConfig {
    let collector = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318/")];
    read(&[&collector, pairs].concat()).unwrap().telemetry
}

#[test]
fn the_service_has_its_own_name_or_that_of_its_resource() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=orders,a=b");
    for (pairs, name) in [
        (&[][..], "plinth"),
        (&[attributes], "orders"),
        (&[attributes, ("OTEL_SERVICE_NAME", "bills")], "bills"),
        (&[("OTEL_RESOURCE_ATTRIBUTES", "a=b")], "plinth"),
    ] {
        let config = read(pairs).unwrap();
        assert_eq!(config.telemetry.service_name, name);
        assert_eq!(config.database.application_name, name);
    }
}

#[test]
fn what_is_set_for_traces_wins() {
    let export = telemetry(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "7")]).export.unwrap();
    assert_eq!(export.timeout, Duration::from_millis(7));
    assert_eq!(export.endpoint, "http://jaeger:4318/v1/traces");
    let both = [("OTEL_EXPORTER_OTLP_TIMEOUT", "7"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "8")];
    assert_eq!(telemetry(&both).export.unwrap().timeout, Duration::from_millis(8));
    let export = telemetry(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4318/traces/")]).export.unwrap();
    assert_eq!(export.endpoint, "http://jaeger:4318/traces/", "taken as it is");
}

#[test]
fn a_load_may_take_as_long_as_its_request() {
    for (timeout, least) in [("10s", 9), ("60s", 54)] {
        let policies = Policies::new(&read(&[("REQUEST_TIMEOUT", timeout)]).unwrap());
        for policy in [policies.user, policies.data] {
            assert!(policy.load_timeout >= Duration::from_secs(least), "{:?}", policy.load_timeout);
        }
    }
}

#[test]
fn opentelemetrys_booleans_ignore_case() {
    assert!(telemetry(&[("OTEL_SDK_DISABLED", "TRUE")]).export.is_none());
    assert!(telemetry(&[("OTEL_SDK_DISABLED", "False")]).export.is_some());
}

#[test]
fn what_would_only_fail_later_is_refused() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "a key=hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=hunter2%0A"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "=hunter2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "18446744073709551615"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "65537"),
        ("DATABASE_COMMAND_TIMEOUT", "500us"),
        ("DATABASE_COMMAND_TIMEOUT", "25days"),
        ("MANAGEMENT_PORT", "3000"),
        ("API_TOKEN", ", ,"),
    ] {
        let message = read(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} is accepted"));
        assert!(message.contains(&format!("\n  {name}: ")) && !message.contains("hunter2"), "{message}");
    }
    assert!(read(&[("PORT", "0"), ("MANAGEMENT_PORT", "0")]).is_ok(), "each takes a free one");
}

#[test]
fn what_two_parts_read_is_complained_about_once() {
    let message = read(&[("OTEL_RESOURCE_ATTRIBUTES", "novalue")]).err().unwrap();
    assert_eq!(message.lines().count(), 2, "{message}");
}
