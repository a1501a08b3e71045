//! Every case for every kind, as tests of their own: `contract::suite::KIND::CASE`.

use super::{Rig, cases};
use hookbus::sink::SINK_TYPES;

macro_rules! cases_of {
    ($rig:ty: $($area:ident :: $case:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            cases::$area::$case::<$rig>().await;
        }
    )*};
}

macro_rules! suite {
    ($($kind:ident: $rig:ty,)*) => {
        /// The kinds that have a rig, and what each cannot.
        const RIGS: &[(&str, &[(super::Need, &str)])] = &[$((<$rig>::KIND, <$rig>::CANNOT)),*];

        $(mod $kind {
            use super::cases;
            cases_of! { $rig:
                delivering::structured_events_arrive_with_the_sender_s_bytes_and_the_headers_of_their_kind,
                delivering::binary_events_are_the_sender_s_bytes_with_attributes_as_headers,
                delivering::cloudevents_leave_in_either_form_as_they_came_in,
                delivering::events_of_one_key_arrive_in_order_beside_those_of_others,
                delivering::strict_order_is_the_order_of_the_journal,
                delivering::ten_thousand_events_under_way_at_once_arrive_without_one_missing,
                delivering::what_is_under_way_at_a_stop_is_not_lost,
                outages::who_is_away_at_the_start_gets_everything_once_there,
                outages::a_restart_under_load_loses_nothing,
                outages::a_peer_that_takes_and_never_confirms_gets_everything_again_once_healed,
                refusals::a_poison_event_becomes_one_dead_letter_and_its_neighbours_are_delivered,
                refusals::strange_attributes_and_bodies_harm_no_neighbour,
                refusals::twenty_refusals_in_a_row_are_a_sick_sink,
                refusals::an_oversized_event_becomes_one_dead_letter_and_its_neighbours_are_delivered,
                waiting::a_missing_destination_is_waited_for_with_its_reason,
                waiting::wrong_credentials_are_waited_out_with_their_reason,
                waiting::a_missing_permission_is_waited_for_with_its_reason,
                waiting::a_private_authority_is_trusted_when_named_and_an_unknown_one_is_waited_out,
                waiting::every_method_of_authentication_gets_in,
            }
        })*
    };
}

suite! {
    amqp: crate::contract::amqp::AmqpRig,
    file: crate::contract::file::FileRig,
    http: crate::contract::http::HttpRig,
    jetstream: crate::contract::jetstream::JetStreamRig,
    kafka: crate::contract::kafka::KafkaRig,
    nats: crate::contract::nats::NatsRig,
    stdout: crate::contract::stdout::StdoutRig,
}

#[test]
fn every_kind_of_sink_has_its_rig() {
    let rigs: Vec<&str> = RIGS.iter().map(|(kind, _)| *kind).collect();
    let kinds: Vec<&str> = SINK_TYPES.iter().map(|kind| kind.name).collect();
    assert_eq!(rigs, kinds, "a row of SINK_TYPES has its line in the suite, in the same order");
}

#[test]
fn what_a_rig_cannot_is_said_once_and_in_a_sentence() {
    for (kind, cannot) in RIGS {
        for (index, (need, why)) in cannot.iter().enumerate() {
            assert!(why.split_whitespace().count() >= 5, "{kind}: {need:?}: {why:?} is no reason");
            assert!(!cannot[..index].iter().any(|(other, _)| other == need), "{kind}: {need:?} stands twice");
        }
    }
}
