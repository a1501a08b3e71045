//! Hookbus: takes webhooks in, keeps them, and delivers each to every configured sink.
//! The modules stand in the order in which one webhook passes through them, after those that all of them use.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod time;
pub mod clock;
mod glob;
mod percent;
pub mod config;
pub mod shutdown;
pub mod envelope;
pub mod telemetry;

pub mod source;
pub mod provider;
pub mod ingress;
pub mod journal;
pub mod router;
pub mod dispatch;
pub mod sink;
pub mod dead_letter;

pub mod admin;
pub mod app;
pub mod cli;

#[cfg(test)]
mod fuzz_tests;
