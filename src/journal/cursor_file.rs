//! A cursor on disk: two slots, written in turn, each with a checksum and a counter; the newest good one counts.
//! Holds: what is saved was true when it was read from the cursor, so it is never ahead (R2), and its counts are those
//! of its ranges (R4); a write that tears leaves the other slot.
//!
//! ```text
//!  0          8         10   12      16       24        32      40
//!  | HBCURSOR | version | 00 | crc32 | saving | through | units | units × 16 bytes …
//!
//!  version 1: | first, last | …
//!  version 2: | began after | delivered | dead-lettered | shed | not routed | missing | ranges | deferrals |
//!             | first, last | … | sequence | due ms | note bytes: 2 | note | … zeros to 16
//! ```

use super::cursor::{DEFERRALS_MAX, Progress, Standing};
use super::disk::{Disk, DiskFile, is_medium_error, is_no_room};
use super::salvage;
use super::types::{Deferral, NOTE_BYTES_MAX, Tally};
use crate::time::UnixMs;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The newest format we write and read.
pub(super) const FORMAT: u16 = 2;
const MAGIC: &[u8; 8] = b"HBCURSOR";
const FIXED_BYTES: usize = 40;
/// The content's length is counted in these, in every version, so that every version can check the sum.
const UNIT_BYTES: usize = 16;
const DEFERRAL_BYTES_MAX: usize = 8 + 8 + 2 + NOTE_BYTES_MAX;
/// A slot with more than this is not ours. The ranges are bounded by what a lane has in hand, to far less.
const SLOT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where much is noted in a slot, it is saved less often, so that one cursor writes no more than this in the long run:
/// 4096 events that wait for their next attempt are some 500 KB, saved twice a second. A crash repeats a little more then.
const SAVED_BYTES_PER_SECOND_MAX: f64 = 1024.0 * 1024.0;
const _: () = assert!(((DEFERRALS_MAX * DEFERRAL_BYTES_MAX) as u64) < SLOT_BYTES_MAX / 4);

/// What a slot's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Good { saving: u64, standing: Standing },
    Newer(u16),
    Bad,
}

pub(super) fn encode(saving: u64, standing: &Standing) -> Vec<u8> {
    let (progress, tally) = (standing.progress(), standing.tally());
    let (ranges, deferrals) = (progress.above(), standing.deferrals());
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 64 + ranges.len() * 16 + deferrals.len() * 128);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    let counts = [
        tally.began_after,
        tally.delivered,
        tally.dead_lettered,
        tally.shed,
        tally.not_routed,
        tally.missing,
        ranges.len() as u64,
        deferrals.len() as u64,
    ];
    for number in [saving, progress.through(), 0].into_iter().chain(counts) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in ranges.flat_map(|(first, last)| [first, last]) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (sequence, Deferral { due, note }) in deferrals {
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&due.0.to_le_bytes());
        let note = &note[..note.len().min(NOTE_BYTES_MAX)];
        bytes.extend_from_slice(&u16::try_from(note.len()).expect("the limit fits").to_le_bytes());
        bytes.extend_from_slice(note);
    }
    let units = (bytes.len() - FIXED_BYTES).div_ceil(UNIT_BYTES);
    bytes.resize(FIXED_BYTES + units * UNIT_BYTES, 0);
    bytes[32..40].copy_from_slice(&(units as u64).to_le_bytes());
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
        .and_then(|units| units.checked_mul(UNIT_BYTES)?.checked_add(FIXED_BYTES))
        .filter(|end| *end <= bytes.len())
    else {
        return Slot::Bad;
    };
    let crc = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    if slot_crc(&bytes[..end]) != crc {
        return Slot::Bad;
    }
    let (saving, through, mut content) = (number(16), number(24), Content(&bytes[FIXED_BYTES..end]));
    let standing = match u16::from_le_bytes(bytes[8..10].try_into().expect("two bytes")) {
        1 => content.format_1(through),
        2 => content.format_2(through),
        version if version > FORMAT => return Slot::Newer(version),
        _ => None,
    };
    standing.map_or(Slot::Bad, |standing| Slot::Good { saving, standing })
}

/// What is left to read of a slot's content. Every reading is `None` where there is less.
struct Content<'a>(&'a [u8]);

impl<'a> Content<'a> {
    /// Nothing was counted in that format, so the counting begins.
    fn format_1(&mut self, through: u64) -> Option<Standing> {
        let ranges = self.ranges((self.0.len() / UNIT_BYTES) as u64)?;
        Some(Standing::beginning_at(Progress::from_parts(through, ranges)?))
    }

    fn format_2(&mut self, through: u64) -> Option<Standing> {
        let tally = Tally {
            began_after: self.number()?,
            delivered: self.number()?,
            dead_lettered: self.number()?,
            shed: self.number()?,
            not_routed: self.number()?,
            missing: self.number()?,
        };
        let (range_count, deferral_count) = (self.number()?, self.number()?);
        let ranges = self.ranges(range_count)?;
        let deferrals = (0..deferral_count).map(|_| self.deferral()).collect::<Option<BTreeMap<_, _>>>()?;
        Standing::from_parts(Progress::from_parts(through, ranges)?, tally, deferrals)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn ranges(&mut self, count: u64) -> Option<Vec<(u64, u64)>> {
        (0..count).map(|_| Some((self.number()?, self.number()?))).collect()
    }

    fn deferral(&mut self) -> Option<(u64, Deferral)> {
        let sequence = self.number()?;
        let due = UnixMs(i64::from_le_bytes(self.take(8)?.try_into().ok()?));
        let note_bytes = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        // A copy, so that one note that stays long does not keep a whole slot in memory.
        let note = Bytes::copy_from_slice(self.take(usize::from(note_bytes))?);
        Some((sequence, Deferral { due, note }))
    }
}

/// The two slots of one cursor.
pub(super) struct Slots {
    paths: [PathBuf; 2],
    files: [Option<Box<dyn DiskFile>>; 2],
    next: usize,
    saving: u64,
    rests_until: Option<Instant>,
}

/// What the slots of a cursor held.
#[derive(Debug)]
pub(super) enum Loaded {
    /// There were none: the cursor is new.
    New,
    /// The newest good slot.
    Saved(Standing),
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
        let paths = [0, 1].map(|slot| slot_path(directory, name, slot));
        let mut slots = Slots { paths, files: [None, None], next: 0, saving: 0, rests_until: None };
        let mut loaded = Loaded::New;
        for at in 0..2 {
            let file = match disk.open(&slots.paths[at]) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match decode(&read_slot(&*file)?) {
                Slot::Good { saving, standing } => {
                    if saving > slots.saving {
                        slots.saving = saving;
                        slots.next = 1 - at;
                        loaded = Loaded::Saved(standing);
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

    /// So much was saved that the next time had better wait.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// Saves to the older slot. Where that fails the same slot is written anew the
    /// next time: the other one is good. Where there is no room for all of it, what may be forgotten is left out:
    /// without its progress on disk, a full one could never be freed.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn save(&mut self, disk: &dyn Disk, directory: &Path, standing: &Standing) -> io::Result<()> {
        let bytes = encode(self.saving + 1, standing);
        self.rests_until = Some(Instant::now() + rest_after(bytes.len()));
        let saved = match self.write(disk, directory, &bytes) {
            Err(error) if is_no_room(&error) && standing.deferrals().len() > 0 => {
                let bytes = encode(self.saving + 1, &standing.without_deferrals());
                self.write(disk, directory, &bytes)
            }
            written => written,
        };
        saved?;
        self.saving += 1;
        self.next = 1 - self.next;
        Ok(())
    }

    /// In place, which needs no room on a disk that is full. Where the disk does not take it there, to a new file: to
    /// write a part of a page that cannot be read fails for ever.
    fn write(&mut self, disk: &dyn Disk, directory: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &self.files[self.next] {
            match file.write_at(bytes, 0).and_then(|()| file.sync_data()) {
                Err(error) if is_medium_error(&error) => {
                    let path = self.paths[self.next].display();
                    tracing::warn!(%path, %error, "a cursor's slot cannot be written where it lies; it gets a new file");
                    self.files[self.next] = None;
                }
                written => return written,
            }
        }
        let path = &self.paths[self.next];
        let unfinished = unfinished_path(path);
        let file = disk.create(&unfinished)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        disk.rename(&unfinished, path)?;
        disk.sync_dir(directory)?;
        self.files[self.next] = Some(file);
        Ok(())
    }
}

/// Where a slot's new file lies until it is whole; one that is left there is written over.
fn unfinished_path(slot: &Path) -> PathBuf {
    let mut name = slot.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The file of a cursor's slot 0 or 1.
pub(super) fn slot_path(directory: &Path, name: &str, slot: usize) -> PathBuf {
    directory.join(format!("{name}.{slot}"))
}

/// One slot with its format, for whoever only looks; `None` where there is no such file.
///
/// # Errors
/// What the operating system said.
pub(super) fn look(disk: &dyn Disk, path: &Path) -> io::Result<Option<(u16, Slot)>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let bytes = read_slot(&*file)?;
    let format = bytes.get(8..10).and_then(|version| version.try_into().ok()).map_or(0, u16::from_le_bytes);
    Ok(Some((format, decode(&bytes))))
}

/// How long a cursor rests from a slot of so many bytes.
fn rest_after(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / SAVED_BYTES_PER_SECOND_MAX)
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
    use super::super::types::Ending;
    use super::*;
    use proptest::prelude::*;

    /// A cursor that has been through everything.
    fn standing() -> Standing {
        let mut standing = Standing::beginning_at(Progress::through_only(5));
        for (sequence, ending) in
            [(6, Ending::Delivered), (7, Ending::Shed), (9, Ending::DeadLettered), (20, Ending::NotRouted)]
        {
            assert!(standing.settle(sequence, ending));
        }
        standing.miss(10, 12);
        for (sequence, due, note) in [(8, 1_800_000_000_000, "tried twice"), (30, -1, "")] {
            assert!(standing.defer(sequence, Deferral { due: UnixMs(due), note: note.into() }));
        }
        standing
    }

    /// As format 1 wrote it.
    fn format_1(saving: u64, through: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &1_u16.to_le_bytes(), &[0; 6]].concat();
        let numbers = [saving, through, ranges.len() as u64].into_iter();
        for number in numbers.chain(ranges.iter().flat_map(|(first, last)| [*first, *last])) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        with_sound_crc(bytes)
    }

    fn with_sound_crc(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = slot_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_slot_gives_back_what_was_saved_and_no_flipped_bit_is_believed() {
        let good = encode(3, &standing());
        assert_eq!(decode(&good), Slot::Good { saving: 3, standing: standing() });
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Slot::Bad, "bit {bit}");
        }
    }

    #[test]
    fn a_large_slot_is_saved_less_often_and_a_usual_one_at_every_tick() {
        let tick = Duration::from_millis(200);
        let ranges = (0..4096).map(|at| (10 + 2 * at, 10 + 2 * at));
        let progress = Progress::from_parts(5, ranges).unwrap();
        assert!(rest_after(encode(1, &Standing::beginning_at(progress)).len()) < tick);
        let mut full = Standing::beginning_at(Progress::through_only(0));
        let note = Bytes::from(vec![7; NOTE_BYTES_MAX]);
        for sequence in 1..=4096 {
            full.defer(sequence, Deferral { due: UnixMs(0), note: note.clone() });
        }
        assert!(rest_after(encode(1, &full).len()) > 5 * tick);
    }

    #[test]
    fn a_shorter_slot_over_a_longer_one_is_read_without_its_rest() {
        let mut bytes = encode(1, &standing());
        let short = encode(2, &Standing::beginning_at(Progress::through_only(6)));
        bytes[..short.len()].copy_from_slice(&short);
        let standing = Standing::beginning_at(Progress::through_only(6));
        assert_eq!(decode(&bytes), Slot::Good { saving: 2, standing });
    }

    #[test]
    fn the_counting_of_a_cursor_of_format_1_begins_where_it_stood() {
        let progress = Progress::from_parts(7, [(9, 12), (20, 20)]).unwrap();
        let Slot::Good { saving: 4, standing } = decode(&format_1(4, 7, &[(9, 12), (20, 20)])) else {
            panic!("a slot of format 1 is read");
        };
        assert_eq!(standing.progress(), &progress);
        assert_eq!(standing.tally(), Tally { began_after: 12, ..Tally::default() });
        assert_eq!(standing.tally().settled() + progress.unsettled(30), 30);
    }

    #[test]
    fn a_slot_of_a_later_format_is_known_as_such_by_every_earlier_one() {
        let mut later = encode(1, &standing());
        later[8] = 3;
        assert_eq!(decode(&with_sound_crc(later)), Slot::Newer(3));
        // Format 1 sums over 40 bytes and 16 for each unit, whatever they mean.
        let ours = encode(1, &standing());
        let units = u64::from_le_bytes(ours[32..40].try_into().unwrap());
        assert_eq!(ours.len() as u64, 40 + 16 * units);
    }

    #[test]
    fn a_slot_whose_parts_do_not_belong_together_is_not_believed() {
        let number_at = |bytes: &mut Vec<u8>, at: usize, number: u64| {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        };
        for (sentence, at, number) in [
            ("a count that the ranges do not show", 48, 2),
            ("counts beyond all numbers", 40, u64::MAX),
            ("more ranges than there are bytes", 88, u64::MAX),
            ("more deferrals than there are bytes", 96, u64::MAX),
            ("a range that touches the watermark", 104, 8),
            ("a deferral of a settled record", 136, 6),
            ("a watermark at the end of all numbers", 24, u64::MAX),
        ] {
            let mut bytes = encode(1, &standing());
            number_at(&mut bytes, at, number);
            assert_eq!(decode(&with_sound_crc(bytes)), Slot::Bad, "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(
            version in 0u16..4,
            through: u64,
            content in proptest::collection::vec(prop_oneof![Just(0u8), Just(255u8), any::<u8>()], 0..200),
        ) {
            let mut bytes = [MAGIC.as_slice(), &version.to_le_bytes(), &[0; 14]].concat();
            bytes.extend_from_slice(&through.to_le_bytes());
            bytes.extend_from_slice(&((content.len() / UNIT_BYTES) as u64).to_le_bytes());
            bytes.extend_from_slice(&content);
            bytes.truncate(FIXED_BYTES + content.len() / UNIT_BYTES * UNIT_BYTES);
            if let Slot::Good { standing, .. } = decode(&with_sound_crc(bytes)) {
                let again = encode(1, &standing);
                prop_assert_eq!(decode(&again), Slot::Good { saving: 1, standing });
            }
        }
    }
}
