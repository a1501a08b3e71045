//! The API of a sender's provider: setting the webhooks of an instance and checking them, and asking how the instance is.
//! Holds: R8 (the token is part of every URL of the API, so no URL of it, no header and no body is ever shown; what an
//! answer says is cleaned of every secret first); every wait, answer and number of calls is bounded.
//! Absent on purpose: how an event is kept (`Keep` is the ingress' to do), words on a terminal (`cli`).

mod answer;
mod client;
mod event;
#[cfg(test)]
mod fuzz_tests;
mod hooks;
mod plan;
mod poll;
mod problem;
mod registration;
mod state;
mod verify;

pub use client::SetupError;
pub use hooks::Hook;
pub use plan::Call;
pub use poll::{Keep, start};
pub use problem::{ApiError, Problem};
pub use registration::{Registration, Report, Row, RowState, Target};
pub use state::State;
