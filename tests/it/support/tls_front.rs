//! TLS in front of a server that speaks without: shows a certificate that can be changed while it runs.
//! Holds: a change ends every connection, so that whoever comes back sees the new certificate; all end with the front.

use super::eventually;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// See the module. It listens on loopback.
pub struct TlsFront {
    pub port: u16,
    shown: watch::Sender<Arc<ServerConfig>>,
    _ends_with: DropGuard,
}

impl TlsFront {
    /// In front of `server`; `port` 0 is a free one.
    pub async fn start(port: u16, server: SocketAddr, shown: ServerConfig) -> TlsFront {
        // The front that was there before may take a moment to end.
        let listener =
            eventually("the port is free", || async { TcpListener::bind(("127.0.0.1", port)).await.ok() })
                .await;
        let port = listener.local_addr().unwrap().port();
        let (shown, end) = (watch::Sender::new(Arc::new(shown)), CancellationToken::new());
        tokio::spawn(accept(listener, server, shown.subscribe(), end.clone()));
        TlsFront { port, shown, _ends_with: end.drop_guard() }
    }

    /// From now on; what is open is closed.
    pub fn shows(&self, shown: ServerConfig) {
        self.shown.send_replace(Arc::new(shown));
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    shown: watch::Receiver<Arc<ServerConfig>>,
    end: CancellationToken,
) {
    while let Some(Ok((client, _))) = end.run_until_cancelled(listener.accept()).await {
        let (mut shown, end) = (shown.clone(), end.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::clone(&shown.borrow_and_update()));
            let carried = async {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(server).await else { return };
                let _ = copy_bidirectional(&mut client, &mut server).await;
            };
            tokio::select! {
                () = carried => {}
                _ = shown.changed() => {}
                () = end.cancelled() => {}
            }
        });
    }
}
