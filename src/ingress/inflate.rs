//! Undoes the content codings of a body: gzip, deflate, br and zstd, also one on top of another.
//! Holds: no stage yields more bytes than the caller allows, whatever the input claims, and none takes more memory on
//! the way than that and its window, 16 MiB at most; a coding that is cut off or
//! damaged is an error, never a shorter body.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use std::io::Read;

/// The most codings one on top of another.
const CODINGS_MAX: usize = 3;
/// A body that stays below this is never called a bomb, however small it was packed.
pub(super) const HARMLESS_BYTES_MAX: usize = 64 * 1024;
/// The largest zstd window (RFC 9659 asks every receiver to take 8 MiB, and no sender to use more).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// By how much the output grows at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// A content coding (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Its decoder may take a window of megabytes, whatever the body's size: the first bytes of the stream say so.
    pub(super) fn has_large_window(self) -> bool {
        match self {
            Coding::Gzip | Coding::Deflate => false,
            Coding::Brotli | Coding::Zstd => true,
        }
    }
}

/// Why a coding was not undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InflateError {
    /// More bytes would come out than are allowed.
    TooLarge,
    /// The input is not of the coding, or cut off.
    Broken,
}

/// The codings in the order in which they were applied; `None` where one is unknown or there are too many.
pub(super) fn codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().ok()?.split(',').map(str::trim) {
            let coding = match name {
                "" => continue,
                name if name.eq_ignore_ascii_case("identity") => continue,
                name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                    Coding::Gzip
                }
                name if name.eq_ignore_ascii_case("deflate") => Coding::Deflate,
                name if name.eq_ignore_ascii_case("br") => Coding::Brotli,
                name if name.eq_ignore_ascii_case("zstd") => Coding::Zstd,
                _ => return None,
            };
            codings.push(coding);
        }
    }
    (codings.len() <= CODINGS_MAX).then_some(codings)
}

/// Undoes `codings`, the last applied first. No stage yields more than `bytes_max`, nor more than `ratio_max` times
/// what was sent (but [`HARMLESS_BYTES_MAX`] always).
///
/// # Errors
/// [`InflateError`]
pub(super) fn inflate(
    sent: Bytes,
    codings: &[Coding],
    bytes_max: usize,
    ratio_max: u32,
) -> Result<Bytes, InflateError> {
    let ratio_bytes_max = sent.len().saturating_mul(ratio_max as usize).max(HARMLESS_BYTES_MAX);
    let bytes_max = bytes_max.min(ratio_bytes_max);
    codings.iter().rev().try_fold(sent, |packed, coding| {
        let unpacked = match coding {
            Coding::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(&packed[..]), bytes_max),
            Coding::Deflate => inflate_deflate(&packed, bytes_max),
            Coding::Brotli if has_large_window(&packed) => Err(InflateError::Broken),
            Coding::Brotli => {
                read_bounded(brotli_decompressor::Decompressor::new(&packed[..], CHUNK_BYTES), bytes_max)
            }
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&packed[..])
                    .map_err(|_| InflateError::Broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| InflateError::Broken)?;
                read_bounded(decoder, bytes_max)
            }
        }?;
        // Its capacity may be twice what is in it, and it may be held for long.
        Ok(Bytes::from(unpacked.into_boxed_slice()))
    })
}

fn read_bounded(reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut unpacked = Vec::new();
    let one_too_many = (bytes_max as u64).saturating_add(1);
    reader.take(one_too_many).read_to_end(&mut unpacked).map_err(|_| InflateError::Broken)?;
    if unpacked.len() > bytes_max { Err(InflateError::TooLarge) } else { Ok(unpacked) }
}

/// Does the stream begin with the bits that RFC 7932 (section 9.1) calls invalid? The library reads a window of up to
/// 1 GiB from what follows, and fills a window before it gives anything out.
fn has_large_window(packed: &[u8]) -> bool {
    packed.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// "deflate" means the zlib format, but some senders leave its two header bytes out (RFC 9110, section 8.4.1.2).
/// The library's own readers take a cut-off stream for a complete one, so the end is checked here.
fn inflate_deflate(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let is_zlib = matches!(packed, [cmf, flg, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) * 256 + u16::from(*flg)) % 31 == 0);
    let mut stream = Decompress::new(is_zlib);
    let mut unpacked = Vec::new();
    loop {
        unpacked.reserve(CHUNK_BYTES);
        let (taken, given) = (stream.total_in(), unpacked.len());
        let rest = usize::try_from(taken).ok().and_then(|taken| packed.get(taken..)).unwrap_or_default();
        let status = stream.decompress_vec(rest, &mut unpacked, FlushDecompress::None);
        if unpacked.len() > bytes_max {
            return Err(InflateError::TooLarge);
        }
        match status {
            Ok(Status::StreamEnd) => return Ok(unpacked),
            Ok(Status::Ok | Status::BufError) if stream.total_in() > taken || unpacked.len() > given => {}
            Ok(Status::Ok | Status::BufError) | Err(_) => return Err(InflateError::Broken),
        }
    }
}

#[cfg(test)]
#[path = "inflate_tests.rs"]
mod tests;
