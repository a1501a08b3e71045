//! Why a call to a provider's API did not do what it should, as one sentence that says what to do.
//! Holds: R8 (a sentence has the host, keys of the configuration, and at most what an answer said, cleaned).

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

/// The most characters taken over from the TLS library's description.
const TLS_CHARS_MAX: usize = 150;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The name has no address, or nobody could be asked.
    NotResolved,
    /// TLS failed, with its library's description.
    Tls(String),
    /// Nothing listens, or there is no way there.
    NotConnected,
    /// No connection in time.
    ConnectTimeout,
    /// No answer in time.
    Timeout,
    /// The exchange broke, or it was not HTTP.
    Broken,
    /// 2xx with `value` false.
    SaysNo,
    /// `null not allowed`: no Client-Token arrived.
    ClientTokenMissing,
    /// `… not allowed`: another Client-Token is expected.
    ClientTokenWrong,
    /// `[ip] not allowed`: this machine's address may not call the API.
    AddressBlocked(IpAddr),
    /// 401 or 403.
    Unauthorized(u16),
    /// 404: no such call, or no such instance.
    NotFound,
    /// 405.
    MethodRefused,
    /// 415.
    MediaTypeRefused,
    /// 429.
    TooMany,
    /// 3xx; redirects are not followed.
    Moved(u16),
    /// 5xx.
    ProviderFailed(u16),
    /// Another refusal, with what the answer said, cleaned; may be empty.
    Refused(u16, String),
    /// An answer that is not the documented one.
    Strange(u16),
    /// An answer without an end.
    TooLong,
}

impl Problem {
    /// Reads what the client says. Its own words are not repeated: they quote the URL.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some(description) = tls_cause(error) {
            return Problem::Tls(description);
        }
        match () {
            () if error.is_dns() => Problem::NotResolved,
            () if error.is_connect() && error.is_timeout() => Problem::ConnectTimeout,
            () if error.is_connect() => Problem::NotConnected,
            () if error.is_timeout() => Problem::Timeout,
            () => Problem::Broken,
        }
    }

    /// Every other call would end in the same way.
    pub(super) fn concerns_every_call(&self) -> bool {
        match self {
            Problem::NotResolved
            | Problem::Tls(_)
            | Problem::NotConnected
            | Problem::ConnectTimeout
            | Problem::Timeout
            | Problem::ClientTokenMissing
            | Problem::ClientTokenWrong
            | Problem::AddressBlocked(_)
            | Problem::Unauthorized(_)
            | Problem::MediaTypeRefused
            | Problem::TooMany
            | Problem::ProviderFailed(_)
            | Problem::Moved(_) => true,
            Problem::Broken
            | Problem::SaysNo
            | Problem::NotFound
            | Problem::MethodRefused
            | Problem::Refused(..)
            | Problem::Strange(_)
            | Problem::TooLong => false,
        }
    }

    /// The provider answered, and would not do this one thing.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Problem::SaysNo | Problem::Refused(..) | Problem::Strange(_) => true,
            other => other.is_no_such_call(),
        }
    }

    /// The API seems to have no such call.
    pub(super) fn is_no_such_call(&self) -> bool {
        matches!(self, Problem::NotFound | Problem::MethodRefused)
    }
}

/// rustls' words, wherever in the chain of causes they are.
fn tls_cause(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error.to_string().chars().take(TLS_CHARS_MAX).collect());
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            // `source` of such an error skips the one inside.
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

/// A problem with the place where it happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    /// What happened.
    pub problem: Problem,
    /// Host and port of the API.
    pub(super) host: String,
    /// The section of the configuration whose keys a sentence names: `sources.whatsapp.zapi`.
    pub(super) section: String,
    /// The method and the last part of the path.
    pub(super) call: String,
}

impl Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApiError { problem, host, section: keys, call } = self;
        match problem {
            Problem::NotResolved => {
                write!(f, "{host}: the name does not resolve; check {keys}.api and the DNS")
            }
            Problem::Tls(description) => {
                write!(f, "{host}: TLS failed: {description}; check {keys}.api and who answers there")
            }
            Problem::NotConnected => write!(
                f,
                "{host}: nothing accepts connections there; check {keys}.api and the way out of this network"
            ),
            Problem::ConnectTimeout => {
                write!(f, "{host}: no connection in time; check the way out of this network (a firewall?)")
            }
            Problem::Timeout => write!(f, "{host}: no answer to {call} in time; try again later"),
            Problem::Broken => write!(
                f,
                "{host}: the connection broke before an answer to {call}; try again, and check {keys}.api"
            ),
            Problem::TooLong => write!(f, "{host}: the answer to {call} has no end; check {keys}.api"),
            _ => f.write_str(&self.of_an_answer()),
        }
    }
}

impl ApiError {
    /// What the provider answered, and what to do; nothing for what is no answer.
    fn of_an_answer(&self) -> String {
        let ApiError { problem, host, section: keys, call } = self;
        let answered = |status: u16| format!("{host} answered {status} to {call}");
        match problem {
            Problem::SaysNo => format!(
                "{host} answered {call} with {{\"value\":false}}: it was not set; see in the provider's panel whether the instance exists and is paid, then try again"
            ),
            Problem::ClientTokenMissing => format!(
                "{host} wants the account's security token: set {keys}.client_token (\"null not allowed\" means that no Client-Token arrived)"
            ),
            Problem::ClientTokenWrong => format!(
                "{host} does not take the account's security token: {keys}.client_token is not the one of the provider's panel"
            ),
            Problem::AddressBlocked(address) => format!(
                "{host} does not take calls from this machine's address {address}: allow the address in the provider's panel, or lift its restriction of addresses"
            ),
            Problem::Unauthorized(status) => format!(
                "{host} answered {status}: {keys}.instance, {keys}.token or {keys}.client_token is wrong"
            ),
            Problem::NotFound => format!(
                "{}: it has no such call, or {keys}.instance, {keys}.token or {keys}.api is wrong",
                answered(404)
            ),
            Problem::MethodRefused => {
                format!(
                    "{host} answered 405: it does not take {call}; check that {keys}.api is the API itself"
                )
            }
            Problem::MediaTypeRefused => format!(
                "{}: the Content-Type did not arrive; look for a proxy on the way that removes it",
                answered(415)
            ),
            Problem::TooMany => format!("{host} answered 429: it has had too many calls; try again later"),
            Problem::Moved(status) => format!(
                "{host} answered {status}: the API has moved; redirects are not followed, set {keys}.api"
            ),
            Problem::ProviderFailed(status) => {
                format!("{}: the provider has a failure; try again later", answered(*status))
            }
            Problem::Refused(status, said) if said.is_empty() => {
                format!("{} without a reason; check {keys}.instance and {keys}.token", answered(*status))
            }
            Problem::Refused(status, said) => format!(
                "{}: \"{said}\"; check {keys}.instance, {keys}.token and {keys}.client_token",
                answered(*status)
            ),
            Problem::Strange(status) => format!(
                "{} with something that is not documented; check that {keys}.api is the API itself",
                answered(*status)
            ),
            Problem::NotResolved
            | Problem::Tls(_)
            | Problem::NotConnected
            | Problem::ConnectTimeout
            | Problem::Timeout
            | Problem::Broken
            | Problem::TooLong => String::new(),
        }
    }
}
