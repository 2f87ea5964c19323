//! Every setting of the service, once: `--help`, the checks, `docs/configuration.md` and `.env.example` come from this table.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Environment variable and command-line flag.
    Flag,
    /// Environment variable `X`, or a file named by `X_FILE`; never shown.
    Secret,
    /// Environment variable alone, with the meaning that OpenTelemetry gives it.
    Environment,
}

#[derive(Debug)]
pub struct Setting {
    /// Name of the environment variable; the flag is the same in lower case with dashes.
    pub name: &'static str,
    /// What holds when it is unset; empty: nothing.
    pub default: &'static str,
    /// A valid value, shown where a value was wrong.
    pub example: &'static str,
    pub help: &'static str,
    pub source: Source,
}

#[derive(Debug)]
pub struct Group {
    /// Heading in `--help` and the documentation.
    pub title: &'static str,
    pub settings: &'static [Setting],
}

const fn flag(name: &'static str, default: &'static str, example: &'static str, help: &'static str) -> Setting {
    Setting { name, default, example, help, source: Source::Flag }
}

const fn secret(name: &'static str, example: &'static str, help: &'static str) -> Setting {
    Setting { name, default: "", example, help, source: Source::Secret }
}

const fn otel(name: &'static str, default: &'static str, example: &'static str, help: &'static str) -> Setting {
    Setting { name, default, example, help, source: Source::Environment }
}

#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    Group {
        title: "HTTP",
        settings: &[
            flag("PORT", "3000", "8080", "Port of the API; 0 takes a free one."),
            flag("BIND_ADDRESS", "0.0.0.0", "127.0.0.1", "Address to listen on."),
            flag("MANAGEMENT_PORT", "", "9000", "Port for /health*, /metrics and /log-filter; unset: the same as PORT."),
            flag("WORKERS", "the cores the cgroup allows", "2", "Threads that answer requests, up to 512. A quota of 2.5 cores is 2, one below a core 1."),
            flag("TRUSTED_PROXIES", "", "10.0.0.0/8,127.0.0.1", "Networks whose Forwarded and X-Forwarded-For headers are believed."),
            flag("REQUEST_TIMEOUT", "10s", "10s", "Longest time for one request, probes apart; then 504."),
            flag("BODY_LIMIT", "64KiB", "64KiB", "Largest request body; then 413."),
            flag("MAX_IN_FLIGHT", "1024", "1024", "Requests at once; then 503 with Retry-After."),
            flag("RATE_LIMIT", "", "100/s", "Requests per client and second (/s) or minute (/m), probes and /metrics apart; then 429. Unset: no limit."),
            secret("API_TOKEN", "token-of-one,token-of-another", "Bearer tokens that may write, separated by commas; unset: writes are refused."),
        ],
    },
    Group {
        title: "Database",
        settings: &[
            secret("DATABASE_URL", "postgres://plinth:secret@db:5432/plinth", "Postgres; TLS when its sslmode is require, verify-ca or verify-full (all verify against the system's authorities). Required."),
            flag("DATABASE_POOL_MIN", "5", "5", "Connections kept open."),
            flag("DATABASE_POOL_MAX", "20", "20", "Connections at most."),
            flag("DATABASE_ACQUIRE_TIMEOUT", "2s", "2s", "Longest wait for a connection; then 503."),
            flag("DATABASE_COMMAND_TIMEOUT", "30s", "30s", "Longest time for one statement; a request gives up after 0.8 of REQUEST_TIMEOUT, so more has no effect there."),
            flag("MIGRATE_ON_START", "false", "true", "Apply migrations before serving."),
        ],
    },
    Group {
        title: "Cache",
        settings: &[
            secret("REDIS_URL", "redis://:secret@redis:6379/0", "Redis, the second tier; unset: in-process cache only."),
            flag("REDIS_POOL_MAX", "10", "10", "Multiplexed connections: one per worker, at most this many."),
            flag("REDIS_CONNECT_TIMEOUT", "1s", "1s", "Longest time to connect to Redis."),
            flag("REDIS_TIMEOUT", "100ms", "100ms", "Longest time for one Redis command; then the request goes on without it."),
            flag("MEMCACHED_URL", "", "memcache://memcached:11211", "memcached, an optional third tier beside Redis; unset: none."),
            flag("CACHE_L1_TTL", "300s", "300s", "Life of a value in the process, at most 300s."),
            flag("CACHE_L2_TTL", "3600s", "3600s", "Life of a value in Redis."),
            flag("CACHE_L3_TTL", "60s", "60s", "Life of a value in memcached, at most 7200s."),
            flag("CACHE_FAIL_SAFE", "1h", "1h", "How long past its life a value may answer when its source fails; 0s: never."),
            flag("CACHE_WHEN_BLIND", "refuse", "serve", "What happens to cached values while neither the database nor Redis says that they still hold: refuse or serve (marked in Cache-Status)."),
            flag("CACHE_L1_MAX_BYTES", "64MiB", "64MiB", "Memory for values in the process; 0: none are kept there."),
            flag("DATA_COMPUTE_TIME", "100ms", "100ms", "How long computing a value of /api/data takes."),
        ],
    },
    Group {
        title: "Life and limits of the process",
        settings: &[
            flag("DRAIN_DELAY", "5s", "5s", "After SIGTERM: how long requests are still accepted while /health/ready answers 503."),
            flag("SHUTDOWN_TIMEOUT", "25s", "25s", "From SIGTERM until everything but telemetry is stopped."),
            flag("MEMORY_LIMIT", "the cgroup's", "256MiB", "Limit for the memory checks; when set, the process's resident memory is held against it. The cgroup's may be that of a group around it, if that is closer to being reached."),
        ],
    },
    Group {
        title: "Logs",
        settings: &[
            flag("LOG_LEVEL", "info", "info,plinth=debug", "error, warn, info, debug or trace, also per target."),
            flag("LOG_FORMAT", "json", "pretty", "json (one object a line) or pretty."),
        ],
    },
    Group {
        title: "OpenTelemetry",
        settings: &[
            otel("OTEL_EXPORTER_OTLP_ENDPOINT", "", "http://jaeger:4318", "Collector; unset: nothing is exported. For HTTP, /v1/traces is appended."),
            otel("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "http://jaeger:4318/v1/traces", "Collector for traces, taken as it is; wins over the one above."),
            otel("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "grpc", "http/protobuf or grpc; OTEL_EXPORTER_OTLP_TRACES_PROTOCOL wins."),
            otel("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "", "grpc", "Protocol for traces alone."),
            secret("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x", "Headers for the collector, key=value with commas."),
            otel("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "5000", "Milliseconds for one export."),
            otel("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "", "5000", "Milliseconds for one export of traces; wins over the one above."),
            otel("OTEL_TRACES_SAMPLER", "parentbased_always_on", "parentbased_traceidratio", "always_on, always_off, traceidratio, or parentbased_ before one of these."),
            otel("OTEL_TRACES_SAMPLER_ARG", "1.0", "0.1", "Share for the traceidratio samplers, 0 to 1."),
            otel("OTEL_TRACES_EXPORTER", "otlp", "none", "otlp or none."),
            otel("OTEL_SDK_DISABLED", "false", "true", "true: no spans at all."),
            otel("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "2048", "Spans that wait for the collector at most, up to 65536; more are dropped and counted."),
            otel("OTEL_SERVICE_NAME", "plinth", "orders", "service.name, also Postgres' application_name; wins over service.name in OTEL_RESOURCE_ATTRIBUTES."),
            otel("OTEL_RESOURCE_ATTRIBUTES", "", "deployment.environment.name=prod", "Further resource attributes, key=value with commas."),
        ],
    },
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings).find(|setting| setting.name == name)
}

impl Setting {
    /// The flag's name without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.to_lowercase().replace('_', "-")
    }
}
