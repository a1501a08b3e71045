//! What could not be read is set aside in `damaged/`, once, under a name that says where it was.
//! Holds: a range is counted once however often it is met; what the disk could not give is stepped over only after it
//! was set aside durably, which shows that the disk is there and takes writes; files and their bytes are bounded.

use super::disk::{Disk, DiskFile};
use super::salvage;
use super::scan::{CHUNK_BYTES, Scanner};
use super::shared::Paths;
use crate::telemetry::metrics::journal as metrics;
use std::io;
use std::ops::Range;

/// Beyond so many files, damage is still counted and logged, but nothing of it is kept.
const FILES_MAX: usize = 1000;
/// Beyond so many bytes, an empty file stands for a damaged range. Whole segments count, but are never refused: they
/// took their room in the budget before.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What lies in `damaged/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub files: u64,
    pub bytes: u64,
}

/// Counts what lies in `damaged/`.
///
/// # Errors
/// What the operating system said.
pub(super) fn measure(disk: &dyn Disk, paths: &Paths) -> io::Result<Kept> {
    let names = disk.list(&paths.damaged)?;
    // A file that an operator removes meanwhile, or that is none, has no bytes.
    let bytes_of =
        |name: &String| disk.open(&paths.damaged.join(name)).and_then(|file| file.size()).unwrap_or(0);
    Ok(Kept { files: names.len() as u64, bytes: names.iter().map(bytes_of).sum() })
}

/// Keeps the bytes of `range` of segment `number`; tells whether they are met for the first time.
///
/// # Errors
/// What the operating system said, where the disk could not give all of the range: then it must not be stepped over.
pub(super) fn set_aside(
    disk: &dyn Disk,
    paths: &Paths,
    number: u64,
    scanner: &Scanner,
    range: &Range<u64>,
) -> io::Result<bool> {
    let name = format!("{number:08}-{:010}.bin", range.start);
    let is_unreadable = scanner.has_unreadable_from(range.start);
    let known = match disk.list(&paths.damaged) {
        Ok(known) => known,
        Err(error) if is_unreadable => return Err(error),
        Err(error) => {
            tracing::warn!(path = %paths.damaged.display(), %error, "damaged ranges cannot be listed");
            Vec::new()
        }
    };
    if known.contains(&name) {
        if is_unreadable {
            disk.sync_dir(&paths.damaged)?;
        }
        return Ok(false);
    }
    if is_unreadable || known.len() < FILES_MAX {
        let has_room =
            measure(disk, paths).is_ok_and(|kept| kept.bytes + (range.end - range.start) <= BYTES_MAX);
        let copied = if has_room { range.clone() } else { range.start..range.start };
        match copy(disk, paths, &name, scanner.file(), &copied) {
            Err(error) if is_unreadable => return Err(error),
            Err(error) => {
                tracing::warn!(segment = number, %error, "a damaged range could not be set aside");
            }
            Ok(()) => {}
        }
    }
    tracing::error!(
        segment = number,
        start = range.start,
        end = range.end,
        unreadable = is_unreadable,
        "damage in the journal; skipped"
    );
    metrics::damage_found();
    Ok(true)
}

fn copy(
    disk: &dyn Disk,
    paths: &Paths,
    name: &str,
    file: &dyn DiskFile,
    range: &Range<u64>,
) -> io::Result<()> {
    let unfinished = paths.damaged.join(format!("{name}.part"));
    let copy = disk.create(&unfinished)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = salvage::read(file, &mut chunk[..wanted], at)?.read;
        if read == 0 {
            break;
        }
        copy.write_at(&chunk[..read], at - range.start)?;
        at += read as u64;
    }
    copy.sync_data()?;
    // Only a whole one gets the name by which it is known.
    disk.rename(&unfinished, &paths.damaged.join(name))?;
    disk.sync_dir(&paths.damaged)
}

/// The highest number of a segment of which something was set aside; 0 where nothing was.
///
/// # Errors
/// What the operating system said.
pub(super) fn last_number(disk: &dyn Disk, paths: &Paths) -> io::Result<u64> {
    let names = disk.list(&paths.damaged)?;
    let numbers = names.iter().filter_map(|name| name.split(['-', '.']).next()?.parse::<u64>().ok());
    // A file that somebody else put there must not use up the numbers.
    Ok(numbers.filter(|number| *number < u64::from(u32::MAX)).max().unwrap_or(0))
}

/// Moves a whole segment file aside, whose header cannot be believed.
///
/// # Errors
/// What the operating system said.
pub(super) fn set_aside_segment(disk: &dyn Disk, paths: &Paths, file_name: &str) -> io::Result<()> {
    tracing::error!(segment = file_name, "the header of a segment is damaged; its records are set aside");
    metrics::damage_found();
    disk.rename(&paths.directory.join(file_name), &paths.damaged.join(file_name))?;
    disk.sync_dir(&paths.damaged)?;
    disk.sync_dir(&paths.directory)
}
