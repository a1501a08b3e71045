//! A lane over a real journal and a real dead-letter store, with a sink that does what the test says. Time is the test's
//! own and flies, so that a wait of minutes costs nothing; only the disk takes its time.

mod property;
mod restarts;
mod rig;
mod scenarios;
