use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devkit::{Database, Redis, wait_until};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The token that the service under test accepts.
pub const TOKEN: &str = "test-token";

/// Generous: it bounds what hangs, and measures nothing.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A running service. Ends with the value, and its database and Redis with it.
pub struct TestApp {
    /// Where it listens, without a slash at the end.
    pub url: String,
    /// Its own database, empty but migrated.
    pub database: Option<Database>,
    /// Its own Redis.
    pub redis: Option<Redis>,
    pub client: reqwest::Client,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Ends with the output.
    reader: JoinHandle<()>,
}

/// What to start; see [`TestApp::builder`].
pub struct Builder {
    redis: bool,
    ready: bool,
    env: BTreeMap<String, String>,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is a complete problem of this status, and returns it.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail", "instance", "trace_id"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {problem}");
        }
        problem
    }
}

impl Builder {
    /// L1 only.
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// Returns as soon as it listens, ready or not.
    pub fn without_waiting(mut self) -> Self {
        self.ready = false;
        self
    }

    /// Sets a variable; `DATABASE_URL` or `REDIS_URL` replace the test's own, for a proxy or a server that is shared.
    #[expect(clippy::needless_pass_by_value, reason = "callers give what they have at hand")]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// On the database and the Redis of another, which must live longer.
    pub fn beside(self, app: &TestApp) -> Self {
        let (database, redis) = (app.database.as_ref().unwrap().url(), app.redis.as_ref().unwrap().url());
        self.env("DATABASE_URL", database).env("REDIS_URL", redis)
    }

    pub async fn start(self) -> TestApp {
        let database = if self.env.contains_key("DATABASE_URL") { None } else { Some(database().await) };
        let own_redis = self.redis && !self.env.contains_key("REDIS_URL");
        let redis = if own_redis { Some(Redis::start().await.unwrap()) } else { None };
        let mut command = program();
        command.env("PORT", "0").env("BIND_ADDRESS", "127.0.0.1").env("API_TOKEN", TOKEN).env("WORKERS", "2");
        command.env("DRAIN_DELAY", "0s").env("DATABASE_POOL_MIN", "1").env("DATABASE_POOL_MAX", "8");
        command.env("DATA_COMPUTE_TIME", "5ms");
        // A busy machine is not a broken Redis; tests of a broken one set their own.
        command.env("REDIS_TIMEOUT", "5s");
        if let Some(database) = &database {
            command.env("DATABASE_URL", database.url());
        }
        if let Some(redis) = &redis {
            command.env("REDIS_URL", redis.url());
        }
        let mut child = command.envs(&self.env).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let collected = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                collected.lock().unwrap().push(line);
            }
        });
        let mut app = TestApp { url: String::new(), database, redis, client: client(), child, lines, reader };
        let listening = app.wait_for_line("the service listens", |line| line["message"] == "listening").await;
        app.url = format!("http://127.0.0.1:{}", listening["port"]);
        if self.ready {
            app.wait_until_ready().await;
        }
        app
    }
}

/// A client that pools connections like any other.
pub fn client() -> reqwest::Client {
    // Fails only when another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// The program under test with nothing of the caller's settings.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.env_clear().env("RUST_BACKTRACE", "1");
    command
}

/// A migrated database of the test's own.
pub async fn database() -> Database {
    Database::from_template("service", async |url| {
        let output = program().arg("migrate").env("DATABASE_URL", url).output().await?;
        anyhow::ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
    .await
    .unwrap()
}

impl TestApp {
    /// With Postgres and Redis, ready.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    pub fn builder() -> Builder {
        Builder { redis: true, ready: true, env: BTreeMap::new() }
    }

    pub async fn wait_until_ready(&self) {
        let ready = async || self.get("/health/ready").await.status == 200;
        wait_until("the service is ready", LIMIT, ready).await.unwrap();
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// A write with the token and a JSON body.
    pub async fn write(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(self.request(method, path).bearer_auth(TOKEN).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path).bearer_auth(TOKEN)).await
    }

    /// Creates a user and returns its number.
    pub async fn create_user(&self, name: &str, email: &str) -> i64 {
        let body = serde_json::json!({"name": name, "email": email});
        let answer = self.write(Method::POST, "/api/users", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["user"]["id"].as_i64().unwrap()
    }

    /// The value of a sample in `/metrics`; `series` is its name with labels as they stand there.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// The log so far, each line parsed; a line that isn't JSON fails the test.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    /// The first log line that satisfies `wanted`.
    pub async fn wait_for_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, LIMIT, async || self.log().iter().any(&wanted)).await.unwrap();
        self.log().into_iter().find(wanted).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the service runs")
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the process to end by itself; then the log is complete.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.expect("the service ends").unwrap();
        tokio::time::timeout(LIMIT, &mut self.reader).await.expect("its output ends").unwrap();
        status
    }
}

/// Sends a process a signal by name.
pub fn signal(process: u32, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}
