//! Turns texts into typed settings and collects everything that is wrong, so that one start shows it all.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::settings::{self, Source};

/// The settings as texts; empty ones are left out, so that empty counts as unset.
#[derive(Clone, Default)]
pub struct Values(HashMap<String, String>);

impl Values {
    /// Keeps the pairs whose value isn't empty.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Everything that was wrong with the configuration; its text names each variable.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not valid:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Reads settings one by one. A bad one yields its type's default, which nobody sees: [`Reader::finish`] fails then.
pub struct Reader<'a> {
    values: &'a Values,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(values: &'a Values) -> Self {
        Self { values, problems: Vec::new() }
    }

    /// The setting, parsed, when it is set.
    pub fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if let Err(why) = &value {
            let secret = settings::find(name).is_none_or(|setting| setting.source == Source::Secret);
            let shown = if secret { "its value (not shown)".to_owned() } else { format!("{text:?}") };
            self.problem(name, &format!("{shown} {why}"));
        }
        value.ok()
    }

    /// The setting, parsed, or its default from the table.
    pub fn setting<T: Default>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let default = || settings::find(name).and_then(|setting| parse(setting.default).ok()).unwrap_or_default();
        self.optional(name, &parse).unwrap_or_else(default)
    }

    /// The setting, parsed; missing is a problem.
    pub fn required<T: Default>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let before = self.problems.len();
        let value = self.optional(name, parse);
        if value.is_none() && self.problems.len() == before {
            self.problem(name, "is missing");
        }
        value.unwrap_or_default()
    }

    pub fn problem(&mut self, name: &str, what: &str) {
        let example = settings::find(name).map_or("", |setting| setting.example);
        let problem = format!("{name}: {what}; for example {name}={example}");
        // Some settings are read for two purposes.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// What was read, unless anything was missing or wrong.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) }
    }

    /// The variable itself or, for a secret, what is in the file that `X_FILE` names.
    fn text(&mut self, name: &str) -> Option<String> {
        let direct = self.values.text(name).map(str::to_owned);
        // Only secrets have such a variable among the values.
        let Some(path) = self.values.text(&format!("{name}_FILE")) else { return direct };
        let read = std::fs::read_to_string(path).map(|text| text.trim_end().to_owned());
        match (direct, read) {
            (Some(_), _) => self.problem(name, &format!("and {name}_FILE are both set; set one")),
            (None, Ok(text)) => return Some(text).filter(|text| !text.is_empty()),
            (None, Err(error)) => self.problem(name, &format!("{name}_FILE={path} can't be read ({error})")),
        }
        None
    }
}

pub fn parsed<T: FromStr>(what: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |text| text.trim().parse().map_err(|_| format!("is not {what}"))
}

/// `500ms`, `30s`, `1h`. Postgres takes milliseconds that an i32 holds, where 0 is no limit at all.
pub fn duration(text: &str) -> Result<Duration, String> {
    let value = humantime::parse_duration(text.trim()).map_err(|_| "is not a duration".to_owned())?;
    let fits = value.is_zero() || (Duration::from_millis(1)..=Duration::from_hours(24 * 24)).contains(&value);
    fits.then_some(value).ok_or_else(|| "is not from 1ms to 24days".to_owned())
}

/// Bytes, or `64KiB`, `64MiB`, `1GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: u64 = match text.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("is not a size (bytes, KiB, MiB or GiB)".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "is not a size (bytes, KiB, MiB or GiB)")?;
    number.checked_mul(factor).ok_or_else(|| "is too large".to_owned())
}

/// A list with commas, each element parsed, empty ones left out.
pub fn list<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(&parse).collect()
}
