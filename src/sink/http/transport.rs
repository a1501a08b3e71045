//! What it means when a request ended without an answer.
//! Holds: what was never sent is no event's fault (Away); what may have arrived is unknown (Retry).
//! Absent on purpose: the client's own messages, which quote the URL.

use super::super::addresses::Forbidden;
use super::super::tls::described;
use super::super::{Failure, Outcome, Reason};
use std::error::Error;
use std::io::{self, ErrorKind};

/// How an exchange broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// Every address of the host is forbidden.
    Forbidden,
    /// The name has no address, or nobody could be asked.
    NotResolved,
    /// TLS failed, with its library's description.
    Tls(String),
    /// Nothing listens, or there is no way there.
    Refused,
    /// No connection within the time for it.
    ConnectTimeout,
    /// The connection broke while it was made.
    ConnectLost,
    /// The request could not even be formed.
    NotARequest,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer.
    Lost,
    /// What came back is not HTTP.
    NotHttp,
}

/// What the causes of an error show, wherever in the chain they are.
#[derive(Default)]
struct Causes {
    io: Option<ErrorKind>,
    tls: Option<String>,
    is_forbidden: bool,
    is_parse: bool,
}

impl Causes {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut causes = Causes::default();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.note(error);
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                // `source` of such an error skips the one inside.
                Some(inside) => Some(inside),
                None => error.source(),
            };
        }
        causes
    }

    fn note(&mut self, error: &(dyn Error + 'static)) {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            self.io = Some(error.kind());
        } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
            self.tls = Some(described(error));
        } else if error.is::<Forbidden>() {
            self.is_forbidden = true;
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            self.is_parse |= error.is_parse();
        }
    }
}

impl Broken {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let causes = Causes::of(error);
        match causes {
            Causes { is_forbidden: true, .. } => Broken::Forbidden,
            Causes { tls: Some(description), .. } => Broken::Tls(description),
            _ if error.is_dns() => Broken::NotResolved,
            _ if error.is_connect() && error.is_timeout() => Broken::ConnectTimeout,
            Causes { io, .. } if error.is_connect() => match io {
                Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => {
                    Broken::ConnectLost
                }
                _ => Broken::Refused,
            },
            _ if error.is_timeout() => Broken::Timeout,
            _ if error.is_builder() => Broken::NotARequest,
            Causes { is_parse: true, .. } => Broken::NotHttp,
            _ => Broken::Lost,
        }
    }

    /// The connection ended before an answer began: worth one more try at once where it was not a fresh one.
    pub(super) fn is_lost_unanswered(&self) -> bool {
        matches!(self, Broken::Lost)
    }

    pub(super) fn failure(&self, host: &str) -> Failure {
        let (reason, problem) = match self {
            Broken::Forbidden => (Reason::AddressForbidden, "its address is private, and those are denied"),
            Broken::NotResolved => (Reason::NameNotResolved, "its name does not resolve"),
            Broken::Tls(description) => {
                return Failure::new(Reason::Tls, format!("{host}: TLS failed: {description}"));
            }
            Broken::Refused => (Reason::ConnectionRefused, "nothing accepts connections there"),
            Broken::ConnectTimeout => (Reason::Timeout, "no connection in time"),
            Broken::ConnectLost => (Reason::ConnectionLost, "it dropped the connection while it was made"),
            Broken::NotARequest => (Reason::NotEncodable, "no request can be made of the event"),
            Broken::Timeout => (Reason::Timeout, "no answer in time"),
            Broken::Lost => (Reason::ConnectionLost, "the connection broke before an answer"),
            Broken::NotHttp => (Reason::SinkError, "what it answers is not HTTP"),
        };
        Failure::new(reason, format!("{host}: {problem}"))
    }

    pub(super) fn outcome(&self, host: &str) -> Outcome {
        let failure = self.failure(host);
        match self {
            Broken::Forbidden
            | Broken::NotResolved
            | Broken::Tls(_)
            | Broken::Refused
            | Broken::ConnectTimeout
            | Broken::ConnectLost => Outcome::Away(failure),
            Broken::Timeout | Broken::Lost | Broken::NotHttp => Outcome::Retry(failure),
            Broken::NotARequest => Outcome::Reject(failure),
        }
    }
}
