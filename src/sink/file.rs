//! `file`: one event a line (NDJSON) in a local file, synced before it counts as delivered, rotated by size.
//! Holds: Delivered only after a sync that covers the line; every line always parses, whatever was cut short;
//! nothing is ever overwritten. An event may stand in the file twice after a failure (at least once).
//! One process writes a file (it is locked); one that somebody moves away is begun anew.

use super::cloudevents::write_line;
use super::gather::{BatchWriter, Gatherer, Unconfirmed};
use super::{
    BuildError, Context, Failure, Format, Limits, Outcome, OwnKeys, Reason, Sink, SinkConfig, SinkType,
};
use crate::config::{ByteSize, ConfigError, Section};
use crate::envelope::{Envelope, SinkName};
use crate::shutdown::{Phase, Shutdown};
use futures_util::future::{BoxFuture, FutureExt};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) const TYPE: SinkType = SinkType::of::<Config>("file", &[Format::Structured]);

/// Events are the user's own: nobody else reads them unless the user says so.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// How far apart the line feeds of a torn tail are looked for.
const TAIL_CHUNK_BYTES: usize = 64 * 1024;
/// How many names a rotation tries before it gives up, all of one millisecond.
const ROTATED_NAMES_MAX: u32 = 1000;

/// `[sinks.N.file]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The file; relative paths begin in the data directory, where missing directories are made.
    path: PathBuf,
    /// Size before which the file is renamed to `PATH.TIME` and a new one is begun; absent: never.
    rotate_at: Option<ByteSize>,
}

impl Default for Config {
    fn default() -> Self {
        Config { path: PathBuf::from("events.ndjson"), rotate_at: None }
    }
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        if self.path.file_name().is_none() {
            errors.push(section.error("path", "expected the path of a file"));
        }
        if self.rotate_at == Some(ByteSize::bytes(0)) {
            errors
                .push(section.error("rotate_at", "expected more than nothing; leave it out to never rotate"));
        }
    }
}

impl SinkConfig for Config {
    fn build(&self, context: Context, shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(FileSink::new(self, &context, shutdown, Box::new(RealCalls))))
    }

    fn file(&self, data_dir: &Path) -> Option<PathBuf> {
        Some(data_dir.join(&self.path))
    }
}

struct FileSink {
    place: Place,
    timeout: Duration,
    shutdown: Shutdown,
    gatherer: Gatherer<FileWriter>,
}

impl FileSink {
    fn new(config: &Config, context: &Context, shutdown: &Shutdown, calls: Box<dyn FileCalls>) -> Self {
        let place =
            Place { path: context.data_dir.join(&config.path), makes_directories: config.path.is_relative() };
        let writer = FileWriter {
            sink: context.name.clone(),
            place: place.clone(),
            rotate_at_bytes: config.rotate_at.map_or(u64::MAX, ByteSize::get),
            calls,
            open: None,
            good: None,
            buffer: Vec::new(),
        };
        let timeout = context.timeout.get();
        let tracked = shutdown.clone();
        // Tracked, so that the program does not end in the middle of a batch.
        let spawn = Box::new(move |work: Box<dyn FnOnce() + Send>| {
            drop(tracked.spawn_blocking(Phase::Lanes, work));
        });
        let gatherer = Gatherer::new(writer, timeout, spawn);
        FileSink { place, timeout, shutdown: shutdown.clone(), gatherer }
    }

    fn late(&self) -> Failure {
        let seconds = self.timeout.as_secs_f32();
        let path = self.place.path.display();
        Failure::new(Reason::Storage, format!("{path} was not synced within {seconds} s; is the disk well?"))
    }
}

impl Sink for FileSink {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        async move {
            // What ails a file ails it for every event, so none of them uses up its attempts.
            match self.gatherer.deliver(event).await {
                Ok(()) => Outcome::Delivered,
                Err(Unconfirmed::Failed(failure)) => Outcome::Away(failure),
                Err(Unconfirmed::Late) => Outcome::Away(self.late()),
            }
        }
        .boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        let place = self.place.clone();
        let checked = self.shutdown.spawn_blocking(Phase::Lanes, move || place.check());
        async move {
            match tokio::time::timeout(self.timeout, checked).await {
                Ok(Ok(Ok(()))) => Ok(Limits::default()),
                Ok(Ok(Err(error))) => Err(self.place.failure(&error)),
                Ok(Err(_)) | Err(_) => Err(self.late()),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.gatherer.drained().boxed()
    }
}

/// Where the file is, and whether directories above it are ours to make. A missing directory of an absolute path may
/// be a volume that is not mounted; to make it would hide that.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    makes_directories: bool,
}

impl Place {
    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn make_directory(&self) -> io::Result<()> {
        if !self.makes_directories || self.directory().is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(self.directory())
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.directory())?.sync_all()
    }

    /// Opens the file, or makes it; true where it was made.
    fn open(&self) -> io::Result<(File, bool)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(FILE_MODE);
        let (file, made) = match options.clone().create_new(true).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => (options.open(&self.path)?, false),
            made => (made?, true),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(ErrorKind::ResourceBusy, "another sink or process writes to it"))
            }
            // A file system without locks is no reason not to write.
            Ok(()) | Err(TryLockError::Error(_)) => Ok((file, made)),
        }
    }

    /// Whether events could be written, without leaving a trace and without disturbing who writes now.
    fn check(&self) -> io::Result<()> {
        // Whoever opens a pipe to write waits for its reader.
        let opened = self.path.metadata().and_then(|metadata| match metadata.is_file() {
            true => OpenOptions::new().append(true).open(&self.path)?.metadata(),
            false => Ok(metadata),
        });
        match opened {
            Ok(metadata) if metadata.is_file() => Ok(()),
            Ok(_) => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound && self.makes_directories => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && self.directory().is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A name for the file that is full, which nothing has yet.
    fn unused_name(&self) -> io::Result<PathBuf> {
        let time = crate::clock::now().to_rfc3339().replace(['-', ':'], "");
        for attempt in 0..ROTATED_NAMES_MAX {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{time}"));
            if attempt > 0 {
                name.push(format!("-{attempt}"));
            }
            let name = PathBuf::from(name);
            if name.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return Ok(name);
            }
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, "no name is left to rotate it to"))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        let detail = match error.kind() {
            ErrorKind::NotFound => format!("{path}: its directory does not exist"),
            ErrorKind::StorageFull => format!("{path}: the disk is full"),
            _ => format!("{path}: {error}"),
        };
        Failure::new(Reason::Storage, detail)
    }
}

/// What the writer asks of the operating system per batch; the tests' own fails.
trait FileCalls: Send {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

struct RealCalls;

impl FileCalls for RealCalls {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Device and inode: the path may name another file than the one that is open.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

struct OpenFile {
    file: File,
    identity: Identity,
    /// Length up to which everything is synced.
    synced_bytes: u64,
}

struct FileWriter {
    sink: SinkName,
    place: Place,
    rotate_at_bytes: u64,
    calls: Box<dyn FileCalls>,
    open: Option<OpenFile>,
    /// The file that failed, and how much of it was synced before. What a failed sync covered may never reach the
    /// disk though it can be read back, so nothing of it may stay.
    good: Option<(Identity, u64)>,
    buffer: Vec<u8>,
}

impl BatchWriter for FileWriter {
    fn write(&mut self, events: &[Arc<Envelope>]) -> Result<(), Failure> {
        self.buffer.clear();
        self.write_synced(events).map_err(|error| {
            self.abandon();
            self.place.failure(&error)
        })
    }
}

impl FileWriter {
    fn write_synced(&mut self, events: &[Arc<Envelope>]) -> io::Result<()> {
        self.make_ready()?;
        for event in events {
            let line_begin = self.buffer.len();
            write_line(event, &mut self.buffer);
            let synced_bytes = self.open.as_ref().map_or(0, |open| open.synced_bytes);
            let has_lines = synced_bytes > 0 || line_begin > 0;
            if has_lines && synced_bytes + self.buffer.len() as u64 > self.rotate_at_bytes {
                let line = self.buffer.split_off(line_begin);
                self.sync_buffer()?;
                self.rotate()?;
                self.buffer = line;
            }
        }
        self.sync_buffer()
    }

    fn sync_buffer(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| !self.buffer.is_empty()) else { return Ok(()) };
        self.calls.append(&mut open.file, &self.buffer)?;
        self.calls.sync(&open.file)?;
        open.synced_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let full = self.place.unused_name()?;
        std::fs::rename(&self.place.path, &full)?;
        tracing::info!(sink = %self.sink, rotated_to = %full.display(), "file rotated");
        self.open = None;
        // Making the new file syncs the directory, and with it the new name of the old one.
        self.make_ready()
    }

    fn make_ready(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open {
            match self.place.path.metadata() {
                Ok(now) if identity(&now) == open.identity => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            tracing::info!(sink = %self.sink, path = %self.place.path.display(), "file was moved away; opening it anew");
            self.open = None;
        }
        self.place.make_directory()?;
        let (file, made) = self.place.open()?;
        let metadata = file.metadata()?;
        let identity = identity(&metadata);
        let synced_bytes = self.repaired_len(&file, identity, metadata.len())?;
        if made {
            self.place.sync_directory()?;
        }
        self.good = None;
        self.open = Some(OpenFile { file, identity, synced_bytes });
        Ok(())
    }

    /// Cuts off what a failure or a crash left behind the last whole line.
    fn repaired_len(&self, file: &File, identity: Identity, len: u64) -> io::Result<u64> {
        let trusted_len = match self.good {
            Some((same, good_len)) if same == identity => len.min(good_len),
            _ => len,
        };
        let whole_len = whole_lines_len(file, trusted_len)?;
        if whole_len < len {
            file.set_len(whole_len)?;
            file.sync_all()?;
            tracing::warn!(
                sink = %self.sink,
                path = %self.place.path.display(),
                cut_bytes = len - whole_len,
                "cut an incomplete end off the file"
            );
        }
        Ok(whole_len)
    }

    /// After a failure: nobody may read half a line meanwhile, and the next batch opens the file anew.
    fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            // Where this fails as well, opening repairs it.
            let _ = open.file.set_len(open.synced_bytes);
            self.good = Some((open.identity, open.synced_bytes));
        }
    }
}

/// The length up to and with the last line feed before `len`.
fn whole_lines_len(file: &File, len: u64) -> io::Result<u64> {
    let mut chunk = vec![0; TAIL_CHUNK_BYTES];
    let mut end = len;
    while end > 0 {
        let begin = end.saturating_sub(TAIL_CHUNK_BYTES as u64);
        let part = usize::try_from(end - begin).map_or(&mut [][..], |part_len| &mut chunk[..part_len]);
        file.read_exact_at(part, begin)?;
        if let Some(position) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + position as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
