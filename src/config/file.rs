//! Small files that the configuration names: read whole, and never more than they may be.
//! Holds: R8 (an error names the path and what is wrong with it, never what is in it).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Reads a file that may change while the daemon runs; symbolic links are followed anew every time.
///
/// # Errors
/// A sentence that begins with the path, where the file cannot be read, is empty or has more than `bytes_max` bytes.
pub fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let name = path.display();
    match read_at_most(path, bytes_max) {
        Ok(bytes) if bytes.is_empty() => Err(format!("{name} is empty")),
        Ok(bytes) if bytes.len() as u64 > bytes_max => {
            Err(format!("{name} is larger than {bytes_max} bytes"))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => format!("{name} does not exist"),
            ErrorKind::PermissionDenied => format!("{name} may not be read by this user"),
            ErrorKind::InvalidInput => format!("{name} is not a regular file"),
            kind => format!("{name} cannot be read: {kind}"),
        }),
    }
}

/// The file's bytes, one more than `bytes_max` where there are more. Only of a regular file: whoever opens a pipe waits for
/// its other end, and a start or a reload must not.
pub(super) fn read_at_most(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_the_error_names_it() {
        let directory = tempfile::tempdir().unwrap();
        for (sentence, content, expected) in [
            ("what fits", Some("12345"), Ok("12345")),
            ("one byte more", Some("123456"), Err("is larger than 5 bytes")),
            ("nothing", Some(""), Err("is empty")),
            ("no file", None, Err("does not exist")),
        ] {
            let path = directory.path().join(sentence);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let expected = expected.map(|text| text.as_bytes().to_vec());
            let expected = expected.map_err(|problem| format!("{} {problem}", path.display()));
            assert_eq!(read_file(&path, 5), expected, "{sentence}");
        }
        assert!(read_file(directory.path(), 5).unwrap_err().ends_with(" is not a regular file"));
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(read_file(&socket, 5).unwrap_err().ends_with(" is not a regular file"));
    }
}
