//! The newest records in memory: slices of the very buffers that were written, so that a lane that keeps up never
//! reads the disk.
//! Holds: at most `bytes_max` bytes of buffers (the newest batch stays whatever its size); a slice that leaves this
//! cache never keeps much more in memory than itself.

use crate::time::UnixMs;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// A slice may keep this much of a buffer alive, or eight times its own length; beyond, it is copied.
const PINNED_BYTES_MAX: usize = 64 * 1024;
const INDEX_BYTES: usize = size_of::<Slice>();

/// Where in its batch a record lies.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub arrival: UnixMs,
    pub payload: Range<usize>,
}

/// The records of one write; their sequence numbers follow one another from `first`.
#[derive(Debug)]
pub(super) struct Batch {
    pub first: u64,
    pub slices: Vec<Slice>,
    pub buffer: Bytes,
}

impl Batch {
    fn end(&self) -> u64 {
        self.first + self.slices.len() as u64
    }
    fn bytes(&self) -> usize {
        self.buffer.len() + self.slices.len() * INDEX_BYTES
    }
}

/// The newest batches.
pub(super) struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// Empty.
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a batch that is durable.
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch.bytes();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            self.bytes -= self.batches.pop_front().map_or(0, |batch| batch.bytes());
        }
    }

    /// The record `sequence`, if it is here.
    pub(super) fn get(&self, sequence: u64) -> Option<(UnixMs, Bytes)> {
        let behind = self.batches.partition_point(|batch| batch.end() <= sequence);
        let batch = self.batches.get(behind).filter(|batch| batch.first <= sequence)?;
        let slice = &batch.slices[usize::try_from(sequence - batch.first).ok()?];
        Some((slice.arrival, unpinned(&batch.buffer.slice(slice.payload.clone()), batch.buffer.len())))
    }
}

/// `payload` itself, or a copy where it would keep a buffer of `buffer_bytes` in memory that is much larger.
pub(super) fn unpinned(payload: &Bytes, buffer_bytes: usize) -> Bytes {
    if buffer_bytes <= PINNED_BYTES_MAX.max(payload.len().saturating_mul(8)) {
        payload.clone()
    } else {
        Bytes::copy_from_slice(payload)
    }
}
