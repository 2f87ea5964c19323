//! A deploy on fakes, with its state in a folder of its own.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::fake::Fake;
use crate::deploy::machine::{Machine, Order, Steps, Undecided};
use crate::deploy::parts::{Balancer, Engine, Recipe};
use crate::deploy::plan::{Wanted, plan};
use crate::exit::Failure;
use crate::gate::Settings;
use crate::output::Output;
use crate::state::State;
use crate::state::journal::{Deploy, Strategy, Timing};
use crate::state::wish::Wishes;

pub struct Site {
    pub fake: Fake,
    pub folder: TempDir,
    pub state: State,
    pub textfile: Option<PathBuf>,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let fake = Fake::new();
        fake.world().folder = folder.path().to_owned();
        Self { fake, folder, state, textfile: None }
    }

    pub async fn plan(&self, strategy: Strategy) -> Deploy {
        self.plan_of("new", 3, strategy).await
    }

    pub async fn plan_of(&self, version: &str, replicas: usize, strategy: Strategy) -> Deploy {
        let timing = Timing {
            drain: Duration::from_secs(5),
            grace: Duration::from_secs(1),
            keep_warm: Duration::from_secs(if strategy == Strategy::Canary { 0 } else { 600 }),
        };
        let (image, version) = (format!("app:{version}"), version.to_owned());
        let wanted = Wanted { strategy, image, version, replicas, timing };
        let slots = self.fake.slots().await.unwrap();
        plan(&slots, &self.fake.containers(&slots).await.unwrap(), &wanted).unwrap()
    }

    /// None: it was killed.
    pub async fn run(&self, deploy: Deploy, order: &Order) -> Option<Result<(), Failure>> {
        let (wishes, output) = (Wishes::new(&self.state), Output::new(true));
        let mut machine = self.machine(deploy, &wishes, &output);
        self.unless_killed(machine.run(order)).await
    }

    async fn unless_killed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let killed = async {
            while !self.fake.world().killed {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            result = work => Some(result),
            () = killed => None,
        }
    }

    pub async fn reconcile(&self) -> bool {
        self.try_reconcile().await.unwrap().unwrap()
    }

    /// None: it was killed.
    pub async fn try_reconcile(&self) -> Option<Result<bool, Failure>> {
        let Some(deploy) = self.state.deploy().unwrap() else { return Some(Ok(false)) };
        let (wishes, output) = (Wishes::new(&self.state), Output::new(true));
        let mut machine = self.machine(deploy, &wishes, &output);
        self.unless_killed(machine.reconcile()).await
    }

    pub fn machine<'a>(&'a self, deploy: Deploy, wishes: &'a Wishes, output: &'a Output) -> Machine<'a> {
        let (engine, balancer, state): (&dyn Engine, &dyn Balancer, _) = (&self.fake, &self.fake, &self.state);
        let textfile = self.textfile.as_deref();
        Machine { engine, balancer, state, wishes, output, textfile, began: Instant::now(), deploy }
    }

    /// One version serves, all of it; nothing of an undone deploy is left; the log is whole.
    pub fn assert_settled(&self, context: &str) {
        let (serving, running, world) = (self.fake.serving(), self.fake.running(), self.fake.world());
        assert_eq!(world.broken, Vec::<String>::new(), "{context}");
        assert!(serving == ["new"; 3] || serving == ["old"; 3], "{context}: {serving:?} serve");
        if serving == ["old"; 3] {
            assert_eq!(running.len(), 3, "{context}: {running:?} run");
            assert_eq!(world.containers.len(), 3, "{context}: {:?} are left", world.containers);
        }
        assert_eq!(self.state.audited().unwrap().1, None, "{context}");
    }
}

pub fn order(id: &str) -> Order {
    let settings = Settings { steps: 2, min_elapsed: Duration::from_secs(5), ..Settings::default() };
    Order {
        recipe: Recipe { deploy: id.to_owned(), like: "first-blue1".to_owned(), environment: Vec::new() },
        ready: Duration::from_secs(10),
        smoke: vec!["/api/test".to_owned()],
        bake: Duration::from_millis(500),
        canary: Steps {
            shares: vec![10, 50, 100],
            warm_up: Duration::ZERO,
            settings: Settings { max_elapsed: Duration::from_secs(20), ..settings },
            probe: None,
            inconclusive: Undecided::Rollback,
        },
    }
}
