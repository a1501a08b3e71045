//! The cases of the contract, by what they are about. Each is a sentence that is true for every kind of sink.

pub mod delivering;
pub mod outages;
pub mod refusals;
pub mod waiting;
