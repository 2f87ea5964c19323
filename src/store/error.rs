//! What can go wrong between us and Postgres, sorted by what callers do about it.

use std::error::Error;
use std::sync::Arc;

use refinery::error::Kind;
use tiered_cache::LoadError;
use tokio_postgres::error::{DbError, SqlState};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no database connection came free in time")]
    PoolTimeout,
    #[error("the database can't be reached: {0}")]
    Unreachable(String),
    #[error("the database did not answer in time")]
    Timeout,
    /// The server is a standby, or was told to refuse writes.
    #[error("the database takes no writes")]
    ReadOnly,
    /// Other transactions were faster, every time.
    #[error("the transaction lost every race: {0}")]
    Contended(String),
    #[error("a unique index refused the row: {0}")]
    Conflict(String),
    /// The answer to COMMIT is missing.
    #[error("whether it was committed isn't known: {0}")]
    CommitUnknown(Box<Self>),
    /// Anything else is a mistake in the code or the schema.
    #[error("the database refused the statement: {0}")]
    Other(String),
}

/// The server stops or starts, the connection broke, or there is no room for it.
const UNREACHABLE: [&str; 3] = ["57P", "08", "53"];

/// What to do with the connection and the statement after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing helps.
    Fail,
    /// The transaction lost a race; try it again on the same connection.
    Retry,
    /// The connection is of no use any more; once more on another, if that does no harm.
    Reconnect,
}

impl StoreError {
    /// As everybody who waits for a load gets it.
    pub fn shared(self) -> LoadError {
        Arc::new(self)
    }

    /// The `error.type` of metrics and spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PoolTimeout => "pool_timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::Contended(_) => "contended",
            Self::Conflict(_) => "conflict",
            Self::CommitUnknown(cause) => cause.kind(),
            Self::Other(_) => "other",
        }
    }
}

pub(super) fn remedy(error: &tokio_postgres::Error) -> Remedy {
    let Some(state) = error.code() else { return Remedy::Reconnect };
    match state {
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Remedy::Retry,
        // A standby after a failover, or a server that shuts down or starts: neither has done anything.
        &SqlState::READ_ONLY_SQL_TRANSACTION
        | &SqlState::ADMIN_SHUTDOWN
        | &SqlState::CRASH_SHUTDOWN
        | &SqlState::CANNOT_CONNECT_NOW => Remedy::Reconnect,
        // "cached plan must not change result type": a migration changed a table under a prepared statement.
        &SqlState::FEATURE_NOT_SUPPORTED if message(error).contains("cached plan") => Remedy::Reconnect,
        _ => Remedy::Fail,
    }
}

impl From<&tokio_postgres::Error> for StoreError {
    fn from(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            None => Self::Unreachable(chain(error)),
            Some(&SqlState::UNIQUE_VIOLATION) => {
                let constraint = error.as_db_error().and_then(DbError::constraint);
                Self::Conflict(constraint.unwrap_or_default().to_owned())
            }
            Some(&SqlState::QUERY_CANCELED) => Self::Timeout,
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly,
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => {
                Self::Contended(chain(error))
            }
            Some(state) if is_one_of(state, &UNREACHABLE) => Self::Unreachable(chain(error)),
            Some(_) => Self::Other(chain(error)),
        }
    }
}

fn message(error: &tokio_postgres::Error) -> &str {
    error.as_db_error().map_or("", DbError::message)
}

/// What to check when waiting doesn't help; `None` when it may. A standby or a busy server does change its mind.
pub fn hopeless(error: &anyhow::Error) -> Option<&'static str> {
    let passing = ["57", "40", "55", "58", "25006"];
    let state = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()?.code());
    match state {
        Some(state) if is_one_of(state, &UNREACHABLE) || is_one_of(state, &passing) => None,
        Some(state) if state.code().starts_with("28") => Some("the user and the password in DATABASE_URL"),
        Some(&SqlState::INVALID_CATALOG_NAME) => Some("the database's name in DATABASE_URL"),
        Some(_) => Some("the migrations and what the user in DATABASE_URL may do"),
        None => {
            let kind = error.chain().find_map(|cause| Some(cause.downcast_ref::<refinery::Error>()?.kind()));
            kind.filter(|kind| !matches!(kind, Kind::Connection(..))).map(|_| "the migrations")
        }
    }
}

fn is_one_of(state: &SqlState, classes: &[&str]) -> bool {
    classes.iter().any(|class| state.code().starts_with(class))
}

/// The driver's own text leaves out the cause, where the answer is.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
