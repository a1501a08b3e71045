//! One accepted connection's bytes, with the bounds that the HTTP library leaves to us: how long the first bytes, which
//! tell HTTP/1.1 from HTTP/2, may take, how long the other side may leave our answer unread, and how a connection ends.
//! Holds: an answer given before the whole request was read reaches the sender: closing a socket that holds unread
//! bytes would reset the connection and take the answer with it, so what still arrives is read and dropped for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long a closed connection may take to be closed by the other side too.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// The most bytes that are read and dropped meanwhile.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the other side may read nothing of what we have for it.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A TCP connection from its acceptance to its last byte.
pub(super) struct Stream {
    tcp: TcpStream,
    stage: Stage,
    /// Set while nothing can be written.
    unread_deadline: Option<Pin<Box<Sleep>>>,
}

enum Stage {
    /// So far the bytes could be the beginning of either protocol.
    Opening { preface_bytes_seen: usize, deadline: Pin<Box<Sleep>> },
    /// The HTTP library watches the time.
    Talking,
    /// We have said everything and wait for the other side to close.
    Lingering { bytes_dropped: usize, deadline: Pin<Box<Sleep>> },
}

impl Stream {
    /// `opening_max`: how long it may take until the protocol is known.
    pub(super) fn new(tcp: TcpStream, opening_max: Duration) -> Self {
        let stage = Stage::Opening { preface_bytes_seen: 0, deadline: Box::pin(sleep(opening_max)) };
        Stream { tcp, stage, unread_deadline: None }
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

    fn note_opening(&mut self, bytes: &[u8]) {
        if let Stage::Opening { preface_bytes_seen, .. } = &mut self.stage {
            let rest = &HTTP2_PREFACE[*preface_bytes_seen..];
            if bytes.len() < rest.len() && rest.starts_with(bytes) {
                *preface_bytes_seen += bytes.len();
            } else {
                self.stage = Stage::Talking;
            }
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0_u8; 4096];
        loop {
            let Stage::Lingering { bytes_dropped, deadline } = &mut self.stage else {
                return Poll::Ready(());
            };
            if *bytes_dropped > LINGER_BYTES_MAX || deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut waste = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut waste)) {
                Ok(()) if !waste.filled().is_empty() => *bytes_dropped += waste.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled_before = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if let Stage::Opening { deadline, .. } = &mut self.stage {
            match &polled {
                Poll::Pending if deadline.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(Ok(())) => self.note_opening(&buffer.filled()[filled_before..]),
                Poll::Pending | Poll::Ready(Err(_)) => {}
            }
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.bound_write(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.bound_write(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.stage, Stage::Lingering { .. }) {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
            self.stage = Stage::Lingering { bytes_dropped: 0, deadline: Box::pin(sleep(LINGER_MAX)) };
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Stream, TcpStream) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        (Stream::new(socket.accept().await.unwrap().0, Duration::from_secs(10)), sender)
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
