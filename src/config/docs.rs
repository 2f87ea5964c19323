//! The pages about settings, made from the table; a test compares them with the files.

use super::settings::{GROUPS, Setting, Source};

/// `docs/configuration.md`.
pub fn markdown() -> String {
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
pub fn env_example() -> String {
    let mut file = String::from(
        "# Made from src/config/settings.rs; copy to .env and change. Everything unset has the default shown.\n",
    );
    for group in GROUPS {
        file.push_str(&format!("\n# {}\n", group.title));
        for setting in group.settings {
            let value = if setting.default.is_empty() { setting.example } else { setting.default };
            file.push_str(&format!("# {}\n#{}={value}\n", setting.help, setting.name));
        }
    }
    file
}
