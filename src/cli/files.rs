//! The files that a command's arguments name; the only file access of the command line.
//! Holds: a bound on what is read; an export is visible under its name only once it is whole.

use super::CliError;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The most bytes `send` reads from a file or standard input.
pub(super) const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads a file, or standard input where the path is `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Io { what: format!("cannot read {}", path.display()), source };
    let mut input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    input.by_ref().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(CliError::Failed(format!("{} has more than {INPUT_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

/// A file that takes its name when it is finished; dropped before, nothing is left of it.
pub(super) struct NewFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Begins `path` as `path.part`, readable by its owner only: it will hold payloads.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // A part that an earlier try has left may be somebody's to read, or a link to elsewhere.
        let _ = std::fs::remove_file(&part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let file = file
            .map_err(|source| CliError::Io { what: format!("cannot create {}", part.display()), source })?;
        Ok(NewFile { file, part, path: path.to_owned() })
    }
    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }
    /// Syncs, and gives the file its name.
    pub(super) fn finish(self) -> Result<(), CliError> {
        let named = self.file.sync_all().and_then(|()| std::fs::rename(&self.part, &self.path));
        named.map_err(|source| self.failed(source))
    }
    fn failed(&self, source: std::io::Error) -> CliError {
        CliError::Io { what: format!("cannot write {}", self.path.display()), source }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After `finish` there is no such file any more.
        let _ = std::fs::remove_file(&self.part);
    }
}
