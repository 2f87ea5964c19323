//! What devkit tells people: plain lines on stderr.

use std::io::Write;

/// Writes one line to stderr, past the test harness, which would hold it back until a test fails.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
