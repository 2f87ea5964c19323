//! The number of metric series is bounded, whatever clients send.

use crate::support::{Connection, TestApp};

const REQUESTS: usize = 100_000;
/// Requests written at once on one connection.
const BATCH: usize = 100;
const CONNECTIONS: usize = 4;

/// Random enough, and the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn word(&mut self) -> String {
        format!("{:012x}", self.throw() & 0xffff_ffff_ffff)
    }
}

/// A request of a kind that its number says, with random words in it. All kinds are met within the first few hundred.
fn request(number: usize, dice: &mut Dice) -> String {
    let word = dice.word();
    let invented = format!("M{}", dice.word().to_uppercase());
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", invented.as_str()];
    let paths = [
        format!("/{word}"),
        format!("/{word}/{number}"),
        format!("/api/users/{word}x"),
        format!("/api/data/%20{word}"),
        format!("/api/cache/%20{word}"),
        format!("/docs/{word}"),
        format!("/health/{word}"),
        format!("/api/users?{word}=1&limit=x{word}"),
        format!("/%0A{word}%22"),
    ];
    let method = methods[number % methods.len()];
    let path = &paths[number / methods.len() % paths.len()];
    format!("{method} {path} HTTP/1.1\r\nhost: {word}\r\nuser-agent: {word}\r\nx-request-id: {word}\r\n\r\n")
}

async fn flood(app: &TestApp, requests: std::ops::Range<usize>) {
    let share = requests.len() / CONNECTIONS;
    let floods = (0..CONNECTIONS).map(|index| async move {
        let mut connection = Connection::open(app).await;
        let mut dice = Dice((requests.start + index) as u64);
        let mine = requests.start + index * share..requests.start + (index + 1) * share;
        for start in mine.step_by(BATCH) {
            let batch: String = (start..start + BATCH).map(|number| request(number, &mut dice)).collect();
            connection.send(batch).await;
            for _ in 0..BATCH {
                let answer = connection.receive("GET").await;
                assert!((400..500).contains(&answer.status), "{}", answer.status);
            }
        }
    });
    futures_util::future::join_all(floods).await;
}

async fn series(app: &TestApp) -> usize {
    app.get("/metrics").await.text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_paths_and_methods_add_a_constant_number_of_series() {
    // The lines of so many requests are not what is tested.
    let app = TestApp::builder().env("LOG_LEVEL", "info,access=off").start().await;
    flood(&app, 0..REQUESTS / 10).await;
    // The first scrape makes the series of scrapes.
    series(&app).await;
    let after_a_tenth = series(&app).await;
    flood(&app, REQUESTS / 10..REQUESTS).await;
    assert_eq!(series(&app).await, after_a_tenth);
    let answered = app.get("/metrics").await.text;
    let counted: f64 = answered
        .lines()
        .filter(|line| line.starts_with("http_requests_total{") && line.contains("http_response_status_code=\"4"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!(counted >= REQUESTS as f64, "{counted}");
}
