//! The pages about settings are made from the table and compared with the files here.

use std::path::Path;

use super::Config;
use super::reader::Values;
use super::settings::{GROUPS, Setting, Source};

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

#[expect(clippy::disallowed_methods, reason = "asks whether to write the files; not a setting of the service")]
fn assert_generated(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{file} is not what src/config makes; run `UPDATE=1 cargo test generated`");
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
