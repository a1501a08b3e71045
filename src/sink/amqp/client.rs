//! One connection to a broker with its publishing channels.
//! Holds: a connection that is given up is gone, whatever its broker and its client library do: its socket is shut
//! down, which ends the library's thread as well. Credentials and certificates are read anew for every connection.
//! Absent on purpose: lapin's own recovery, which would publish again what nobody waits for any more.

use super::super::template::Destination;
use super::super::tls::TlsFiles;
use super::super::{Failure, Reason};
use super::address::{Address, Login};
use super::config::Auth;
use super::failure;
use super::message::{HEADERS_BYTES_MAX, PROPERTIES_BYTES_MAX};
use crate::config::Secret;
use crate::envelope::SinkName;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::tcp::RustlsConnector;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a connection to one broker of the list may take to be made, with TLS, login and the look at the target.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The reply code of a normal end.
const REPLY_SUCCESS: u16 = 200;

/// What can be looked for before anything is published: a target that is the same for all events.
pub(super) enum Target {
    Exchange(String),
    /// Of the default exchange.
    Queue(String),
    /// It differs from event to event.
    Varies,
}

impl Target {
    pub(super) fn of(exchange: Option<&Destination>, routing_key: &Destination) -> Self {
        match exchange {
            Some(exchange) => {
                exchange.constant().map_or(Target::Varies, |name| Target::Exchange(name.to_owned()))
            }
            None => routing_key.constant().map_or(Target::Varies, |name| Target::Queue(name.to_owned())),
        }
    }
}

/// Makes connections.
pub(super) struct Connector {
    pub(super) name: SinkName,
    pub(super) urls: Vec<Secret>,
    pub(super) user: Option<Secret>,
    pub(super) password: Option<Secret>,
    pub(super) auth: Auth,
    pub(super) tls: TlsFiles,
    pub(super) heartbeat_secs: u16,
    pub(super) target: Target,
}

/// See the module.
pub(super) struct Client {
    connection: Connection,
    /// Those that wait for work.
    channels: Mutex<Vec<Channel>>,
    socket: Socket,
    /// Host and port.
    pub(super) label: String,
}

/// A second hold on a connection's socket, to end it with.
struct Socket(TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Connector {
    /// Connects to the first broker of the list that takes us.
    ///
    /// # Errors
    /// Why the last one did not. Refused credentials end the search: to try them elsewhere could lock the user out.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let mut last = Failure::new(Reason::NameNotResolved, "no broker is configured");
        for url in &self.urls {
            match self.connect_to(url).await {
                Ok(client) => return Ok(client),
                Err(failure) if failure.reason == Reason::NotAuthorized => return Err(failure),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, url: &Secret) -> Result<Client, Failure> {
        let url = url
            .current()
            .map_err(|problem| Failure::new(Reason::NotAuthorized, format!("url: {problem}")))?;
        let address = Address::parse(url.expose())
            .map_err(|problem| Failure::new(Reason::NameNotResolved, format!("url: {problem}")))?;
        let login = Login { user: self.user.as_ref(), password: self.password.as_ref(), auth: self.auth };
        let uri = address.clone().login(&login, self.heartbeat_secs)?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.log_in(&address, uri));
        let connected = connected.await.unwrap_or_else(|_elapsed| {
            Err(Failure::new(Reason::Timeout, format!("{address}: no connection in time")))
        });
        connected.map_err(|failure| self.tls.explained(failure, crate::clock::now()))
    }

    async fn log_in(&self, address: &Address, uri: AMQPUri) -> Result<Client, Failure> {
        let runtime =
            lapin::runtime::default_runtime().map_err(|error| failure::connecting(address, &error))?;
        let mut connected = Err(Failure::new(Reason::NameNotResolved, format!("{address}: has no address")));
        let resolved = tokio::net::lookup_host(address.host()).await;
        for ip in resolved.map_err(|_| failure::not_resolved(address))? {
            connected = AsyncTcpStream::connect(&runtime, ip)
                .await
                .map_err(|error| failure::not_connected(address, &error));
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        let socket = match &stream {
            AsyncTcpStream::Plain(plain) => plain.get_ref().as_fd().try_clone_to_owned().map(TcpStream::from),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket(socket.map_err(|error| failure::not_connected(address, &error))?);
        let stream = if address.is_tls() {
            self.tls.show_ends(&self.name);
            let tls = self.tls.client_config();
            let tls = tls.map_err(|problem| Failure::new(Reason::Tls, problem.to_string()))?;
            let connector = RustlsConnector::from(Arc::new(tls));
            let secured = stream.into_rustls(&connector, address.host().0).await;
            secured.map_err(|error| failure::not_secured(address, &error))?
        } else {
            stream
        };
        // lapin's thread asks for a stream whenever it wants to connect, which without recovery is once.
        let stream = Mutex::new(Some(stream));
        let hand_over = async move |_uri, _runtime| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
        };
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("hookbus {}", self.name).into_bytes().into());
        let connection = Connection::connector(uri, runtime, hand_over, properties)
            .await
            .map_err(|error| failure::connecting(address, &error))?;
        let client = Client { connection, channels: Mutex::default(), socket, label: address.to_string() };
        match client.look_for(&self.target).await {
            Ok(()) => Ok(client),
            Err(failure) => {
                client.close().await;
                Err(failure)
            }
        }
    }
}

impl Client {
    /// On a channel of its own, which the broker closes where there is none.
    async fn look_for(&self, target: &Target) -> Result<(), Failure> {
        let looked = async {
            let channel = self.connection.create_channel().await?;
            match target {
                Target::Exchange(name) => {
                    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
                    // The kind is not looked at.
                    let (name, kind) = (short(name), ExchangeKind::Direct);
                    channel.exchange_declare(name, kind, passive, FieldTable::default()).await?;
                }
                Target::Queue(name) => {
                    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
                    channel.queue_declare(short(name), passive, FieldTable::default()).await?;
                }
                Target::Varies => {}
            }
            channel.close(REPLY_SUCCESS, short("")).await
        };
        looked.await.map_err(|error| failure::looking_for(target, &self.label, &error))
    }

    /// A channel for one batch. Whoever has it gives it back when the broker has confirmed all of the batch; dropped
    /// for any other reason it is closed, so that nothing unconfirmed or returned is ever taken for a later batch's.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle_channels().pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Takes a channel back on which everything is confirmed.
    pub(super) fn take_back(&self, channel: Channel) {
        self.idle_channels().push(channel);
    }

    fn idle_channels(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker has asked us to stop publishing (a memory or disk alarm).
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// The most bytes of headers that fit into a frame.
    pub(super) fn headers_bytes_max(&self) -> usize {
        let frame_bytes_max = match self.connection.configuration().frame_max() {
            0 => usize::MAX,
            max => max as usize,
        };
        frame_bytes_max.saturating_sub(PROPERTIES_BYTES_MAX).min(HEADERS_BYTES_MAX)
    }

    /// Ends the connection at once, and with it whatever waits for it.
    pub(super) fn kill(&self) {
        let _ = self.socket.0.shutdown(Shutdown::Both);
    }

    /// Says goodbye and waits a little for the answer. The connection ends also where the call is cancelled.
    pub(super) async fn close(&self) {
        let _ends_now = KilledOnDrop(self);
        let goodbye = self.connection.close(REPLY_SUCCESS, short("OK"));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

struct KilledOnDrop<'a>(&'a Client);

impl Drop for KilledOnDrop<'_> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// A name that was checked to be short before; one that was not is no name of anything.
fn short(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}
