//! A TCP proxy on loopback that can be told to break: swallow the answers, hold everything back, carry slowly, reset, refuse.
//! Holds: at most [`CONNECTIONS_MAX`] connections, a fixed buffer for each direction; all end with the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

const CONNECTIONS_MAX: usize = 1024;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Pass,
    /// What the server says is dropped. A connection that has lost something stays deaf for ever, as one whose way
    /// back is gone; only connections made later can hear again.
    SwallowAnswers,
    /// Nothing goes either way, and nothing is lost.
    Stall,
    /// So many bytes a second each way, of all connections together.
    Throttle(u32),
    /// Connections are taken and closed at once.
    Refuse,
}

/// See the module. It listens on a port of its own, which stays the same.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _ends_with: DropGuard,
}

struct Shared {
    server: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts how often every connection was reset.
    resets: watch::Sender<u64>,
    /// Held by whoever uses the slow line.
    lines: [tokio::sync::Mutex<()>; 2],
    open: AtomicUsize,
    accepted: AtomicU64,
    end: CancellationToken,
}

impl Proxy {
    /// In front of `server`, on a free port, passing everything.
    pub async fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, server)
    }

    /// The same on a port that is known before, which a broker may have to announce as its own.
    pub async fn start_at(port: u16, server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Self::serve(listener, server)
    }

    /// The same on any address of this machine: as an address that its name no longer leads to.
    pub async fn start_on(address: SocketAddr, server: SocketAddr) -> Proxy {
        Self::serve(TcpListener::bind(address).await.unwrap(), server)
    }

    fn serve(listener: TcpListener, server: SocketAddr) -> Proxy {
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            server,
            mode: watch::Sender::new(Mode::Pass),
            resets: watch::Sender::new(0),
            lines: Default::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            end: end.clone(),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Proxy { address, shared, _ends_with: end.drop_guard() }
    }

    /// Everything passes, on connections that lost nothing.
    pub fn pass(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// Accepts and passes on what the client says; what the server says is dropped.
    pub fn swallow_answers(&self) {
        self.shared.mode.send_replace(Mode::SwallowAnswers);
    }

    /// Holds everything back until `pass`.
    pub fn stall(&self) {
        self.shared.mode.send_replace(Mode::Stall);
    }

    /// Carries at most so many bytes a second each way, of all connections together.
    pub fn throttle(&self, bytes_per_s: u32) {
        self.shared.mode.send_replace(Mode::Throttle(bytes_per_s));
    }

    /// Closes what is open, and every new connection at once.
    pub fn refuse(&self) {
        self.shared.mode.send_replace(Mode::Refuse);
        self.reset_all();
    }

    /// Breaks what is open now: both ends are told by a reset (RST), as by a router that has forgotten them.
    pub fn reset_all(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    /// Connections taken since the start.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = shared.end.cancelled() => return,
        };
        let Ok((client, _)) = taken else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let refuses = *shared.mode.borrow() == Mode::Refuse;
        if refuses || shared.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connection(client, &shared).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection(client: TcpStream, shared: &Shared) {
    let mut resets = shared.resets.subscribe();
    let Ok(server) = TcpStream::connect(shared.server).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = carry(&mut from_client, &mut to_server, shared, false);
    let answering = carry(&mut from_server, &mut to_client, shared, true);
    tokio::select! {
        () = async { tokio::join!(asking, answering); } => {}
        _ = resets.changed() => {
            let _ = to_client.as_ref().set_zero_linger();
            let _ = to_server.as_ref().set_zero_linger();
            // Whoever is dropped says goodbye first.
            to_client.forget();
            to_server.forget();
        }
        () = shared.end.cancelled() => {}
    }
}

/// Carries one direction until it ends, and passes the end on.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    is_answer: bool,
) {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut is_deaf = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        let now = *mode.borrow();
        if let Mode::Throttle(bytes_per_s) = now {
            let _alone = shared.lines[usize::from(is_answer)].lock().await;
            let took = Duration::from_secs_f64(read as f64 / f64::from(bytes_per_s));
            // Whoever is on the way when the throttling ends need not wait for it.
            let _ = timeout(took, mode.wait_for(|mode| *mode != now)).await;
        }
        is_deaf |= is_answer && now == Mode::SwallowAnswers;
        if !is_deaf && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // Whoever hears nothing does not hear the end either.
    if !is_deaf {
        let _ = to.shutdown().await;
    }
}

#[tokio::test]
async fn the_proxy_does_what_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    async fn echoes(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 4];
        stream.write_all(b"ping").await.unwrap();
        let read = stream.read_exact(&mut answer);
        matches!(tokio::time::timeout(Duration::from_millis(300), read).await, Ok(Ok(4)))
    }
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    assert!(echoes(&mut first).await, "it passes");
    proxy.stall();
    assert!(!echoes(&mut first).await, "nothing comes while it stalls");
    proxy.pass();
    let mut held = [0; 4];
    first.read_exact(&mut held).await.unwrap();
    assert!(echoes(&mut first).await, "and nothing was lost");
    proxy.swallow_answers();
    assert!(!echoes(&mut first).await, "an answer is swallowed");
    proxy.pass();
    assert!(!echoes(&mut first).await, "who lost something stays deaf");
    proxy.throttle(8);
    let mut slow = TcpStream::connect(proxy.address).await.unwrap();
    assert!(!echoes(&mut slow).await, "four bytes take half a second");
    proxy.pass();
    slow.read_exact(&mut held).await.unwrap();
    proxy.reset_all();
    let broken = slow.read(&mut held).await.expect_err("it is reset and not closed");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    assert!(echoes(&mut second).await, "a new connection hears");
    proxy.refuse();
    assert_eq!(second.read(&mut held).await.unwrap_or(0), 0, "what was open is closed");
    let mut third = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(third.read(&mut held).await.unwrap_or(0), 0, "what is new is closed");
    assert_eq!(proxy.accepted(), 4);
}
