//! An engine and a balancer that can fail, or stop the world, at any call. At every call they check that somebody who
//! is ready has the traffic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::deploy::parts::{Admin, Balancer, Change, Counters, Ended, Engine, Image, Recipe, Replica, Seen, Slot};
use crate::engine::http::Answer;
use crate::exit::{Exit, Failure, Result};

/// What goes wrong at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It fails and does nothing.
    Fails,
    /// It does its work, but the answer is lost.
    AnswerLost,
    /// The process ends before it.
    KilledBefore,
    /// The process ends after it, and never knows.
    KilledAfter,
    /// From here on nothing can be written.
    DiskFull,
    /// From here on the balancer makes changes, but can't write them down.
    NotKept,
}

#[derive(Debug, Default)]
pub struct World {
    pub slots: Vec<Slot>,
    pub containers: Vec<Seen>,
    /// Ids of images, by all names that they have.
    pub images: HashMap<String, String>,
    /// What commands of images answer, and those that were asked.
    pub answers: VecDeque<Ended>,
    pub asked: Vec<String>,
    /// Images whose containers never get ready.
    pub unready: HashSet<String>,
    /// Errors per thousand requests of an image, as (image, errors).
    pub errors: (String, u64),
    /// Panics of each container of an image up to now, as (image, panics).
    pub panics: (String, u64),
    /// Requests that all slots together answer between two looks.
    pub traffic: u64,
    /// The call at which something goes wrong.
    pub trouble: Option<(u64, Trouble)>,
    /// And the one after that.
    pub then: Option<(u64, Trouble)>,
    pub calls: u64,
    pub killed: bool,
    /// Where the state is kept, and whether the disk is full.
    pub folder: PathBuf,
    pub full: bool,
    /// The balancer can't write its state down; the slots as it last did.
    pub forgetful: bool,
    pub kept: Vec<Slot>,
    /// What must never happen and did.
    pub broken: Vec<String>,
}

/// Both, in one world.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// Four slots of each colour; three blue ones run version "old".
    pub fn new() -> Self {
        let mut world = World { traffic: 4000, ..World::default() };
        for (color, ten) in [("blue", 1), ("green", 2)] {
            for number in 1..=4 {
                let name = format!("{color}{number}");
                let runs = color == "blue" && number < 4;
                if runs {
                    let (image, version) = ("app:old".to_owned(), "old".to_owned());
                    let (name, slot, image_id) = (format!("first-{name}"), name.clone(), image.clone());
                    let seen = Seen { name, slot, image, image_id, version, ..Seen::default() };
                    world.containers.push(Seen { running: true, ..seen });
                }
                world.slots.push(Slot {
                    name,
                    address: SocketAddr::from(([10, 0, 0, ten * 10 + number], 3000)),
                    host: None,
                    admin: if runs { Admin::Ready } else { Admin::Maint },
                    up: false,
                    down: false,
                    weight: 100,
                    sessions: 0,
                    counters: Counters::default(),
                });
            }
        }
        world.kept = world.slots.clone();
        Self(Arc::new(Mutex::new(world)))
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Versions that take traffic.
    pub fn serving(&self) -> Vec<String> {
        let world = self.world();
        let slots = world.slots.iter().filter(|slot| slot.takes_traffic() && world.ready(&slot.name));
        let mut versions: Vec<_> =
            slots.filter_map(|slot| world.at(&slot.name)).map(|one| one.version.clone()).collect();
        versions.sort();
        versions
    }

    pub fn running(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.world().containers.iter().filter(|one| one.running).map(|one| one.name.clone()).collect();
        names.sort();
        names
    }

    async fn call<T>(&self, work: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let lost = || Failure::new(Exit::Unreachable, "no answer");
        let (result, trouble) = {
            let mut world = self.world();
            world.calls += 1;
            let trouble = world.trouble.filter(|(call, _)| *call == world.calls).map(|(_, trouble)| trouble);
            if trouble.is_some() {
                world.trouble = world.then.take();
            }
            world.killed |= matches!(trouble, Some(Trouble::KilledBefore | Trouble::KilledAfter));
            if trouble == Some(Trouble::DiskFull) {
                world.fill_disk();
            }
            world.forgetful |= trouble == Some(Trouble::NotKept);
            let acts = !matches!(trouble, Some(Trouble::Fails | Trouble::KilledBefore));
            let result = if acts { work(&mut world) } else { Err(lost()) };
            world.check();
            (result, trouble)
        };
        match trouble {
            None | Some(Trouble::DiskFull | Trouble::NotKept) => result,
            Some(Trouble::Fails | Trouble::AnswerLost) => Err(lost()),
            Some(Trouble::KilledBefore | Trouble::KilledAfter) => std::future::pending().await,
        }
    }
}

impl World {
    /// Folders stand where files would be written.
    fn fill_disk(&mut self) {
        let log = self.folder.join("audit.jsonl");
        fs::rename(&log, log.with_extension("kept")).unwrap();
        for name in ["audit.jsonl", "deploy.json.new"] {
            fs::create_dir(self.folder.join(name)).unwrap();
        }
        self.full = true;
    }

    pub fn free_disk(&mut self) {
        self.forgetful = false;
        if std::mem::take(&mut self.full) {
            for name in ["audit.jsonl", "deploy.json.new"] {
                fs::remove_dir(self.folder.join(name)).unwrap();
            }
            let log = self.folder.join("audit.jsonl");
            fs::rename(log.with_extension("kept"), log).unwrap();
        }
    }

    pub fn at(&self, slot: &str) -> Option<&Seen> {
        self.containers.iter().find(|one| one.slot == slot && one.running)
    }

    pub fn ready(&self, slot: &str) -> bool {
        self.at(slot).is_some_and(|one| !self.unready.contains(&one.image))
    }

    /// Slots that a balancer which is started again would open or close.
    pub fn not_kept(&self) -> Vec<&str> {
        let both = self.slots.iter().zip(&self.kept);
        both.filter(|(now, kept)| now.admin != kept.admin).map(|(now, _)| now.name.as_str()).collect()
    }

    fn check(&mut self) {
        let takes: Vec<_> =
            self.slots.iter().filter(|slot| slot.takes_traffic()).map(|slot| slot.name.clone()).collect();
        if !takes.iter().any(|slot| self.ready(slot)) {
            self.broken.push(format!("nobody serves after call {}", self.calls));
        }
        if let Some(slot) = takes.iter().find(|slot| !self.ready(slot)) {
            self.broken.push(format!("{slot} has traffic and isn't ready after call {}", self.calls));
        }
    }

    fn answer_requests(&mut self) {
        let total: u32 = self.slots.iter().filter(|slot| slot.takes_traffic()).map(|slot| slot.weight).sum();
        for index in 0..self.slots.len() {
            let name = self.slots[index].name.clone();
            let up = self.ready(&name) && self.slots[index].admin != Admin::Maint;
            let bad = self.at(&name).is_some_and(|one| one.image == self.errors.0);
            let (per_thousand, traffic) = (self.errors.1, self.traffic);
            let slot = &mut self.slots[index];
            (slot.up, slot.down) = (up, !up && slot.admin != Admin::Maint);
            if slot.takes_traffic() {
                let requests = traffic * u64::from(slot.weight) / u64::from(total.max(1));
                slot.counters.requests += requests;
                slot.counters.errors += if bad { requests * per_thousand / 1000 } else { 0 };
            }
        }
    }

    fn change(&mut self, change: &Change) {
        let (Change::Weight(name, _)
        | Change::Ready(name)
        | Change::Drain(name)
        | Change::Maint(name)
        | Change::Cut(name)) = change;
        let slot = self.slots.iter_mut().find(|slot| slot.name == *name).unwrap();
        match change {
            Change::Weight(_, weight) => slot.weight = *weight,
            Change::Ready(_) => slot.admin = Admin::Ready,
            Change::Drain(_) => slot.admin = Admin::Drain,
            Change::Maint(_) => slot.admin = Admin::Maint,
            Change::Cut(_) => slot.sessions = 0,
        }
    }
}

#[async_trait]
impl Balancer for Fake {
    async fn slots(&self) -> Result<Vec<Slot>> {
        self.call(|world| {
            world.answer_requests();
            Ok(world.slots.clone())
        })
        .await
    }

    async fn apply(&self, changes: &[Change]) -> Result<()> {
        self.call(|world| {
            for change in changes {
                world.change(change);
                world.check();
            }
            // The changes are made, but not kept.
            let full = || Failure::new(Exit::Precondition, "can't write servers.state: the disk is full");
            if world.full || world.forgetful {
                return Err(full());
            }
            world.kept = world.slots.clone();
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Engine for Fake {
    async fn image(&self, name: &str) -> Result<Image> {
        let id = self.world().images.get(name).cloned();
        let id = id.ok_or_else(|| Failure::new(Exit::Precondition, format!("can't pull {name}")))?;
        Ok(Image { id, version: name.to_owned(), architecture: "amd64".to_owned() })
    }

    async fn containers(&self, _: &[Slot]) -> Result<Vec<Seen>> {
        self.call(|world| Ok(world.containers.clone())).await
    }

    async fn create(&self, replica: &Replica, recipe: &Recipe) -> Result<()> {
        self.call(|world| {
            let Replica { slot, container, image, version, .. } = replica.clone();
            if world.containers.iter().all(|one| one.name != container) {
                let (deploy, image_id) = (Some(recipe.deploy.clone()), image.clone());
                let made = Seen { name: container, slot, deploy, image, image_id, version, ..Seen::default() };
                world.containers.push(made);
            }
            Ok(())
        })
        .await
    }

    async fn start(&self, container: &str) -> Result<()> {
        self.call(|world| {
            let one = world.containers.iter_mut().find(|one| one.name == container);
            one.map(|one| one.running = true).ok_or_else(|| Failure::new(Exit::NeverReady, "no such container"))
        })
        .await
    }

    async fn stop(&self, container: &str, _: Duration) -> Result<()> {
        self.call(|world| {
            world.containers.iter_mut().filter(|one| one.name == container).for_each(|one| one.running = false);
            Ok(())
        })
        .await
    }

    async fn remove(&self, container: &str) -> Result<()> {
        self.call(|world| {
            world.containers.retain(|one| one.name != container);
            Ok(())
        })
        .await
    }

    async fn log(&self, _: &str) -> Result<String> {
        Ok("its last words".to_owned())
    }

    async fn once(&self, _: &str, _: &Recipe, command: &[&str]) -> Result<Ended> {
        let mut world = self.world();
        world.asked.push(command.join(" "));
        let answer = world.answers.pop_front();
        Ok(answer.unwrap_or(Ended { code: 0, output: String::new() }))
    }

    async fn get(&self, replica: &Replica, path: &str) -> std::result::Result<Answer, String> {
        let answer = self
            .call(|world| {
                let slot = &replica.slot;
                let panics =
                    world.at(slot).map_or(0, |one| if one.image == world.panics.0 { world.panics.1 } else { 0 });
                Ok((world.ready(slot), panics))
            })
            .await;
        match answer {
            Ok((true, panics)) if path == "/metrics" => {
                Ok(Answer { status: 200, body: format!("panics_total {panics}\n") })
            }
            Ok((ready, _)) => Ok(Answer { status: if ready { 200 } else { 503 }, body: String::new() }),
            Err(failure) => Err(failure.message),
        }
    }
}
