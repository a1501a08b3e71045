//! How each fault of a plan is done to the running system, several at once, and how long it took to recover.
//! Holds: every fault heals itself; faults of one victim wait for each other, all others overlap.

use super::load::Load;
use super::place::{Place, Places};
use super::plan::{Fault, Kind, Plan};
use super::supervised::Supervised;
use crate::support::eventually_within;
use crate::support::lasts;
use crate::support::small_disk::SmallDisk;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// How soon all goes on after a fault has ended. Others may go on meanwhile, a broker that starts on a busy machine among
/// them, and a journal that one of them has filled takes nothing until then.
const HEALED_MAX: Duration = Duration::from_secs(180);

/// How many faults overlap.
const OVERLAP_MAX: usize = 4;
/// The next fault comes after so long even where no events are promised: nobody posts to a daemon that stands still.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Between two resets.
const RESET_EVERY: Duration = Duration::from_millis(150);
/// How long a lane is watched on its way back. No promise: another fault may have begun meanwhile.
const WATCHED_MAX: Duration = Duration::from_secs(10);
/// Events that are promised while a lane's sink is away in the calm beginning.
const CALM_EVENTS: u64 = 40;

/// What happened, for the report.
#[derive(Default)]
pub struct Score {
    pub faults: BTreeMap<Kind, u32>,
    /// How long each recovery took, by what had happened.
    pub recoveries: BTreeMap<Kind, Vec<Duration>>,
    /// Times that an event was refused because the journal was full.
    pub refused_full: u32,
    /// How often a lane was seen to go on while another's sink was away.
    pub went_on: u32,
}

/// Everything that can be struck.
pub struct Field<'a> {
    pub daemon: &'a Supervised,
    pub load: &'a Load,
    pub disk: &'a SmallDisk,
    pub places: &'a Places,
    pub score: RefCell<Score>,
    /// What began and ended when.
    pub timeline: RefCell<std::fs::File>,
    daemon_turn: Mutex<()>,
    disk_turn: Mutex<()>,
    floods: Cell<u32>,
}

impl<'a> Field<'a> {
    pub fn new(
        daemon: &'a Supervised,
        load: &'a Load,
        disk: &'a SmallDisk,
        places: &'a Places,
        timeline: std::fs::File,
    ) -> Field<'a> {
        Field {
            daemon,
            load,
            disk,
            places,
            score: RefCell::default(),
            timeline: RefCell::new(timeline),
            daemon_turn: Mutex::default(),
            disk_turn: Mutex::default(),
            floods: Cell::new(0),
        }
    }

    fn note(&self, what: &str) {
        let (now, promised, life) = (self.load.now_ms(), self.load.promised(), self.daemon.life());
        writeln!(self.timeline.borrow_mut(), "{now} ms, {promised} promised, life {life}: {what}").unwrap();
    }

    /// R5 while nothing else is wrong: each sink is away once, and every other lane settles what is promised meanwhile.
    /// Only then the one comes back, so a lane that waited for its lane would never let this end.
    pub async fn each_is_away_once(&self) {
        for (kind, place) in self.places {
            let mut victim = place.lock().await;
            goes_away(&mut **victim).await;
            let enough = self.load.promised() + CALM_EVENTS;
            self.load.until_promised(enough).await;
            self.is_behind(kind).await;
            for other in self.places.keys().filter(|other| *other != kind) {
                let what = format!("{other} goes on while {kind} is away");
                eventually_within(HEALED_MAX, &what, || async {
                    let promised = self.load.promised();
                    let behind = self.lag(other).await?;
                    (promised.saturating_sub(behind) >= enough).then_some(())
                })
                .await;
                self.score.borrow_mut().went_on += 1;
            }
            returns(&mut **victim).await;
            self.note(&format!("all others went on while {kind} was away"));
        }
    }

    /// Or nothing would have been shown.
    async fn is_behind(&self, kind: &str) {
        let what = format!("{kind} falls behind while its sink is away");
        eventually_within(HEALED_MAX, &what, || async {
            (self.lag(kind).await? >= CALM_EVENTS).then_some(())
        })
        .await;
    }

    /// Events that a lane has not settled.
    pub async fn lag(&self, kind: &str) -> Option<u64> {
        self.daemon.lane(kind).await?["lag"]["events"].as_u64()
    }

    /// Does what the plan says until the time is over and every kind has been; returns when all is healed.
    pub async fn strikes(&self, plan: Plan, duration: Duration) {
        let (begun, mut running) = (Instant::now(), FuturesUnordered::new());
        for (count, fault) in plan.enumerate() {
            if begun.elapsed() >= duration && count >= Kind::ALL.len() {
                break;
            }
            let enough = self.load.promised() + fault.after_events;
            let due = timeout(QUIET_MAX, self.load.until_promised(enough));
            tokio::pin!(due);
            loop {
                tokio::select! {
                    _ = &mut due => break,
                    Some(()) = running.next() => {}
                }
            }
            while running.len() >= OVERLAP_MAX {
                running.next().await;
            }
            running.push(self.strike(fault));
        }
        while running.next().await.is_some() {}
    }

    async fn strike(&self, fault: Fault) {
        let what = format!("{:?} {}", fault.kind, fault.victim.unwrap_or_default());
        let recovered = match fault.victim {
            Some(victim) => {
                let place = self.places[victim].lock().await;
                self.note(&format!("{what} begins"));
                self.strike_sink(&fault, place).await
            }
            None => match fault.kind {
                Kind::DiskFrozen | Kind::DiskFull => {
                    let _turn = self.disk_turn.lock().await;
                    self.note(&format!("{what} begins"));
                    self.strike_disk(&fault).await
                }
                _ => {
                    let _turn = self.daemon_turn.lock().await;
                    self.note(&format!("{what} begins"));
                    self.strike_daemon(&fault).await
                }
            },
        };
        self.note(&format!("{what}: recovered {recovered:?} after its end"));
        let mut score = self.score.borrow_mut();
        *score.faults.entry(fault.kind).or_default() += 1;
        score.recoveries.entry(fault.kind).or_default().extend(recovered);
    }

    /// As long as the fault lasts.
    async fn passes(&self, fault: &Fault) {
        let enough = self.load.promised() + fault.lasts_events;
        let _ = timeout(fault.lasts_max, self.load.until_promised(enough)).await;
    }

    async fn strike_daemon(&self, fault: &Fault) -> Option<Duration> {
        // Of the life that the last signal may hit: it may end, and the next begin, before anybody looks.
        let mut life = self.daemon.life();
        match fault.kind {
            Kind::DaemonHeld => {
                self.daemon.signal("-STOP");
                self.passes(fault).await;
                self.daemon.signal("-CONT");
                let healed = Instant::now();
                self.load.goes_on(HEALED_MAX).await;
                return Some(healed.elapsed());
            }
            Kind::DaemonStopped => self.daemon.signal("-TERM"),
            _ => {
                self.daemon.signal("-KILL");
                for pause in &fault.again {
                    lasts(*pause).await;
                    life = self.daemon.life();
                    self.daemon.signal("-KILL");
                }
            }
        }
        let struck = Instant::now();
        self.daemon.up_after(life).await;
        Some(struck.elapsed())
    }

    async fn strike_disk(&self, fault: &Fault) -> Option<Duration> {
        if fault.kind == Kind::DiskFull {
            self.disk.fill().await;
            self.passes(fault).await;
            self.disk.free().await;
        } else if let Some(frozen) = self.disk.freeze().await {
            self.passes(fault).await;
            drop(frozen);
        } else {
            self.daemon.signal("-STOP");
            self.passes(fault).await;
            self.daemon.signal("-CONT");
        }
        let healed = Instant::now();
        self.load.goes_on(HEALED_MAX).await;
        Some(healed.elapsed())
    }

    async fn strike_sink(
        &self,
        fault: &Fault,
        mut place: MutexGuard<'_, Box<dyn Place>>,
    ) -> Option<Duration> {
        match fault.kind {
            Kind::SinkGone => {
                place.goes_down().await;
                self.passes(fault).await;
                place.comes_back().await;
            }
            Kind::SinkHeld => {
                place.stands_still();
                self.passes(fault).await;
                place.goes_on();
            }
            Kind::JournalFull => {
                goes_away(&mut **place).await;
                let number = self.floods.get() + 1;
                self.floods.set(number);
                let refused = self.load.flood(&format!("flood{number}")).await;
                self.score.borrow_mut().refused_full += u32::from(refused);
                self.passes(fault).await;
                returns(&mut **place).await;
            }
            _ => self.strike_network(fault, place.proxy().expect("only who has one is struck")).await,
        }
        let (kind, healed) = (place.kind(), Instant::now());
        let is_back = async {
            while self.daemon.lane(kind).await.is_none_or(|lane| lane["state"] != "running") {
                lasts(Duration::from_millis(100)).await;
            }
        };
        timeout(WATCHED_MAX, is_back).await.ok().map(|()| healed.elapsed())
    }

    async fn strike_network(&self, fault: &Fault, proxy: &crate::support::proxy::Proxy) {
        match fault.kind {
            Kind::NetworkCut => proxy.refuse(),
            Kind::NetworkStalled => proxy.stall(),
            Kind::NetworkThrottled => proxy.throttle(fault.bytes_per_s),
            Kind::AnswersLost => proxy.swallow_answers(),
            _ => {
                let resets = async {
                    loop {
                        proxy.reset_all();
                        lasts(RESET_EVERY).await;
                    }
                };
                tokio::select! { () = resets => {}, () = self.passes(fault) => {} }
                return;
            }
        }
        self.passes(fault).await;
        proxy.pass();
    }
}

/// As quickly as its kind can.
async fn goes_away(place: &mut dyn Place) {
    match place.proxy() {
        Some(proxy) => proxy.refuse(),
        None => place.goes_down().await,
    }
}

/// See `goes_away`.
async fn returns(place: &mut dyn Place) {
    match place.proxy() {
        Some(proxy) => proxy.pass(),
        None => place.comes_back().await,
    }
}
