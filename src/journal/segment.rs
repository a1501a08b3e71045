//! One segment file: its name, its header, how it is made ahead of need, and the one that is written to.
//! Holds: R1 (a [`SyncedThrough`] comes only out of a sync that succeeded, and nobody can be answered without one);
//! a full disk shows when a segment is made, never in the middle of an append.
//!
//! ```text
//!  0      4096                                                  length
//!  | header | frame | frame | … | zeros, written when the file was made |
//! ```

use super::disk::{Disk, DiskFile};
use super::salvage;
use crate::time::UnixMs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The newest format we write and read.
pub(super) const FORMAT: u16 = 1;
/// Bytes before the first frame.
pub(super) const HEADER_BYTES: usize = 4096;
/// The smallest segment we make.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
/// The largest segment we make; a frame's length and its offset fit 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"HBJRNSEG";
const FIELDS_BYTES: usize = 64;
/// The header stands twice, so that one bad byte does not cost a whole segment.
const COPIES_AT: [usize; 2] = [0, 2048];
const COPY_CHUNK_BYTES: u64 = 1024 * 1024;
/// Bytes of zeros between two syncs.
const BLANK_SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// What a segment says about itself and about the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The number in its name; consecutive.
    pub number: u64,
    /// A random number: what carries another one was not written to this segment.
    pub generation: u64,
    /// The sequence number of its first record.
    pub first: u64,
    /// When its first record arrived.
    pub first_ms: UnixMs,
    /// When the newest record of the segment before arrived.
    pub previous_newest_ms: UnixMs,
    /// When the last identity of the segment before may be forgotten.
    pub previous_remember_until: UnixMs,
}

/// What the first bytes of a segment file are.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum HeaderFound {
    /// A header of ours.
    Good(Header),
    /// A sound header of a format that we do not know.
    Newer(u16),
    /// Nothing was ever written.
    Blank,
    /// Neither copy can be believed.
    Bad,
}

impl Header {
    /// The header region of a file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(FIELDS_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&FORMAT.to_le_bytes());
        fields.extend_from_slice(&[0; 6]);
        for number in [
            self.generation,
            self.first,
            self.number,
            self.first_ms.0.cast_unsigned(),
            self.previous_newest_ms.0.cast_unsigned(),
            self.previous_remember_until.0.cast_unsigned(),
        ] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        let crc = header_crc(&fields);
        fields[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut region = vec![0; HEADER_BYTES];
        for at in COPIES_AT {
            region[at..at + FIELDS_BYTES].copy_from_slice(&fields);
        }
        region
    }

    /// Reads the first [`HEADER_BYTES`] of a file, fewer where it is shorter.
    pub(super) fn decode(region: &[u8]) -> HeaderFound {
        let copies =
            COPIES_AT.map(|at| region.get(at..at + FIELDS_BYTES).map_or(HeaderFound::Bad, decode_copy));
        match copies.into_iter().find(|copy| *copy != HeaderFound::Bad) {
            Some(sound) => sound,
            None if region.iter().all(|byte| *byte == 0) => HeaderFound::Blank,
            None => HeaderFound::Bad,
        }
    }
}

fn header_crc(fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&fields[..12]);
    hasher.update(&fields[16..]);
    hasher.finalize()
}

fn decode_copy(fields: &[u8]) -> HeaderFound {
    let crc = u32::from_le_bytes(fields[12..16].try_into().expect("four bytes"));
    if &fields[..8] != MAGIC || header_crc(fields) != crc {
        return HeaderFound::Bad;
    }
    let version = u16::from_le_bytes(fields[8..10].try_into().expect("two bytes"));
    if version > FORMAT {
        return HeaderFound::Newer(version);
    }
    let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
    HeaderFound::Good(Header {
        generation: number(16),
        first: number(24),
        number: number(32),
        first_ms: UnixMs(number(40).cast_signed()),
        previous_newest_ms: UnixMs(number(48).cast_signed()),
        previous_remember_until: UnixMs(number(56).cast_signed()),
    })
}

/// `00000042.seg`
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.seg")
}

/// The number in a segment's file name; other names are not ours.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The name a file has while it is being made; what is left of one is removed at the next opening.
pub(super) fn unfinished_name(number: u64) -> String {
    format!("{number:08}.new")
}

/// The name of a freed segment's file until it is used again; removed at the next opening like all that is unfinished.
pub(super) const RECYCLED_NAME: &str = "recycled.new";

/// Makes the file of a freed segment blank once more: a new one would need new blocks, and new pages to write them from.
///
/// # Errors
/// What the operating system said.
pub(super) fn make_blank(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(path)?;
    write_blank_bytes(&*file, bytes)?;
    Ok(file.into())
}

/// Makes the file of segment `number` of one that is blank already.
///
/// # Errors
/// What the operating system said.
pub(super) fn adopt(disk: &dyn Disk, directory: &Path, number: u64) -> io::Result<()> {
    disk.rename(&directory.join(RECYCLED_NAME), &directory.join(file_name(number)))?;
    disk.sync_dir(directory)
}

/// Makes the file of segment `number`: every block written with zeros and synced, then its name.
///
/// # Errors
/// What the operating system said; nothing is left behind as far as it lets us clean up.
pub(super) fn prepare(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
    bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let unfinished = directory.join(unfinished_name(number));
    let path = directory.join(file_name(number));
    write_blank(disk, &unfinished, bytes)
        .and_then(|file| {
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(directory)?;
            Ok(file)
        })
        .inspect_err(|_| {
            for leftover in [&unfinished, &path] {
                if let Err(error) = disk.remove(leftover)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::debug!(path = %leftover.display(), %error, "could not remove an unfinished segment");
                }
            }
        })
}

fn write_blank(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(path)?;
    write_blank_bytes(&*file, bytes)?;
    Ok(file.into())
}

/// A sync now and then, so that the disk is never busy with this for long while records wait for theirs.
fn write_blank_bytes(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let end = (at + BLANK_SYNC_BYTES).min(bytes);
        write_zeros(file, at, end)?;
        file.sync_data()?;
        at = end;
    }
    Ok(())
}

fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from((to - from).min(COPY_CHUNK_BYTES)).expect("a chunk fits memory")];
    let mut at = from;
    while at < to {
        let count = (to - at).min(COPY_CHUNK_BYTES);
        file.write_at(&zeros[..usize::try_from(count).expect("a chunk fits memory")], at)?;
        at += count;
    }
    Ok(())
}

/// Proof that every record up to a sequence number is on stable storage: only a sync that succeeded makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SyncedThrough(u64);

impl SyncedThrough {
    /// The last sequence number covered.
    pub(super) fn sequence(self) -> u64 {
        self.0
    }
}

/// The segment that is written to.
pub(super) struct Active {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Of the segment.
    pub header: Header,
    /// Where the next batch goes; 0 while even the header is unwritten.
    offset: u64,
    capacity: u64,
    written_through: u64,
}

impl Active {
    /// Begins with a file that [`prepare`] made.
    pub(super) fn begin(file: Arc<dyn DiskFile>, path: PathBuf, header: Header, capacity: u64) -> Active {
        Active { file, path, header, offset: 0, capacity, written_through: header.first - 1 }
    }

    /// Goes on after recovery: `end` is where the last good record ends, what lies between `end` and `cut_to` is
    /// replaced with zeros. The good bytes are written once more before the sync: after a failed sync the system may
    /// hold pages that it believes clean and that never reached the disk, and a sync alone would vouch for them. What
    /// cannot be read is left as it is, but for the header, which is known.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn resume(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        header: Header,
        (end, cut_to): (u64, u64),
        last: u64,
    ) -> io::Result<(Active, SyncedThrough)> {
        let mut chunk = vec![0; usize::try_from(end.min(COPY_CHUNK_BYTES)).expect("a chunk fits memory")];
        file.write_at(&header.encode(), 0)?;
        let mut at = HEADER_BYTES as u64;
        while at < end {
            let wanted = usize::try_from((end - at).min(COPY_CHUNK_BYTES)).expect("a chunk fits memory");
            let salvage::Salvaged { read, unreadable } = salvage::read(&*file, &mut chunk[..wanted], at)?;
            if read == 0 {
                // A file that was cut short where it cannot be read either: nothing goes behind it any more.
                break;
            }
            let mut sound_from = 0;
            for hole in unreadable.into_iter().chain(std::iter::once(read..read)) {
                if hole.start > sound_from {
                    file.write_at(&chunk[sound_from..hole.start], at + sound_from as u64)?;
                }
                sound_from = hole.end;
            }
            at += read as u64;
        }
        if cut_to > end {
            write_zeros(&*file, end, cut_to)?;
        }
        let capacity = file.size()?;
        let mut active = Active { file, path, header, offset: end, capacity, written_through: last };
        let synced = active.sync()?;
        Ok((active, synced))
    }

    /// From now on it has no room.
    pub(super) fn take_no_more(&mut self) {
        self.capacity = self.offset;
    }

    /// Where the file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing, not even the header, has been written.
    pub(super) fn is_blank(&self) -> bool {
        self.offset == 0
    }

    /// Bytes that frames can still take, beyond `pending` bytes that are already gathered.
    pub(super) fn room(&self, pending: usize) -> u64 {
        let header = if self.is_blank() && pending == 0 { HEADER_BYTES as u64 } else { 0 };
        self.capacity.saturating_sub(self.offset + header + pending as u64)
    }

    /// Whether more than half is used: time to make the next one.
    pub(super) fn is_half_full(&self) -> bool {
        self.offset > self.capacity / 2
    }

    /// Writes a batch whose last record is `last`; the first batch begins with the header. One write.
    ///
    /// # Errors
    /// What the operating system said; the journal must then fail (R6).
    pub(super) fn write(&mut self, batch: &[u8], last: u64) -> io::Result<()> {
        self.file.write_at(batch, self.offset)?;
        self.offset += batch.len() as u64;
        self.written_through = last;
        Ok(())
    }

    /// Syncs what was written.
    ///
    /// # Errors
    /// What the operating system said; the journal must then fail (R6).
    pub(super) fn sync(&mut self) -> io::Result<SyncedThrough> {
        self.file.sync_data()?;
        Ok(SyncedThrough(self.written_through))
    }

    /// Where the next batch goes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        number: 3,
        generation: 99,
        first: 12,
        first_ms: UnixMs(5),
        previous_newest_ms: UnixMs(-1),
        previous_remember_until: UnixMs(i64::MAX),
    };

    #[test]
    fn a_header_survives_any_one_flipped_bit() {
        let region = HEADER.encode();
        for bit in 0..region.len() * 8 {
            let mut flipped = region.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), HeaderFound::Good(HEADER), "bit {bit}");
        }
    }

    #[test]
    fn a_region_is_told_apart() {
        let mut both_bad = HEADER.encode();
        both_bad[20] ^= 1;
        both_bad[2048 + 20] ^= 1;
        let mut newer = HEADER.encode();
        for at in COPIES_AT {
            newer[at + 8] = 2;
            let crc = header_crc(&newer[at..at + FIELDS_BYTES]).to_le_bytes();
            newer[at + 12..at + 16].copy_from_slice(&crc);
        }
        for (sentence, region, found) in [
            ("zeros were never written", vec![0; HEADER_BYTES], HeaderFound::Blank),
            ("two bad copies are damage", both_bad, HeaderFound::Bad),
            ("a later format is named", newer, HeaderFound::Newer(2)),
            ("a file cut short in its header is damage", HEADER.encode()[..40].to_vec(), HeaderFound::Bad),
        ] {
            assert_eq!(Header::decode(&region), found, "{sentence}");
        }
    }
}
