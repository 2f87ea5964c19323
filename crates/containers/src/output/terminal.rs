//! Makes text fit a terminal, and paints severities there. What goes into a pipe is left as it is.

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::LazyLock;

use regex::{Captures, Regex};

static SEVERITY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b(?:HIGH|MEDIUM|LOW)\b").ok());

/// The document as stdout should have it.
pub fn shown(document: &impl Display) -> String {
    let stdout = std::io::stdout();
    match rustix::termios::tcgetwinsize(&stdout) {
        Ok(size) if stdout.is_terminal() => {
            // Some terminals, of tests and of serial lines, don't know.
            let width = if size.ws_col == 0 { 80 } else { usize::from(size.ws_col.max(40)) };
            paint(&fit(&format!("{document:width$}"), width))
        }
        _ => document.to_string(),
    }
}

/// Breaks lines longer than `width` between words; what follows is indented as the line was, and a bit more.
pub fn fit(text: &str, width: usize) -> String {
    text.lines().map(|line| fit_line(line, width) + "\n").collect()
}

fn fit_line(line: &str, width: usize) -> String {
    let body = line.trim_start();
    let indent = " ".repeat((line.len() - body.len() + 2).min(width / 2));
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut lines = vec![line[..line.len() - body.len()].to_owned()];
    for word in body.split_inclusive(' ') {
        let fits = |current: &String| current.chars().count() + word.trim_end().chars().count() <= width;
        match lines.last_mut() {
            Some(current) if fits(current) || current.trim().is_empty() => current.push_str(word),
            _ => lines.push(indent.clone() + word),
        }
    }
    let trimmed: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n")
}

/// Red, yellow, green.
pub fn paint(text: &str) -> String {
    let painted = |found: &Captures<'_>| {
        let colour = match &found[0] {
            "HIGH" => 31,
            "MEDIUM" => 33,
            _ => 32,
        };
        format!("\x1b[{colour}m{}\x1b[0m", &found[0])
    };
    SEVERITY.as_ref().map_or(text.to_owned(), |pattern| pattern.replace_all(text, painted).into_owned())
}
