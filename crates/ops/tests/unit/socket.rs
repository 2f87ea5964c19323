//! What is said to the balancer, and what comes of half an answer.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::balancer::{BalancerArgs, Haproxy};
use crate::deploy::parts::{Balancer, Change};
use crate::exit::Exit;

const STATE: &str = "1\n# be_id be_name\n3 service 1 blue1\n\n";

fn changes() -> [Change; 5] {
    let slot = || "blue1".to_owned();
    [
        Change::Weight(slot(), 7),
        Change::Ready(slot()),
        Change::Drain(slot()),
        Change::Maint(slot()),
        Change::Cut(slot()),
    ]
}

/// A socket on which one question after the other gets one of these answers, and no more.
struct Listening {
    folder: TempDir,
    answers: Vec<&'static str>,
}

impl Listening {
    fn new(answers: &[&'static str]) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), answers: answers.to_vec() }
    }

    /// Makes the changes; gives what came of it and all that was asked.
    async fn apply(&self, changes: &[Change]) -> (crate::exit::Result<()>, Vec<String>) {
        let path = self.folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let args = BalancerArgs { balancer: path, backend: "service".to_owned() };
        let haproxy = Haproxy::new(&args, Duration::from_secs(5));
        let serve = async {
            let mut asked = Vec::new();
            for answer in &self.answers {
                let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                asked.push(line);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        };
        tokio::join!(haproxy.apply(changes), serve)
    }

    fn kept(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join("servers.state")).ok()
    }
}

#[tokio::test]
async fn a_balancer_that_is_killed_while_it_is_told_something_is_told_again() {
    let whole = format!("\n\n{STATE}");
    for half in ["", "\n", "\n\n", "\n\n1\n# be_id be_name\n3 serv"] {
        let socket = Listening::new(&[half, whole.clone().leak()]);
        let (applied, asked) = socket.apply(&changes()[..2]).await;
        applied.unwrap();
        assert_eq!(asked[0], asked[1], "after {half:?}");
        assert_eq!(socket.kept().as_deref(), Some(STATE), "after {half:?}");
    }
}

#[tokio::test]
async fn what_the_balancer_refuses_is_said_and_its_state_is_not_kept() {
    let answer = format!("No such server.\n\n{STATE}");
    let socket = Listening::new(&[answer.leak()]);
    let failure = socket.apply(&changes()[..1]).await.0.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.ends_with(": No such server."), "{failure}");
    assert_eq!(socket.kept(), None);
}

/// A reload forgets servers that were added at run time.
#[tokio::test]
async fn slots_are_changed_but_never_added_or_deleted() {
    let answer = format!("\n\n\n\n\n{STATE}");
    let (applied, asked) = Listening::new(&[answer.leak()]).apply(&changes()).await;
    applied.unwrap();
    let expected = "set server service/blue1 weight 7;set server service/blue1 state ready;\
                    set server service/blue1 state drain;set server service/blue1 state maint;\
                    shutdown sessions server service/blue1;show servers state\n";
    assert_eq!(asked, [expected]);
}
