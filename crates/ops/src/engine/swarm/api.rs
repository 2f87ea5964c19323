//! Services as JSON, as the engine says them. Bollard's types don't know all that is in a specification, such as
//! `Healthcheck`, and one that comes back without it replaces every task.

use std::time::Duration;

use bollard::models::Task;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use super::spec::NAMESPACE;
use crate::engine::http::{Answer, exchange};
use crate::exit::{Exit, Failure, OrExit, Result};

/// The engine's address, and how long one request to it may take.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) address: String,
    pub(super) limit: Duration,
}

/// How often a change is tried that somebody else's forestalls.
const ATTEMPTS: u32 = 5;

/// `{"kind":["value"]}`, encoded; ids and names of stacks have nothing else that must be.
fn filter(kind: &str, values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("%22{value}%22")).collect();
    format!("filters=%7B%22{kind}%22%3A%5B{}%5D%7D", values.join("%2C"))
}

impl Api {
    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             \r\n{body}"
        );
        let answer = match self.address.split_once("://") {
            Some(("unix", path)) => exchange(UnixStream::connect(path), self.limit, &request).await,
            Some((_, host)) => exchange(TcpStream::connect(host), self.limit, &request).await,
            None => exchange(UnixStream::connect(&self.address), self.limit, &request).await,
        };
        let unreachable = |why| format!("can't reach the engine at {}: {why}", self.address);
        answer.map_err(|why| Failure::new(Exit::Unreachable, unreachable(why)))
    }

    /// The engine's own words unless it did it.
    async fn done(&self, method: &str, path: &str, body: &str, exit: Exit, doing: &str) -> Result<Value> {
        let answer = self.ask(method, path, body).await?;
        let value: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if (200..300).contains(&answer.status) {
            return Ok(value);
        }
        let said = value["message"].as_str().unwrap_or(&answer.body);
        Err(Failure::new(exit, format!("{doing}: {said}")))
    }

    /// Of a stack.
    pub(super) async fn services(&self, stack: &str) -> Result<Vec<Value>> {
        let path = format!("/services?{}", filter("label", &[&format!("{NAMESPACE}={stack}")]));
        let services = self.done("GET", &path, "", Exit::Precondition, "can't list services").await?;
        Ok(services.as_array().cloned().unwrap_or_default())
    }

    /// Of these services.
    pub(super) async fn tasks(&self, services: &[&str]) -> Result<Vec<Task>> {
        let path = format!("/tasks?{}", filter("service", services));
        let tasks = self.done("GET", &path, "", Exit::Unreachable, "can't list tasks").await?;
        serde_json::from_value(tasks).or_exit(Exit::Unreachable, "can't read the tasks")
    }

    pub(super) async fn service(&self, id: &str) -> Result<Value> {
        self.done("GET", &format!("/services/{id}"), "", Exit::Precondition, &format!("can't look at {id}")).await
    }

    /// Its id.
    pub(super) async fn create(&self, spec: &Value) -> Result<String> {
        let doing = format!("can't make service {}", spec["Name"]);
        let made = self.done("POST", "/services/create", &spec.to_string(), Exit::Precondition, &doing).await?;
        Ok(made["ID"].as_str().unwrap_or_default().to_owned())
    }

    /// Fine when it is gone.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let answer = self.ask("DELETE", &format!("/services/{id}"), "").await?;
        if answer.status == 404 || (200..300).contains(&answer.status) {
            return Ok(());
        }
        Err(Failure::new(Exit::OperatorNeeded, format!("can't remove service {id}: {}", answer.body)))
    }

    /// Changes its specification; Swarm refuses that for one that has changed since it was looked at.
    pub(super) async fn change(&self, id: &str, exit: Exit, edit: impl Fn(&mut Value)) -> Result<()> {
        let doing = format!("can't change service {id}");
        let mut attempt = 1;
        loop {
            let found = self.service(id).await?;
            let mut spec = found["Spec"].clone();
            edit(&mut spec);
            if spec == found["Spec"] {
                return Ok(());
            }
            let path = format!("/services/{id}/update?version={}", found["Version"]["Index"]);
            match self.done("POST", &path, &spec.to_string(), exit, &doing).await {
                Err(failure) if failure.message.contains("out of sequence") && attempt < ATTEMPTS => attempt += 1,
                changed => return changed.map(drop),
            }
        }
    }
}
