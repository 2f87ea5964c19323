//! Takes the secrets that a container was given out of what it wrote.

/// Parts of names whose values are secret.
const SECRET: [&str; 6] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"];
/// Shorter values would be found everywhere.
const SHORTEST: usize = 4;

/// The text without the secret values of this environment.
pub fn redact(text: &str, environment: &[String]) -> String {
    let mut secrets: Vec<_> = environment.iter().filter_map(|pair| pair.split_once('=')).flat_map(secrets).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
        .iter()
        .filter(|secret| secret.len() >= SHORTEST)
        .fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
}

/// The value as a whole, each part of a list, or the password in a URL.
fn secrets<'a>((name, value): (&'a str, &'a str)) -> Vec<&'a str> {
    let name = name.to_ascii_uppercase();
    if SECRET.iter().any(|part| name.contains(part)) && !name.ends_with("_FILE") {
        return value.split(',').map(str::trim).chain([value]).collect();
    }
    let credentials = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    credentials
        .and_then(|(credentials, _)| credentials.split_once(':'))
        .map(|(_, password)| password)
        .into_iter()
        .collect()
}
