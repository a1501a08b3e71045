//! What goes into a batch.

use super::*;
use crate::envelope::{Data, Extensions};
use bytes::Bytes;

type Caller = oneshot::Receiver<Outcome>;

fn waiting(id: &str, data_bytes: usize) -> (Waiting, Caller) {
    let (done, caller) = oneshot::channel();
    let event = Envelope {
        id: id.to_owned(),
        source: "/s".to_owned(),
        event_type: "t".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Extensions::new(),
        data: Data::Binary(Bytes::from(vec![0; data_bytes])),
    };
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Waiting { event: Arc::new(event), done, is_sent: Arc::default(), _place: place }, caller)
}

fn batches(all: Vec<(Waiting, Caller)>) -> Vec<Vec<String>> {
    let (all, _callers): (VecDeque<Waiting>, Vec<Caller>) = all.into_iter().unzip();
    let (mut queue, mut batches) = (all, Vec::new());
    loop {
        let batch = next_batch(&mut queue);
        if batch.is_empty() {
            return batches;
        }
        batches.push(batch.iter().map(|waiting| waiting.event.id.clone()).collect());
    }
}

#[test]
fn a_batch_has_no_id_twice_and_keeps_the_order() {
    let all = ["a", "b", "a", "c", "a", "b"].map(|id| waiting(id, 1));
    assert_eq!(batches(all.into()), [vec!["a", "b", "c"], vec!["a", "b"], vec!["a"]]);
}

#[test]
fn a_batch_is_bounded_in_number_and_in_bytes() {
    let many = (0..BATCH_EVENTS_MAX * 2 + 1).map(|n| waiting(&n.to_string(), 1)).collect();
    let sizes: Vec<usize> = batches(many).iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH_EVENTS_MAX, BATCH_EVENTS_MAX, 1]);
    let large = (0..3).map(|n| waiting(&n.to_string(), BATCH_BYTES_MAX / 2)).collect();
    assert_eq!(batches(large).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let same = (0..BATCH_EVENTS_MAX + 2).map(|_| waiting("same", 1)).collect();
    assert!(batches(same).iter().all(|batch| batch.len() == 1), "ids that repeat do not pile up either");
}

#[test]
fn whoever_has_given_up_is_left_out() {
    let (gone, caller) = waiting("gone", 1);
    drop(caller);
    let (here, _caller) = waiting("here", 1);
    let batch = next_batch(&mut VecDeque::from([gone, here]));
    assert_eq!(batch.iter().map(|waiting| waiting.event.id.as_str()).collect::<Vec<_>>(), ["here"]);
}
