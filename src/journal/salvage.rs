//! Reading where the disk cannot give all of the bytes: piece by piece, so that a bad sector costs what lies on it.
//! Holds: an unreadable piece is never taken for a record nor for a blank; the number of attempts is bounded.

use super::disk::{DiskFile, is_medium_error};
use std::io;
use std::ops::Range;

/// The piece that is given up at once: a sector of today's disks, and a page.
const PIECE_BYTES: usize = 4096;
/// How often a piece is tried.
const ATTEMPTS_MAX: u32 = 3;
/// Stands for a byte that could not be read: no header, frame or slot is made of these.
const UNREADABLE: u8 = 0xff;

/// What a read gave.
pub(super) struct Salvaged {
    /// Bytes of the buffer that count; fewer than its length only at the end of the file.
    pub read: usize,
    /// Those of them that could not be read, in order.
    pub unreadable: Vec<Range<usize>>,
}

/// Reads at `offset` what can be read.
///
/// # Errors
/// What the operating system said, where it is not about the medium.
pub(super) fn read(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<Salvaged> {
    match file.read_at(into, offset) {
        Ok(read) => return Ok(Salvaged { read, unreadable: Vec::new() }),
        Err(error) if is_medium_error(&error) => {}
        Err(error) => return Err(error),
    }
    let within = usize::try_from(file.size()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
    let mut unreadable: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < within {
        // Pieces end where those of the disk do.
        let into_piece = usize::try_from((offset + at as u64) % PIECE_BYTES as u64).expect("below a piece");
        let end = (at + PIECE_BYTES - into_piece).min(within);
        if !read_piece(file, &mut into[at..end], offset + at as u64)? {
            into[at..end].fill(UNREADABLE);
            match unreadable.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => unreadable.push(at..end),
            }
        }
        at = end;
    }
    Ok(Salvaged { read: within, unreadable })
}

/// Whether the piece could be read in the end.
fn read_piece(file: &dyn DiskFile, piece: &mut [u8], offset: u64) -> io::Result<bool> {
    for _ in 0..ATTEMPTS_MAX {
        match file.read_at(piece, offset) {
            Ok(_) => return Ok(true),
            Err(error) if is_medium_error(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
