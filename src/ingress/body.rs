//! Reads a request's body within its bounds: bytes, time, and what it may grow to when its codings are undone.
//! Holds: no more memory than `bytes_max` a body (twice that while a coding is undone), all of it counted in the
//! request's [`Hold`] as it comes; a body that came in one piece is not copied.

use super::inflate::{self, Coding, InflateError};
use super::limits::{Hold, UsedUp};
use crate::shutdown::{Phase, Shutdown};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A packed body up to this size is unpacked where we are, if its decoders have small windows; any other on a thread that
/// may block.
const UNPACKED_HERE_BYTES_MAX: usize = 16 * 1024;

/// The most of those others that are unpacked at once, so that threads are left for the disk.
const UNPACKED_AT_ONCE_MAX: usize = 4;
/// Whose decoder has a large window (up to 16 MiB, however small the body is) takes so many places of those: no more than
/// two such windows are there at once.
const PLACES_OF_LARGE_WINDOW: u32 = 2;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// As sent, and inflated.
    pub(super) bytes_max: usize,
    /// Inflated over sent.
    pub(super) inflate_ratio_max: u32,
    /// From the end of the head to the end of the body.
    pub(super) time_max: Duration,
}

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyError {
    /// It took too long.
    TimedOut,
    /// It is, or says it is, or becomes too large.
    TooLarge,
    /// It ended too early, or its chunks are malformed.
    Incomplete,
    /// Its content coding is damaged.
    BrokenCoding,
    /// The bodies of all requests in work take as much memory as they may.
    UsedUp,
}

impl From<UsedUp> for BodyError {
    fn from(_: UsedUp) -> Self {
        BodyError::UsedUp
    }
}

/// Reads the body as it was sent.
///
/// # Errors
/// [`BodyError`]
pub(super) async fn read<B>(body: B, bounds: Bounds, hold: &mut Hold) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > bounds.bytes_max as u64 {
        return Err(BodyError::TooLarge);
    }
    match tokio::time::timeout(bounds.time_max, collect(body, bounds.bytes_max, hold)).await {
        Ok(collected) => collected,
        Err(_elapsed) => Err(BodyError::TimedOut),
    }
}

async fn collect<B>(mut body: B, bytes_max: usize, hold: &mut Hold) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Some(first) = next_piece(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > bytes_max {
        return Err(BodyError::TooLarge);
    }
    hold.grow(first.len())?;
    if body.is_end_stream() {
        return Ok(first);
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(first.len().saturating_add(announced).min(bytes_max));
    whole.extend_from_slice(&first);
    while let Some(piece) = next_piece(&mut body).await? {
        if piece.len() > bytes_max - whole.len() {
            return Err(BodyError::TooLarge);
        }
        hold.grow(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The next bytes; trailers are passed over.
async fn next_piece<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|_| BodyError::Incomplete)?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// Where larger bodies are unpacked, so many at once.
pub(super) struct Unpacking {
    places: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Unpacking {
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        Unpacking { places: Arc::new(Semaphore::new(UNPACKED_AT_ONCE_MAX)), shutdown: shutdown.clone() }
    }
}

/// Undoes the content codings; where that takes much memory it waits for a place.
///
/// # Errors
/// [`BodyError::TooLarge`], [`BodyError::BrokenCoding`] and [`BodyError::UsedUp`].
pub(super) async fn unpack(
    sent: Bytes,
    codings: Vec<Coding>,
    bounds: Bounds,
    unpacking: &Unpacking,
    hold: &mut Hold,
) -> Result<Bytes, BodyError> {
    let sent_bytes = sent.len();
    let has_large_window = codings.iter().any(|coding| coding.has_large_window());
    let work = move |sent| inflate::inflate(sent, &codings, bounds.bytes_max, bounds.inflate_ratio_max);
    let unpacked = if sent_bytes <= UNPACKED_HERE_BYTES_MAX && !has_large_window {
        work(sent)
    } else {
        let count = if has_large_window { PLACES_OF_LARGE_WINDOW } else { 1 };
        let place = Arc::clone(&unpacking.places).acquire_many_owned(count).await.expect("never closed");
        let working = unpacking.shutdown.spawn_blocking(Phase::Ingress, move || {
            // Held until the work is done, also where the sender is gone by then.
            let _place = place;
            work(sent)
        });
        working.await.unwrap_or(Err(InflateError::Broken))
    };
    let unpacked = unpacked.map_err(|error| match error {
        InflateError::TooLarge => BodyError::TooLarge,
        InflateError::Broken => BodyError::BrokenCoding,
    })?;
    hold.grow(unpacked.len())?;
    hold.shrink(sent_bytes);
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use std::convert::Infallible;

    const BOUNDS: Bounds = Bounds { bytes_max: 10, inflate_ratio_max: 100, time_max: Duration::from_secs(5) };

    async fn read<B: Body<Data = Bytes> + Unpin>(body: B, bounds: Bounds) -> Result<Bytes, BodyError> {
        super::read(body, bounds, &mut Limits::plenty().enter(true).expect("a place")).await
    }

    /// A body whose pieces are written with `|` between them.
    fn pieces(written: &'static str) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::iter(written.split('|').map(|piece| Ok(Frame::data(Bytes::from(piece))))))
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_the_very_same_bytes() {
        let sent = Bytes::from(b"unmoved".to_vec());
        let body = read(Full::new(sent.clone()), BOUNDS).await.unwrap();
        assert_eq!(body.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        for (sentence, sent, expected) in [
            ("nothing", "", Ok("")),
            ("pieces, one of them empty", "ab||c", Ok("abc")),
            ("exactly the limit", "01234|56789", Ok("0123456789")),
            ("one byte more", "01234|567890", Err(BodyError::TooLarge)),
            ("one piece that is too large", "0123456789x", Err(BodyError::TooLarge)),
        ] {
            assert_eq!(read(pieces(sent), BOUNDS).await, expected.map(Bytes::from), "{sentence}");
        }
    }

    #[tokio::test]
    async fn a_body_that_says_it_is_too_large_is_not_read_at_all() {
        assert_eq!(read(Full::new(Bytes::from_static(&[0; 11])), BOUNDS).await, Err(BodyError::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_times_out() {
        let stuck = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(read(stuck, BOUNDS).await, Err(BodyError::TimedOut));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_incomplete() {
        let broken = StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from_static(b"a"))), Err("gone")]));
        assert_eq!(read(broken, BOUNDS).await, Err(BodyError::Incomplete));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_with_a_large_window_waits_for_a_place_and_one_with_a_small_window_does_not() {
        let shutdown = Shutdown::new();
        let unpacking = Unpacking::new(&shutdown);
        let all = u32::try_from(UNPACKED_AT_ONCE_MAX).unwrap();
        let _taken = Arc::clone(&unpacking.places).acquire_many_owned(all).await.unwrap();
        for (coding, sent, waits) in [
            (Coding::Brotli, vec![0x06], true),
            (Coding::Zstd, zstd::stream::encode_all(&b""[..], 3).unwrap(), true),
            (Coding::Deflate, vec![0x03, 0x00], false),
        ] {
            let mut hold = Limits::plenty().enter(true).expect("a place");
            hold.grow(sent.len()).expect("room");
            let unpacked = unpack(sent.into(), vec![coding], BOUNDS, &unpacking, &mut hold);
            let ended = tokio::time::timeout(Duration::from_secs(60), unpacked).await;
            assert_eq!(ended.ok(), (!waits).then_some(Ok(Bytes::new())), "{coding:?}");
        }
    }
}
