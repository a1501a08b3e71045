//! The program's system calls: watched, delayed or failed by strace, and its account of them as values.
//! Holds: calls stand in the order in which they were seen; a call that another thread's came in between has its entry
//! and its return in their own places.

use super::eventually;
use std::collections::HashMap;
use std::path::Path;

/// Where the account is written, in the folder of the test.
const ACCOUNT: &str = "strace.txt";

/// The words that start the program under strace and leave it its own process id; then come what to watch and how.
pub fn strace<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let found = std::process::Command::new("strace").arg("--version").output();
    assert!(found.is_ok(), "strace is missing: `tests/run instruments` installs it");
    let always = ["strace", "-D", "-f", "-q", "-y", "-s", "262144", "-o", ACCOUNT];
    always.iter().chain(options).copied().collect()
}

/// One call of one thread.
#[derive(Debug)]
pub struct SystemCall {
    pub name: String,
    /// What its first descriptor is: a path, or `socket:[…]`.
    pub file: String,
    /// All its arguments as strace writes them; what a reading call has read is among them.
    pub arguments: String,
    /// What it returned, with the sentence of an error; also `(INJECTED)`.
    pub result: String,
    /// Places in the order of all entries and returns.
    pub entered: usize,
    pub returned: usize,
}

impl SystemCall {
    pub fn succeeded(&self) -> bool {
        !self.result.starts_with('-') && !self.result.starts_with('?')
    }
}

/// Everything the program has called until it ended, which must be soon.
pub async fn system_calls(folder: &Path) -> Vec<SystemCall> {
    let account = eventually("strace has written everything down", || async {
        let text = String::from_utf8_lossy(&std::fs::read(folder.join(ACCOUNT)).ok()?).into_owned();
        // The thread that the process is named after ends last.
        let main = text.split_whitespace().next()?.to_owned();
        let has_ended = text.lines().rev().take(50).any(|line| {
            line.split_once(' ').is_some_and(|(thread, what)| {
                thread == main && (what.trim().starts_with("+++ exited") || what.contains("+++ killed"))
            })
        });
        has_ended.then_some(text)
    })
    .await;
    parsed(&account)
}

fn parsed(account: &str) -> Vec<SystemCall> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    for (place, line) in account.lines().enumerate() {
        let Some((thread, what)) = line.split_once(' ') else { continue };
        let what = what.trim_start();
        if let Some(begun) = what.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (place, begun));
        } else if what.starts_with("<... ") {
            let Some((entered, begun)) = unfinished.remove(thread) else { continue };
            let rest = what.split_once("resumed>").map_or("", |(_, rest)| rest);
            calls.extend(call(&format!("{begun}{rest}"), entered, place));
        } else {
            calls.extend(call(what, place, place));
        }
    }
    calls.sort_by_key(|call| call.entered);
    calls
}

/// `name(3<file>, …) = result`
fn call(text: &str, entered: usize, returned: usize) -> Option<SystemCall> {
    let (before, result) = text.rsplit_once(" = ")?;
    let (name, arguments) = before.split_once('(')?;
    let file = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    Some(SystemCall {
        name: name.to_owned(),
        file: file.map(|(file, _)| file.to_owned()).unwrap_or_default(),
        arguments: arguments.to_owned(),
        result: result.to_owned(),
        entered,
        returned,
    })
}
