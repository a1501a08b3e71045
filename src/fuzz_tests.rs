//! Fuzzing of what reads bytes that others wrote: the machine. The targets stand beside the code that they aim at, in
//! files named `fuzz_tests.rs`.
//! A target is a name, inputs to begin with, and a function that reads an input and checks what must hold of it: no
//! panic, a round trip, a limit. Inputs are made by changing those to begin with; one that was taken, or refused in a
//! way not seen before, is changed further. Holds: a failure prints the shortest input found that shows it.
//!
//! In the suite every target runs [`CASES`] inputs. By hand `tests/fuzz SECONDS [TARGET]`, which sets
//! - `HOOKBUS_FUZZ_SECONDS`: how long each target runs,
//! - `HOOKBUS_FUZZ_TARGET`: only targets whose name has this in it,
//! - `HOOKBUS_FUZZ_SEED`: the seed that a run printed, to see the same inputs again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Inputs a target in the suite, beside those to begin with.
const CASES: u64 = 400;
/// The longest input that is made by hand, and in the suite, where every byte costs everybody's time.
const INPUT_BYTES_MAX: usize = 256 * 1024;
const INPUT_BYTES_MAX_IN_SUITE: usize = 16 * 1024;
/// As many inputs are kept to be changed further, and none that is longer than this: a few long ones would take all the
/// time.
const CORPUS_MAX: usize = 4096;
const KEPT_BYTES_MAX: usize = 4096;
/// Attempts to shorten an input that fails.
const SHORTENINGS_MAX: usize = 2000;

/// What reading an input came to: taken, or refused for this reason.
pub(crate) type Verdict = Result<(), String>;

/// One parser under test.
pub(crate) struct Target {
    /// What `HOOKBUS_FUZZ_TARGET` finds.
    pub(crate) name: &'static str,
    /// Inputs to begin with, one at least of which is taken.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input; panics where something does not hold.
    pub(crate) check: fn(&[u8]) -> Verdict,
}

/// Runs the targets for as long as the environment says.
pub(crate) fn run(targets: &[Target]) {
    let wanted = std::env::var("HOOKBUS_FUZZ_TARGET").unwrap_or_default();
    for target in targets.iter().filter(|target| target.name.contains(&wanted)) {
        target.run();
    }
}

/// Texts as inputs.
pub(crate) fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("the variable is a whole number"))
}

/// What a run has done so far.
#[derive(Default)]
struct Tally {
    inputs: u64,
    taken: u64,
    slowest: (Duration, usize),
}

impl Target {
    fn run(&self) {
        let seconds = number_of("HOOKBUS_FUZZ_SECONDS").map(Duration::from_secs);
        let seed = number_of("HOOKBUS_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("{}: seed {seed}", self.name);
        let mut mutator = Mutator {
            random: fastrand::Rng::with_seed(seed),
            corpus: (self.seeds)(),
            bytes_max: if seconds.is_some() { INPUT_BYTES_MAX } else { INPUT_BYTES_MAX_IN_SUITE },
        };
        let (mut tally, mut reasons) = (Tally::default(), BTreeSet::new());
        for input in mutator.corpus.clone() {
            let _: Verdict = self.try_one(&input, &mut tally, seed);
        }
        assert!(tally.taken > 0, "{}: no input to begin with is taken, so little is tested", self.name);
        let began = Instant::now();
        let is_over = |inputs| seconds.map_or(inputs >= CASES, |seconds| began.elapsed() >= seconds);
        let mut made = 0;
        while !is_over(made) {
            made += 1;
            let input = mutator.input();
            let is_new = match self.try_one(&input, &mut tally, seed) {
                Ok(()) => true,
                Err(reason) => reasons.insert(reason),
            };
            if is_new && input.len() <= KEPT_BYTES_MAX {
                mutator.keep(input);
            }
        }
        let Tally { inputs, taken, slowest: (longest, bytes) } = tally;
        println!(
            "{}: {inputs} inputs, {taken} taken, {} ways to be refused; the slowest took {longest:?} for {bytes} bytes",
            self.name,
            reasons.len()
        );
    }

    fn try_one(&self, input: &[u8], tally: &mut Tally, seed: u64) -> Verdict {
        let began = Instant::now();
        let Ok(verdict) = self.outcome(input) else { self.report(input, seed) };
        tally.slowest = tally.slowest.max((began.elapsed(), input.len()));
        tally.inputs += 1;
        tally.taken += u64::from(verdict.is_ok());
        verdict
    }

    fn outcome(&self, input: &[u8]) -> std::thread::Result<Verdict> {
        catch_unwind(AssertUnwindSafe(|| (self.check)(input)))
    }

    /// Shortens the input as long as it still fails, and tells.
    fn report(&self, input: &[u8], seed: u64) -> ! {
        let mut shortest = input.to_vec();
        let (mut piece, mut attempts) = ((input.len() / 2).max(1), 0);
        while piece > 0 && attempts < SHORTENINGS_MAX {
            let mut at = 0;
            while at < shortest.len() && attempts < SHORTENINGS_MAX {
                attempts += 1;
                let mut shorter = shortest.clone();
                shorter.drain(at..(at + piece).min(shortest.len()));
                if self.outcome(&shorter).is_err() { shortest = shorter } else { at += piece }
            }
            piece /= 2;
        }
        panic!("{}, seed {seed}: fails for b\"{}\"", self.name, shortest.escape_ascii());
    }
}

/// What breaks parsers.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"'",
    b"\\",
    b"\0",
    b"\r\n",
    b"\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\xff",
    b"\x7f",
    b"\x1b",
    b",",
    b";",
    b":",
    b"=",
    b"&",
    b"+",
    b"%",
    b"%00",
    b"%2",
    b"%zz",
    b"%25",
    b"%ff",
    b"/",
    b"//",
    b"/../",
    b"?",
    b"#",
    b"@",
    b"*",
    b"{",
    b"}",
    b"{{",
    b"}}",
    b"[",
    b"]",
    b"(",
    b"<",
    b"<!--",
    b"$",
    b"~0",
    b"~1",
    b"-",
    b"--",
    b"_",
    b"__",
    b".",
    b"null",
    b"true",
    b"false",
    b"{}",
    b"[]",
    b"\"\"",
    b"0",
    b"-0",
    b"-1",
    b"1e999",
    b"1e-999",
    b"NaN",
    b"0x10",
    b"127",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"-2147483649",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999999999999999",
    b"0.1",
    b"1795219200",
    b"1795219200000",
    b"\xef\xbb\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc3\xa9",
    b"\xf0\x9f\x9a\x80",
    b"\xe2\x80\xae",
    b"\xc2\x85",
    b"\xef\xbf\xbf",
    b"\\u0000",
    b"\\ud83d",
    b"\\udc00",
    b"\\u000a",
    b"::",
    b"::1",
    b"0.0.0.0",
    b"[::1]:80",
    b"::ffff:10.0.0.1",
    b"/0",
    b"/33",
    b"9999-12-31T23:59:60Z",
    b"-0001-01-01T00:00:00Z",
    b"2026-11-21T00:00:00+99:99",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x10",
];

/// Makes inputs of those it knows.
struct Mutator {
    random: fastrand::Rng,
    corpus: Vec<Vec<u8>>,
    bytes_max: usize,
}

impl Mutator {
    fn input(&mut self) -> Vec<u8> {
        let mut input = self.any().to_vec();
        for _ in 0..self.random.usize(1..=4) {
            self.change(&mut input);
        }
        input.truncate(self.bytes_max);
        input
    }

    /// Where there is no more room an input takes the place of another, but never of one to begin with that was short.
    fn keep(&mut self, input: Vec<u8>) {
        if self.corpus.len() < CORPUS_MAX {
            self.corpus.push(input);
        } else {
            let at = self.random.usize(CORPUS_MAX / 2..CORPUS_MAX);
            self.corpus[at] = input;
        }
    }

    fn any(&mut self) -> &[u8] {
        let at = self.random.usize(..self.corpus.len());
        &self.corpus[at]
    }

    fn range(&mut self, bytes: usize) -> std::ops::Range<usize> {
        let begin = self.random.usize(..=bytes);
        let longest = (bytes - begin).min(if self.random.bool() { 16 } else { bytes });
        begin..begin + self.random.usize(..=longest)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.usize(..=input.len());
        let range = self.range(input.len());
        let token = TOKENS[self.random.usize(..TOKENS.len())];
        match self.random.u8(..11) {
            0 if at < input.len() => input[at] ^= 1 << self.random.u8(..8),
            1 if at < input.len() => input[at] = self.random.u8(..),
            2 | 3 => drop(input.splice(at..at, token.iter().copied())),
            4 => drop(input.splice(range, token.iter().copied())),
            5 => drop(input.drain(range)),
            6 => {
                let again = input[range].to_vec();
                input.splice(at..at, again);
            }
            7 => {
                let other = self.any().to_vec();
                let part = other[self.range(other.len())].to_vec();
                input.splice(range, part);
            }
            8 => self.renumber(input, token),
            9 => input.truncate(at),
            // Rarely, since what is long is slow.
            10 if self.random.u8(..8) == 0 => {
                let times = self.random.usize(..=self.bytes_max / token.len() / 2);
                input.splice(at..at, token.repeat(times));
            }
            _ => input.push(self.random.u8(..)),
        }
    }

    /// Puts the token where a number stands.
    fn renumber(&mut self, input: &mut Vec<u8>, token: &[u8]) {
        let from = self.random.usize(..=input.len());
        let Some(begin) = input[from..].iter().position(u8::is_ascii_digit).map(|at| at + from) else {
            return;
        };
        let digits = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        input.splice(begin..begin + digits, token.iter().copied());
    }
}

/// A request as one input: the query, header lines, an empty line, the body. What is no header is passed over, as the
/// server would have done.
pub(crate) struct RawRequest {
    pub(crate) query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: bytes::Bytes,
}

impl RawRequest {
    pub(crate) fn read(input: &[u8]) -> Self {
        let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
        let body = bytes::Bytes::copy_from_slice(input.get(end + 2..).unwrap_or_default());
        let mut lines = input[..end].split(|byte| *byte == b'\n');
        let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut headers = http::HeaderMap::new();
        for line in lines.take(100) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = http::HeaderName::from_bytes(&line[..colon]);
            let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        RawRequest { query, headers, body }
    }

    /// The input that reads back as this.
    pub(crate) fn write(query: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut input = format!("{query}\n");
        for (name, value) in headers {
            writeln!(input, "{name}: {value}").expect("memory takes every write");
        }
        input.push('\n');
        let mut input = input.into_bytes();
        input.extend_from_slice(body);
        input
    }
}

static SELF_TEST: Target = Target {
    name: "the machine itself",
    seeds: || texts(&["order 17 of 20"]),
    check: |input| {
        assert!(!input.windows(2).any(|two| two == b"\"\\"), "the fault that is there to be found");
        if input.starts_with(b"order") { Ok(()) } else { Err("no order".to_owned()) }
    },
};

#[test]
fn a_fault_is_found_and_its_input_shortened() {
    let failing = b"order \"\\ of a long line, and more of it, which has nothing to do with the fault";
    let told = catch_unwind(|| SELF_TEST.report(failing, 7)).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert_eq!(told, "the machine itself, seed 7: fails for b\"\\\"\\\\\"");
    let mut mutator =
        Mutator { random: fastrand::Rng::with_seed(1), corpus: (SELF_TEST.seeds)(), bytes_max: 1000 };
    let found = (0..200_000).find(|_| SELF_TEST.outcome(&mutator.input()).is_err());
    assert!(found.is_some(), "changing inputs never makes the one that fails");
}

#[test]
fn a_request_reads_back_as_it_was_written() {
    let written = RawRequest::write("a=b", &[("x-one", "1"), ("x-one", "2")], b"body\n\nmore");
    let read = RawRequest::read(&written);
    assert_eq!((read.query.as_str(), read.headers.get_all("x-one").iter().count()), ("a=b", 2));
    assert_eq!(read.body, "body\n\nmore");
    assert_eq!(RawRequest::read(&RawRequest::write("", &[], b"x")).body, "x");
}

mod shared_parsers {
    //! `glob`, `percent` and `time`, which many modules share.

    use super::{Target, Verdict, run, texts};
    use crate::time::UnixMs;
    use crate::{glob, percent};

    static TARGETS: &[Target] = &[
        Target {
            name: "glob",
            seeds: || texts(&["a*c*e\nabcde", "*\na.b", "io.z-api.*\nio.z-api.x"]),
            check: glob,
        },
        Target {
            name: "percent",
            seeds: || texts(&["Euro%20%E2%82%AC%20%f0", "a+b%2Bc", "plain"]),
            check: percent,
        },
        Target {
            name: "time",
            seeds: || {
                texts(&[
                    "2026-01-31T12:00:00.123-03:00",
                    "1795219200.5",
                    "Thu, 15 Jan 2026 12:40:40 +0000",
                    "1e12",
                ])
            },
            check: time,
        },
    ];

    /// Against the obvious way: one place of both after another.
    fn matches_slowly(glob: &[u8], text: &[u8]) -> bool {
        let mut reachable = vec![false; text.len() + 1];
        reachable[0] = true;
        for &byte in glob {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match byte {
                    b'*' => reachable[at] || (at > 0 && next[at - 1]),
                    _ => at > 0 && reachable[at - 1] && text[at - 1] == byte,
                };
            }
            reachable = next;
        }
        reachable[text.len()]
    }

    fn glob(input: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(input);
        let (pattern, text) = text.split_once('\n').unwrap_or((&text, ""));
        let is_taken = glob::matches(pattern, text);
        if pattern.len() * text.len() < 1 << 16 {
            assert_eq!(is_taken, matches_slowly(pattern.as_bytes(), text.as_bytes()));
        }
        if is_taken { Ok(()) } else { Err("another name".to_owned()) }
    }

    fn percent(input: &[u8]) -> Verdict {
        let decoded = percent::decoded(input);
        assert!(decoded.len() <= input.len());
        let encoded: Vec<u8> = input.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect();
        assert_eq!(percent::decoded(&encoded), input, "whatever is encoded comes back");
        assert_eq!(percent::form_decoded(&encoded), input);
        let strict = std::str::from_utf8(input).ok().and_then(percent::decoded_strictly);
        let strict = strict.ok_or_else(|| "no path segment".to_owned())?;
        assert_eq!(strict.as_bytes(), &*decoded, "the strict way gives the same or nothing");
        Ok(())
    }

    fn time(input: &[u8]) -> Verdict {
        let text = std::str::from_utf8(input).map_err(|_| "no text".to_owned())?;
        let read = [UnixMs::parse_rfc3339(text), UnixMs::parse_rfc2822(text), UnixMs::from_sender(text)];
        for time in read.into_iter().flatten() {
            let written = time.to_rfc3339();
            assert_eq!(written.len(), 24, "{written}");
            assert_eq!(UnixMs::parse_rfc3339(&written), Some(time), "{written}");
        }
        read.into_iter().flatten().next().map(|_| ()).ok_or_else(|| "no time".to_owned())
    }

    #[test]
    fn globs_percent_signs_and_times_hold_for_every_input() {
        run(TARGETS);
    }
}
