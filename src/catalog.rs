//! Every metric, span and event of the service, its cache included: what isn't declared here can't be emitted.
//!
//! `docs/telemetry.md` is made from this file, and a test holds it against what a real process emits.

use telemetry::catalog::{Catalog, Metric, Named};

/// Methods times route templates times status codes that occur together.
const REQUESTS: u32 = 1_500;
const ROUTES: u32 = 40;
/// Kinds of cached things: `user`, `data`.
const CACHES: u32 = 2;
const OPERATIONS: u32 = 60;

/// What may be emitted.
pub static CATALOG: Catalog = Catalog {
    own: &[env!("CARGO_PKG_NAME"), "tiered_cache", "telemetry"],
    metrics: METRICS,
    spans: SPANS,
    events: EVENTS,
};

/// Names with a stable semantic convention have its labels.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    Metric::counter("http_requests", &["http_request_method", "http_route", "http_response_status_code"], REQUESTS, "Answered requests; 499: the client went away"),
    Metric::histogram("http_request_duration_seconds", &["http_request_method", "http_route"], 10 * ROUTES, "From a request's head to its answer's; exemplars name traces"),
    Metric::counter("http_errors", &["http_route", "class"], 2 * ROUTES, "Answers with status 400 and above, class 4xx or 5xx"),
    Metric::gauge("http_error_rate", &[], 1, "Percent of answers of 400 and above in the last minute"),
    Metric::gauge("http_requests_in_flight", &[], 1, "Requests being worked on"),
    Metric::counter("panics", &[], 1, "Panics, of handlers (answered with 500) or in the background"),
    Metric::histogram("db_client_operation_duration_seconds", &["db_system_name", "db_operation_name", "error_type"], OPERATIONS, "A statement or transaction"),
    Metric::histogram("db_client_connection_wait_time_seconds", &[], 1, "Wait for a connection"),
    Metric::counter("db_client_connection_timeouts", &[], 1, "Waits for a connection that took too long"),
    Metric::gauge("db_client_connection_count", &["state"], 2, "Connections, idle or used"),
    Metric::gauge("db_client_connection_max", &[], 1, "Connections at most"),
    Metric::gauge("db_client_connection_pending_requests", &[], 1, "Callers that wait for a connection"),
    Metric::counter("cache_requests", &["cache", "tier", "result", "level"], 24 * CACHES, "Answers by tier and outcome"),
    Metric::histogram("cache_served_age_seconds", &["cache"], CACHES, "Time between the read of the source and the answer"),
    Metric::counter("cache_coalesced", &["cache"], CACHES, "Answers from a load begun by another"),
    Metric::counter("cache_lease", &["cache", "result"], 8 * CACHES, "Requests for a lease by result"),
    Metric::counter("cache_fill", &["cache", "tier", "result"], 16 * CACHES, "Loaded values by tier and result"),
    Metric::counter("cache_refresh", &["cache", "result"], 4 * CACHES, "Early refreshes by result"),
    Metric::counter("cache_stale_served", &["cache", "reason"], 3 * CACHES, "Answers past their life by reason"),
    Metric::counter("cache_unverified_served", &["cache"], CACHES, "Answers while nothing said whether they were still right"),
    Metric::counter("cache_codec_errors", &["cache", "result"], 7 * CACHES, "Stored entries that could not be read"),
    Metric::counter("cache_errors", &["cache", "result"], 7 * CACHES, "Reads that failed"),
    Metric::counter("cache_invalidations", &["outcome"], 2, "Notices to the shared tier by outcome"),
    Metric::counter("cache_bus_gap", &[], 1, "Times the bus lost something"),
    Metric::counter("cache_consistency_probe", &["cache", "result"], 4 * CACHES, "Hits checked against the source"),
    Metric::histogram("cache_load_seconds", &["cache"], CACHES, "Time that loads from the source took"),
    Metric::histogram("cache_op_seconds", &["tier", "op", "outcome"], 40, "Time that operations of the shared tier took"),
    Metric::counter("cache_bus_errors", &[], 1, "Reads of the bus that failed"),
    Metric::counter("cache_bus_reconnects", &[], 1, "Times the bus was read again after a failure"),
    Metric::histogram("cache_invalidate_visible_seconds", &[], 1, "Time until this process's own notices came back by the bus"),
    Metric::counter("cache_log_errors", &[], 1, "Reads of the log that failed"),
    Metric::counter("cache_log_gap", &[], 1, "Times everything was forgotten, since the log was another one or had lost something"),
    Metric::gauge("cache_log_lag_seconds", &[], 1, "Time since the last answered read of the log was sent"),
    Metric::gauge("cache_log_replicas", &[], 1, "Replicas that read the log"),
    Metric::gauge("cache_log_rows", &[], 1, "Entries of the log of changes, as the database estimates"),
    Metric::gauge("cache_log_oldest_seconds", &[], 1, "Age of the oldest entry of the log of changes; removed after five minutes"),
    Metric::counter("cache_log_unreadable", &[], 1, "Entries of the log of changes that could not be read, so that their kind or everything was forgotten"),
    Metric::counter("cache_l1_evictions", &["cause"], 5, "Entries that left L1 by cause"),
    Metric::gauge("cache_breaker_state", &["tier"], 2, "1: the tier, or its bus, can't be used"),
    Metric::gauge("cache_bus_lag_seconds", &[], 1, "Time since the last answered read of the bus was sent"),
    Metric::gauge("cache_fence_open", &[], 1, "1: cached values may be used"),
    Metric::gauge("cache_flights", &[], 1, "Flights under way"),
    Metric::gauge("cache_db_gate_in_use", &[], 1, "Loads that ask the source"),
    Metric::gauge("cache_db_gate_queued", &[], 1, "Loads that wait for the gate"),
    Metric::gauge("cache_l1_bytes", &[], 1, "Bytes in L1"),
    Metric::gauge("cache_l1_entries", &[], 1, "Entries in L1"),
    Metric::gauge("memory_used_bytes", &[], 1, "Working set of the cgroup, or of the process where MEMORY_LIMIT is set"),
    Metric::gauge("memory_limit_bytes", &[], 1, "Memory that may be used; 0: no limit"),
    Metric::histogram("event_loop_lag_seconds", &["runtime"], 2, "How late a timer fires on a worker or background thread"),
    Metric::gauge("tokio_workers", &[], 1, "Threads of the background runtime"),
    Metric::gauge("tokio_live_tasks", &[], 1, "Tasks of the background runtime"),
    Metric::gauge("tokio_global_queue_depth", &[], 1, "Tasks of the background runtime that wait for a thread"),
    Metric::counter("process_cpu_seconds", &[], 1, "Processor time used"),
    Metric::gauge("process_resident_memory_bytes", &[], 1, "Resident memory"),
    Metric::gauge("process_open_fds", &[], 1, "Open file descriptors"),
    Metric::gauge("process_max_fds", &[], 1, "File descriptors at most"),
    Metric::gauge("process_threads", &[], 1, "Threads"),
    Metric::gauge("process_start_time_seconds", &[], 1, "Start, since the epoch"),
    Metric::gauge("build_info", &["version", "revision"], 1, "1; the labels say what is running"),
    Metric::counter("log_lines_dropped", &[], 1, "Lines that stdout did not take in time"),
    Metric::counter("telemetry_spans", &["outcome"], 3, "Finished spans: exported, failed, or dropped since the collector is behind"),
];

#[rustfmt::skip]
const SPANS: &[Named] = &[
    Named::new("request", &["http.request.method", "http.route", "http.response.status_code", "error.type", "url.path", "url.scheme", "client.address", "user_agent.original"], "A request, named by method and route; the root of its trace here"),
    Named::new("get_user", &["user.id"], "The handler that shows a user"),
    Named::new("get_data", &["data.id"], "The handler that shows computed data"),
    Named::new("database_query", &["db.system.name", "db.operation.name", "db.query.text", "error.type"], "A statement or transaction, its wait for a connection included; values are never in the text"),
    Named::new("cache_get", &["db.system.name", "db.operation.name", "error.type", "cache"], "Redis is asked for a value or a lease"),
    Named::new("cache_set", &["db.system.name", "db.operation.name", "error.type", "cache"], "A loaded value is stored in Redis"),
    Named::new("cache_invalidate", &["db.system.name", "db.operation.name", "error.type"], "Redis is told of a write"),
    Named::new("redis_command", &["db.system.name", "db.operation.name", "error.type"], "A plain value is read or written in Redis"),
    Named::new("cache_load", &["cache"], "A miss on its way through the shared tiers to the source; requests that join it link to it"),
    Named::new("cache_refresh", &["cache"], "An early refresh that nobody waits for: a trace of its own, linked to the request that began it"),
    Named::new("cache_bus", &["entries"], "Invalidations of other replicas are applied: a trace of its own, linked to the recorded requests that made them"),
];

#[rustfmt::skip]
const EVENTS: &[Named] = &[
    Named::new("lifecycle.phase", &["phase"], "The process went on to its next phase"),
    Named::new("lifecycle.task_died", &["task"], "A background task ended by itself; the process stops with exit code 1"),
    Named::new("lifecycle.tasks_cut", &[], "Background tasks did not end before SHUTDOWN_TIMEOUT"),
    Named::new("server.listening", &["address", "port"], "Requests are accepted"),
    Named::new("server.hurried", &[], "A second signal came"),
    Named::new("server.requests_cut", &[], "Requests did not end before SHUTDOWN_TIMEOUT"),
    Named::new("start.failed", &[], "The parts could not be put together; the message says why"),
    Named::new("start.refused", &[], "Waiting would not help; the message says why"),
    Named::new("start.waits_for_database", &["error"], "The database can't be used yet"),
    Named::new("start.without_cache", &["error"], "Redis, or the log of changes, could not be used within 2 s"),
    Named::new("database.connected", &[], "A connection was opened"),
    Named::new("health.changed", &["service", "before", "now"], "A dependency was lost or came back"),
    Named::new("health.memory", &["high", "percent"], "Memory passed 90 % of its limit, or is below 80 % again"),
    Named::new("log_filter.changed", &["filter", "seconds"], "Somebody changed the log levels for a while"),
    Named::new("log_filter.restored", &["filter"], "Log levels are as configured again"),
    Named::new("telemetry.flush_failed", &["error"], "The last spans may be lost"),
    Named::new("telemetry.flush_late", &[], "The collector did not take the last spans within 2 s"),
    Named::new("cache_hit", &["cache.tier", "cache"], "A tier had the value"),
    Named::new("cache_set", &["cache"], "A loaded value was stored"),
    Named::new("cache.unreadable", &["cache", "error"], "A stored entry could not be read and counts as a miss"),
    Named::new("cache.redis_replaced", &[], "A silent or broken connection to Redis is replaced"),
    Named::new("cache.redis_unreachable", &["error"], "No connection to Redis"),
    Named::new("cache.bus_unread", &["error"], "Notices of other replicas can't be read; the log still tells of their writes"),
    Named::new("cache.part_unwell", &["part", "error"], "The log of changes, the shared tier or the store of copies can't be used; said once until it can be again"),
    Named::new("cache.part_well", &["part"], "It can be used again"),
    Named::new("cache.no_log", &[], "A shared tier without a log isn't used"),
    Named::new("cache.log_unwoken", &["error"], "Nobody could be woken: replicas hear of a write at their next turn"),
    Named::new("change_log.neglected", &["error"], "Old entries of the log of changes could not be removed, or it could not be looked at"),
    Named::new("change_log.overdue", &["seconds"], "The log of changes grows: some transaction has been open for over 15 minutes; said once"),
    Named::new("change_log.unfollowed", &["tables"], "Triggers of the log are off or gone, so that nothing cached is believed until these tables are followed again; said once"),
    Named::new("cache.stale_found", &["cache"], "The consistency probe saw an old value: a bug, please report"),
    Named::new("cache.tasks_cut", &["tasks"], "Loads or writes did not end in time at shutdown"),
];
