//! What could not be read is set aside in `damaged/`, once, under a name that says where it was.
//! Holds: a range is counted once however often it is met; the number of files is bounded.

use super::disk::{Disk, DiskFile};
use super::scan::CHUNK_BYTES;
use super::shared::Paths;
use crate::telemetry::metrics::journal as metrics;
use std::io;
use std::ops::Range;

/// Beyond so many files, damage is still counted and logged, but its bytes are not kept.
const FILES_MAX: usize = 1000;

/// Keeps the bytes of `range` of segment `number`; tells whether they are met for the first time.
pub(super) fn set_aside(
    disk: &dyn Disk,
    paths: &Paths,
    number: u64,
    file: &dyn DiskFile,
    range: &Range<u64>,
) -> bool {
    let name = format!("{number:08}-{:010}.bin", range.start);
    let known = match disk.list(&paths.damaged) {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(path = %paths.damaged.display(), %error, "damaged ranges cannot be listed");
            Vec::new()
        }
    };
    if known.contains(&name) {
        return false;
    }
    tracing::error!(segment = number, start = range.start, end = range.end, "damage in the journal; skipped");
    metrics::damage_found();
    if known.len() < FILES_MAX
        && let Err(error) = copy(disk, paths, &name, file, range)
    {
        tracing::warn!(segment = number, %error, "a damaged range could not be set aside");
    }
    true
}

fn copy(
    disk: &dyn Disk,
    paths: &Paths,
    name: &str,
    file: &dyn DiskFile,
    range: &Range<u64>,
) -> io::Result<()> {
    let copy = disk.create(&paths.damaged.join(name))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = file.read_at(&mut chunk[..wanted], at)?;
        if read == 0 {
            break;
        }
        copy.write_at(&chunk[..read], at - range.start)?;
        at += read as u64;
    }
    copy.sync_data()?;
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
