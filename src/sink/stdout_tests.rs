//! What a user sees on the terminal, and what a pipe gets.

use super::*;
use crate::envelope::{Data, Extensions};
use bytes::Bytes;
use std::sync::Mutex;

fn event(subject: &str) -> Arc<Envelope> {
    Arc::new(Envelope {
        id: "1a97".to_owned(),
        source: "//tests".to_owned(),
        event_type: "io.z-api.message.received".to_owned(),
        subject: Some(subject.to_owned()),
        time: None,
        datacontenttype: Some("text/plain".to_owned()),
        dataschema: None,
        extensions: Extensions::from([
            ("hookbussource".into(), "whatsapp".into()),
            ("receivedtime".into(), "2026-01-31T12:00:00.000Z".into()),
        ]),
        data: Data::Text(Bytes::from_static(&[b'x'; 1600])),
    })
}

/// Takes a few bytes at a time, is full in between, and is gone when told.
#[derive(Clone, Default)]
struct Pipe {
    taken: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<Mutex<bool>>,
    is_gone: bool,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut is_full = self.is_full.lock().unwrap();
        *is_full = !*is_full;
        if *is_full {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(700);
        self.taken.lock().unwrap().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.is_gone { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Output for Pipe {
    fn wait_for_room(&self) -> io::Result<()> {
        Ok(())
    }
}

fn sink(pipe: &Pipe, style: Style) -> StdoutSink {
    StdoutSink::new(Box::new(pipe.clone()), style, Duration::from_secs(30))
}

#[tokio::test]
async fn a_terminal_shows_one_readable_line_without_the_payload() {
    let pipe = Pipe::default();
    assert_eq!(sink(&pipe, Style::Readable).deliver(&event("5511900002545")).await, Outcome::Delivered);
    assert_eq!(
        String::from_utf8(pipe.taken.lock().unwrap().clone()).unwrap(),
        "2026-01-31T12:00:00.000Z  whatsapp  io.z-api.message.received  5511900002545  1a97  1.5 KiB\n"
    );
}

#[tokio::test]
async fn an_event_cannot_drive_the_terminal() {
    let pipe = Pipe::default();
    let hostile = format!("\u{1b}[2J\r\n\u{9b}31m\u{202e}{}", "y".repeat(500));
    assert_eq!(sink(&pipe, Style::Readable).deliver(&event(&hostile)).await, Outcome::Delivered);
    let shown = String::from_utf8(pipe.taken.lock().unwrap().clone()).unwrap();
    let line = shown.strip_suffix('\n').unwrap();
    assert!(line.chars().all(|character| !character.is_control() && character != '\u{202e}'), "{line:?}");
    assert!(line.contains("\u{fffd}[2J") && line.contains("yyy…  "), "{line:?}");
}

#[tokio::test]
async fn a_pipe_gets_whole_lines_of_json_however_slowly_it_takes_them() {
    let pipe = Pipe::default();
    let sink = sink(&pipe, Style::Json);
    for subject in ["a", "b"] {
        assert_eq!(sink.deliver(&event(subject)).await, Outcome::Delivered);
    }
    sink.close().await;
    let text = String::from_utf8(pipe.taken.lock().unwrap().clone()).unwrap();
    let subjects: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["subject"].clone())
        .collect();
    assert_eq!(subjects, ["a", "b"]);
}

#[tokio::test]
async fn a_reader_that_went_away_is_away() {
    let pipe = Pipe { is_gone: true, ..Pipe::default() };
    let outcome = sink(&pipe, Style::Json).deliver(&event("a")).await;
    let Outcome::Away(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.to_string(), "connection_lost: the reader of standard output is gone");
}
