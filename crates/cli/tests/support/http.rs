//! Requests to a server, and what comes back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, Body};

use super::server::PATIENCE;

/// An answer that has come whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    fn read(response: Response<Body>) -> Result<Answer, ureq::Error> {
        let (head, mut body) = response.into_parts();
        let body = body.read_to_string()?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// Its body, where it succeeded.
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The error it must be.
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        let error = &body["error"];
        for field in ["message", "type", "param", "code"] {
            assert!(error.get(field).is_some(), "no {field}: {}", self.body);
        }
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.body);
        error.clone()
    }
}

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    address: String,
    key: Option<String>,
}

impl Client {
    pub(crate) fn new(address: &str) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections(0)
            .build();
        Client { agent: config.into(), address: address.to_owned(), key: None }
    }

    /// The same with a key.
    pub(crate) fn with_key(&self, key: &str) -> Client {
        Client { key: Some(key.to_owned()), ..self.clone() }
    }

    /// GET, whatever comes.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer = request.call().and_then(Answer::read);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Any request, and all bytes of what comes.
    pub(crate) fn fetch(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match method {
            "GET" | "HEAD" | "DELETE" => self.agent.run(request.body(()).expect("a request")),
            _ => self.agent.run(request.body(body).expect("a request")),
        };
        let (head, mut body) =
            response.unwrap_or_else(|error| panic!("{method} {path}: {error}")).into_parts();
        let bytes = body.read_to_vec().unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        (head.status.as_u16(), head.headers, bytes)
    }

    /// DELETE, whatever comes.
    pub(crate) fn delete(&self, path: &str) -> Answer {
        let mut request = self.agent.delete(format!("{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer = request.call().and_then(Answer::read);
        answer.unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }

    fn send(&self, path: &str, body: &[u8]) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.header("content-type", "application/json").send(body)
    }

    /// POST of any bytes, whatever comes.
    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        let answer = self.send(path, body).and_then(Answer::read);
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// POST of JSON, whatever comes.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// POST of JSON to a server that may not be there any more, or may not take it all.
    pub(crate) fn try_post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.send(path, body.to_string().as_bytes()).and_then(Answer::read).ok()
    }

    /// POST of JSON, answered as a stream of events. Dropping it closes the connection.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Stream {
        let response = self.send(path, body.to_string().as_bytes()).expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        Stream { lines: BufReader::new(Box::new(response.into_body().into_reader())) }
    }

    /// A count of `/metrics`, all models together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    }

    /// Waits until a count has this value: it is that of the last step, or is told after the answer it belongs to.
    pub(crate) fn wait_for(&self, name: &str, wanted: f64) {
        let begin = Instant::now();
        while self.metric(name) != wanted {
            assert!(begin.elapsed() < PATIENCE, "{name} is {}, not {wanted}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the first model is loaded.
    pub(crate) fn wait_until_ready(&self) {
        let begin = Instant::now();
        while self.get("/ready").status != 200 {
            assert!(begin.elapsed() < PATIENCE, "never ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A connection on which nothing has been said.
    pub(crate) fn connect(&self) -> TcpStream {
        // Where the server listens to all addresses, this machine has one of them.
        let address = self.address.trim_start_matches("http://").replace("0.0.0.0", "127.0.0.1");
        let connection = TcpStream::connect(address).expect("a server");
        connection.set_read_timeout(Some(PATIENCE)).expect("a time");
        connection
    }

    /// Sends these bytes, and leaves after a while without having read anything.
    pub(crate) fn leave_after(&self, bytes: &str, a_while: impl FnOnce()) {
        let mut connection = self.connect();
        connection.write_all(bytes.as_bytes()).expect("sent");
        a_while();
    }

    /// What a server says to these bytes, on a connection of its own.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect();
        // It may be closed before all has been sent, which what was said then shows.
        let _ = connection.write_all(bytes);
        let mut answer = Vec::new();
        // A connection that is closed with bytes unread ends with an error, after what was said.
        let _ = connection.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Events as they come.
pub(crate) struct Stream {
    lines: BufReader<Box<dyn Read>>,
}

impl Stream {
    /// The next line that says something, comments included; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("a line") == 0 {
                return None;
            }
            let line = line.trim_end();
            if !line.is_empty() {
                return Some(line.to_owned());
            }
        }
    }

    /// The next event's data; `None` at the end.
    pub(crate) fn event(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            match line.strip_prefix("data: ") {
                Some("[DONE]") | None => {}
                Some(data) => return Some(serde_json::from_str(data).expect("JSON")),
            }
        }
    }

    /// All the rest.
    pub(crate) fn events(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.event()).collect()
    }
}
