//! Takes secrets out of everything that comes from a container before anybody sees it.
//!
//! Values are secret by their name, by their look, or by where they stand: the password in a URL, what follows
//! `--token`. Those of environment, labels and command line are then hidden wherever they occur, logs included.

use std::sync::LazyLock;

use bollard::models::ContainerInspectResponse;
use regex::Regex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Stands where a secret stood.
pub const HIDDEN: &str = "[hidden]";

/// Shorter values would be found in half of all words; by name they are hidden all the same.
const SHORTEST: usize = 5;

const NAME: &str =
    r"(?:pass|pwd|secret|token|api_?key|access_?key|private|credential|auth|dsn|cookie|salt|signature|_key\b|-key\b)";

/// The first group of a pattern is kept, and the second behind what is hidden.
static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let value = r#"(?:"[^"]*"|'[^']*'|[^\s"',;&]+)"#;
    let patterns = [
        r"([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(@)".to_owned(),
        r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}".to_owned(),
        format!(r#"([\w.-]*{NAME}[\w.-]*["']?\s*[=:]\s*){value}"#),
        format!(r"(-[\w-]*{NAME}[\w-]*\s+){value}"),
        r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+".to_owned(),
        r"()\b(?:AKIA[0-9A-Z]{16}|gh[a-z]_\w{20,}|xox[a-z]-[\w-]{10,}|sk-[\w-]{20,})".to_owned(),
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*".to_owned(),
    ];
    patterns.iter().filter_map(|pattern| Regex::new(&format!("(?i){pattern}")).ok()).collect()
});

static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!("(?i){NAME}|key$")).ok());
static URL_PASSWORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"://[^\s:/@]*:([^\s/]+)@").ok());

/// The secrets of one container.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Longest first, so that none is left in part.
    values: Vec<String>,
}

impl Secrets {
    /// Gathers what is secret in a container's environment, labels and command line.
    pub fn of(inspect: &ContainerInspectResponse) -> Self {
        let config = inspect.config.clone().unwrap_or_default();
        let environment = config.env.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        let arguments: Vec<_> = inspect.path.iter().chain(inspect.args.iter().flatten()).cloned().collect();
        let named = environment.iter().filter_map(|line| line.split_once('='));
        let named = named.chain(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let flags = arguments.windows(2).filter(|pair| pair[0].starts_with('-') && !pair[0].contains('='));
        let flags = flags.map(|pair| (pair[0].as_str(), pair[1].as_str()));
        let assigned = arguments.iter().filter_map(|argument| argument.split_once('='));
        let plain = arguments.iter().map(|argument| ("", argument.as_str()));

        let mut values: Vec<String> = Vec::new();
        for (name, value) in named.chain(flags).chain(assigned).chain(plain) {
            if secret_name(name) || looks_secret(value) {
                // As a whole, and each of a list.
                values.extend(value.split([',', '\n']).chain(value.lines()).map(|part| part.trim().to_owned()));
            }
            let password = URL_PASSWORD.as_ref().and_then(|pattern| pattern.captures(value));
            values.extend(password.map(|found| found[1].to_owned()));
        }
        values.retain(|value| value.len() >= SHORTEST && value != "false");
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self { values }
    }

    /// The text without secrets.
    pub fn hide(&self, text: &str) -> String {
        let text = self.values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN));
        PATTERNS
            .iter()
            .fold(text, |text, pattern| pattern.replace_all(&text, format!("${{1}}{HIDDEN}${{2}}")).into_owned())
    }

    /// Whatever it is, with each of its strings passed through `hide`.
    pub fn scrub<T: Serialize + DeserializeOwned>(&self, value: &T) -> serde_json::Result<T> {
        let mut json = serde_json::to_value(value)?;
        self.walk(&mut json);
        serde_json::from_value(json)
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    match field {
                        // Also the short ones.
                        Value::String(text) if secret_name(name) && !text.is_empty() => HIDDEN.clone_into(text),
                        _ => self.walk(field),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A variable, label or option of this name holds a secret; `…_FILE` only says where one is.
fn secret_name(name: &str) -> bool {
    let pattern = SECRET_NAME.as_ref();
    !name.to_ascii_lowercase().ends_with("_file") && pattern.is_some_and(|pattern| pattern.is_match(name))
}

/// Long, one word, letters and digits mixed, and as evenly as only chance or a generator does it.
fn looks_secret(value: &str) -> bool {
    let word = value.chars().all(|c| c.is_ascii_alphanumeric() || "+/=_-.".contains(c));
    let mixed = value.contains(|c: char| c.is_ascii_digit()) && value.contains(|c: char| c.is_ascii_alphabetic());
    value.len() >= 20 && word && mixed && !value.starts_with('/') && entropy(value) > 3.5
}

/// Shannon's, in bits a character; English words have about 3, 32 random hexadecimal digits 3.7.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let total = text.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total);
    shares.map(|share| -share * share.log2()).sum()
}
