//! An ingress on a port of its own over a real journal, with small test dialects, and a client that speaks raw bytes.

use bytes::Bytes;
use hookbus::config::{OneOrMany, Secret};
use hookbus::dead_letter::{self, DeadLetters};
use hookbus::envelope::{Data, Envelope, SourceName};
use hookbus::ingress::{self, Captures, Endpoint, Ingress, Parts, PassedSockets};
use hookbus::journal::{self, CursorSpec, Journal, RealDisk};
use hookbus::router::Router;
use hookbus::shutdown::{Phase, Shutdown};
use hookbus::source::{
    self, Answer, ConfiguredSource, Head, OnUnreadable, Refused, Request, Source, Unreadable,
};
use http::Method;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest any test waits for what must happen.
pub const SOON: Duration = Duration::from_secs(20);

/// A dialect of lines: every line of the body is an event whose id is the line. `bad` is unreadable, nothing is no
/// event, and XML is a media type it does not take.
pub struct Lines {
    pub token: Option<&'static str>,
    pub answer: Answer,
    pub on_unreadable: OnUnreadable,
}

impl Default for Lines {
    fn default() -> Self {
        Lines { token: None, answer: Answer::Identities, on_unreadable: OnUnreadable::Reject }
    }
}

impl Source for Lines {
    fn methods(&self) -> &'static [Method] {
        &[Method::POST, Method::PUT]
    }
    fn has_credential(&self) -> bool {
        self.token.is_some()
    }
    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused> {
        let Some(token) = self.token else { return Ok(()) };
        let sent = head.headers.get("x-token").ok_or(Refused::Missing)?;
        if sent.as_bytes() == token.as_bytes() { Ok(()) } else { Err(Refused::Wrong) }
    }
    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        if request.head.headers.get("content-type").is_some_and(|media_type| media_type == "application/xml")
        {
            return Err(Unreadable::MediaType);
        }
        if request.body.starts_with(b"bad") {
            return Err(Unreadable::NotJson);
        }
        let lines = request.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| event(request.body.slice_ref(line))).collect())
    }
    fn answer(&self) -> Answer {
        self.answer
    }
    fn on_unreadable(&self) -> OnUnreadable {
        self.on_unreadable
    }
}

fn event(line: Bytes) -> Envelope {
    Envelope {
        id: String::from_utf8_lossy(&line).into_owned(),
        source: "//test".into(),
        event_type: "line".into(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Default::default(),
        data: Data::Binary(line),
    }
}

/// A dialect that takes anything; the event's id is the sender as the source sees it: address, scheme, authority, names.
pub struct Who;

impl Source for Who {
    fn methods(&self) -> &'static [Method] {
        &[Method::POST]
    }
    fn has_credential(&self) -> bool {
        false
    }
    fn authenticate(&self, _: &Head<'_>) -> Result<(), Refused> {
        Ok(())
    }
    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let peer = request.head.peer;
        let names = peer.certificate_names.join("+");
        let address = peer.address.map_or_else(|| "nobody".to_owned(), |address| address.to_string());
        let id = format!("{address} {} {} {names}", peer.scheme, peer.authority);
        Ok(vec![Envelope { id: id.trim_end().to_owned(), ..event(request.body.clone()) }])
    }
    fn answer(&self) -> Answer {
        Answer::Identities
    }
    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Reject
    }
}

/// The source `who`, which answers with what it sees of its sender.
pub fn who() -> ConfiguredSource {
    let name = SourceName::new("who").unwrap();
    ConfiguredSource::new(name, source::Config::default(), "who", Arc::new(Who))
}

/// What the source `who` has answered.
pub fn seen(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"));
    body["id"].as_str().unwrap().to_owned()
}

/// A source with a dialect and common keys.
pub fn source(name: &str, dialect: Lines, config: source::Config) -> ConfiguredSource {
    let name = SourceName::new(name).unwrap();
    ConfiguredSource::new(name, config, "lines", Arc::new(dialect))
}

/// Common keys with path secrets.
pub fn with_path_secret(secret: &str) -> source::Config {
    source::Config { path_secret: Some(OneOrMany::one(Secret::literal(secret))), ..source::Config::default() }
}

/// A running ingress and everything below it.
pub struct Rig {
    /// The first address with a port.
    pub address: SocketAddr,
    pub endpoints: Vec<Endpoint>,
    pub journal: Journal,
    pub dead_letters: DeadLetters,
    pub shutdown: Shutdown,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// With a source `open` that takes anything, and default bounds.
    pub async fn plain() -> Rig {
        Rig::with(
            ingress::Config::default(),
            vec![source("open", Lines::default(), source::Config::default())],
        )
        .await
    }
    /// On any free port, where `config` says nothing else.
    pub async fn with(config: ingress::Config, sources: Vec<ConfiguredSource>) -> Rig {
        Rig::over(config, sources, journal::Config::default(), Router::default()).await
    }
    pub async fn over(
        config: ingress::Config,
        sources: Vec<ConfiguredSource>,
        journal: journal::Config,
        router: Router,
    ) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let cursor = CursorSpec { name: "all".into(), sheddable: false };
        let disk = Arc::new(RealDisk);
        let journal = Journal::open(&journal, &directory.path().join("journal"), disk, &[cursor]).unwrap();
        let letters = directory.path();
        let dead_letters = DeadLetters::open(&dead_letter::Config::default(), letters, &shutdown).unwrap();
        let sources = sources.into_iter().map(|source| (source.name.clone(), source)).collect();
        let parts = Parts {
            captures: Captures::of(&sources, &shutdown),
            sources,
            journal: journal.clone(),
            dead_letters: dead_letters.clone(),
            router,
            sockets: PassedSockets::default(),
        };
        // Any free port, except where a test says where to listen.
        let listen = match config.listen == ingress::Config::default().listen {
            true => OneOrMany::one(SocketAddr::from(([127, 0, 0, 1], 0)).into()),
            false => config.listen,
        };
        let ingress = Ingress::start(ingress::Config { listen, ..config }, parts, &shutdown).await.unwrap();
        let address = ingress.address().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        Rig { address, endpoints: ingress.endpoints, journal, dead_letters, shutdown, _directory: directory }
    }
    /// A connection to it.
    pub async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }
    /// One request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await.expect("an answer")
    }
    /// The ids of all events in the journal, in order.
    pub async fn ids(&self) -> Vec<String> {
        let mut feed = self.journal.feed("all").expect("asked for once");
        let mut ids = Vec::new();
        while (ids.len() as u64) < self.journal.status().records {
            let entries = feed.next(1000, usize::MAX).await.unwrap();
            ids.extend(entries.iter().map(|entry| Envelope::decode(&entry.payload).unwrap().id));
        }
        ids
    }
    /// Stops the ingress and waits until it has stopped.
    pub async fn stop_ingress(&self) {
        tokio::time::timeout(SOON, self.shutdown.stop(Phase::Ingress)).await.expect("the ingress stops");
    }
}

/// A POST of `body` with more header lines.
pub fn post(path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

/// A raw connection: TCP, or whatever stands on it.
pub struct Client<S = TcpStream> {
    pub tcp: S,
    received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(tcp: S) -> Client<S> {
        Client { tcp, received: Vec::new() }
    }
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).await.unwrap();
    }
    /// The next answer; `None` where the connection ends before one.
    pub async fn reply(&mut self) -> Option<Reply> {
        tokio::time::timeout(SOON, self.next_reply()).await.expect("an answer or an end, soon").unwrap()
    }
    /// As [`Client::reply`], with what the system says where the connection was reset.
    pub async fn next_reply(&mut self) -> std::io::Result<Option<Reply>> {
        loop {
            if let Some((reply, length)) = Reply::parse(&self.received) {
                self.received.drain(..length);
                return Ok(Some(reply));
            }
            if self.tcp.read_buf(&mut self.received).await? == 0 {
                assert!(self.received.is_empty(), "half an answer");
                return Ok(None);
            }
        }
    }
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
        let head_length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..head_length].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        let body_length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        let body = bytes.get(head_length..head_length + body_length)?;
        reply.body = String::from_utf8(body.to_vec()).unwrap();
        Some((reply, head_length + body_length))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
    /// The problem's name.
    pub fn problem(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let name = body["type"].as_str().and_then(|uri| uri.strip_prefix("urn:hookbus:problem:"));
        name.unwrap_or_default().to_owned()
    }
}

/// Waits until `condition` holds.
pub async fn eventually(sentence: &str, mut condition: impl FnMut() -> bool) {
    let mut often = tokio::time::interval(Duration::from_millis(5));
    let holds = async {
        while !condition() {
            often.tick().await;
        }
    };
    tokio::time::timeout(SOON, holds).await.unwrap_or_else(|_| panic!("{sentence}"));
}
