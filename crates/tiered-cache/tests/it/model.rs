//! Three replicas, random reads, writes and faults, and the promise checked on the whole history.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tiered_cache::{Read, Write};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, Table, World, key, write_through_outbox};

const REPLICAS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    GetVersion(usize),
    Put(usize, bool),
    Link(usize, u8),
    CutBus(usize, bool),
    Flush,
    Trim,
    Evict,
    SlowSource(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    prop_oneof![
        12 => replica.clone().prop_map(Step::Get),
        2 => replica.clone().prop_map(Step::GetVersion),
        6 => (replica.clone(), any::<bool>()).prop_map(|(r, strict)| Step::Put(r, strict)),
        3 => (replica.clone(), 0u8..6).prop_map(|(r, kind)| Step::Link(r, kind)),
        2 => (replica, any::<bool>()).prop_map(|(r, cut)| Step::CutBus(r, cut)),
        1 => Just(Step::Flush),
        1 => Just(Step::Trim),
        1 => Just(Step::Evict),
        1 => (0u64..80).prop_map(Step::SlowSource),
        8 => prop_oneof![0u64..30, 0u64..3_000].prop_map(Step::Wait),
    ]
}

/// When each read began and what it saw; when each write was answered.
#[derive(Default)]
struct History {
    gets: Vec<(Instant, u64, Option<u64>)>,
    puts: Vec<(Instant, u64)>,
    /// When a link was last known to be broken.
    broken: Vec<Instant>,
}

impl History {
    /// The smallest violation, in words.
    fn violation(&self) -> Option<String> {
        for &(begun, seen, asked) in &self.gets {
            if asked.is_some_and(|asked| seen < asked) {
                return Some(format!("asked for {asked:?}, got {seen}"));
            }
            for &(answered, version) in self.puts.iter().filter(|(_, version)| *version > seen) {
                let shaken = self.broken.iter().any(|&at| at + Duration::from_secs(10) > answered && at < begun);
                let bound = if shaken { Duration::from_secs(5) } else { Duration::from_secs(1) };
                if begun > answered + bound {
                    let late = begun - answered;
                    return Some(format!("saw {seen} {late:?} after {version} was answered (bound {bound:?})"));
                }
            }
        }
        None
    }
}

async fn run(steps: Vec<Step>) -> Option<String> {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let outbox = Arc::new(table.clone());
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Replica::with(&world, &source, |builder| builder.outbox(outbox.clone())).await);
    }
    let history = Arc::new(Mutex::new(History::default()));
    let mut broken = [false; REPLICAS];
    let mut cut = [false; REPLICAS];
    let mut tasks = tokio::task::JoinSet::new();
    for step in steps {
        if broken.iter().chain(&cut).any(|broken| *broken) {
            history.lock().unwrap().broken.push(Instant::now());
        }
        match step {
            Step::Get(r) | Step::GetVersion(r) => {
                let newest = history.lock().unwrap().puts.iter().map(|(_, version)| *version).max();
                let asked = if matches!(step, Step::GetVersion(_)) { newest } else { None };
                let (replica, history, begun) = (replicas[r].clone(), Arc::clone(&history), Instant::now());
                tasks.spawn(async move {
                    let read = asked.map_or(Read::Bounded, Read::Version);
                    let hit = replica.read(1, read).await.unwrap();
                    history.lock().unwrap().gets.push((begun, hit.entry.version, asked));
                });
            }
            Step::Put(r, strict) => {
                let (replica, history, table) = (replicas[r].clone(), Arc::clone(&history), table.clone());
                tasks.spawn(async move {
                    let written = if strict {
                        replica.write(Write::Strict).await
                    } else {
                        write_through_outbox(&replica.cache, &replica.source, &table).await
                    };
                    if let Ok(version) = written {
                        history.lock().unwrap().puts.push((Instant::now(), version));
                    }
                });
            }
            Step::Link(r, kind) => {
                let down = [None, None, None, Some(Down::Refused), Some(Down::Silent), Some(Down::AnswerLost)];
                broken[r] = down[usize::from(kind)].is_some();
                replicas[r].link.set(down[usize::from(kind)]);
                history.lock().unwrap().broken.push(Instant::now());
            }
            Step::CutBus(r, yes) => {
                cut[r] = yes;
                replicas[r].link.cut_bus(yes);
                history.lock().unwrap().broken.push(Instant::now());
            }
            Step::Flush => world.flush(),
            Step::Trim => world.trim(),
            Step::Evict => world.evict(key(1).hash()),
            Step::SlowSource(ms) => source.slow(Duration::from_millis(ms)),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let history = history.lock().unwrap();
    history.violation()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn no_history_breaks_the_promise(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let violation = runtime.block_on(run(steps));
        prop_assert_eq!(violation, None);
    }
}
