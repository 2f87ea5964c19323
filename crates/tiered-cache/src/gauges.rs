//! The metrics that are only read when somebody asks for them.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::inner::Inner;

#[derive(Debug)]
pub(crate) struct Gauges(pub(crate) Weak<Inner>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let gone = inner.l1.gone();
        let health = inner.health();
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let (log_lag, bus_lag) = (health.log_lag.as_secs_f64(), health.bus_lag.as_secs_f64());
        let gauges = [
            ("cache_fence_open", "1: cached values may be used", flag(health.fence_open)),
            ("cache_log_replicas", "Replicas that read the log", inner.heard().readers as f64),
            ("cache_flights", "Flights under way", inner.flights.under_way() as f64),
            ("cache_db_gate_in_use", "Loads that ask the source", health.loads as f64),
            ("cache_db_gate_queued", "Loads that wait for the gate", health.queued as f64),
            ("cache_l1_bytes", "Bytes in L1", health.l1_bytes as f64),
            ("cache_l1_entries", "Entries in L1", health.l1_entries as f64),
            ("cache_log_lag_seconds", "Time since the last answered read of the log was sent", log_lag),
            ("cache_bus_lag_seconds", "Time since the last answered read of the bus was sent", bus_lag),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "1: the tier, or its bus, can't be used";
        let mut breakers = encoder.encode_descriptor("cache_breaker_state", help, None, MetricType::Gauge)?;
        for (tier, open) in [("l2", health.unfit.is_some()), ("l3", health.l3_breaker_open)] {
            ConstGauge::new(flag(open)).encode(breakers.encode_family(&[("tier", tier)])?)?;
        }
        let help = "Entries that left L1 by cause";
        let mut left = encoder.encode_descriptor("cache_l1_evictions", help, None, MetricType::Counter)?;
        for (cause, entries) in gone {
            ConstCounter::new(entries).encode(left.encode_family(&[("cause", cause)])?)?;
        }
        Ok(())
    }
}
