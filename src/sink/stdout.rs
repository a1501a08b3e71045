//! `stdout`: one readable line an event on a terminal, NDJSON when standard output is a pipe or a file.
//! Holds: Delivered only after the flush succeeded; a reader that went away is Away and never a panic; nothing an
//! event contains can drive the terminal. A reader that stalls makes the sink Busy, which uses up no attempts.

use super::cloudevents::write_line;
use super::gather::{BatchWriter, Gatherer, Unconfirmed};
use super::{
    BuildError, Context, Failure, Format, Limits, Outcome, OwnKeys, Reason, Sink, SinkConfig, SinkType,
};
use crate::config::{ConfigError, Section};
use crate::envelope::{Envelope, RECEIVED_TIME};
use crate::shutdown::Shutdown;
use futures_util::future::{BoxFuture, FutureExt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

pub(super) const TYPE: SinkType = SinkType::of::<Config>("stdout", &[Format::Structured]);

/// The most characters of one attribute in a readable line.
const FIELD_CHARS_MAX: usize = 80;

/// `[sinks.N.stdout]`: no keys of its own.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {}

impl OwnKeys for Config {
    fn check(&self, _section: &Section, _errors: &mut Vec<ConfigError>) {}
}

impl SinkConfig for Config {
    fn build(&self, context: Context, _shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let output = io::stdout();
        let style = if output.is_terminal() { Style::Readable } else { Style::Json };
        Ok(Arc::new(StdoutSink::new(Box::new(output), style, context.timeout.get())))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Readable,
    Json,
}

/// Where lines go; the tests' own takes them in pieces.
trait Output: Write + Send + 'static {
    /// Blocks until it takes bytes again.
    fn wait_for_room(&self) -> io::Result<()>;
}

impl Output for io::Stdout {
    fn wait_for_room(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(self, PollFlags::OUT)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

struct StdoutSink {
    gatherer: Gatherer<StdoutWriter>,
}

impl StdoutSink {
    fn new(output: Box<dyn Output>, style: Style, timeout: Duration) -> Self {
        let writer = StdoutWriter { output, style, buffer: Vec::new() };
        StdoutSink { gatherer: Gatherer::new(writer, timeout, Box::new(on_a_thread_of_its_own)) }
    }
}

/// A reader may stall for ever and the write with it, which must not hold up the end of the program.
fn on_a_thread_of_its_own(work: Box<dyn FnOnce() + Send>) {
    // Without a thread the work is dropped, and with it the events' confirmations: they end as late.
    let _ = std::thread::Builder::new().name("stdout".to_owned()).spawn(work);
}

impl Sink for StdoutSink {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        async move {
            match self.gatherer.deliver(event).await {
                Ok(()) => Outcome::Delivered,
                Err(Unconfirmed::Failed(failure)) => Outcome::Away(failure),
                Err(Unconfirmed::Late) => Outcome::Busy {
                    failure: Failure::new(Reason::Throttled, "nobody reads standard output"),
                    wait: None,
                },
            }
        }
        .boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        std::future::ready(Ok(Limits::default())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.gatherer.drained().boxed()
    }
}

struct StdoutWriter {
    output: Box<dyn Output>,
    style: Style,
    buffer: Vec<u8>,
}

impl BatchWriter for StdoutWriter {
    fn write(&mut self, events: &[Arc<Envelope>]) -> Result<(), Failure> {
        self.buffer.clear();
        for event in events {
            match self.style {
                Style::Readable => self.buffer.extend_from_slice(readable_line(event).as_bytes()),
                Style::Json => write_line(event, &mut self.buffer),
            }
        }
        write_flushed(&mut *self.output, &self.buffer).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => {
                Failure::new(Reason::ConnectionLost, "the reader of standard output is gone")
            }
            _ => Failure::new(Reason::ConnectionLost, format!("standard output: {error}")),
        })
    }
}

/// Standard output may have been made non-blocking by whoever shares it; half a line would be the result of giving up.
fn write_flushed(output: &mut dyn Output, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let step = if bytes.is_empty() { output.flush().map(|()| 0) } else { output.write(bytes) };
        match step {
            Ok(_) if bytes.is_empty() => return Ok(()),
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => output.wait_for_room()?,
            Err(error) => return Err(error),
        }
    }
}

/// Time, source, type, subject, id and size; never the payload.
fn readable_line(event: &Envelope) -> String {
    let time = event.attribute(RECEIVED_TIME).or_else(|| event.attribute("time"));
    let source = match event.hookbus_source() {
        "" => &event.source,
        name => name,
    };
    let fields =
        [time.as_deref(), Some(source), Some(&event.event_type), event.subject.as_deref(), Some(&event.id)];
    let mut line = String::new();
    for field in fields {
        append_harmless(field.unwrap_or("-"), &mut line);
        line.push_str("  ");
    }
    append_size(event.data.bytes().len(), &mut line);
    line.push('\n');
    line
}

/// Everything a terminal might take as a command or that hides or turns around text becomes a replacement character.
fn append_harmless(field: &str, line: &mut String) {
    let moves_text = |c: char| matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
    let mut characters = field.chars();
    for character in characters.by_ref().take(FIELD_CHARS_MAX) {
        let is_harmless = !character.is_control() && !moves_text(character);
        line.push(if is_harmless { character } else { char::REPLACEMENT_CHARACTER });
    }
    if characters.next().is_some() {
        line.push('…');
    }
}

fn append_size(bytes: usize, line: &mut String) {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let written = match bytes {
        0..KIB => write!(line, "{bytes} B"),
        KIB..MIB => write!(line, "{}.{} KiB", bytes / KIB, bytes % KIB * 10 / KIB),
        _ => write!(line, "{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
    };
    written.expect("writing to a string cannot fail");
}

#[cfg(test)]
#[path = "stdout_tests.rs"]
mod tests;
