//! Sockets that a service manager opened before it started the daemon: the `systemd:NAME` of `ingress.listen`.
//! Such a socket outlives the daemon, so whoever connects during a restart waits and is not refused.
//! Holds: every socket that was passed is listened at or named in an error; a sender whom nobody will ever accept would
//! wait for ever.
//!
//! The protocol is sd_listen_fds(3).

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::either::Either;

/// The names of the sockets, in their order, with colons between them.
const NAMES: &str = "LISTEN_FDNAMES";
/// What sd_listen_fds_with_names(3) calls a socket whose name is not known.
const UNNAMED: &str = "unknown";

pub(super) type PassedListener = Either<TcpListener, UnixListener>;

/// The sockets of this process that nobody has taken yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct PassedSockets(Arc<Mutex<Vec<(String, PassedListener)>>>);

impl PassedSockets {
    /// Those that the environment speaks of; none where it speaks of another process. Must be called before the process
    /// has a second thread, since it takes variables out of the environment.
    ///
    /// # Errors
    /// A descriptor that is no stream socket.
    pub fn from_environment() -> io::Result<PassedSockets> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = named(&names);
        let mut descriptors = listenfd::ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or(UNNAMED).to_owned();
            let listener = match descriptors.take_tcp_listener(index) {
                Ok(tcp) => tcp.map(Either::Left),
                Err(_) => descriptors.take_unix_listener(index)?.map(Either::Right),
            };
            passed.extend(listener.map(|listener| (name, listener)));
        }
        Ok(PassedSockets(Arc::new(Mutex::new(passed))))
    }

    /// Takes those called `name`; a `.socket` unit with several addresses passes several of one name.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn take(&self, name: &str) -> io::Result<Vec<PassedListener>> {
        let mut all = self.lock();
        let (named, others) = std::mem::take(&mut *all).into_iter().partition(|(other, _)| other == name);
        *all = others;
        if Vec::is_empty(&named) {
            let problem = "no socket of that name was passed; start the daemon through its .socket unit";
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        Ok(named.into_iter().map(|(_, listener)| listener).collect())
    }

    /// The names of those that nobody has taken.
    pub(super) fn left(&self) -> Vec<String> {
        self.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, PassedListener)>> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each socket's name in its place, also behind one that has none.
fn named(names: &str) -> impl Iterator<Item = &str> {
    names.split(':').map(|name| if name.is_empty() { UNNAMED } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_the_socket_in_its_place() {
        for (names, expected) in
            [("", vec![UNNAMED]), ("a:b", vec!["a", "b"]), ("a::b", vec!["a", UNNAMED, "b"])]
        {
            assert_eq!(named(names).collect::<Vec<_>>(), expected, "{names:?}");
        }
    }

    #[test]
    fn sockets_are_taken_once_by_name_and_the_rest_is_known() {
        let tcp = || Either::Left(TcpListener::bind("127.0.0.1:0").unwrap());
        let all = [("a", tcp()), ("b", tcp()), ("a", tcp())];
        let passed =
            PassedSockets(Arc::new(Mutex::new(all.map(|(name, one)| (name.to_owned(), one)).into())));
        assert_eq!(passed.take("a").unwrap().len(), 2);
        assert_eq!(passed.take("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(passed.left(), ["b"]);
    }
}
