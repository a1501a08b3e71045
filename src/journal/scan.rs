//! Walks the frames of one segment file, and finds the way on after bytes that are no frame.
//! Holds: a record is given only where its frame is sound and its number rises; memory is one chunk or one record.
//! Absent on purpose: what damage means. At the end of the last segment it is a torn tail, elsewhere it is damage.

use super::disk::DiskFile;
use super::record::{ALIGNMENT, FIXED_BYTES, FrameHead, generation_of};
use super::salvage;
use super::segment::HEADER_BYTES;
use super::types::Dedupe;
use crate::time::UnixMs;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes read at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A sound record.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub sequence: u64,
    pub arrival: UnixMs,
    pub dedupe: Option<Dedupe>,
    pub payload: Bytes,
    /// Bytes of the chunk that `payload` keeps in memory.
    pub chunk_bytes: usize,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A record.
    Record(Scanned),
    /// These bytes are no frame, and a sound record comes after them.
    Damage(Range<u64>),
    /// No sound record comes any more.
    End,
}

/// A place in a segment from which records are read in order.
pub(super) struct Scanner {
    file: Arc<dyn DiskFile>,
    generation: u64,
    limit: u64,
    offset: u64,
    sequence_min: u64,
    chunk: Bytes,
    chunk_start: u64,
    /// What the disk cannot give is stepped over like damage.
    salvages: bool,
    /// Where the last piece ends that the disk could not give.
    unreadable_end: u64,
    /// Where zeros begin that reach to the limit, once somebody asked.
    zeros_from: Option<u64>,
}

impl Scanner {
    /// From the first frame of a segment that begins with `first`, not beyond `limit` bytes.
    pub(super) fn new(file: Arc<dyn DiskFile>, generation: u64, first: u64, limit: u64) -> Scanner {
        Scanner {
            file,
            generation,
            limit,
            offset: HEADER_BYTES as u64,
            sequence_min: first,
            chunk: Bytes::new(),
            chunk_start: 0,
            salvages: false,
            unreadable_end: 0,
            zeros_from: None,
        }
    }

    /// From here on, what the disk cannot give is damage, not an error.
    pub(super) fn salvage(&mut self) {
        self.salvages = true;
    }

    /// Whether the disk could not give some of the bytes at or after `offset`.
    pub(super) fn has_unreadable_from(&self, offset: u64) -> bool {
        self.unreadable_end > offset
    }

    /// The file grew: records up to here are durable now.
    pub(super) fn extend(&mut self, limit: u64) {
        if limit > self.limit {
            self.limit = limit;
            self.chunk = Bytes::new();
            self.zeros_from = None;
        }
    }

    /// The frame that begins a segment, and the generation it names; for a segment of which nothing else is known.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn first_frame(&mut self) -> io::Result<Option<(u64, Scanned)>> {
        self.fill(HEADER_BYTES as u64, FIXED_BYTES)?;
        let Some(generation) = generation_of(self.window(HEADER_BYTES as u64)) else { return Ok(None) };
        let known = std::mem::replace(&mut self.generation, generation);
        let frame = self.frame_at(HEADER_BYTES as u64);
        self.generation = known;
        Ok(frame?.map(|(scanned, _)| (generation, scanned)))
    }

    /// Where the next frame is expected.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file that is read.
    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The next record, or what is in its place.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        if let Some((scanned, end)) = self.frame_at(self.offset)? {
            self.offset = end;
            self.sequence_min = scanned.sequence + 1;
            return Ok(Step::Record(scanned));
        }
        let mut candidate = self.offset + ALIGNMENT as u64;
        while let Some(at) = self.candidate_from(candidate)? {
            if self.frame_at(at)?.is_some() {
                let damage = self.offset..at;
                self.offset = at;
                return Ok(Step::Damage(damage));
            }
            candidate = at + ALIGNMENT as u64;
        }
        Ok(Step::End)
    }

    /// Where the bytes from here on are all zero.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn zeros_from(&mut self) -> io::Result<u64> {
        if let Some(known) = self.zeros_from {
            return Ok(known.max(self.offset));
        }
        let (mut at, mut zeros_from) = (self.offset, self.offset);
        while at < self.limit {
            self.fill(at, 1)?;
            let bytes = self.window(at);
            if bytes.is_empty() {
                break;
            }
            // Nearly all of it is zeros, and comparing whole chunks is quick.
            let is_blank = ZEROS.get(..bytes.len()) == Some(bytes);
            if let Some(last) = (!is_blank).then(|| bytes.iter().rposition(|byte| *byte != 0)).flatten() {
                zeros_from = at + last as u64 + 1;
            }
            at += bytes.len() as u64;
        }
        self.zeros_from = Some(zeros_from);
        Ok(zeros_from)
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<(Scanned, u64)>> {
        self.fill(at, FIXED_BYTES)?;
        let Some(head) = FrameHead::parse(self.window(at)) else { return Ok(None) };
        let end = at + head.frame_bytes() as u64;
        let believable = head.place.generation == self.generation
            && head.place.sequence >= self.sequence_min
            && end <= self.limit;
        if !believable {
            return Ok(None);
        }
        self.fill(at, head.frame_bytes())?;
        let frame = self.window(at);
        if !head.verify(frame) {
            return Ok(None);
        }
        let dedupe = head.dedupe(frame);
        let payload_start = usize::try_from(at - self.chunk_start).expect("inside the chunk");
        let payload = head.payload();
        let scanned = Scanned {
            sequence: head.place.sequence,
            arrival: head.arrival,
            dedupe,
            payload: self.chunk.slice(payload_start + payload.start..payload_start + payload.end),
            chunk_bytes: self.chunk.len(),
        };
        Ok(Some((scanned, end)))
    }

    /// The first place at or after `from` that names this segment's generation where a frame would.
    fn candidate_from(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        let end = self.zeros_from()?;
        while at < end {
            self.fill(at, FIXED_BYTES)?;
            let bytes = self.window(at);
            if bytes.len() < FIXED_BYTES {
                return Ok(None);
            }
            let places = bytes.len() - FIXED_BYTES;
            let hit = (0..=places)
                .step_by(ALIGNMENT)
                .find(|place| generation_of(&bytes[*place..]) == Some(self.generation));
            match hit {
                Some(place) => return Ok(Some(at + place as u64)),
                None => at += ((places / ALIGNMENT + 1) * ALIGNMENT) as u64,
            }
        }
        Ok(None)
    }

    fn window(&self, at: u64) -> &[u8] {
        at.checked_sub(self.chunk_start)
            .and_then(|start| self.chunk.get(usize::try_from(start).ok()?..))
            .unwrap_or_default()
    }

    /// Has `count` bytes from `at` in memory, as far as the limit allows.
    fn fill(&mut self, at: u64, count: usize) -> io::Result<()> {
        let available = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
        if self.window(at).len() >= count.min(available) {
            return Ok(());
        }
        let mut chunk = vec![0; count.max(CHUNK_BYTES).min(available)];
        let read = if self.salvages {
            let salvaged = salvage::read(&*self.file, &mut chunk, at)?;
            if let Some(last) = salvaged.unreadable.last() {
                self.unreadable_end = self.unreadable_end.max(at + last.end as u64);
            }
            salvaged.read
        } else {
            self.file.read_at(&mut chunk, at)?
        };
        chunk.truncate(read);
        self.chunk = Bytes::from(chunk);
        self.chunk_start = at;
        Ok(())
    }
}
