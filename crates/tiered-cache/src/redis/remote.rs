//! The shared tier in Redis; its keys stand in DESIGN.md.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Script, ScriptInvocation, Value};

use super::Redis;
use crate::RemoteError;
use crate::codec::millis;
use crate::inner::LEASE;
use crate::remote::{Acquired, Fill, Filled, Found, Mark, Notice, Phase, Place, Remote, Token};

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/acquire.lua")));
static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/fill.lua")));
static INVALIDATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/invalidate.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0")
});
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"));

const STAMP: usize = 16; // digits before every entry
/// Longer than any copy in L3 may live.
const MARK_LIFE: Duration = Duration::from_secs(2 * 3600 + 600);
const BUS_LENGTH: usize = 100_000;

/// The data set's id, as the bus found it last: what hangs on an older one may have outlived a lost invalidation.
pub(crate) type DataSet = Arc<AtomicU64>;

#[derive(Debug)]
pub(crate) struct RedisRemote {
    redis: Redis,
    namespace: String,
    data_set: DataSet,
}

impl RedisRemote {
    pub(crate) fn new(redis: Redis, namespace: &str, data_set: DataSet) -> Self {
        Self { redis, namespace: namespace.to_owned(), data_set }
    }

    fn data_set(&self) -> u64 {
        self.data_set.load(Ordering::SeqCst)
    }

    fn key(&self, kind: char, hash: u128) -> String {
        format!("{}:{kind}:{{{hash:032x}}}", self.namespace)
    }

    fn on<'a>(&self, script: &'a Script, hash: u128) -> ScriptInvocation<'a> {
        let mut on = script.prepare_invoke();
        for kind in ['c', 'l', 'b', 'm'] {
            on.key(self.key(kind, hash));
        }
        on
    }
}

pub(super) fn bus_keys(namespace: &str) -> [String; 2] {
    [format!("{namespace}:bus"), format!("{namespace}:bus:state")]
}

fn field(place: Place, data_set: u64) -> String {
    format!("s{}:{data_set}", place.schema)
}

fn lease(token: Token, data_set: u64) -> String {
    format!("{token}:{data_set}")
}

#[async_trait]
impl Remote for RedisRemote {
    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError> {
        let mut both = redis::pipe();
        both.cmd("HGET").arg(self.key('c', place.hash)).arg(field(place, self.data_set())).cmd("TIME");
        let (value, time): (Option<Bytes>, (u64, u64)) = self.redis.query_pipeline(&both).await?;
        Ok(value.map(|value| found(&value, time.0 * 1000 + time.1 / 1000)))
    }

    async fn acquire(&self, place: Place, token: Token, known: u64) -> Result<Acquired, RemoteError> {
        let (mut call, id) = (self.on(&ACQUIRE, place.hash), self.data_set());
        call.arg(lease(token, id)).arg(millis(LEASE)).arg(field(place, id)).arg(known);
        let answer: Vec<Value> = self.redis.script(&call).await?;
        let now = number(answer.get(1));
        Ok(match text(answer.first()) {
            b"granted" => {
                let (generation, floor) = (number(answer.get(2)) ^ id, number(answer.get(3)));
                Acquired::Granted(Mark { generation, floor, now })
            }
            b"found" => Acquired::Found(found(&Bytes::copy_from_slice(text(answer.get(2))), now)),
            b"held" => Acquired::Held,
            _ => Acquired::Blocked,
        })
    }

    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError> {
        let mut call = RENEW.prepare_invoke();
        call.key(self.key('l', place.hash)).arg(lease(token, self.data_set())).arg(millis(LEASE));
        self.redis.script(&call).await
    }

    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError> {
        let (mut call, id) = (self.on(&FILL, place.hash), self.data_set());
        call.arg(lease(token, id)).arg(field(place, id)).arg(&fill.bytes[..]).arg(millis(fill.life).max(1));
        call.arg(fill.version).arg(generation()).arg(millis(MARK_LIFE));
        let answer: Vec<Value> = self.redis.script(&call).await?;
        Ok(match text(answer.first()) {
            b"stored" => Filled::Stored { generation: number(answer.get(1)) ^ id, stamp: number(answer.get(2)) },
            b"older" => Filled::Older,
            _ => Filled::Lost,
        })
    }

    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError> {
        let mut call = RELEASE.prepare_invoke();
        call.key(self.key('l', place.hash)).arg(lease(token, self.data_set()));
        self.redis.script(&call).await
    }

    async fn invalidate(&self, notice: &Notice, phase: Phase) -> Result<(), RemoteError> {
        let mut call = INVALIDATE.prepare_invoke();
        call.key(&bus_keys(&self.namespace));
        for &hash in &*notice.hashes {
            for kind in ['c', 'l', 'b', 'm'] {
                call.key(self.key(kind, hash));
            }
        }
        let (write, block, version) = match phase {
            Phase::Block { write, life } => (write, millis(life), 0),
            Phase::Done { write, version } => (write, 0, version),
        };
        let hashes = crate::outbox::encode(&notice.hashes);
        call.arg(notice.origin).arg(hashes.as_ref()).arg(write).arg(block).arg(version);
        call.arg(generation()).arg(millis(MARK_LIFE)).arg(BUS_LENGTH).arg(generation()).arg(&notice.cause);
        self.redis.script(&call).await
    }

    async fn ping(&self) -> Result<(), RemoteError> {
        self.redis.ping(Duration::from_millis(500)).await
    }
}

/// A random number that Lua's doubles hold exactly; never 0.
pub(super) fn generation() -> u64 {
    rand::random_range(1..1 << 53)
}

fn found(value: &Bytes, now: u64) -> Found {
    // Foreign bytes get stamp 0 and fail to decode.
    let at = STAMP.min(value.len());
    let (stamp, bytes) = (digits(&value[..at]), value.slice(at..));
    Found { bytes, stamp, age: Duration::from_millis(now.saturating_sub(stamp)) }
}

fn digits(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn text(value: Option<&Value>) -> &[u8] {
    match value {
        Some(Value::BulkString(bytes)) => bytes,
        Some(Value::SimpleString(text)) => text.as_bytes(),
        _ => &[],
    }
}

fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
        other => digits(text(other)),
    }
}
