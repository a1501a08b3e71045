//! Drives the real journal through random lives and compares it with the model: records come, sinks settle them,
//! segments are made and freed, and meanwhile the process dies, the power fails, single operations fail, room runs out,
//! and files are damaged.
//! `HOOKBUS_MODEL_CASES` sets how many lives; `PROPTEST_RNG_SEED` which.

use super::memory_disk::{Fault, MemoryDisk};
use super::model::{Attempt, Model, SINKS};
use super::scan::{Scanner, Step as Scan};
use super::segment::{HEADER_BYTES, Header, HeaderFound};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

const CASES: u32 = 1500;
const SHRINKING_MS_MAX: u32 = 60_000;
const TICK: Duration = Duration::from_millis(1);
const SECTOR_BYTES: usize = 512;
const ENDINGS: [Ending; 4] = [Ending::Delivered, Ending::DeadLettered, Ending::Shed, Ending::NotRouted];
const PAGE_BYTES: usize = 4096;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// One call: a record each, with an identity or none.
    Append(Vec<(Option<u8>, usize)>),
    /// A sink takes up to so many records and settles those of all it holds whose turn the bits say.
    Deliver {
        sink: usize,
        count: usize,
        settle_bits: u16,
    },
    Close,
    Kill,
    /// The power fails after so many more steps of the disk.
    CrashAfter(u64),
    /// One operation fails after so many more steps of the disk.
    FailAfter(u64, Fault),
    /// The journal is closed, and one of its files is hit.
    Damage {
        file: usize,
        at: usize,
        how: Damage,
    },
    /// What could not be read can be read again.
    Mend,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    FlipBit,
    ZeroSector,
    Unreadable,
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (proptest::option::weighted(0.4, 0u8..12), prop_oneof![0usize..200, 1000usize..3900]);
    let fault = prop_oneof![Just(Fault::Broken), Just(Fault::NoRoom), Just(Fault::Shortage)];
    let how = prop_oneof![
        Just(Damage::FlipBit),
        Just(Damage::ZeroSector),
        Just(Damage::Unreadable),
        Just(Damage::Truncate)
    ];
    prop_oneof![
        12 => proptest::collection::vec(record, 1..4).prop_map(Step::Append),
        9 => (0..2usize, 1..12usize, any::<u16>())
            .prop_map(|(sink, count, settle_bits)| Step::Deliver { sink, count, settle_bits }),
        2 => Just(Step::Close),
        2 => Just(Step::Kill),
        4 => (0u64..60).prop_map(Step::CrashAfter),
        3 => (0u64..30, fault).prop_map(|(steps, fault)| Step::FailAfter(steps, fault)),
        2 => (any::<usize>(), any::<usize>(), how).prop_map(|(file, at, how)| Step::Damage { file, at, how }),
        1 => Just(Step::Mend),
    ]
}

pub(super) struct Run {
    model: Model,
    disk: MemoryDisk,
    open: Option<(Journal, Vec<Feed>)>,
    /// Given since the opening and not settled.
    held: [BTreeMap<Position, Attempt>; 2],
    seed: u64,
    /// Faults that had happened when the journal was opened.
    faults_before: usize,
    /// An append was refused with `Failed` since the opening.
    failed: bool,
    was_damaged: bool,
    /// The power failed: of a write that was never answered later records may be there without those before them.
    was_torn: bool,
}

fn payload(attempt: Attempt, bytes: usize) -> Bytes {
    let mut payload = attempt.to_le_bytes().to_vec();
    payload.resize(8 + bytes, u8::try_from(attempt % 251).unwrap());
    payload.into()
}

fn attempt_of(entry: &Entry) -> Attempt {
    let attempt = usize::from_le_bytes(entry.payload[..8].try_into().unwrap());
    assert_eq!(entry.payload, payload(attempt, entry.payload.len() - 8), "given is what was appended");
    attempt
}

/// The records in a segment as it lies on disk, and where each lies. None where nobody can tell whose segment it is:
/// without its header, the first record must be sound.
fn records_in(disk: &MemoryDisk, path: &Path) -> BTreeMap<Attempt, Range<usize>> {
    let file: Arc<dyn DiskFile> = disk.open(path).unwrap().into();
    let bytes = file.size().unwrap();
    let mut header = vec![0; HEADER_BYTES];
    let salvaged = salvage::read(&*file, &mut header, 0).unwrap();
    let scanner_of = |generation| {
        let mut scanner = Scanner::new(Arc::clone(&file), generation, 0, bytes);
        scanner.salvage();
        scanner
    };
    let generation = match Header::decode(&header[..salvaged.read]) {
        HeaderFound::Good(header) => Some(header.generation),
        _ => scanner_of(0).first_frame().unwrap().map(|(generation, _)| generation),
    };
    let Some(mut scanner) = generation.map(scanner_of) else { return BTreeMap::new() };
    let mut records = BTreeMap::new();
    loop {
        let start = usize::try_from(scanner.offset()).unwrap();
        match scanner.step().unwrap() {
            Scan::Record(record) => {
                let attempt = usize::from_le_bytes(record.payload[..8].try_into().unwrap());
                records.insert(attempt, start..usize::try_from(scanner.offset()).unwrap());
            }
            Scan::Damage(_) => {}
            Scan::End => return records,
        }
    }
}

impl Run {
    pub(super) fn new(seed: u64) -> Run {
        Run {
            model: Model::default(),
            disk: MemoryDisk::new(),
            open: None,
            held: Default::default(),
            seed,
            faults_before: 0,
            failed: false,
            was_damaged: false,
            was_torn: false,
        }
    }

    /// Every other run is without identities, so that segments may go as soon as they are settled.
    fn has_identities(&self) -> bool {
        self.seed.is_multiple_of(2)
    }
    /// Some have hardly any room, and a sink that may shed.
    fn is_narrow(&self) -> bool {
        self.seed % 4 == 1
    }
    fn config(&self) -> Config {
        Config {
            retention: Period::secs(0),
            recent_max: if self.seed.is_multiple_of(3) { ByteSize::bytes(1) } else { ByteSize::kib(8) },
            disk_max: ByteSize::kib(if self.is_narrow() { 80 } else { 1024 }),
            ..small()
        }
    }
    fn faults(&self) -> Vec<Fault> {
        self.disk.faults().split_off(self.faults_before)
    }
    fn journal(&self) -> &Journal {
        &self.open.as_ref().unwrap().0
    }

    pub(super) async fn open(&mut self) {
        while self.open.is_none() {
            self.failed = false;
            self.held = Default::default();
            self.faults_before = self.disk.faults().len();
            let mut cursors = sinks(&SINKS);
            cursors[1].sheddable = self.is_narrow();
            let disk = Arc::new(self.disk.clone());
            match Journal::open_with_tick(&self.config(), Path::new("j"), disk, &cursors, TICK) {
                Ok(journal) => {
                    let feeds = SINKS.map(|sink| journal.feed(sink).unwrap()).into();
                    self.open = Some((journal, feeds));
                    self.check_nothing_went_too_early();
                }
                Err(_) if self.disk.has_crashed() => {
                    self.note_faults();
                    self.crash();
                }
                Err(error) => {
                    self.note_faults();
                    assert!(!self.faults().is_empty(), "nothing else keeps a journal from opening: {error}");
                    self.disk = self.disk.after_kill();
                }
            }
        }
    }

    /// R3: a segment went only after the cursors that passed it were on disk.
    fn check_nothing_went_too_early(&self) {
        let oldest = lock(&self.journal().shared.table).oldest().map_or(1, |segment| segment.first);
        for cursor in self.journal().shared.cursors.values() {
            let through = lock(&cursor.state).standing.progress().through();
            assert!(self.was_damaged || oldest <= through + 1, "{oldest} is the oldest, {through} settled");
        }
    }

    /// R4: what became of every record adds up at any moment, and none is missing where nothing was hit or torn.
    fn check_tallies(&self) {
        for sink in SINKS {
            let (tally, lag) = self.journal().tally(sink).unwrap();
            let durable = self.journal().shared.durable();
            assert_eq!(tally.settled() + lag.events, durable, "{tally:?} {lag:?}");
            assert!(self.was_damaged || self.was_torn || tally.missing == 0, "{tally:?}");
        }
    }

    fn crash(&mut self) {
        self.was_torn = true;
        self.seed += 4 * 3;
        self.disk = self.disk.after_crash(self.seed);
    }

    /// Ends this life of the journal. Between its end and the next, `how` happens to the disk.
    pub(super) async fn stop(&mut self, how: impl FnOnce(&mut Run)) {
        let Some((journal, feeds)) = self.open.take() else { return };
        let life = self.disk.clone();
        how(self);
        journal.close().await;
        drop(feeds);
        self.note_faults();
        let in_peace = !life.has_crashed() && !life.is_past() && self.faults().is_empty();
        self.model.stopped(in_peace);
    }

    /// What the faults of this life may cost, and no more.
    fn note_faults(&mut self) {
        if self.faults().iter().any(|fault| *fault != Fault::Broken) {
            // For want of room segments may have been freed before their time.
            self.model.freed_early();
        }
        if self.faults().iter().any(|fault| *fault != Fault::Shortage) {
            // A slot whose sync failed is read by the next process from the page cache only. Should the power fail
            // then, the one before counts.
            (0..SINKS.len()).for_each(|sink| self.model.cursor_damaged(sink));
        }
    }

    pub(super) async fn append(&mut self, records: Vec<(Option<u8>, usize)>) -> bool {
        let first = self.model.attempts.len();
        let has_identities = self.has_identities();
        let keys = records.iter().map(|(key, _)| key.filter(|_| has_identities));
        self.model.attempts.extend(keys);
        let records = records.iter().enumerate().map(|(index, (_, bytes))| Record {
            head: Vec::new(),
            body: payload(first + index, *bytes),
            arrival: crate::clock::now(),
            dedupe: self.model.attempts[first + index]
                .map(|key| Dedupe { key: [key; 16], window: Duration::from_secs(600) }),
        });
        let result = self.journal().append(records.collect()).await;
        let attempts = first..self.model.attempts.len();
        self.note_faults();
        match result {
            Ok(appended) => {
                assert!(!self.failed, "R6: after a failure nothing more is taken");
                attempts.zip(appended).for_each(|(attempt, appended)| self.model.answered(attempt, appended));
                return true;
            }
            Err(_) if self.disk.has_crashed() => {}
            Err(AppendError::Full) => {
                let is_short = self.faults().iter().any(|fault| *fault != Fault::Broken);
                assert!(self.is_narrow() || is_short, "there is room");
                self.model.refused(attempts);
            }
            Err(AppendError::Failed) => {
                let is_broken = self.faults().iter().any(|fault| *fault != Fault::Shortage);
                assert!(self.failed || is_broken, "only a disk that fails makes the journal fail");
                self.failed = true;
                assert_eq!(*self.journal().health().borrow(), Health::Failed);
            }
            Err(error) => panic!("{error}"),
        }
        false
    }

    /// Takes up to `count` records, if there are any.
    pub(super) async fn take(&mut self, sink: usize, count: usize) {
        let (journal, feeds) = self.open.as_mut().unwrap();
        let mut failures = 0;
        while journal.lag(SINKS[sink]).unwrap().events > feeds[sink].cursor_outstanding() {
            // What is behind may be gone, which reading finds out; then nothing comes.
            match tokio::time::timeout(TICK, feeds[sink].next(count, 4000)).await {
                Ok(Ok(entries)) => {
                    for entry in entries {
                        let attempt = attempt_of(&entry);
                        self.model.given(sink, attempt);
                        self.held[sink].insert(entry.position, attempt);
                    }
                    return;
                }
                Ok(Err(ReadError::Io(_))) if failures < 20 => failures += 1,
                Ok(Err(error)) => return assert!(self.disk.has_crashed(), "{error}"),
                Err(_) => {}
            }
        }
    }

    pub(super) fn settle(&mut self, sink: usize, is_its_turn: impl Fn(usize, Position) -> bool) {
        let (_, feeds) = self.open.as_ref().unwrap();
        let held = std::mem::take(&mut self.held[sink]);
        for (index, (position, attempt)) in held.into_iter().enumerate() {
            if is_its_turn(index, position) {
                feeds[sink].settle(position, ENDINGS[position.0 as usize % ENDINGS.len()]);
                self.model.settled(sink, attempt);
            } else {
                self.held[sink].insert(position, attempt);
            }
        }
    }

    /// One of the files is hit while nobody looks.
    fn damage(&mut self, file: usize, at: usize, how: Damage) {
        self.disk.calm();
        let segments = self.disk.names("j").into_iter().filter(|name| name.ends_with(".seg"));
        let segments = segments.map(|name| Path::new("j").join(name));
        let slots = self.disk.names("j/cursors").into_iter().map(|name| Path::new("j/cursors").join(name));
        let paths: Vec<_> = segments.chain(slots).collect();
        let path = &paths[file % paths.len()];
        let bytes = self.disk.read(path).len();
        if bytes == 0 {
            return;
        }
        let before =
            if path.starts_with("j/cursors") { BTreeMap::new() } else { records_in(&self.disk, path) };
        // Where something lies.
        let used = before.values().map(|range| range.end).max().unwrap_or(bytes) + 600;
        let at = at % used.min(bytes);
        let hit = match how {
            Damage::FlipBit => at..at + 1,
            Damage::ZeroSector => at / SECTOR_BYTES * SECTOR_BYTES..(at / SECTOR_BYTES + 1) * SECTOR_BYTES,
            Damage::Unreadable => at / PAGE_BYTES * PAGE_BYTES..(at / PAGE_BYTES + 1) * PAGE_BYTES,
            Damage::Truncate => at..usize::MAX,
        };
        let hit = hit.start..hit.end.min(bytes);
        match how {
            Damage::FlipBit => self.disk.edit(path, |bytes| bytes[at] ^= 1 << (at % 8)),
            Damage::ZeroSector => self.disk.edit(path, |bytes| bytes[hit.clone()].fill(0)),
            Damage::Unreadable => self.disk.make_unreadable(path, hit.clone()),
            Damage::Truncate => self.disk.edit(path, |bytes| bytes.truncate(at)),
        }
        self.was_damaged = true;
        if let Some(sink) = SINKS.iter().position(|sink| path.file_stem().unwrap() == *sink) {
            return self.model.cursor_damaged(sink);
        }
        let is_hit = |range: &Range<usize>| range.start < hit.end && hit.start < range.end;
        // Without its header and its first record nobody can tell whose the others are.
        let is_whole = records_in(&self.disk, path).is_empty();
        let lost = before.iter().filter(|(_, range)| is_whole || is_hit(range)).map(|(attempt, _)| *attempt);
        self.model.damaged(&lost.collect());
    }

    pub(super) async fn run(&mut self, steps: Vec<Step>) {
        self.open().await;
        for step in steps {
            match step {
                Step::Append(records) => drop(self.append(records).await),
                Step::Deliver { sink, count, settle_bits } => {
                    self.take(sink, count).await;
                    self.settle(sink, |index, _| index < 16 && settle_bits >> index & 1 == 1);
                    let before = *self.open.as_ref().unwrap().1[sink].shed_before().borrow();
                    self.settle(sink, |_, position| before.is_some_and(|before| position < before));
                }
                Step::Close => self.stop(|_| ()).await,
                Step::Kill => self.stop(|run| run.disk = run.disk.after_kill()).await,
                Step::CrashAfter(steps) => self.disk.crash_after(steps),
                Step::Mend => self.disk.make_readable(),
                Step::FailAfter(steps, fault) => self.disk.fail_after(steps, fault),
                Step::Damage { file, at, how } => {
                    self.stop(|_| ()).await;
                    if !self.disk.has_crashed() {
                        self.damage(file, at, how);
                    }
                }
            }
            if self.disk.has_crashed() {
                self.stop(|_| ()).await;
                self.crash();
            }
            self.open().await;
            self.check_tallies();
        }
        self.verify().await;
    }

    /// In the end nothing is in the way any more: all there is is given, nothing that was answered is missing, and new
    /// records are taken.
    async fn verify(&mut self) {
        self.disk.calm();
        self.stop(|_| ()).await;
        if self.disk.has_crashed() {
            self.crash();
        }
        self.disk.calm();
        self.open().await;
        self.drain().await;
        self.model.verify();
        let taken = async {
            while !self.append(vec![(None, 0)]).await {
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("room for a new record once all is settled");
        self.drain().await;
        self.model.verify();
        self.stop(|_| ()).await;
    }

    async fn drain(&mut self) {
        for (sink, name) in SINKS.iter().enumerate() {
            while self.journal().lag(name).unwrap().events > 0 {
                self.take(sink, 100).await;
                self.settle(sink, |_, _| true);
            }
        }
    }
}

/// One life of a journal, of a test's own making or a random one.
pub(super) fn live(seed: u64, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed);
        tokio::time::timeout(PATIENCE, run.run(steps)).await.expect("a journal that is not stuck");
    });
}

fn cases() -> u32 {
    std::env::var("HOOKBUS_MODEL_CASES").map_or(CASES, |cases| cases.parse().expect("a number of cases"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 300,
        // A life that is stuck takes all of the patience, and so may each that is tried in its place.
        max_shrink_time: SHRINKING_MS_MAX,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_happens_nothing_answered_is_lost(
        steps in proptest::collection::vec(step(), 1..60),
        seed in 0u64..1 << 32,
    ) {
        live(seed, steps);
    }
}

#[test]
fn a_lost_header_after_a_lost_first_record_costs_their_segment_and_no_other() {
    live(
        0,
        vec![
            Step::Append(vec![(None, 100), (Some(1), 100)]),
            Step::Damage { file: 0, at: segment::HEADER_BYTES + 60, how: Damage::FlipBit },
            Step::Damage { file: 0, at: 0, how: Damage::Unreadable },
            Step::Append(vec![(Some(1), 100)]),
        ],
    );
}
