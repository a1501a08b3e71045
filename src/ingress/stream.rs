//! One accepted connection's bytes, with the bounds that the HTTP library leaves to us, in two layers. [`Socket`] is next
//! to the network, below TLS where there is any: how long the other side may leave our answer unread, and how a
//! connection ends. [`Opening`] is next to HTTP: how long the first bytes, which tell HTTP/1.1 from HTTP/2, may take.
//! Holds: an answer given before the whole request was read reaches the sender: closing a socket that holds unread
//! bytes would reset the connection and take the answer with it, so what still arrives is read and dropped for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::either::Either;

/// How long a closed connection may take to be closed by the other side too.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// The most bytes that are read and dropped meanwhile.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the other side may read nothing of what we have for it.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the system hands out when a connection is accepted.
pub(super) type Wire = Either<TcpStream, UnixStream>;

// === Socket

/// A connection from its acceptance to its last byte.
pub(super) struct Socket {
    wire: Wire,
    /// Set once we have said everything and wait for the other side to close.
    lingering: Option<Lingering>,
    /// Set while nothing can be written.
    unread_deadline: Option<Pin<Box<Sleep>>>,
}

struct Lingering {
    bytes_dropped: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Socket {
    pub(super) fn new(wire: Wire) -> Self {
        Socket { wire, lingering: None, unread_deadline: None }
    }

    /// Gives up on somebody who has read nothing for too long.
    fn bound_write(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.unread_deadline = None;
            return polled;
        }
        let deadline = self.unread_deadline.get_or_insert_with(|| Box::pin(sleep(UNREAD_MAX)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0_u8; 4096];
        let Some(Lingering { bytes_dropped, deadline }) = &mut self.lingering else {
            return Poll::Ready(());
        };
        loop {
            if *bytes_dropped > LINGER_BYTES_MAX || deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut waste = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.wire).poll_read(cx, &mut waste)) {
                Ok(()) if !waste.filled().is_empty() => *bytes_dropped += waste.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write(cx, bytes);
        self.bound_write(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write_vectored(cx, slices);
        self.bound_write(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.wire).poll_shutdown(cx))?;
            self.lingering = Some(Lingering { bytes_dropped: 0, deadline: Box::pin(sleep(LINGER_MAX)) });
        }
        self.poll_linger(cx).map(Ok)
    }
}

// === Opening

/// A stream whose first bytes have a deadline.
pub(super) struct Opening<S> {
    stream: S,
    /// While the bytes could be the beginning of either protocol; later the HTTP library watches the time.
    opening: Option<Preface>,
}

struct Preface {
    bytes_seen: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Opening<S> {
    /// `deadline`: until when the protocol must be known.
    pub(super) fn new(stream: S, deadline: Instant) -> Self {
        let preface = Preface { bytes_seen: 0, deadline: Box::pin(sleep_until(deadline)) };
        Opening { stream, opening: Some(preface) }
    }

    fn note(&mut self, bytes: &[u8]) {
        if let Some(preface) = &mut self.opening {
            let rest = &HTTP2_PREFACE[preface.bytes_seen..];
            if bytes.len() < rest.len() && rest.starts_with(bytes) {
                preface.bytes_seen += bytes.len();
            } else {
                self.opening = None;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled_before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(preface) = &mut self.opening {
            match &polled {
                Poll::Pending if preface.deadline.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(Ok(())) => self.note(&buffer.filled()[filled_before..]),
                Poll::Pending | Poll::Ready(Err(_)) => {}
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Opening<Socket>, TcpStream) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let accepted = Socket::new(Either::Left(socket.accept().await.unwrap().0));
        (Opening::new(accepted, Instant::now() + Duration::from_secs(10)), sender)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_have_a_deadline_until_they_tell_the_protocol() {
        for (sentence, begins, then_times_out) in [
            ("nothing", &b""[..], true),
            ("what both protocols begin with", b"P", true),
            ("half a preface", b"PRI * HT", true),
            ("HTTP/1.1", b"PO", false),
            ("HTTP/2", HTTP2_PREFACE, false),
            ("more than a preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", false),
        ] {
            let (mut stream, mut sender) = pair().await;
            sender.write_all(begins).await.unwrap();
            let mut first = vec![0; begins.len()];
            stream.read_exact(&mut first).await.unwrap();
            let read_on = tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await;
            let timed_out = read_on.is_ok_and(|read| read.unwrap_err().kind() == io::ErrorKind::TimedOut);
            assert_eq!(timed_out, then_times_out, "{sentence}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_never_reads_is_given_up() {
        let (mut stream, _sender) = pair().await;
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 64 * 1024]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_the_other_side_but_not_for_long() {
        let (mut stream, mut sender) = pair().await;
        sender.write_all(b"still sending").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(sender.read(&mut [0; 1]).await.unwrap(), 0, "an end, not a reset");
    }
}
