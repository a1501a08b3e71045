//! The journal against a model: what was answered is never lost, whatever crashes, and at whichever step of the disk.

use super::memory_disk::MemoryDisk;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SINKS: [&str; 2] = ["first", "second"];

#[derive(Clone, Debug)]
enum Step {
    /// One call: a record each, with an identity or none.
    Append(Vec<(Option<u8>, usize)>),
    /// A sink takes up to so many records and settles those whose turn the bits say.
    Deliver {
        sink: usize,
        count: usize,
        settle_bits: u16,
    },
    Close,
    Kill,
    /// The power fails after so many more steps of the disk.
    CrashAfter(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let record = (proptest::option::weighted(0.4, 0u8..12), prop_oneof![0usize..200, 1000usize..3900]);
    prop_oneof![
        6 => proptest::collection::vec(record, 1..4).prop_map(Step::Append),
        4 => (0..2usize, 1..12usize, any::<u16>()).prop_map(|(sink, count, settle_bits)| Step::Deliver { sink, count, settle_bits }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => (0u64..60).prop_map(Step::CrashAfter),
    ]
}

/// What must hold, whatever happened.
#[derive(Default)]
struct Model {
    /// Identity of the attempt, by its number.
    attempts: Vec<Option<u8>>,
    acknowledged: BTreeSet<usize>,
    /// Attempts with this identity, one of which must be there: some call was answered with it.
    promised: BTreeMap<u8, BTreeSet<usize>>,
    settled: [BTreeSet<usize>; 2],
    given: [Vec<usize>; 2],
    /// Settled and, by a close or because it was a crash's past already, saved.
    saved: [BTreeSet<usize>; 2],
    /// Settled since, on top of what is saved.
    unsaved: [BTreeSet<usize>; 2],
}

struct Run {
    model: Model,
    disk: MemoryDisk,
    open: Option<(Journal, Vec<Feed>)>,
    seed: u64,
    has_identities: bool,
}

fn payload(attempt: usize, bytes: usize) -> Bytes {
    let mut payload = attempt.to_le_bytes().to_vec();
    payload.resize(8 + bytes, u8::try_from(attempt % 251).unwrap());
    payload.into()
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            model: Model::default(),
            disk: MemoryDisk::new(),
            open: None,
            seed,
            has_identities: seed.is_multiple_of(2),
        }
    }

    async fn open(&mut self) {
        while self.open.is_none() {
            let config = Config { retention: Period::secs(0), recent_max: ByteSize::kib(8), ..small() };
            let disk = Arc::new(self.disk.clone());
            let tick = Duration::from_millis(1);
            match Journal::open_with_tick(&config, Path::new("j"), disk, &sinks(&SINKS), tick) {
                Ok(journal) => {
                    let feeds = SINKS.map(|sink| journal.feed(sink).unwrap()).into();
                    self.model.given = Default::default();
                    self.open = Some((journal, feeds));
                }
                Err(_) => {
                    assert!(self.disk.has_crashed(), "only a crash keeps a journal from opening");
                    self.crash();
                }
            }
        }
    }

    fn crash(&mut self) {
        self.seed += 1;
        self.disk = self.disk.after_crash(self.seed);
        self.model.unsaved = Default::default();
    }

    async fn stop(&mut self, how: fn(&mut Run)) {
        if let Some((journal, _)) = self.open.take() {
            how(self);
            journal.close().await;
            if !self.disk.has_crashed() {
                for (saved, unsaved) in self.model.saved.iter_mut().zip(&mut self.model.unsaved) {
                    saved.append(unsaved);
                }
            }
        }
        self.open().await;
    }

    async fn append(&mut self, records: Vec<(Option<u8>, usize)>) {
        let first = self.model.attempts.len();
        // Every other run is without identities, so that segments may go as soon as they are settled.
        let records: Vec<_> =
            records.into_iter().map(|(key, bytes)| (key.filter(|_| self.has_identities), bytes)).collect();
        self.model.attempts.extend(records.iter().map(|(key, _)| *key));
        let records = records.iter().enumerate().map(|(index, (key, bytes))| Record {
            head: Vec::new(),
            body: payload(first + index, *bytes),
            arrival: crate::clock::now(),
            dedupe: key.map(|key| Dedupe { key: [key; 16], window: Duration::from_secs(600) }),
        });
        let (journal, _) = self.open.as_ref().unwrap();
        let Ok(appended) = journal.append(records.collect()).await else {
            assert!(self.disk.has_crashed(), "only a crash makes an append fail");
            return;
        };
        for (index, appended) in appended.into_iter().enumerate() {
            let key = self.model.attempts[first + index];
            match (appended, key) {
                (Appended::Stored, None) => drop(self.model.acknowledged.insert(first + index)),
                (Appended::Stored, Some(key)) => {
                    let promised = self.model.promised.insert(key, [first + index].into());
                    assert_eq!(promised, None, "what was answered is recognised when it comes again");
                    self.model.acknowledged.insert(first + index);
                }
                (Appended::Duplicate, Some(key)) => {
                    let same = (0..=first + index).filter(|at| self.model.attempts[*at] == Some(key));
                    self.model.promised.entry(key).or_insert_with(|| same.collect());
                }
                (Appended::Duplicate, None) => panic!("a record without an identity is never a duplicate"),
            }
        }
    }

    async fn deliver(&mut self, sink: usize, count: usize, settle_bits: u16) {
        let (journal, feeds) = self.open.as_mut().unwrap();
        if journal.lag(SINKS[sink]).unwrap().events == feeds[sink].cursor_outstanding() {
            return;
        }
        // Whatever is left may be settled ranges or damage; nothing is waited for that will not come.
        let Ok(next) = tokio::time::timeout(Duration::from_millis(200), feeds[sink].next(count, 4000)).await
        else {
            return;
        };
        for (index, entry) in next.unwrap().into_iter().enumerate() {
            self.model.note_given(sink, &entry);
            if settle_bits >> index & 1 == 1 {
                feeds[sink].settle(entry.position, Ending::Delivered);
                self.model.settled[sink].insert(attempt_of(&entry));
                self.model.unsaved[sink].insert(attempt_of(&entry));
            }
        }
    }

    /// Everything that was promised is with each sink, settled or given now.
    async fn verify(&mut self) {
        self.stop(|_| ()).await;
        let last = self.model.attempts.len();
        self.append(vec![(None, 0)]).await;
        let (_, feeds) = self.open.as_mut().unwrap();
        for (sink, feed) in feeds.iter_mut().enumerate() {
            while self.model.given[sink].last() != Some(&last) {
                for entry in feed.next(100, 1 << 20).await.unwrap() {
                    self.model.note_given(sink, &entry);
                }
            }
            let here: BTreeSet<_> =
                self.model.given[sink].iter().chain(&self.model.settled[sink]).copied().collect();
            let lost: Vec<_> = self.model.acknowledged.difference(&here).collect();
            assert!(lost.is_empty(), "answered and lost to sink {sink}: {lost:?}");
            for (key, attempts) in &self.model.promised {
                assert!(!attempts.is_disjoint(&here), "identity {key} answered and lost to sink {sink}");
            }
        }
        self.open.take().unwrap().0.close().await;
    }
}

fn attempt_of(entry: &Entry) -> usize {
    usize::from_le_bytes(entry.payload[..8].try_into().unwrap())
}

impl Model {
    fn note_given(&mut self, sink: usize, entry: &Entry) {
        let attempt = attempt_of(entry);
        assert!(attempt < self.attempts.len(), "nothing is given that was not appended");
        assert_eq!(entry.payload, payload(attempt, entry.payload.len() - 8), "and it is what was appended");
        assert!(self.given[sink].last().is_none_or(|last| *last < attempt), "in order, each once");
        assert!(!self.saved[sink].contains(&attempt), "what was settled and saved stays settled");
        self.given[sink].push(attempt);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_crashes_nothing_answered_is_lost(
        steps in proptest::collection::vec(step(), 1..60),
        seed: u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(u64::from(seed));
            run.open().await;
            for step in steps {
                match step {
                    Step::Append(records) => run.append(records).await,
                    Step::Deliver { sink, count, settle_bits } => run.deliver(sink, count, settle_bits).await,
                    Step::Close => run.stop(|_| ()).await,
                    Step::Kill => {
                        run.stop(|run| { run.disk = run.disk.after_kill(); run.model.unsaved = Default::default(); }).await;
                    }
                    Step::CrashAfter(steps) => run.disk.crash_after(steps),
                }
                if run.disk.has_crashed() {
                    run.stop(Run::crash).await;
                }
            }
            run.disk.crash_after(u64::MAX / 2);
            run.verify().await;
        });
    }
}
