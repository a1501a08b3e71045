//! Every metric, one file a part, as functions named for what happened; `counter!`, `gauge!` and `histogram!` appear nowhere else.
//! Holds: every series starts at zero (`*_started` functions), names end in a base unit or `_total`.

pub mod config;
pub mod dead_letters;
pub mod delivery;
pub mod ingress;
pub mod journal;
pub mod process;
pub mod provider;
pub mod tls;

/// Says what every metric means; once, when the recorder is installed.
pub fn describe() {
    config::describe();
    dead_letters::describe();
    delivery::describe();
    ingress::describe();
    journal::describe();
    process::describe();
    provider::describe();
    tls::describe();
}
