//! The segment files as they lie there, and one walk through a segment.
//! Holds: a segment that its owner frees meanwhile is no error.

use super::super::disk::{Disk, DiskFile};
use super::super::recovery::at;
use super::super::salvage;
use super::super::scan::{Scanned, Scanner, Step};
use super::super::segment::{self, HEADER_BYTES, Header, HeaderFound};
use super::super::shared::Paths;
use super::super::types::OpenError;
use super::READS_MAX;
use crate::time::UnixMs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

/// The most damaged ranges of one segment that are named.
const RANGES_MAX: usize = 100;

/// A segment file.
pub(super) struct OnDisk {
    pub number: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub bytes: u64,
    pub state: &'static str,
    /// Where it can be believed.
    pub header: Option<Header>,
}

/// Every segment file by number.
///
/// # Errors
/// [`OpenError`].
pub(super) fn find(disk: &dyn Disk, paths: &Paths) -> Result<Vec<OnDisk>, OpenError> {
    let names = disk.list(&paths.directory).map_err(at(&paths.directory))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = paths.directory.join(segment::file_name(number));
        let file: Arc<dyn DiskFile> = match disk.open(&path) {
            // Freed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(at(&path))?.into(),
        };
        let bytes = file.size().map_err(at(&path))?;
        let (state, header) = match read_header(&*file).map_err(at(&path))? {
            HeaderFound::Good(header) if header.number == number => ("sound", Some(header)),
            HeaderFound::Blank => ("blank", None),
            HeaderFound::Good(_) | HeaderFound::Bad => ("damaged", None),
            HeaderFound::Newer(version) => {
                return Err(OpenError::NewerFormat {
                    path: path.display().to_string(),
                    found: version,
                    known: segment::FORMAT,
                });
            }
        };
        found.push(OnDisk { number, path, file, bytes, state, header });
    }
    Ok(found)
}

fn read_header(file: &dyn DiskFile) -> io::Result<HeaderFound> {
    let mut region = vec![0; HEADER_BYTES];
    for _ in 1..READS_MAX {
        let read = salvage::read(file, &mut region, 0)?.read;
        let found = Header::decode(&region[..read]);
        if found != HeaderFound::Bad {
            return Ok(found);
        }
    }
    let read = salvage::read(file, &mut region, 0)?.read;
    Ok(Header::decode(&region[..read]))
}

/// What a walk through a segment met.
#[derive(Default)]
pub(super) struct Walk {
    pub records: u64,
    pub last: Option<u64>,
    pub newest_ms: Option<UnixMs>,
    pub identities: u64,
    /// When the last identity may be forgotten.
    pub remember_until: Option<UnixMs>,
    /// Bytes between sound records that are none, the first few ranges, and how many there are.
    pub damage: Vec<Range<u64>>,
    pub damage_count: u64,
    /// Bytes behind the last sound record that are neither records nor zeros.
    pub rest: Range<u64>,
    /// The disk could not give some of the rest.
    pub rest_is_unreadable: bool,
    pub broke_off: bool,
}

/// Reads every record of a segment.
///
/// # Errors
/// What the operating system said, where it is not about single sectors: those count as damage.
pub(super) fn walk(
    one: &OnDisk,
    header: &Header,
    visit: &mut dyn FnMut(&Scanned) -> ControlFlow<()>,
) -> io::Result<Walk> {
    let mut scanner = Scanner::new(Arc::clone(&one.file), header.generation, header.first, one.bytes);
    scanner.salvage();
    let mut walked = Walk::default();
    loop {
        match scanner.step()? {
            Step::Record(record) => {
                walked.met(&record);
                if visit(&record).is_break() {
                    walked.broke_off = true;
                    return Ok(walked);
                }
            }
            Step::Damage(range) => {
                walked.damage_count += 1;
                if walked.damage.len() < RANGES_MAX {
                    walked.damage.push(range);
                }
            }
            Step::End => break,
        }
    }
    walked.rest = scanner.offset()..scanner.zeros_from()?;
    walked.rest_is_unreadable = scanner.has_unreadable_from(walked.rest.start);
    Ok(walked)
}

impl Walk {
    fn met(&mut self, record: &Scanned) {
        self.records += 1;
        self.last = Some(record.sequence);
        self.newest_ms = self.newest_ms.max(Some(record.arrival));
        if let Some(dedupe) = record.dedupe {
            let window_ms = i64::try_from(dedupe.window.as_millis()).unwrap_or(i64::MAX);
            let until = UnixMs(record.arrival.0.saturating_add(window_ms));
            self.identities += 1;
            self.remember_until = self.remember_until.max(Some(until));
        }
    }
}
