//! Three replicas, random reads, writes by whomever and faults, and the promise checked on the whole history.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tiered_cache::{CacheError, Read};
use tokio::time::Instant;

use crate::source::log::Commit;
use crate::support::{Data, Down, Replica, Source, World, key, serial};

const REPLICAS: usize = 3;
const BOUND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    GetVersion(usize),
    Put(usize),
    Plain,
    PlainAll,
    Touch(usize),
    Link(usize, Option<Down>),
    CutBus(usize, bool),
    CutLog(usize, Option<Down>),
    CutLogs(Option<Down>),
    SlowLink(usize, u64),
    SlowLog(usize, u64),
    SlowSource(u64),
    Flush,
    Trim,
    Evict(u8),
    Replicate,
    FailOver,
    /// A new tier with all that the old one has, which one replica goes on with.
    Isolate(usize),
    Reunite,
    BeginAnew(usize),
    Prune,
    Leave(usize),
    Die(usize),
    Wait(u64),
}

fn down() -> impl Strategy<Value = Option<Down>> {
    prop_oneof![
        5 => Just(None),
        2 => Just(Some(Down::Refused)),
        2 => Just(Some(Down::Silent)),
        1 => Just(Some(Down::AnswerLost)),
        1 => (1u64..4_000).prop_map(|late| Some(Down::Late(Duration::from_millis(late)))),
        1 => Just(Some(Down::ReadOnly)),
    ]
}

fn cut() -> impl Strategy<Value = Option<Down>> {
    prop_oneof![3 => Just(None), 2 => Just(Some(Down::Refused)), 1 => Just(Some(Down::Silent))]
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0..REPLICAS;
    prop_oneof![
        12 => replica().prop_map(Step::Get),
        2 => replica().prop_map(Step::GetVersion),
        6 => replica().prop_map(Step::Put),
        4 => Just(Step::Plain),
        1 => Just(Step::PlainAll),
        1 => replica().prop_map(Step::Touch),
        4 => (replica(), down()).prop_map(|(r, down)| Step::Link(r, down)),
        2 => (replica(), any::<bool>()).prop_map(|(r, cut)| Step::CutBus(r, cut)),
        4 => (replica(), cut()).prop_map(|(r, cut)| Step::CutLog(r, cut)),
        2 => cut().prop_map(Step::CutLogs),
        1 => (replica(), 0u64..60).prop_map(|(r, ms)| Step::SlowLink(r, ms)),
        1 => (replica(), 0u64..60).prop_map(|(r, ms)| Step::SlowLog(r, ms)),
        1 => (0u64..80).prop_map(Step::SlowSource),
        1 => Just(Step::Flush),
        1 => Just(Step::Trim),
        2 => any::<u8>().prop_map(Step::Evict),
        1 => Just(Step::Replicate),
        1 => Just(Step::FailOver),
        1 => replica().prop_map(Step::Isolate),
        1 => Just(Step::Reunite),
        1 => (0usize..4).prop_map(Step::BeginAnew),
        1 => Just(Step::Prune),
        1 => replica().prop_map(Step::Leave),
        1 => replica().prop_map(Step::Die),
        10 => prop_oneof![0u64..30, 0u64..800, 0u64..3_000].prop_map(Step::Wait),
    ]
}

/// One answer: when it was asked for, when it came, and which commit it is from.
#[derive(Clone, Copy)]
struct Answer {
    begun: Instant,
    ended: Instant,
    serial: u64,
}

/// Spans of time in which something was so.
#[derive(Default)]
struct Spans(Vec<(Instant, Option<Instant>)>);

impl Spans {
    fn note(&mut self, so: bool) {
        let now = Instant::now();
        match (so, self.0.last_mut()) {
            (true, Some((_, None))) => {}
            (true, _) => self.0.push((now, None)),
            (false, Some((_, end @ None))) => *end = Some(now),
            (false, _) => {}
        }
    }

    /// It was so at this time, or so long before or after it.
    fn hold(&self, at: Instant, about: Duration) -> bool {
        self.0.iter().any(|(begun, end)| *begun <= at + about && end.is_none_or(|end| at <= end + about))
    }
}

/// What nobody can know, and so is no violation.
#[derive(Default)]
struct Excuses {
    /// No replica could read the log.
    dark: Spans,
    /// A replica that couldn't read the log had left, and its successor may read what the others still can't.
    left: Spans,
}

impl Excuses {
    /// From when on everybody may be expected to know of what happened. Where nobody can read it, and nobody tells, that is
    /// when somebody read it.
    fn known(&self, at: Instant, read: Option<Instant>) -> Option<Instant> {
        // The last turn before it may have come just before, and a first try after it fail.
        if self.dark.hold(at, Duration::from_millis(1_200)) { read } else { Some(at) }
    }
}

/// The first violation, in words.
fn violation(answers: &[Answer], commits: &[Commit], told: &[u64], excuses: &Excuses) -> Option<String> {
    let late = |begun: Instant, known: Option<Instant>| known.is_some_and(|known| begun > known + BOUND);
    for answer in answers.iter().filter(|answer| !excuses.left.hold(answer.begun, Duration::from_secs(3))) {
        for commit in commits {
            let is_told = told.contains(&commit.row.serial);
            let known = if is_told { Some(commit.at) } else { excuses.known(commit.at, commit.seen) };
            let missed = commit.row.serial > answer.serial
                && late(answer.begun, known)
                && commit.lost.is_none_or(|lost| answer.ended < lost);
            let gone = commit.lost.and_then(|lost| excuses.known(lost, commit.missed));
            let revived = commit.row.serial == answer.serial && late(answer.begun, gone);
            if missed || revived {
                return Some(format!("saw {} at {:?}: {commit:?}", answer.serial, answer.begun));
            }
        }
    }
    None
}

struct Model {
    source: Source,
    world: World,
    replicated: Option<Data>,
    replicas: Vec<Replica>,
    cut: [bool; REPLICAS],
    excuses: Excuses,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Commits that a cache was told of by those who made them.
    told: Arc<Mutex<Vec<u64>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Model {
    async fn begin() -> Self {
        let (world, source) = (World::new(), Source::new());
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            replicas.push(Replica::new(&world, &source).await);
        }
        Self {
            source,
            world,
            replicated: None,
            replicas,
            cut: [false; REPLICAS],
            excuses: Excuses::default(),
            answers: Arc::default(),
            told: Arc::default(),
            tasks: tokio::task::JoinSet::new(),
        }
    }

    fn get(&mut self, replica: usize, read: Read) {
        let (replica, answers, begun) = (self.replicas[replica].clone(), Arc::clone(&self.answers), Instant::now());
        self.tasks.spawn(async move {
            match replica.read(1, read).await {
                Ok(hit) => {
                    assert!(!matches!(read, Read::Version(asked) if hit.entry.version < asked), "asked for {read:?}");
                    answers.lock().unwrap().push(Answer { begun, ended: Instant::now(), serial: serial(&hit) });
                }
                // The version may be lost, or the replica has left.
                Err(CacheError::VersionNotReached { .. } | CacheError::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }

    fn put(&mut self, replica: usize) {
        let (replica, told) = (self.replicas[replica].clone(), Arc::clone(&self.told));
        self.tasks.spawn(async move {
            let source = replica.source.clone();
            let write = || async move {
                let committed = source.clone().commit().await?;
                told.lock().unwrap().push(source.log.row().serial);
                Ok::<_, crate::support::SourceDown>(committed)
            };
            drop(replica.cache.write(write).await);
        });
    }

    /// What every replica would answer now without asking anybody.
    fn peek(&self) {
        let now = Instant::now();
        for replica in &self.replicas {
            if let Some(hit) = replica.cache.peek(&key(1), &replica.policy) {
                self.answers.lock().unwrap().push(Answer { begun: now, ended: now, serial: serial(&hit) });
            }
        }
    }

    async fn wait(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.peek();
            tokio::time::sleep_until(end.min(Instant::now() + Duration::from_millis(20))).await;
        }
    }

    fn cut(&mut self, replica: usize, down: Option<Down>) {
        self.replicas[replica].log.cut(down);
        self.cut[replica] = down.is_some();
        self.note(false);
    }

    fn note(&mut self, leaves: bool) {
        self.excuses.dark.note(self.cut.iter().all(|cut| *cut));
        let goes_on = self.excuses.left.0.last().is_some_and(|(_, end)| end.is_none());
        self.excuses.left.note((leaves || goes_on) && self.cut.contains(&true));
    }

    async fn replace(&mut self, replica: usize) {
        self.replicas[replica] = Replica::with_link(&self.world, &self.source, |_| ()).await;
        self.cut(replica, None);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Get(r) => self.get(r, Read::Bounded),
            Step::GetVersion(r) => self.get(r, Read::Version(self.source.log.row().version)),
            Step::Put(r) => self.put(r),
            Step::Plain => drop(self.source.plain_write()),
            Step::PlainAll => drop(self.source.plain_write_all()),
            Step::Touch(r) => {
                let cache = self.replicas[r].cache.clone();
                self.tasks.spawn(async move { drop(cache.invalidate(&[key(1)]).await) });
            }
            Step::Link(r, down) => self.replicas[r].link.set(down),
            Step::CutBus(r, cut) => self.replicas[r].link.cut_bus(cut),
            Step::CutLog(r, down) => self.cut(r, down),
            Step::CutLogs(down) => (0..REPLICAS).for_each(|r| self.cut(r, down)),
            Step::SlowLink(r, ms) => self.replicas[r].link.slow(Duration::from_millis(ms)),
            Step::SlowLog(r, ms) => self.replicas[r].log.way().slow(Duration::from_millis(ms)),
            Step::SlowSource(ms) => self.source.slow(Duration::from_millis(ms)),
            Step::Flush => self.world.flush(),
            Step::Trim => self.world.trim(),
            Step::Evict(n) => self.world.evict_any(n),
            Step::Replicate => self.replicated = Some(self.world.snapshot()),
            Step::FailOver => self.replicated.iter().for_each(|replicated| self.world.fail_over_to(replicated)),
            Step::Isolate(r) => {
                self.world = self.world.copy();
                let others = self.replicas.iter().enumerate().filter(|(other, _)| *other != r);
                others.for_each(|(_, replica)| replica.link.lead_to(&self.world));
            }
            Step::Reunite => self.replicas.iter().for_each(|replica| replica.link.lead_to(&self.world)),
            Step::BeginAnew(lost) => self.source.log.begin_anew(lost),
            Step::Prune => self.source.log.prune(),
            Step::Leave(r) => {
                let cache = self.replicas[r].cache.clone();
                self.note(self.cut[r]);
                cache.shutdown(Duration::from_secs(1)).await;
                self.replace(r).await;
            }
            Step::Die(r) => {
                let dead = self.replicas[r].clone();
                dead.link.set(Some(Down::Refused));
                dead.log.cut(Some(Down::Refused));
                self.replace(r).await;
            }
            Step::Wait(ms) => self.wait(Duration::from_millis(ms)).await,
        }
    }
}

async fn run(steps: Vec<Step>) -> Option<String> {
    let mut model = Model::begin().await;
    for step in steps {
        model.step(step).await;
        model.peek();
    }
    while let Some(done) = model.tasks.join_next().await {
        done.unwrap();
    }
    model.wait(Duration::from_secs(3)).await;
    let (answers, told) = (model.answers.lock().unwrap(), model.told.lock().unwrap());
    violation(&answers, &model.source.log.commits(), &told, &model.excuses)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_history_breaks_the_promise(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let violation = runtime.block_on(run(steps));
        prop_assert_eq!(violation, None);
    }
}
