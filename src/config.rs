//! Configuration: one struct per concern, read from flags and the environment at start and nowhere else.
//!
//! Fields are named after their settings; meanings, units and defaults stand in [`settings`].

pub mod reader;
pub mod settings;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::header::{HeaderName, HeaderValue};
use telemetry::settings::{ExportConfig, LogFormat, Sampler, TelemetryConfig};
use tiered_cache::WhenBlind;
use tracing_subscriber::filter::{LevelFilter, Targets};

use self::reader::{ConfigError, Reader, Values, duration, list, parsed, size};

/// More threads than this the framework refuses.
const MOST_WORKERS: usize = 512;

#[derive(Clone)]
pub struct Config {
    pub http: HttpConfig,
    pub database: DatabaseConfig,
    pub cache: CacheConfig,
    pub process: ProcessConfig,
    pub telemetry: TelemetryConfig,
}

#[derive(Clone)]
pub struct HttpConfig {
    pub port: u16,
    pub bind: IpAddr,
    pub management_port: Option<u16>,
    pub workers: usize,
    pub trusted_proxies: Vec<IpNet>,
    pub request_timeout: Duration,
    pub body_limit: usize,
    pub max_in_flight: usize,
    pub rate_limit: Option<RateLimit>,
    pub tokens: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub requests: NonZeroU32,
    pub per: Duration,
}

#[derive(Clone, Default)]
pub struct DatabaseConfig {
    pub url: tokio_postgres::Config,
    pub application_name: String,
    pub pool_min: usize,
    pub pool_max: usize,
    pub acquire_timeout: Duration,
    pub command_timeout: Duration,
    pub migrate_on_start: bool,
}

#[derive(Clone)]
pub struct CacheConfig {
    pub redis_url: Option<String>,
    pub redis_connections: usize,
    pub redis_connect_timeout: Duration,
    pub redis_timeout: Duration,
    /// Holds no password: memcached knows none.
    pub memcached_url: Option<String>,
    pub l1_ttl: Duration,
    pub l2_ttl: Duration,
    pub l3_ttl: Duration,
    pub fail_safe: Duration,
    pub when_blind: WhenBlind,
    pub l1_max_bytes: u64,
    pub compute_time: Duration,
}

#[derive(Clone)]
pub struct ProcessConfig {
    pub drain_delay: Duration,
    pub shutdown_timeout: Duration,
    pub memory_limit: Option<u64>,
}

impl Config {
    pub fn read(values: &Values) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(values);
        let config = Self {
            http: HttpConfig::read(&mut reader),
            database: DatabaseConfig::read(&mut reader),
            cache: CacheConfig::read(&mut reader),
            process: ProcessConfig::read(&mut reader),
            telemetry: telemetry(&mut reader),
        };
        reader.finish(config)
    }
}

impl HttpConfig {
    pub fn read(r: &mut Reader<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            port: r.setting("PORT", parsed("a port")),
            bind: r.optional("BIND_ADDRESS", parsed("an IP address")).unwrap_or(IpAddr::from([0, 0, 0, 0])),
            management_port: r.optional("MANAGEMENT_PORT", parsed("a port")),
            workers: r.optional("WORKERS", at_most(MOST_WORKERS)).unwrap_or(cores.min(MOST_WORKERS)),
            trusted_proxies: r.setting("TRUSTED_PROXIES", list(network)),
            request_timeout: r.setting("REQUEST_TIMEOUT", nonzero_duration),
            body_limit: r
                .setting("BODY_LIMIT", |text| usize::try_from(size(text)?).map_err(|_| "is too large".to_owned())),
            max_in_flight: r.setting("MAX_IN_FLIGHT", positive),
            rate_limit: r.optional("RATE_LIMIT", rate),
            tokens: r.optional("API_TOKEN", tokens).unwrap_or_default(),
        };
        if config.port != 0 && config.management_port == Some(config.port) {
            r.problem("MANAGEMENT_PORT", &format!("{} is PORT, too; leave it unset to share that", config.port));
        }
        config
    }
}

impl DatabaseConfig {
    pub fn read(r: &mut Reader<'_>) -> Self {
        let config = Self {
            url: r.required("DATABASE_URL", postgres_url),
            application_name: service_name(r),
            pool_min: r.setting("DATABASE_POOL_MIN", parsed("a number")),
            pool_max: r.setting("DATABASE_POOL_MAX", positive),
            acquire_timeout: r.setting("DATABASE_ACQUIRE_TIMEOUT", nonzero_duration),
            command_timeout: r.setting("DATABASE_COMMAND_TIMEOUT", nonzero_duration),
            migrate_on_start: r.setting("MIGRATE_ON_START", parsed("true or false")),
        };
        if config.pool_min > config.pool_max {
            let what = format!("{} is above DATABASE_POOL_MAX {}", config.pool_min, config.pool_max);
            r.problem("DATABASE_POOL_MIN", &what);
        }
        config
    }
}

impl CacheConfig {
    fn read(r: &mut Reader<'_>) -> Self {
        let config = Self {
            redis_url: r.optional("REDIS_URL", redis_url),
            redis_connections: r.setting("REDIS_POOL_MAX", positive),
            redis_connect_timeout: r.setting("REDIS_CONNECT_TIMEOUT", nonzero_duration),
            redis_timeout: r.setting("REDIS_TIMEOUT", nonzero_duration),
            memcached_url: r.optional("MEMCACHED_URL", memcached_url),
            l1_ttl: r.setting("CACHE_L1_TTL", nonzero_duration),
            l2_ttl: r.setting("CACHE_L2_TTL", nonzero_duration),
            l3_ttl: r.setting("CACHE_L3_TTL", nonzero_duration),
            fail_safe: r.setting("CACHE_FAIL_SAFE", duration),
            when_blind: r
                .setting("CACHE_WHEN_BLIND", either(["refuse", "serve"], [WhenBlind::Refuse, WhenBlind::Serve])),
            l1_max_bytes: r.setting("CACHE_L1_MAX_BYTES", size),
            compute_time: r.setting("DATA_COMPUTE_TIME", duration),
        };
        for (name, ttl, most) in [("CACHE_L1_TTL", config.l1_ttl, 300), ("CACHE_L3_TTL", config.l3_ttl, 7200)] {
            if ttl > Duration::from_secs(most) {
                r.problem(name, &format!("{ttl:?} is above {most}s, the longest that a value may stay there"));
            }
        }
        config
    }
}

impl ProcessConfig {
    fn read(r: &mut Reader<'_>) -> Self {
        let config = Self {
            drain_delay: r.setting("DRAIN_DELAY", duration),
            shutdown_timeout: r.setting("SHUTDOWN_TIMEOUT", nonzero_duration),
            memory_limit: r.optional("MEMORY_LIMIT", size),
        };
        if config.drain_delay >= config.shutdown_timeout {
            let what = format!("{:?} must be shorter than SHUTDOWN_TIMEOUT, which it is part of", config.drain_delay);
            r.problem("DRAIN_DELAY", &what);
        }
        config
    }
}

fn telemetry(r: &mut Reader<'_>) -> TelemetryConfig {
    TelemetryConfig {
        log_level: r.setting("LOG_LEVEL", log_level),
        log_format: r.setting("LOG_FORMAT", either(["json", "pretty"], [LogFormat::Json, LogFormat::Pretty])),
        service_name: service_name(r),
        version: crate::VERSION,
        resource: r.setting("OTEL_RESOURCE_ATTRIBUTES", list(pair)),
        export: export(r),
        sampler: sampler(r),
    }
}

fn export(r: &mut Reader<'_>) -> Option<ExportConfig> {
    let boolean = |text: &str| parsed("true or false")(&text.to_ascii_lowercase());
    let disabled: bool = r.setting("OTEL_SDK_DISABLED", boolean);
    let none = r.setting("OTEL_TRACES_EXPORTER", either(["otlp", "none"], [false, true]));
    let protocol = either(["http/protobuf", "grpc"], [false, true]);
    let grpc = r.optional("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &protocol);
    let grpc = grpc.unwrap_or_else(|| r.setting("OTEL_EXPORTER_OTLP_PROTOCOL", &protocol));
    let whole = r.optional("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector);
    let path = if grpc { "" } else { "/v1/traces" };
    let base = |text: &str| Ok(format!("{}{path}", collector(text)?.trim_end_matches('/')));
    let base = r.optional("OTEL_EXPORTER_OTLP_ENDPOINT", base);
    let headers = r.setting("OTEL_EXPORTER_OTLP_HEADERS", list(header));
    let timeout = r.optional("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", milliseconds);
    let timeout = timeout.unwrap_or_else(|| r.setting("OTEL_EXPORTER_OTLP_TIMEOUT", milliseconds));
    // The SDK takes the memory for its queue at the start: 720 bytes a span, so 45 MiB at most.
    let queue = r.setting("OTEL_BSP_MAX_QUEUE_SIZE", at_most(65_536));
    let endpoint = whole.or(base).filter(|_| !disabled && !none)?;
    Some(ExportConfig { endpoint, grpc, headers, timeout, queue })
}

fn sampler(r: &mut Reader<'_>) -> Sampler {
    let share = r.setting("OTEL_TRACES_SAMPLER_ARG", |text| match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("is not a share from 0 to 1".to_owned()),
    });
    let (parent_based, ratio) = r.setting("OTEL_TRACES_SAMPLER", |text| {
        let root = text.strip_prefix("parentbased_");
        let ratio = match root.unwrap_or(text) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => share,
            _ => return Err("is not a known sampler".to_owned()),
        };
        Ok((root.is_some(), ratio))
    });
    Sampler { parent_based, ratio }
}

/// At `info`, actix-server would say at each start and stop what our own lines say, too.
pub fn log_level(text: &str) -> Result<Targets, String> {
    let levels: Targets = parsed("a level or a list of target=level")(text)?;
    let plain = levels.default_level() == Some(LevelFilter::INFO) && !text.contains("actix_server");
    Ok(if plain { levels.with_target("actix_server", LevelFilter::WARN) } else { levels })
}

fn positive(text: &str) -> Result<usize, String> {
    above_zero(parsed("a number above 0"))(text)
}

/// A number above 0, but no greater than this.
fn at_most(most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| positive(text).and_then(|n| if n <= most { Ok(n) } else { Err(format!("must be at most {most}")) })
}

fn nonzero_duration(text: &str) -> Result<Duration, String> {
    above_zero(duration)(text)
}

fn above_zero<T: Default + PartialEq>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<T, String> {
    move |text| Some(parse(text)?).filter(|value| *value != T::default()).ok_or_else(|| "must be above 0".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "is not a list of networks".to_owned())
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let tokens = list(parsed("a token"))(text)?;
    match tokens.iter().all(|token: &String| token.chars().all(|c| c.is_ascii_graphic())) {
        _ if tokens.is_empty() => Err("holds no token".to_owned()),
        true => Ok(tokens),
        false => Err("has characters that no header can carry".to_owned()),
    }
}

fn memcached_url(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("memcache://").unwrap_or(text);
    let port =
        address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned()).ok_or_else(|| "is not host:port or a memcache:// URL with a port".to_owned())
}

fn redis_url(text: &str) -> Result<String, String> {
    redis::Client::open(text).map(|_| text.to_owned()).map_err(|_| "is not a redis:// or rediss:// URL".to_owned())
}

fn rate(text: &str) -> Result<RateLimit, String> {
    let (number, unit) = text.split_once('/').ok_or("is not a rate such as 100/s")?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err("has no unit /s or /m".to_owned()),
    };
    let requests = parsed("a rate such as 100/s")(number)?;
    Ok(RateLimit { requests, per })
}

fn either<T: Copy>(names: [&'static str; 2], values: [T; 2]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let place = names.iter().position(|name| *name == text);
        place.map(|place| values[place]).ok_or_else(|| format!("is neither {}", names.join(" nor ")))
    }
}

/// The exporter takes an endpoint without scheme for https; the mistake is common, so it is refused here.
fn collector(text: &str) -> Result<String, String> {
    let uri = reqwest::Url::parse(text).ok().filter(|uri| matches!(uri.scheme(), "http" | "https") && uri.has_host());
    uri.map(|_| text.to_owned()).ok_or_else(|| "is not an http:// or https:// URL".to_owned())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number: u64 = parsed("a number of milliseconds")(text)?;
    nonzero_duration(&format!("{number}ms"))
}

/// `OTEL_SERVICE_NAME` or else the attribute of the same meaning.
fn service_name(r: &mut Reader<'_>) -> String {
    let attributes: Vec<(String, String)> = r.setting("OTEL_RESOURCE_ATTRIBUTES", list(pair));
    let attribute = attributes.into_iter().rev().find(|(key, value)| key == "service.name" && !value.is_empty());
    let name = r.optional("OTEL_SERVICE_NAME", parsed("a name")).or(attribute.map(|(_, name)| name));
    name.unwrap_or_else(|| r.setting("OTEL_SERVICE_NAME", parsed("a name")))
}

/// Both of libpq's stricter modes do what `require` does here, and the driver doesn't know them.
fn postgres_url(text: &str) -> Result<tokio_postgres::Config, String> {
    let known = ["verify-full", "verify-ca"]
        .iter()
        .fold(text.to_owned(), |text, mode| text.replace(&format!("sslmode={mode}"), "sslmode=require"));
    parsed("a postgres:// URL")(&known)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is not a list of key=value")?;
    // OpenTelemetry specification, "Specifying resource information via an environment variable".
    let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().map_err(|_| "is not UTF-8")?;
    Ok((key.trim().to_owned(), value.into_owned()))
}

/// Lists for headers are of the same form; what can't be sent would fail only when the first span leaves.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    let sent = HeaderName::try_from(&name).is_ok() && !name.ends_with("-bin") && HeaderValue::try_from(&value).is_ok();
    sent.then_some((name, value)).ok_or_else(|| "has a name or a value that no header can carry".to_owned())
}
