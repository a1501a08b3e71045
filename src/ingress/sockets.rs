//! The listening sockets: binds every address of the configuration, and hands out connections from all of them in turn.
//! Holds: no address starves another; the file of a Unix socket is taken over only where nobody listens there any more,
//! and removed only where it is still ours.

use super::address::{Address, Endpoint, Written, read_written};
use super::passed::{PassedListener, PassedSockets};
use super::stream::Wire;
use rustix::fs::{FileType, Mode, chmod, lstat, unlink};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

/// How many connections to a Unix socket the system keeps until they are accepted; it may keep fewer (`somaxconn`).
const UNIX_BACKLOG: u32 = 1024;

/// Who may connect to a Unix socket: permission bits in octal, `"0660"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(into = "String")]
pub struct SocketMode(u32);

/// Why a text is no mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {}", SocketMode::EXPECTED)]
pub struct InvalidMode;

impl Written for SocketMode {
    const EXPECTED: &'static str = "three octal digits after a zero, in quotes, such as \"0660\"";
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_written(deserializer)
    }
}

impl Default for SocketMode {
    fn default() -> Self {
        SocketMode(0o660)
    }
}

impl FromStr for SocketMode {
    type Err = InvalidMode;
    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        let is_octal = text.len() == 4 && text.starts_with('0');
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
        bits.map(SocketMode).ok_or(InvalidMode)
    }
}

impl From<SocketMode> for String {
    fn from(mode: SocketMode) -> String {
        format!("{:04o}", mode.0)
    }
}

/// One bound address.
struct Socket {
    /// Dropped, and so removed, before the socket is closed: as long as it listens, nobody takes the path over.
    file: Option<SocketFile>,
    listener: Either<TcpListener, UnixListener>,
    speaks_tls: bool,
}

/// A connection as it was accepted.
pub(super) struct Accepted {
    pub(super) wire: Wire,
    /// Who connected; loopback for a Unix socket, whose other end is on this machine.
    pub(super) from: IpAddr,
    /// What the address that was connected to speaks.
    pub(super) speaks_tls: bool,
}

/// All bound addresses.
pub(super) struct Sockets {
    sockets: Vec<Socket>,
    /// Who is asked first next time.
    turn: usize,
}

impl Sockets {
    /// Binds all or none, and takes those of `passed` that are named; also says where they are, since a port may have
    /// been 0.
    ///
    /// # Errors
    /// The first address that is not to be had, and why.
    pub(super) async fn bind(
        endpoints: &[Endpoint],
        mode: SocketMode,
        passed: &PassedSockets,
    ) -> Result<(Sockets, Vec<Endpoint>), (Address, io::Error)> {
        let (mut sockets, mut bound) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let opened = Socket::open(endpoint, mode, passed).await;
            for (socket, address) in opened.map_err(|error| (endpoint.address.clone(), error))? {
                bound.push(Endpoint { address, speaks_tls: socket.speaks_tls });
                sockets.push(socket);
            }
        }
        if let Some(name) = passed.left().pop() {
            let problem =
                "it was passed, and no address of the ingress names it: nobody would ever be served there";
            return Err((Address::Passed(name), io::Error::new(io::ErrorKind::InvalidInput, problem)));
        }
        Ok((Sockets { sockets, turn: 0 }, bound))
    }

    /// The next connection to any address.
    ///
    /// # Errors
    /// What accept(2) says.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        poll_fn(|cx| {
            for _ in 0..self.sockets.len() {
                let socket = &self.sockets[self.turn % self.sockets.len()];
                self.turn = (self.turn + 1) % self.sockets.len();
                if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Hands out the connections that the system has accepted and nobody has taken, as long as there is a `place` for
    /// one, and closes the sockets: closing them first would reset those connections.
    ///
    /// # Errors
    /// The first that accept(2) gave; connections to that address may have been reset.
    pub(super) fn drain<P>(
        self,
        mut place: impl FnMut() -> Option<P>,
        mut serve: impl FnMut(Accepted, P),
    ) -> io::Result<()> {
        let drained = self.sockets.into_iter().map(|socket| socket.drain(&mut place, &mut serve));
        drained.fold(Ok(()), io::Result::and)
    }
}

/// The address of whoever is at the other end of a Unix socket.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Socket {
    async fn open(
        endpoint: &Endpoint,
        mode: SocketMode,
        passed: &PassedSockets,
    ) -> io::Result<Vec<(Socket, Address)>> {
        let speaks_tls = endpoint.speaks_tls;
        match &endpoint.address {
            Address::Tcp(address) => {
                let tcp = TcpListener::bind(address).await?;
                let address = Address::Tcp(tcp.local_addr()?);
                Ok(vec![(Socket { file: None, listener: Either::Left(tcp), speaks_tls }, address)])
            }
            Address::Unix(path) => {
                let (unix, file) = bind_unix(path, mode).await?;
                let listener = Either::Right(unix);
                Ok(vec![(Socket { file: Some(file), listener, speaks_tls }, endpoint.address.clone())])
            }
            Address::Passed(name) => {
                passed.take(name)?.into_iter().map(|one| Socket::of_passed(one, endpoint)).collect()
            }
        }
    }

    /// Its file, where it has one, belongs to who made it.
    fn of_passed(listener: PassedListener, endpoint: &Endpoint) -> io::Result<(Socket, Address)> {
        match listener {
            Either::Left(tcp) => {
                tcp.set_nonblocking(true)?;
                let address = Address::Tcp(tcp.local_addr()?);
                let listener = Either::Left(TcpListener::from_std(tcp)?);
                Ok((Socket { file: None, listener, speaks_tls: endpoint.speaks_tls }, address))
            }
            Either::Right(unix) => {
                unix.set_nonblocking(true)?;
                let path = unix.local_addr()?.as_pathname().map(Path::to_owned);
                let address = path.map_or_else(|| endpoint.address.clone(), Address::Unix);
                let listener = Either::Right(UnixListener::from_std(unix)?);
                Ok((Socket { file: None, listener, speaks_tls: false }, address))
            }
        }
    }

    fn drain<P>(
        self,
        place: &mut impl FnMut() -> Option<P>,
        serve: &mut impl FnMut(Accepted, P),
    ) -> io::Result<()> {
        let Socket { file, listener, speaks_tls } = self;
        // From here on nobody else finds the way to a Unix socket.
        drop(file);
        let accept: Box<dyn Fn() -> io::Result<(Wire, IpAddr)>> = match listener {
            Either::Left(tcp) => {
                let listener = tcp.into_std()?;
                Box::new(move || {
                    let (stream, from) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Either::Left(TcpStream::from_std(stream)?), from.ip()))
                })
            }
            Either::Right(unix) => {
                let listener = unix.into_std()?;
                Box::new(move || {
                    let (stream, _unnamed) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Either::Right(UnixStream::from_std(stream)?), LOCAL))
                })
            }
        };
        while let Some(place) = place() {
            match accept() {
                Ok((wire, from)) => serve(Accepted { wire, from, speaks_tls }, place),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let speaks_tls = self.speaks_tls;
        match &self.listener {
            Either::Left(tcp) => tcp.poll_accept(cx).map_ok(|(tcp, from)| Accepted {
                wire: Either::Left(tcp),
                from: from.ip(),
                speaks_tls,
            }),
            Either::Right(unix) => unix.poll_accept(cx).map_ok(|(unix, _unnamed)| Accepted {
                wire: Either::Right(unix),
                from: LOCAL,
                speaks_tls,
            }),
        }
    }
}

/// Such errors come from the network and say nothing about the next connection (accept(2)).
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}

// === The file of a Unix socket

/// The file that we made for a socket.
struct SocketFile {
    path: PathBuf,
    /// Device and inode, by which we know it again.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Whoever starts next takes a file that is left over.
            let _ = unlink(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let stat = lstat(path)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The mode is set before anybody can connect: nobody can until the socket listens.
async fn bind_unix(path: &Path, mode: SocketMode) -> io::Result<(UnixListener, SocketFile)> {
    let mut socket = UnixSocket::new_stream()?;
    if let Err(error) = socket.bind(path) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path).await?;
        socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
    }
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    chmod(path, Mode::from_raw_mode(mode.0))?;
    Ok((socket.listen(UNIX_BACKLOG)?, file))
}

/// Removes what a process that was killed has left; whatever else is there stays, a symbolic link too.
async fn remove_stale(path: &Path) -> io::Result<()> {
    if FileType::from_raw_mode(lstat(path)?.st_mode) != FileType::Socket {
        let problem = "there is a file of that name, and it is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(unlink(path)?),
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> PassedSockets {
        PassedSockets::default()
    }

    fn at(path: &Path) -> Endpoint {
        Endpoint { address: Address::Unix(path.to_owned()), speaks_tls: false }
    }

    #[test]
    fn a_mode_is_octal() {
        let read = |text: &str| text.parse::<SocketMode>();
        assert_eq!(read("0660"), Ok(SocketMode::default()));
        assert_eq!(String::from(SocketMode::default()), "0660");
        for text in ["", "660", "0668", "00660", "1777", "0+66", "rw-"] {
            assert_eq!(read(text), Err(InvalidMode), "{text}");
        }
    }

    #[test]
    fn only_errors_of_one_connection_are_passed_over_without_a_pause() {
        const ECONNABORTED: i32 = 103;
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        const ENOBUFS: i32 = 105;
        for (errno, one_connection) in
            [(ECONNABORTED, true), (EMFILE, false), (ENFILE, false), (ENOBUFS, false)]
        {
            assert_eq!(
                concerns_one_connection(&io::Error::from_raw_os_error(errno)),
                one_connection,
                "{errno}"
            );
        }
    }

    #[tokio::test]
    async fn a_left_over_socket_is_taken_over_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that is killed leaves its file");
        let (sockets, bound) = Sockets::bind(&[at(&path)], SocketMode(0o600), &none()).await.unwrap();
        assert_eq!(bound, [at(&path)]);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let (_, error) = Sockets::bind(&[at(&path)], SocketMode::default(), &none()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(!path.exists(), "the file goes with the socket");
    }

    #[tokio::test]
    async fn what_is_no_socket_or_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        let (address, error) =
            Sockets::bind(&[at(&path)], SocketMode::default(), &none()).await.err().unwrap();
        assert_eq!((address, error.kind()), (at(&path).address, io::ErrorKind::AlreadyExists));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let link = directory.path().join("link.sock");
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("left over")).unwrap());
        std::os::unix::fs::symlink("left over", &link).unwrap();
        let (_, error) = Sockets::bind(&[at(&link)], SocketMode::default(), &none()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(link.is_symlink(), "somebody has made this link on purpose");
        std::fs::remove_file(&path).unwrap();

        let (ours, _) = Sockets::bind(&[at(&path)], SocketMode::default(), &none()).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let (_theirs, _) = Sockets::bind(&[at(&path)], SocketMode::default(), &none()).await.unwrap();
        drop(ours);
        assert!(path.exists(), "another process has made this one");
    }

    #[tokio::test]
    async fn every_address_gets_its_turn() {
        let endpoint = Endpoint { address: "127.0.0.1:0".parse().unwrap(), speaks_tls: false };
        let other = Endpoint { speaks_tls: true, ..endpoint.clone() };
        let (mut sockets, bound) =
            Sockets::bind(&[endpoint, other], SocketMode::default(), &none()).await.unwrap();
        let mut waiting = Vec::new();
        for endpoint in [&bound[0], &bound[0], &bound[0], &bound[1]] {
            waiting.push(TcpStream::connect(endpoint.address.tcp().unwrap()).await.unwrap());
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(sockets.accept().await.unwrap().speaks_tls);
        }
        assert!(order[..3].contains(&true), "{order:?}");
    }

    #[tokio::test]
    async fn the_last_connections_are_taken_from_every_address_and_nobody_finds_a_file_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let tcp = Endpoint { address: "127.0.0.1:0".parse().unwrap(), speaks_tls: false };
        let (sockets, _) = Sockets::bind(&[tcp, at(&path)], SocketMode::default(), &none()).await.unwrap();
        let Either::Left(first) = &sockets.sockets[0].listener else { panic!("it is TCP") };
        // Its accept(2) fails from here on.
        let broken = std::os::fd::AsFd::as_fd(first).try_clone_to_owned().unwrap();
        std::net::TcpStream::from(broken).shutdown(std::net::Shutdown::Both).unwrap();
        let _waiting = UnixStream::connect(&path).await.unwrap();
        let mut taken = 0;
        let drained = sockets.drain(
            || Some(()),
            |_, ()| {
                taken += 1;
                assert!(!path.exists());
            },
        );
        assert!(drained.is_err(), "what happened at the first address is said");
        assert_eq!(taken, 1);
    }
}
