//! The integration tests: one binary, one module an area, through the public API or the real program.

#![allow(clippy::unwrap_used)]

mod admin_capture;
mod admin_cli;
mod campaign_fanout;
mod config_whole;
mod conservation;
mod contract;
mod e2e_backlog;
mod e2e_default_run;
mod e2e_failed_sync;
mod e2e_http_sink;
mod e2e_kill;
mod e2e_secrets;
mod e2e_shutdown;
mod e2e_signed;
mod faults_descriptors;
mod faults_names;
mod faults_standstill;
mod faults_tls;
mod faults_twice;
mod ingress_answers;
mod ingress_bounds;
mod ingress_hostile;
mod ingress_memory;
mod ingress_peer;
mod ingress_rig;
mod ingress_shutdown;
mod ingress_tls;
mod journal_cli;
mod journal_durability;
mod journal_formats;
mod run_systemd;
mod senders_cloudevents;
mod register;
mod register_delivery;
mod senders_fixtures;
mod senders_generic;
mod senders_signed;
mod sink_amqp;
mod sink_http;
mod sink_jetstream;
mod sink_kafka;
mod sink_nats;
mod sink_tls;
mod support;
