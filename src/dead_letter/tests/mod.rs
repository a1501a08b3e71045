//! The store as its users see it, on a disk in memory that can fail and lose what was not synced.

mod accounts;
mod disk;
mod errands;
mod faults;
mod keeping;
mod stored_form;

use super::*;
use crate::config::ByteSize;
use crate::envelope::{Data, Envelope, HOOKBUS_SOURCE, SourceName};
use crate::sink::Failure;
use crate::time::UnixMs;
use bytes::Bytes;
use disk::MemoryDisk;
use std::borrow::Cow;

fn sink(name: &str) -> SinkName {
    SinkName::new(name).unwrap()
}

fn event(id: &str) -> Envelope {
    event_with(id, r#"{"n":12345678901234567,"n":1}"#)
}

fn event_with(id: &str, body: &str) -> Envelope {
    Envelope {
        id: id.into(),
        source: "//hookbus/sources/inbox".into(),
        event_type: format!("com.example.{}", &id[..1]),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".into()),
        dataschema: None,
        extensions: [(Cow::Borrowed(HOOKBUS_SOURCE), "inbox".into())].into(),
        data: Data::Json(Bytes::copy_from_slice(body.as_bytes())),
    }
}

fn failure(reason: Reason, detail: &str) -> Failure {
    Failure::new(reason, detail)
}

fn by_id(id: &LetterId) -> Filter {
    Filter { ids: vec![id.clone()], ..Filter::default() }
}

/// A store on a disk in memory, and what is needed to open it again.
struct Store {
    letters: DeadLetters,
    disk: MemoryDisk,
    shutdown: Shutdown,
    disk_max: ByteSize,
}

impl Store {
    fn new() -> Store {
        Store::of_size(ByteSize::mib(1))
    }
    fn of_size(disk_max: ByteSize) -> Store {
        Store::on(MemoryDisk::default(), disk_max)
    }
    fn on(disk: MemoryDisk, disk_max: ByteSize) -> Store {
        let shutdown = Shutdown::new();
        let letters = DeadLetters::start(disk.clone(), &Config { disk_max }, &shutdown).unwrap();
        Store { letters, disk, shutdown, disk_max }
    }
    async fn reopened(self) -> Store {
        self.letters.close().await;
        Store::on(self.disk.reopened(), self.disk_max)
    }
    /// As after a power cut: only what was synced is there.
    fn after_a_power_cut(&self) -> Store {
        Store::on(self.disk.after_a_power_cut(), self.disk_max)
    }
    async fn put(&self, sink_name: &str, id: &str) -> Result<LetterId, StoreError> {
        self.put_with(sink_name, &event(id), failure(Reason::Timeout, "no answer in 10 s"), None).await
    }
    async fn put_with(
        &self,
        sink_name: &str,
        event: &Envelope,
        last: Failure,
        copy_to: Option<&SinkName>,
    ) -> Result<LetterId, StoreError> {
        let letter = Undelivered {
            sink: &sink(sink_name),
            event,
            arrived: UnixMs(1_000),
            attempts: 3,
            first: &failure(Reason::SinkError, "answered 500"),
            last: &last,
            copy_to,
        };
        self.letters.put(letter).await
    }
    async fn quarantine(&self, body: &'static [u8]) -> LetterId {
        let quarantined = Quarantined {
            source: &SourceName::new("inbox").unwrap(),
            body: &Bytes::from_static(body),
            content_type: Some("text/plain"),
            reason: "not_json",
            detail: "expected a JSON object".into(),
            arrived: UnixMs(2_000),
        };
        self.letters.quarantine(quarantined).await.unwrap().into()
    }
    async fn all(&self) -> Vec<Summary> {
        self.letters.list(Filter::default(), None, 1000).await.unwrap()
    }
    async fn errands(&self, sink_name: &str) -> Vec<Errand> {
        self.letters.errands(sink(sink_name), vec![], 100, usize::MAX).await.unwrap()
    }
}
