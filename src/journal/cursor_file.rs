//! A cursor on disk: two slots, written in turn, each with a checksum and a counter; the newest good one counts.
//! Holds: what is saved was true when it was read from the cursor, so it is never ahead (R2); a write that tears
//! leaves the other slot.
//!
//! ```text
//!  0          8         10   12      16       24        32        40
//!  | HBCURSOR | version | 00 | crc32 | saving | through | ranges  | (first, last) …
//! ```

use super::cursor::Progress;
use super::disk::{Disk, DiskFile};
use super::salvage;
use std::io;
use std::path::{Path, PathBuf};

/// The newest format we write and read.
pub(super) const FORMAT: u16 = 1;
const MAGIC: &[u8; 8] = b"HBCURSOR";
const FIXED_BYTES: usize = 40;
const RANGE_BYTES: usize = 16;
/// A slot with more than this is not ours; a lane's window bounds the ranges to far less.
const SLOT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a slot's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Good { saving: u64, progress: Progress },
    Newer(u16),
    Bad,
}

pub(super) fn encode(saving: u64, progress: &Progress) -> Vec<u8> {
    let ranges = progress.above();
    let mut bytes = Vec::with_capacity(FIXED_BYTES + ranges.len() * RANGE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    for number in [saving, progress.through(), ranges.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (first, last) in ranges {
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&last.to_le_bytes());
    }
    let crc = slot_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn slot_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

pub(super) fn decode(bytes: &[u8]) -> Slot {
    if bytes.len() < FIXED_BYTES || &bytes[..8] != MAGIC {
        return Slot::Bad;
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let Some(end) = usize::try_from(number(32))
        .ok()
        .and_then(|count| count.checked_mul(RANGE_BYTES)?.checked_add(FIXED_BYTES))
        .filter(|end| *end <= bytes.len())
    else {
        return Slot::Bad;
    };
    let crc = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    if slot_crc(&bytes[..end]) != crc {
        return Slot::Bad;
    }
    let version = u16::from_le_bytes(bytes[8..10].try_into().expect("two bytes"));
    if version > FORMAT {
        return Slot::Newer(version);
    }
    let ranges = (FIXED_BYTES..end).step_by(RANGE_BYTES).map(|at| (number(at), number(at + 8)));
    // No record has the last number that there is: whoever asks for the next one behind it could not be answered.
    if number(24) == u64::MAX || ranges.clone().any(|(_, last)| last == u64::MAX) {
        return Slot::Bad;
    }
    Slot::Good { saving: number(16), progress: Progress::from_parts(number(24), ranges) }
}

/// The two slots of one cursor.
pub(super) struct Slots {
    paths: [PathBuf; 2],
    files: [Option<Box<dyn DiskFile>>; 2],
    next: usize,
    saving: u64,
}

/// What the slots of a cursor held.
#[derive(Debug)]
pub(super) enum Loaded {
    /// There were none: the cursor is new.
    New,
    /// The newest good slot.
    Saved(Progress),
    /// There were slots and none can be believed.
    Unreadable,
    /// A slot of a format that we do not know.
    Newer(PathBuf, u16),
}

impl Slots {
    /// Reads the slots of the cursor `name`.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn load(disk: &dyn Disk, directory: &Path, name: &str) -> io::Result<(Slots, Loaded)> {
        let paths = [0, 1].map(|slot| directory.join(format!("{name}.{slot}")));
        let mut slots = Slots { paths, files: [None, None], next: 0, saving: 0 };
        let mut loaded = Loaded::New;
        for at in 0..2 {
            let file = match disk.open(&slots.paths[at]) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match decode(&read_slot(&*file)?) {
                Slot::Good { saving, progress } => {
                    if saving > slots.saving {
                        slots.saving = saving;
                        slots.next = 1 - at;
                        loaded = Loaded::Saved(progress);
                    }
                }
                Slot::Newer(version) => {
                    loaded = Loaded::Newer(slots.paths[at].clone(), version);
                    return Ok((slots, loaded));
                }
                Slot::Bad => {
                    if matches!(loaded, Loaded::New) {
                        loaded = Loaded::Unreadable;
                    }
                }
            }
            slots.files[at] = Some(file);
        }
        Ok((slots, loaded))
    }

    /// Saves to the older slot. Where that fails the same slot is written anew the next time: the other one is good.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn save(&mut self, disk: &dyn Disk, directory: &Path, progress: &Progress) -> io::Result<()> {
        let bytes = encode(self.saving + 1, progress);
        match &self.files[self.next] {
            Some(file) => {
                file.write_at(&bytes, 0)?;
                file.sync_data()?;
            }
            None => {
                let file = disk.create(&self.paths[self.next])?;
                file.write_at(&bytes, 0)?;
                file.sync_data()?;
                disk.sync_dir(directory)?;
                self.files[self.next] = Some(file);
            }
        }
        self.saving += 1;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn read_slot(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let bytes = file.size()?.min(SLOT_BYTES_MAX);
    let mut slot = vec![0; usize::try_from(bytes).expect("the limit fits memory")];
    let salvaged = salvage::read(file, &mut slot, 0)?;
    slot.truncate(salvaged.read);
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_back_what_was_saved_and_no_flipped_bit_is_believed() {
        let progress = Progress::from_parts(7, [(9, 12), (20, 20)]);
        let good = encode(3, &progress);
        assert_eq!(decode(&good), Slot::Good { saving: 3, progress });
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Slot::Bad, "bit {bit}");
        }
    }

    #[test]
    fn a_slot_that_settles_the_last_number_there_is_is_none_of_ours() {
        for (through, ranges) in [(u64::MAX, vec![]), (7, vec![(9, u64::MAX)]), (7, vec![(8, u64::MAX)])] {
            assert_eq!(decode(&encode(1, &Progress::from_parts(through, ranges))), Slot::Bad);
        }
    }

    #[test]
    fn a_shorter_slot_over_a_longer_one_is_read_without_its_rest() {
        let mut bytes = encode(1, &Progress::from_parts(1, [(3, 3), (5, 5)]));
        let short = encode(2, &Progress::through_only(6));
        bytes[..short.len()].copy_from_slice(&short);
        assert_eq!(decode(&bytes), Slot::Good { saving: 2, progress: Progress::through_only(6) });
    }
}
