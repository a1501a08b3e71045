//! How numbers, times and tables look to people, and the only writing to the terminal.
//! Holds: what others wrote (a sink's error, a sender's name) cannot drive the terminal.

use super::CliError;
use crate::journal::Account;
use crate::time::UnixMs;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// A table without borders: readable, and easy to cut with other tools.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// What became of every event of each sink: the first column is the sum of the others.
pub(super) fn account_table() -> Table {
    table(&["SINK", "ACCEPTED", "DELIVERED", "DEAD-LETTERED", "SHED", "NOT ROUTED", "MISSING", "IN JOURNAL"])
}

/// A row of it.
pub(super) fn account_row(sink: &str, account: &Account) -> Vec<String> {
    let Account { accepted, delivered, dead_lettered, shed, not_routed, missing, in_journal, unaccounted: _ } =
        account;
    let counts = [accepted, delivered, dead_lettered, shed, not_routed, missing, in_journal];
    [harmless(sink)].into_iter().chain(counts.map(u64::to_string)).collect()
}

/// Text as one line for a terminal: control characters, which could drive it, become blanks.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Prints a line to standard output.
pub(super) fn say(line: &str) -> Result<(), CliError> {
    let written = writeln!(std::io::stdout().lock(), "{}", line.trim_end());
    written.map_err(|source| CliError::Io { what: "cannot write the output".to_owned(), source })
}

/// Prints a value as JSON to standard output.
pub(super) fn say_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).expect("an answer read as JSON can be written as JSON");
    say(&text)
}

/// Prints a line to standard error; where that fails there is nobody to tell.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// `0 B`, `1.5 KiB`, `10.0 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// The two largest units: `3d 4h`, `2m 5s`, `0s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts =
        [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// How long ago that was; a dash where there is nothing.
pub(super) fn age(at: Option<UnixMs>, now: UnixMs) -> String {
    at.map_or_else(|| "-".to_owned(), |at| duration(now.since(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short_and_round_in_the_readers_favour() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (125, "2m 5s"),
            (3605, "1h"),
            (86_400 * 3 + 3600 * 4, "3d 4h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb\nc"), "a [31mb c");
    }
}
