//! What Linux and the runtime say about this process, read when somebody scrapes.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::runtime::Handle;

/// The kernel counts in these units whatever the processor does (`USER_HZ`, fixed for user space on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// Shows this process and this runtime; nothing about the process where there is no `/proc`.
#[derive(Debug)]
pub struct ProcessCollector(pub Handle);

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let runtime = self.0.metrics();
        gauge(e, "tokio_workers", "Threads of the background runtime.", None, runtime.num_workers())?;
        gauge(e, "tokio_live_tasks", "Tasks of the background runtime.", None, runtime.num_alive_tasks())?;
        gauge(
            e,
            "tokio_global_queue_depth",
            "Tasks of the background runtime that wait for a thread.",
            None,
            runtime.global_queue_depth(),
        )?;
        let Some(process) = read() else { return Ok(()) };
        let cpu =
            e.encode_descriptor("process_cpu", "Processor time used.", Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(process.cpu_seconds).encode(cpu)?;
        gauge(e, "process_resident_memory", "Resident memory.", Some(&Unit::Bytes), process.resident_bytes)?;
        gauge(e, "process_open_fds", "Open file descriptors.", None, process.open_fds)?;
        gauge(e, "process_max_fds", "File descriptors at most.", None, process.max_fds)?;
        gauge(e, "process_threads", "Threads.", None, process.threads)?;
        gauge(e, "process_start_time", "Start, since the epoch.", Some(&Unit::Seconds), process.start_seconds)
    }
}

/// Writes a number that is only known when somebody looks.
pub fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: usize,
    max_fds: u64,
    threads: usize,
    start_seconds: f64,
}

fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Process {
        cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
        resident_bytes: resident_bytes()?,
        open_fds: fs::read_dir("/proc/self/fd").ok()?.count(),
        max_fds: number("/proc/self/limits", "Max open files").unwrap_or(u64::MAX),
        threads: fs::read_dir("/proc/self/task").ok()?.count(),
        start_seconds: f64::from(u32::try_from(number("/proc/stat", "btime ")?).ok()?) + field(22)? / TICKS_PER_SECOND,
    })
}

/// Resident memory of this process.
pub fn resident_bytes() -> Option<u64> {
    Some(number("/proc/self/status", "VmRSS:")? * 1024)
}

/// The first number behind a label, in a file of one label a line.
pub fn number(file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}
