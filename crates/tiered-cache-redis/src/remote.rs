//! The shared tier in Redis; its keys stand in DESIGN.md.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use redis::{Script, ScriptInvocation, Value};
use tiered_cache::{
    Acquired, Beat, Change, Changed, Cleaning, Fill, Filled, Found, LEASE, Mark, Notice, Place, Pulse, Reached, Remote,
    RemoteError, Token, Told,
};

use crate::values::{Keys, ago, counter, entry_id, field, found, millis, number, text};
use crate::{Redis, changes};

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/acquire.lua")));
static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/fill.lua")));
static INVALIDATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/invalidate.lua")));
static PULSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/pulse.lua")));
static CLEAN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/clean.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/leave.lua")));
/// A lease is the holder's token and what the place stood for then.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local held = redis.call('GET', KEYS[1]) or ''
        return string.find(held, ARGV[1], 1, true) == 1 and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
    )
});
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local held = redis.call('GET', KEYS[1]) or ''
        return string.find(held, ARGV[1], 1, true) == 1 and redis.call('DEL', KEYS[1]) or 0",
    )
});

/// A courier that gives no pulse for this long is replaced.
const COURIER: Duration = Duration::from_secs(2);
/// The state of a log that nobody follows any more.
const STATE_LIFE: Duration = Duration::from_secs(24 * 3600);
const BUS_LIFE: Duration = Duration::from_secs(3600);
/// Entries of the bus, and changes in one of them: so it takes 25 MB at most.
const BUS_LENGTH: usize = 20_000;
const ENTRY: usize = 40;
/// A replica that gives no pulse for this long is forgotten; the log's list of replicas forgets it sooner.
const SILENT: Duration = Duration::from_secs(60);
/// How long one that left is counted: the log can't forget it while the source is down.
const LEFT: Duration = Duration::from_secs(3600);
/// Most keys in one call of a script.
const BATCH: usize = 1_000;

pub(crate) struct RedisRemote {
    redis: Redis,
    namespace: String,
    keys: Arc<ArcSwap<Keys>>,
}

impl RedisRemote {
    pub(crate) fn new(redis: Redis, namespace: &str) -> Self {
        let keys = Arc::new(ArcSwap::from_pointee(Keys::new(namespace, 0)));
        Self { redis, namespace: namespace.to_owned(), keys }
    }

    /// The keys in use, which change with the log.
    pub(crate) fn keys(&self) -> Arc<ArcSwap<Keys>> {
        Arc::clone(&self.keys)
    }

    fn on<'a>(&self, script: &'a Script, hash: u128) -> ScriptInvocation<'a> {
        let keys = self.keys.load();
        let mut on = script.prepare_invoke();
        on.key(keys.state()).key(keys.values(hash)).key(keys.lease(hash)).key(keys.mark(hash));
        on
    }

    /// Cleans of some changes and tells some; the last call of a cleaning says up to where all is clean. False when
    /// another replica is the courier.
    async fn clean_some(
        &self,
        cleaning: &Cleaning,
        changes: &[Change],
        told: &[Change],
        last: bool,
    ) -> Result<bool, RemoteError> {
        let keys = self.keys.load_full();
        let mut call = CLEAN.prepare_invoke();
        call.key(keys.state()).key(keys.bus());
        let (slots, versions) = name(&mut call, &keys, changes);
        call.arg(cleaning.courier).arg(if last { cleaning.to } else { 0 }).arg(cleaning.read_at);
        call.arg(if cleaning.all { generation() } else { 0 }).arg(slots).arg(generation());
        call.arg(&changes::encode(told)[..]).arg(ENTRY * changes::CHANGE).arg(BUS_LENGTH).arg(millis(BUS_LIFE));
        let from = cleaning.tell.as_ref().map_or_else(String::new, |tell| tell.from.to_string());
        call.arg(from).arg(cleaning.done).arg(versions);
        self.redis.script(&call).await
    }
}

/// Names the keys of what changed to a script; gives the counters of whole kinds, with commas, and the versions of the rest.
fn name(call: &mut ScriptInvocation<'_>, keys: &Keys, changes: &[Change]) -> (String, Vec<u64>) {
    let (mut slots, mut versions) = (Vec::new(), Vec::new());
    for change in changes {
        match change.what {
            Changed::Key(hash) => {
                call.key(keys.values(hash)).key(keys.lease(hash)).key(keys.mark(hash));
                versions.push(change.version);
            }
            Changed::Kind(slot) => slots.push(counter(slot)),
        }
    }
    (slots.join(","), versions)
}

fn lease(token: Token) -> String {
    format!("{token} ")
}

#[async_trait]
impl Remote for RedisRemote {
    fn follow(&self, identity: u64) {
        self.keys.store(Arc::new(Keys::new(&self.namespace, identity)));
    }

    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError> {
        let keys = self.keys.load_full();
        let mut all = redis::pipe();
        // The state first: a value that is read later was cleaned at least as far.
        all.cmd("HMGET").arg(keys.state()).arg(&["cleaned", "id", &counter(place.slot)]);
        all.cmd("HMGET").arg(keys.values(place.hash)).arg(&["generation", &field(place.schema)]).cmd("TIME");
        type Answer = (Vec<Value>, Vec<Value>, (u64, u64));
        let (state, stored, (seconds, micros)): Answer = self.redis.query_pipeline(&all).await?;
        let present = [text(state.get(1)), b".", text(state.get(2))].concat();
        let is_present = text(stored.first()) == present;
        let Some(Value::BulkString(value)) = stored.into_iter().nth(1).filter(|_| is_present) else { return Ok(None) };
        let now = seconds * 1000 + micros / 1000;
        Ok(Some(found(&Bytes::from(value), now, number(state.first()))))
    }

    async fn acquire(&self, place: Place, token: Token, known: &[u8]) -> Result<Acquired, RemoteError> {
        let mut call = self.on(&ACQUIRE, place.hash);
        call.arg(token).arg(millis(LEASE)).arg(field(place.schema)).arg(known).arg(counter(place.slot));
        let answer: Vec<Value> = self.redis.script(&call).await?;
        let (now, cleaned) = (number(answer.get(1)), number(answer.get(2)));
        Ok(match text(answer.first()) {
            b"granted" => Acquired::Granted(Mark { copy: number(answer.get(3)), now, cleaned }),
            b"found" => Acquired::Found(found(&Bytes::copy_from_slice(text(answer.get(3))), now, cleaned)),
            _ => Acquired::Held,
        })
    }

    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError> {
        let mut call = RENEW.prepare_invoke();
        call.key(self.keys.load().lease(place.hash)).arg(lease(token)).arg(millis(LEASE));
        self.redis.script(&call).await
    }

    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError> {
        let mut call = self.on(&FILL, place.hash);
        let (copy, copy_life) = fill.copy.unwrap_or_default();
        call.arg(token).arg(field(place.schema)).arg(&fill.bytes[..]).arg(millis(fill.life).max(1)).arg(fill.version);
        call.arg(counter(place.slot)).arg(copy).arg(millis(copy_life).max(1));
        let answer: Vec<Value> = self.redis.script(&call).await?;
        Ok(match text(answer.first()) {
            b"stored" => Filled::Stored { stamp: number(answer.get(1)) },
            b"older" => Filled::Older,
            _ => Filled::Lost,
        })
    }

    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError> {
        let mut call = RELEASE.prepare_invoke();
        call.key(self.keys.load().lease(place.hash)).arg(lease(token));
        self.redis.script(&call).await
    }

    async fn remove(&self, place: Place) -> Result<(), RemoteError> {
        self.redis.query(redis::cmd("DEL").arg(self.keys.load().values(place.hash))).await
    }

    async fn invalidate(&self, notice: &Notice) -> Result<(), RemoteError> {
        let keys = self.keys.load_full();
        for changes in notice.changes.chunks(BATCH) {
            let mut call = INVALIDATE.prepare_invoke();
            call.key(keys.state()).key(keys.bus());
            let (slots, _) = name(&mut call, &keys, changes);
            call.arg(notice.origin).arg(&changes::encode(changes)[..]).arg(&notice.cause);
            call.arg(BUS_LENGTH).arg(millis(BUS_LIFE)).arg(slots).arg(generation()).arg(ENTRY * changes::CHANGE);
            let () = self.redis.script(&call).await?;
        }
        Ok(())
    }

    async fn pulse(&self, pulse: Pulse) -> Result<Beat, RemoteError> {
        let keys = self.keys.load_full();
        let mut call = PULSE.prepare_invoke();
        call.key(keys.state()).key(keys.replicas()).key(keys.bus());
        call.arg(pulse.replica).arg(pulse.told).arg(u8::from(pulse.sees)).arg(pulse.read).arg(millis(COURIER));
        call.arg(generation()).arg(millis(STATE_LIFE)).arg(millis(SILENT)).arg(millis(LEFT));
        call.arg(u8::from(pulse.blind));
        let answer: Vec<Value> = self.redis.script(&call).await?;
        let told = Told { from: number(answer.get(9)), to: number(answer.get(10)) };
        Ok(Beat {
            now: number(answer.first()),
            courier: number(answer.get(1)) == 1,
            cleaned: number(answer.get(2)),
            cleaned_ago: ago(answer.get(3)),
            watched: number(answer.get(4)) == 1,
            furthest: number(answer.get(5)),
            replicas: usize::try_from(number(answer.get(6))).unwrap_or(0),
            oldest: ago(answer.get(7)).unwrap_or(SILENT),
            blind: number(answer.get(8)) == 1,
            told: (told.to > 0).then_some(told),
            bus: Reached {
                sequence: number(answer.get(11)),
                last: entry_id(std::str::from_utf8(text(answer.get(12))).unwrap_or_default()),
            },
        })
    }

    async fn clean(&self, cleaning: &Cleaning) -> Result<bool, RemoteError> {
        let told = cleaning.tell.as_ref().map_or(&[][..], |tell| &tell.changes);
        let (mut changes, mut told) = (cleaning.changes.chunks(BATCH), told.chunks(BATCH));
        loop {
            let (some, some_told) = (changes.next().unwrap_or_default(), told.next().unwrap_or_default());
            let last = changes.len() == 0 && told.len() == 0;
            let is_courier = self.clean_some(cleaning, some, some_told, last).await?;
            if last || !is_courier {
                return Ok(is_courier);
            }
        }
    }

    async fn leave(&self, replica: Token, sees: bool) -> Result<(), RemoteError> {
        let keys = self.keys.load_full();
        let mut call = LEAVE.prepare_invoke();
        call.key(keys.state()).key(keys.replicas()).arg(replica).arg(u8::from(sees));
        self.redis.script(&call).await
    }
}

/// A random number that Lua's doubles hold exactly; never 0.
fn generation() -> u64 {
    rand::random_range(1..1 << 53)
}
