//! The lanes: one per sink, each walking the journal from its own cursor.
//! Holds: R2 (a record is settled only after confirmation, a durable dead letter or a counted shed), R5 (lanes share
//! nothing but the journal and the dead-letter store; none waits for another).
//! Absent on purpose: how to talk to a sink (`sink`), what is on disk (`journal`).

mod board;
mod breaker;
mod deferral;
mod errands;
mod lane;
mod lifetime;
mod retry;
mod settle;
mod window;

pub use board::{LaneState, LaneStatus};

use crate::dead_letter::DeadLetters;
use crate::envelope::SinkName;
use crate::journal::Journal;
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{CommonConfig, Sink};
use board::Board;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// A sink with its lane's settings, ready to be walked to.
pub struct LaneParts {
    /// The sink's name, which is also its cursor's.
    pub name: SinkName,
    /// The sink's kind, a name of [`crate::sink::SINK_TYPES`].
    pub kind: &'static str,
    /// The common keys of the sink.
    pub config: CommonConfig,
    /// The sink.
    pub sink: Arc<dyn Sink>,
}

/// What all lanes share.
#[derive(Clone)]
pub struct Parts {
    /// Where events come from; opened with a cursor for every lane.
    pub journal: Journal,
    /// Where events go that a sink can never take.
    pub dead_letters: DeadLetters,
    /// Which events are whose.
    pub router: Arc<Router>,
}

/// A cheap handle on all lanes.
#[derive(Clone)]
pub struct Dispatcher {
    boards: Arc<BTreeMap<SinkName, Arc<Board>>>,
    journal: Journal,
}

/// There is no sink of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sink {0}")]
pub struct NoSuchSink(pub String);

impl Dispatcher {
    /// Starts one task a lane; they stop with [`Phase::Lanes`], at its deadline without what is then still in flight.
    ///
    /// # Panics
    /// If the journal was not opened with a cursor of each lane's name: a mistake of the caller, not of an input.
    #[must_use]
    pub fn start(lanes: Vec<LaneParts>, parts: &Parts, shutdown: &Shutdown) -> Self {
        let mut boards = BTreeMap::new();
        for lane in lanes {
            let feed =
                parts.journal.feed(lane.name.as_str()).expect("the journal was opened with this cursor");
            let board = Arc::new(Board::new(lane.name.clone(), lane.kind));
            boards.insert(lane.name.clone(), Arc::clone(&board));
            let walk = lane::run(lane, parts.clone(), feed, Arc::clone(&board), shutdown.clone());
            shutdown.spawn(Phase::Lanes, async move {
                if AssertUnwindSafe(walk).catch_unwind().await.is_err() {
                    board.ended_early();
                }
            });
        }
        Dispatcher { boards: Arc::new(boards), journal: parts.journal.clone() }
    }

    /// Every lane, by name.
    #[must_use]
    pub fn status(&self) -> Vec<LaneStatus> {
        self.boards
            .iter()
            .map(|(name, board)| board.status(self.journal.account(name.as_str()).unwrap_or_default()))
            .collect()
    }

    /// Stops a lane's deliveries after those in flight; lasts until `resume` or a restart.
    ///
    /// # Errors
    /// [`NoSuchSink`].
    pub fn pause(&self, sink: &str) -> Result<(), NoSuchSink> {
        self.board(sink)?.pause();
        Ok(())
    }

    /// Lets a paused lane go on, and an away one probe at once.
    ///
    /// # Errors
    /// [`NoSuchSink`].
    pub fn resume(&self, sink: &str) -> Result<(), NoSuchSink> {
        self.board(sink)?.resume();
        Ok(())
    }

    fn board(&self, sink: &str) -> Result<&Board, NoSuchSink> {
        let found = self.boards.iter().find(|(name, _)| name.as_str() == sink);
        found.map(|(_, board)| &**board).ok_or_else(|| NoSuchSink(sink.to_owned()))
    }
}

#[cfg(test)]
mod tests;
