use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{LIMIT, TestApp};

/// A kept connection that carries any bytes, also those that no client library would send.
pub struct Connection(BufReader<TcpStream>);

/// An answer, byte by byte.
pub struct RawAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Connection {
    pub async fn open(app: &TestApp) -> Self {
        let address = app.url.strip_prefix("http://").unwrap();
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next answer; `method` is that of its request, since an answer to HEAD has no body.
    pub async fn receive(&mut self, method: &str) -> RawAnswer {
        tokio::time::timeout(LIMIT, self.read_answer(method)).await.expect("an answer comes")
    }

    async fn read_answer(&mut self, method: &str) -> RawAnswer {
        let status_line = self.line().await;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not an answer: {status_line:?}"));
        let mut answer = RawAnswer { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            answer.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if method != "HEAD" && answer.header("transfer-encoding") == "chunked" {
            loop {
                let length = usize::from_str_radix(self.line().await.trim(), 16).unwrap();
                let mut chunk = vec![0; length];
                self.0.read_exact(&mut chunk).await.unwrap();
                answer.body.extend(chunk);
                self.line().await;
                if length == 0 {
                    break;
                }
            }
        } else if method != "HEAD" {
            answer.body = vec![0; answer.header("content-length").parse().unwrap_or(0)];
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        answer
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}
