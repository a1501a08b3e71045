//! What the process is allowed: it keeps its files and its memory to itself from its first moment, and takes as many file
//! descriptors as it may have.
//! Holds: R8 (no core file: it would hold every secret and many payloads). A mode that a file is made with may only get
//! stricter by this; where others may open one, as with a Unix socket, its mode is set by name.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// The most bytes of a core file. One is less than any core has, so no file is written; and Linux, which asks no limit
/// where cores are piped to a collector, pipes none where it is exactly one (`fs/coredump.c`). Zero would not say that.
const CORE_BYTES_MAX: u64 = 1;

/// Files only for their owner whatever the umask was, and no core file. Before there is a second thread.
pub fn keep_to_itself() {
    umask(Mode::RWXG | Mode::RWXO);
    let allowed = getrlimit(Resource::Core).maximum.unwrap_or(u64::MAX);
    let bytes = Some(CORE_BYTES_MAX.min(allowed));
    // To lower a limit is everybody's right.
    let _ = setrlimit(Resource::Core, Rlimit { current: bytes, maximum: bytes });
}

/// As many file descriptors as the system allows this process. It begins with fewer, mostly 1024, for programs that would
/// break with more (`select(2)` knows no number beyond); nothing here does.
pub fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Up to there it is everybody's right.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
