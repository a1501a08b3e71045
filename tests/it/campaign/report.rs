//! What a campaign says at its end: what it did, what every sink has, and what is wrong with it.

use super::plan::Kind;
use super::strikes::Score;
use super::supervised::Life;
use crate::support::oracle::{Ledger, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::time::Duration;

/// Of one chapter, or of all together.
#[derive(Default)]
pub struct Report {
    pub chapters: u32,
    went_for: Duration,
    pub score: Score,
    posted: usize,
    promised: usize,
    /// How often which answer was given.
    pub answers: BTreeMap<String, u64>,
    /// How often the daemon was started.
    lives: usize,
    /// How often it ended though nobody had told it to, by how it ended and what it said last.
    ended_by_itself: BTreeMap<String, usize>,
    sinks: BTreeMap<&'static str, (Verdict, usize)>,
    /// Where the daemon's own account does not add up.
    miscounts: Vec<String>,
}

impl Report {
    /// One that went for so long.
    pub fn of_chapter(went_for: Duration) -> Report {
        Report { chapters: 1, went_for, ..Report::default() }
    }

    /// What a sink has, and its number of dead letters.
    pub fn judge(&mut self, kind: &'static str, verdict: Verdict, dead: usize) {
        self.sinks.insert(kind, (verdict, dead));
    }

    /// The daemon's own account of a drained lane, which must know nothing but deliveries.
    pub fn compare(&mut self, kind: &str, account: &Value) {
        let only_deliveries = account["accepted"].is_u64() && account["accepted"] == account["delivered"];
        let nothing_else = ["dead_lettered", "shed", "not_routed", "missing", "in_journal", "unaccounted"];
        if !only_deliveries || nothing_else.iter().any(|name| account[name] != 0) {
            self.miscounts.push(format!("the account of {kind} is not one of deliveries alone: {account}"));
        }
    }

    /// What `hookbus journal verify` found.
    pub fn verify(&mut self, output: &Output) {
        if !output.status.success() {
            let (said, error) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            self.miscounts.push(format!("journal verify: {}: {said} {error}", output.status));
        }
    }

    pub fn count(&mut self, ledger: &Ledger, score: Score, lives: &[Life]) {
        self.posted = ledger.len();
        self.promised = ledger.values().filter(|posted| posted.promised_ms.is_some()).count();
        self.score = score;
        self.lives = lives.len();
        for end in lives.iter().filter_map(end_by_itself) {
            *self.ended_by_itself.entry(end).or_default() += 1;
        }
    }

    /// Everything that must not be, with what is known of it. Empty is good.
    pub fn findings(&self, ledger: &Ledger, lives: &[Life]) -> Vec<String> {
        let mut findings = self.miscounts.clone();
        for (kind, (verdict, dead)) in &self.sinks {
            if verdict.is_good() && *dead == 0 {
                continue;
            }
            for id in &verdict.lost {
                let has = |other: &&str| !self.sinks[*other].0.lost.contains(id);
                let others: Vec<_> = self.sinks.keys().copied().filter(has).collect();
                let story = ledger[id].story.join("; ");
                findings.push(format!("{kind} has lost {id}, which {others:?} have; {story}"));
            }
            let out_of_order = verdict.out_of_order.iter();
            findings.extend(
                out_of_order.map(|id| format!("{kind} got {id} too late; {}", ledger[id].story.join("; "))),
            );
            findings.extend(verdict.unknown.iter().map(|id| format!("{kind} has {id}, which nobody posted")));
            if *dead > 0 {
                findings.push(format!("{kind} has {dead} dead letters, and nothing may be given up"));
            }
        }
        if self.score.went_on == 0 {
            findings.push("R5 was not seen".to_owned());
        }
        for life in lives {
            let log = std::fs::read_to_string(&life.log).unwrap_or_default();
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            findings.extend(panics.map(|line| format!("{}: {line}", life.log.display())));
            if life.signals == ["-TERM"] && life.ended.is_some_and(|ended| !ended.success()) {
                findings.push(format!("{}: a stop ended {:?}", life.log.display(), life.ended));
            }
        }
        findings
    }

    /// Together with a later chapter.
    pub fn add(&mut self, chapter: Report) {
        self.chapters += chapter.chapters;
        self.went_for += chapter.went_for;
        self.posted += chapter.posted;
        self.promised += chapter.promised;
        self.lives += chapter.lives;
        for (end, times) in chapter.ended_by_itself {
            *self.ended_by_itself.entry(end).or_default() += times;
        }
        self.score.refused_full += chapter.score.refused_full;
        self.score.went_on += chapter.score.went_on;
        for (kind, times) in chapter.score.faults {
            *self.score.faults.entry(kind).or_default() += times;
        }
        for (sort, times) in chapter.answers {
            *self.answers.entry(sort).or_default() += times;
        }
        for (kind, took) in chapter.score.recoveries {
            self.score.recoveries.entry(kind).or_default().extend(took);
        }
        for (kind, (verdict, dead)) in chapter.sinks {
            let (all, all_dead) = self.sinks.entry(kind).or_default();
            all.lost.extend(verdict.lost);
            all.unknown.extend(verdict.unknown);
            all.out_of_order.extend(verdict.out_of_order);
            all.dead += verdict.dead;
            all.unpromised += verdict.unpromised;
            all.twice += verdict.twice;
            *all_dead += dead;
        }
    }
}

/// How it ended and what it said last, where it was neither killed nor told to stop.
fn end_by_itself(life: &Life) -> Option<String> {
    let was_told = life.signals.iter().any(|signal| matches!(*signal, "-KILL" | "-TERM"));
    let ended = life.ended.filter(|ended| !was_told && ended.signal().is_none())?;
    let log = std::fs::read_to_string(&life.log).unwrap_or_default();
    let last = log.lines().next_back().unwrap_or("it said nothing");
    let without_time = |line: Value| {
        let fields = line.as_object().into_iter().flatten().filter(|(name, _)| *name != "timestamp");
        fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let last = serde_json::from_str(last).map_or_else(|_| last.to_owned(), without_time);
    Some(format!("{ended}: {last}"))
}

impl fmt::Display for Report {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            chapters,
            went_for,
            score,
            posted,
            promised,
            answers,
            lives,
            ended_by_itself,
            sinks,
            ..
        } = self;
        let faults: u32 = score.faults.values().sum();
        writeln!(into, "{chapters} chapters, {} seconds, {faults} faults:", went_for.as_secs())?;
        for (kind, times) in &score.faults {
            let took = score.recoveries.get(kind).map_or(&[][..], Vec::as_slice);
            let longest_ms = took.iter().max().map_or(0, Duration::as_millis);
            let sum: Duration = took.iter().sum();
            let mean_ms = sum.as_millis() / u128::try_from(took.len().max(1)).expect("it is small");
            let name = format!("{kind:?}");
            writeln!(
                into,
                "  {name:<17}{times:>5} times; {:>5} recoveries seen, {mean_ms} ms on average, {longest_ms} ms at most",
                took.len()
            )?;
        }
        let by_itself: usize = ended_by_itself.values().sum();
        writeln!(
            into,
            "hookbus was started {lives} times and ended {by_itself} times by itself; refused events because \
             the journal was full in {} of {} floods",
            score.refused_full,
            score.faults.get(&Kind::JournalFull).unwrap_or(&0)
        )?;
        for (end, times) in ended_by_itself {
            writeln!(into, "  {times} × {end}")?;
        }
        writeln!(into, "{} times a lane went on while another's sink was away", score.went_on)?;
        let answers: Vec<_> =
            answers.iter().map(|(sort, times)| format!("{times} × {}", sort.trim())).collect();
        writeln!(into, "{posted} events posted, {promised} promised; answers: {}", answers.join(", "))?;
        for (kind, (verdict, dead)) in sinks {
            writeln!(
                into,
                "  {kind:<10} lost {}, never posted {}, out of order {}, dead letters {dead}, more than once {}, \
                 not promised and there {}",
                verdict.lost.len(),
                verdict.unknown.len(),
                verdict.out_of_order.len(),
                verdict.twice,
                verdict.unpromised
            )?;
        }
        Ok(())
    }
}
