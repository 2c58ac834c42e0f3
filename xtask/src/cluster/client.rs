//! What the cluster asks of a node over HTTP. The node's API is known only here.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use data_encoding::BASE64;
use serde::Deserialize;
use ureq::Agent;

use super::tally::Hash;

/// The topic every node of a cluster subscribes to.
const TOPIC: &str = "cluster";

/// A loopback request takes milliseconds; this only ends one to a node that hangs.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Asked again at least this often while a node says it is busy: its `Retry-After` counts in whole seconds.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("answered {status}: {body}")]
    Status { status: u16, body: String },
    #[error("sent what cannot be read as {what}")]
    Malformed { what: &'static str },
}

/// Answer to a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// Its lanes are full: ask again after this long.
    Busy(Duration),
}

/// One thing a subscription says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    Subscribed,
    Message { id: String, hash: Hash },
    Lagged { missed: u64 },
}

/// Counters of a node, where it has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) duplicates: Option<u64>,
    pub(crate) bytes_in: Option<u64>,
    pub(crate) bytes_out: Option<u64>,
}

/// One node's API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    api: String,
    metrics: String,
}

impl Client {
    pub(crate) fn new(api: &str, metrics: &str) -> Self {
        let config =
            Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(REQUEST_LIMIT)).build();
        Self { agent: config.into(), api: api.trim_end_matches('/').to_owned(), metrics: metrics.to_owned() }
    }

    /// How many peers the node has.
    pub(crate) fn peers(&self) -> Result<usize, ClientError> {
        let body = self.get(&format!("{}/v1/peers", self.api))?;
        let peers: Vec<serde::de::IgnoredAny> =
            serde_json::from_str(&body).map_err(|_| ClientError::Malformed { what: "a list of peers" })?;
        Ok(peers.len())
    }

    pub(crate) fn publish(&self, payload: &[u8]) -> Result<Answer, ClientError> {
        let url = format!("{}/v1/topics/{TOPIC}", self.api);
        let mut response = self.agent.post(&url).content_type("application/octet-stream").send(payload)?;
        let status = response.status().as_u16();
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.body_mut().read_to_string()?;
        match status {
            200 => Ok(Answer::Accepted),
            429 => Ok(Answer::Busy(seconds.map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT))),
            _ => Err(ClientError::Status { status, body }),
        }
    }

    /// Follows the topic until the node ends the stream; blocks meanwhile.
    pub(crate) fn subscribe(&self, mut each: impl FnMut(StreamEvent)) -> Result<(), ClientError> {
        let url = format!("{}/v1/topics/{TOPIC}", self.api);
        let request = self.agent.get(&url).config().timeout_global(None).build();
        let mut response = request.header("accept", "text/event-stream").call()?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(ClientError::Status { status, body: response.body_mut().read_to_string()? });
        }
        let mut stream = BufReader::with_capacity(1 << 16, response.into_body().into_reader());
        while let Some((name, data)) = next_event(&mut stream)? {
            if let Some(event) = read_event(&name, &data)? {
                each(event);
            }
        }
        Ok(())
    }

    pub(crate) fn counters(&self) -> Result<Counters, ClientError> {
        Ok(read_counters(&self.get(&self.metrics)?))
    }

    fn get(&self, url: &str) -> Result<String, ClientError> {
        let mut response = self.agent.get(url).call()?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string()?;
        if status == 200 { Ok(body) } else { Err(ClientError::Status { status, body }) }
    }
}

/// Reads one server-sent event: its name and its data. `None` at the end of the stream.
fn next_event(stream: &mut impl BufRead) -> io::Result<Option<(String, String)>> {
    let (mut name, mut data) = (String::new(), String::new());
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            if !name.is_empty() || !data.is_empty() {
                return Ok(Some((name, data)));
            }
        } else if let Some(value) = field(text, "event") {
            name = value.to_owned();
        } else if let Some(value) = field(text, "data") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(value);
        }
    }
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

/// Understands one event; unknown ones are skipped.
fn read_event(name: &str, data: &str) -> Result<Option<StreamEvent>, ClientError> {
    #[derive(Deserialize)]
    struct Message {
        id: String,
        bytes: String,
    }
    #[derive(Deserialize)]
    struct Lagged {
        missed: u64,
    }
    match name {
        "subscribed" => Ok(Some(StreamEvent::Subscribed)),
        "message" => {
            let malformed = ClientError::Malformed { what: "a message event" };
            let Ok(message) = serde_json::from_str::<Message>(data) else { return Err(malformed) };
            let Ok(bytes) = BASE64.decode(message.bytes.as_bytes()) else { return Err(malformed) };
            Ok(Some(StreamEvent::Message { id: message.id, hash: *blake3::hash(&bytes).as_bytes() }))
        }
        "lagged" => match serde_json::from_str::<Lagged>(data) {
            Ok(lagged) => Ok(Some(StreamEvent::Lagged { missed: lagged.missed })),
            Err(_) => Err(ClientError::Malformed { what: "a lagged event" }),
        },
        _ => Ok(None),
    }
}

fn read_counters(text: &str) -> Counters {
    let bytes = |direction| sum(text, "peerage_session_bytes_total", &format!("direction=\"{direction}\""));
    Counters {
        duplicates: sum(text, "peerage_gossip_duplicates_total", ""),
        bytes_in: bytes("in"),
        bytes_out: bytes("out"),
    }
}

/// The sum of a counter's series that carry `label`, in Prometheus text; `None` when there is no such series.
fn sum(text: &str, name: &str, label: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let carries = label.is_empty() || labels.split(',').any(|one| one.trim() == label);
        let value = value.split_whitespace().next()?.parse::<f64>().ok()?;
        carries.then_some(value as u64)
    };
    text.lines().filter_map(value).reduce(|left, right| left + right)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn events(text: &str) -> Vec<(String, String)> {
        let mut stream = text.as_bytes();
        std::iter::from_fn(|| next_event(&mut stream).expect("a slice can be read")).collect()
    }

    #[test]
    fn server_sent_events_are_cut_at_empty_lines_and_comments_are_skipped() {
        let text =
            ": hello\n\nevent: subscribed\ndata: {}\n\n: keep-alive\n\nevent:message\r\ndata:a\r\ndata: b\r\n\r\ncut";
        let expected = [("subscribed", "{}"), ("message", "a\nb")];
        assert_eq!(events(text), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn events_are_understood_and_nonsense_is_an_error() {
        assert_eq!(read_event("subscribed", "").ok(), Some(Some(StreamEvent::Subscribed)));
        let hash = *blake3::hash(b"hi").as_bytes();
        let message = read_event("message", r#"{"id":"ab","publisher":"p","from":null,"bytes":"aGk="}"#);
        assert_eq!(message.ok(), Some(Some(StreamEvent::Message { id: "ab".to_owned(), hash })));
        assert_eq!(read_event("lagged", r#"{"missed":3}"#).ok(), Some(Some(StreamEvent::Lagged { missed: 3 })));
        assert_eq!(read_event("weather", "fine").ok(), Some(None));
        assert!(read_event("message", r#"{"id":"ab","bytes":"?"}"#).is_err());
        assert!(read_event("lagged", "{}").is_err());
    }

    #[test]
    fn counters_are_summed_over_their_series_and_may_be_absent() {
        let text = "# TYPE peerage_session_bytes_total counter\n\
                    peerage_session_bytes_total{channel=\"1\",direction=\"in\"} 10\n\
                    peerage_session_bytes_total{channel=\"2\",direction=\"in\"} 5\n\
                    peerage_session_bytes_total{direction=\"out\",channel=\"1\"} 1e3\n\
                    peerage_session_bytes_total_other{direction=\"in\"} 99\n";
        let counters = read_counters(text);
        assert_eq!(counters, Counters { duplicates: None, bytes_in: Some(15), bytes_out: Some(1000) });
        assert_eq!(read_counters("peerage_gossip_duplicates_total 7\n").duplicates, Some(7));
    }

    /// Answers each connection with the next of `answers` and closes it.
    fn fake_node(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let server = thread::spawn(move || {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().expect("the client connects");
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    let count = socket.read(&mut chunk).expect("the request comes");
                    request.extend_from_slice(&chunk[..count]);
                }
                seen.push(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned());
                socket.write_all(answer.as_bytes()).expect("the answer goes");
            }
            seen
        });
        (url, server)
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn a_node_is_asked_published_to_and_followed() {
        let (url, server) = fake_node(vec![
            answer("200 OK", r#"[{"id":"a"},{"id":"b"}]"#),
            answer("429 Too Many Requests\r\nRetry-After: 1", ""),
            answer("200 OK", r#"{"id":"ab","peers":2}"#),
            answer("413 Payload Too Large", "too large"),
            answer(
                "200 OK",
                "event: subscribed\ndata: {}\n\nevent: message\ndata: {\"id\":\"ab\",\"bytes\":\"aGk=\"}\n\n",
            ),
        ]);
        let client = Client::new(&url, "http://127.0.0.1:1/metrics");
        assert_eq!(client.peers().ok(), Some(2));
        assert_eq!(client.publish(b"").ok(), Some(Answer::Busy(LONGEST_WAIT)));
        assert_eq!(client.publish(b"").ok(), Some(Answer::Accepted));
        assert!(matches!(client.publish(b""), Err(ClientError::Status { status: 413, .. })));
        let mut events = Vec::new();
        client.subscribe(|event| events.push(event)).expect("the stream ends in order");
        assert_eq!(events.len(), 2);
        assert!(client.counters().is_err(), "nobody listens there");
        let seen = server.join().expect("the fake node ends");
        assert_eq!(seen[0], "GET /v1/peers HTTP/1.1");
        assert_eq!(seen[1], "POST /v1/topics/cluster HTTP/1.1");
    }
}
