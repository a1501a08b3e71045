//! What `tests/run instruments` installs besides Debian packages: programs of a Python environment.

use std::path::PathBuf;
use std::process::Command;

/// A program of the environment. What is missing fails the test.
pub fn python(name: &str) -> Command {
    let cache = || {
        let home = || std::env::var_os("HOME").map_or_else(|| "/tmp".into(), PathBuf::from).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("hookbus/instruments")
    };
    let folder = std::env::var_os("HOOKBUS_TEST_INSTRUMENTS").map_or_else(cache, PathBuf::from);
    let program = folder.join("python/bin").join(name);
    assert!(program.exists(), "{} is missing; tests/run instruments installs it", program.display());
    Command::new(program)
}
