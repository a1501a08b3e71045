//! What goes wrong in a campaign, drawn from its seed: which fault, whom it strikes, after how many events and for how
//! long. Pure: the same seed is the same plan.
//! Faults are dealt as cards from a deck that has every kind once and is shuffled anew when it is used up, so that every
//! kind comes soon and none is forgotten.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The daemon by SIGKILL, perhaps again while it starts.
    DaemonKilled,
    /// The daemon by SIGTERM.
    DaemonStopped,
    /// The daemon stands still (SIGSTOP).
    DaemonHeld,
    /// A broker by SIGKILL; for the file its volume is not mounted.
    SinkGone,
    /// A broker stands still (SIGSTOP).
    SinkHeld,
    /// Connections are closed, new ones too.
    NetworkCut,
    /// Nothing passes, nothing is lost.
    NetworkStalled,
    NetworkThrottled,
    /// Connections are reset, again and again.
    NetworkReset,
    /// Sinks take events, and nobody hears that they did.
    AnswersLost,
    /// Writes and syncs of the data directory wait.
    DiskFrozen,
    DiskFull,
    /// The journal's own budget is used up, by large events for a sink that is away.
    JournalFull,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        Kind::DaemonKilled,
        Kind::DaemonStopped,
        Kind::DaemonHeld,
        Kind::SinkGone,
        Kind::SinkHeld,
        Kind::NetworkCut,
        Kind::NetworkStalled,
        Kind::NetworkThrottled,
        Kind::NetworkReset,
        Kind::AnswersLost,
        Kind::DiskFrozen,
        Kind::DiskFull,
        Kind::JournalFull,
    ];

    /// The kinds of sink that it may strike; none where it strikes none.
    fn victims(self) -> &'static [&'static str] {
        match self {
            Kind::DaemonKilled
            | Kind::DaemonStopped
            | Kind::DaemonHeld
            | Kind::DiskFrozen
            | Kind::DiskFull => &[],
            Kind::SinkGone | Kind::JournalFull => &["amqp", "file", "http", "jetstream", "kafka"],
            Kind::SinkHeld => &["amqp", "jetstream", "kafka"],
            Kind::NetworkCut
            | Kind::NetworkStalled
            | Kind::NetworkThrottled
            | Kind::NetworkReset
            | Kind::AnswersLost => &["amqp", "http", "jetstream", "kafka"],
        }
    }
}

/// One of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The kind of the sink that it strikes, where it strikes one.
    pub victim: Option<&'static str>,
    /// How many events are promised after the fault before has begun.
    pub after_events: u64,
    /// It ends when so many are promised, or after `lasts_max`, whichever is first.
    pub lasts_events: u64,
    pub lasts_max: Duration,
    /// Further kills, each so long after the one before.
    pub again: Vec<Duration>,
    /// How fast what is throttled is.
    pub bytes_per_s: u32,
}

const AFTER_EVENTS: Range<u64> = 5..60;
const LASTS_EVENTS: Range<u64> = 20..250;
const LASTS_MAX_MS: Range<u64> = 300..5_000;
const AGAIN_MAX: usize = 3;
/// From the start of the process to well after it is ready.
const AGAIN_MS: Range<u64> = 0..400;
const BYTES_PER_S: Range<u32> = 500..20_000;

/// Endless.
pub struct Plan {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    victims: BTreeMap<Kind, Vec<&'static str>>,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        Plan { random: fastrand::Rng::with_seed(seed), kinds: Vec::new(), victims: BTreeMap::new() }
    }
}

/// Takes a card of the deck; a used-up deck is made of `all` and shuffled.
fn deal<T: Copy>(deck: &mut Vec<T>, all: &[T], random: &mut fastrand::Rng) -> Option<T> {
    if deck.is_empty() {
        deck.extend(all);
        random.shuffle(deck);
    }
    deck.pop()
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let Plan { random, kinds, victims } = self;
        let kind = deal(kinds, Kind::ALL, random)?;
        let victim = deal(victims.entry(kind).or_default(), kind.victims(), random);
        let again = (0..random.usize(0..=AGAIN_MAX)).map(|_| Duration::from_millis(random.u64(AGAIN_MS)));
        Some(Fault {
            kind,
            victim,
            again: again.collect(),
            after_events: random.u64(AFTER_EVENTS),
            lasts_events: random.u64(LASTS_EVENTS),
            lasts_max: Duration::from_millis(random.u64(LASTS_MAX_MS)),
            bytes_per_s: random.u32(BYTES_PER_S),
        })
    }
}

#[test]
fn the_same_seed_is_the_same_plan_and_a_deck_has_every_kind_once() {
    let plan = |seed| -> Vec<Fault> { Plan::of(seed).take(5 * Kind::ALL.len()).collect() };
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1), plan(2));
    for deck in plan(1).chunks(Kind::ALL.len()) {
        let mut kinds: Vec<Kind> = deck.iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, Kind::ALL);
    }
    let gone = plan(1).into_iter().filter(|fault| fault.kind == Kind::SinkGone);
    let mut gone: Vec<_> = gone.filter_map(|fault| fault.victim).collect();
    gone.sort_unstable();
    assert_eq!(gone, Kind::SinkGone.victims(), "and every victim has its turn");
}
