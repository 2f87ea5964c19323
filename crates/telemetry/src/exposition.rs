//! OpenMetrics as the library writes it, and the older plain text for scrapers that don't ask for it.

/// The media type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older text.
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Plain text has no units, no exemplars and no end mark, and names a counter's type with its `_total`.
pub fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            // Label values come from the code, and none there looks like the start of an exemplar.
            text.push_str(line.split(" # {").next().unwrap_or_default());
            text.push('\n');
        }
    }
    text
}
