//! What no part can check by itself: names that lead nowhere, addresses that collide, limits that exclude each other.
//! Holds: a check whose parts could not be read is left out; a part's own error is enough.

use super::{Config, Parts};
use crate::config::{ByteSize, ConfigError, Period, Section, nearest};
use crate::envelope::SinkName;
use crate::ingress::tls::ClientCertificates;
use crate::ingress::{self, Address};
use crate::journal;
use crate::router::Route;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Every contradiction between parts, and every limit of zero.
pub(super) fn errors(parts: &Parts, root: &Section) -> Vec<ConfigError> {
    let mut findings = Findings { root, found: Vec::new() };
    let sinks = root.child("sinks").keys();
    if let Some(general) = &parts.general {
        findings.add_if(general.data_dir.as_os_str().is_empty(), "data_dir", "must not be empty");
        routes(&general.routes, &root.child("sources").keys(), &sinks, &mut findings);
    }
    for (name, sink) in parts.sinks.iter().flatten() {
        if let Some(other) = &sink.common.dead_letter {
            findings.check_name(&format!("sinks.{name}.dead_letter"), other.as_str(), &sinks, "sink");
        }
    }
    one_writer_a_file(parts, &mut findings);
    addresses(parts, &mut findings);
    ingress_tls(parts, &mut findings);
    limits(parts, &mut findings);
    findings.found
}

/// What is allowed but probably not meant.
pub(super) fn warnings(config: &Config, root: &Section, literal_secrets: &[String]) -> Vec<ConfigError> {
    let mut findings = Findings { root, found: Vec::new() };
    // URLs and headers may hold a credential and so are never printed, but most hold none.
    let is_mostly_open = |key: &&String| {
        let without_index = key.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
        without_index.ends_with("url") || key.contains(".headers.")
    };
    for key in literal_secrets.iter().filter(|key| !is_mostly_open(key)) {
        let problem =
            "is a secret written out; { env = \"NAME\" } or { file = \"/path\" } keeps it out of this file";
        findings.add_if(true, key, problem);
    }
    let is_reachable = takes_anybody(&config.ingress);
    for (name, source) in &config.sources {
        let problem = "takes posts from anybody who reaches ingress.listen; set path_secret or the dialect's own credential";
        findings.add_if(is_reachable && source.is_unauthenticated(), &format!("sources.{name}"), problem);
    }
    for (name, source) in &config.sources {
        let problem = "is shorter than the tolerance for signatures: a request that somebody has copied can be sent again after it";
        let can_return =
            source.dialect.tolerance().is_some_and(|tolerance| tolerance > source.config.dedupe.get());
        findings.add_if(can_return, &format!("sources.{name}.dedupe"), problem);
    }
    for (place, network) in config.ingress.trusted_proxies.iter().enumerate() {
        let problem = "trusts everybody: whoever sends may choose the address they seem to have";
        let key = format!("ingress.trusted_proxies.{place}");
        findings.add_if(network.to_string().ends_with("/0"), &key, problem);
    }
    for name in config.sources.keys() {
        let is_taken =
            config.routes.iter().any(|route| route.from.as_ref().is_none_or(|from| from.contains(name)));
        let problem = "no route takes its events; they go to no sink";
        findings.add_if(!config.routes.is_empty() && !is_taken, &format!("sources.{name}"), problem);
    }
    for name in config.sinks.keys() {
        let is_reached = config.routes.iter().any(|route| route.to.contains(name));
        let is_dead_letter = config.sinks.values().any(|sink| sink.common.dead_letter.as_ref() == Some(name));
        let is_idle = !config.routes.is_empty() && !is_reached && !is_dead_letter;
        findings.add_if(is_idle, &format!("sinks.{name}"), "no route leads here; it gets no event");
    }
    findings.add_if(config.sources.is_empty(), "sources", "there are none; every post is answered 404");
    findings.add_if(
        config.sinks.is_empty(),
        "sinks",
        "there are none; events are kept for journal.retention and go nowhere",
    );
    findings.found
}

/// Two lanes that write one file would lock each other out: one of them would be away for ever.
fn one_writer_a_file(parts: &Parts, findings: &mut Findings<'_>) {
    let Some(general) = &parts.general else { return };
    let mut writers: BTreeMap<PathBuf, &SinkName> = BTreeMap::new();
    for (name, sink) in parts.sinks.iter().flatten() {
        let Some(file) = sink.config.file(&general.data_dir) else { continue };
        if let Some(other) = writers.insert(file, name) {
            let problem = format!("is the file of the sink `{other}` too; a file has one writer");
            findings.add_if(true, &format!("sinks.{name}.{}.path", sink.type_name), &problem);
        }
    }
}

struct Findings<'a> {
    root: &'a Section,
    found: Vec<ConfigError>,
}

impl Findings<'_> {
    fn add_if(&mut self, is_wrong: bool, key: &str, problem: &str) {
        if is_wrong {
            self.found.push(self.root.error(key, problem));
        }
    }

    /// A contradiction between two keys, each with its problem: the one that somebody wrote is named, the first where
    /// somebody wrote both or nobody any.
    fn add_if_between(&mut self, is_wrong: bool, one: (&str, &str), other: (&str, &str)) {
        let is_others = self.root.says(other.0) && !self.root.says(one.0);
        let (key, problem) = if is_others { other } else { one };
        self.add_if(is_wrong, key, problem);
    }

    fn check_name(&mut self, key: &str, name: &str, known: &[String], kind: &str) {
        if known.iter().any(|other| other == name) {
            return;
        }
        let problem = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("there is no such {kind}; did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no {kind} at all"),
            None => format!("there is no such {kind}; known: {}", known.join(", ")),
        };
        self.found.push(self.root.error(key, problem));
    }
}

fn routes(routes: &[Route], sources: &[String], sinks: &[String], findings: &mut Findings<'_>) {
    for (index, route) in routes.iter().enumerate() {
        let key = |key: &str| format!("routes.{index}.{key}");
        for (place, source) in route.from.iter().flatten().enumerate() {
            findings.check_name(&key(&format!("from.{place}")), source.as_str(), sources, "source");
        }
        for (place, sink) in route.to.iter().enumerate() {
            findings.check_name(&key(&format!("to.{place}")), sink.as_str(), sinks, "sink");
        }
        findings.add_if(route.to.is_empty(), &key("to"), "expected at least one sink");
        let is_empty_list = |names: Option<usize>| names == Some(0);
        let all = "an empty list takes nothing; leave the key out to take all";
        findings.add_if(is_empty_list(route.from.as_ref().map(Vec::len)), &key("from"), all);
        findings.add_if(is_empty_list(route.types.as_ref().map(Vec::len)), &key("types"), all);
    }
}

fn addresses(parts: &Parts, findings: &mut Findings<'_>) {
    let Some(admin) = &parts.admin else { return };
    findings.add_if(
        admin.token.is_none() && !admin.listen.ip().is_loopback(),
        "admin.token",
        "is required because admin.listen is not on loopback",
    );
    let endpoints = parts.ingress.iter().flat_map(ingress::Config::endpoints);
    let collides = endpoints.filter_map(|at| at.address.tcp()).any(|at| overlap(at, admin.listen));
    findings.add_if_between(
        collides,
        ("admin.listen", "is the address of ingress.listen; the two need their own"),
        ("ingress.listen", "is the address of admin.listen; the two need their own"),
    );
}

/// Names every address of the ingress that another one before it leaves no room for.
fn own_addresses(ingress: &ingress::Config, findings: &mut Findings<'_>) {
    let listen = ingress.listen.iter().count();
    let endpoints = ingress.endpoints();
    for (place, endpoint) in endpoints.iter().enumerate() {
        let key = match place.checked_sub(listen) {
            None => format!("ingress.listen.{place}"),
            Some(place) => format!("ingress.plain_listen.{place}"),
        };
        let is_taken = endpoints[..place].iter().any(|other| excludes(&other.address, &endpoint.address));
        findings.add_if(is_taken, &key, "is an address of ingress.listen or ingress.plain_listen already");
    }
}

/// Can the two never be listened at together? Whether IPv6 leaves room for IPv4 is the system's to say.
fn excludes(one: &Address, other: &Address) -> bool {
    match (one.tcp(), other.tcp()) {
        (Some(one), Some(other)) => one.is_ipv4() == other.is_ipv4() && overlap(one, other),
        _ => one == other,
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}

/// May somebody from elsewhere post without a certificate?
fn takes_anybody(ingress: &ingress::Config) -> bool {
    let asks_for_certificate =
        ingress.tls.client_ca.is_some() && ingress.tls.client_certificates == ClientCertificates::Required;
    ingress.endpoints().iter().any(|endpoint| {
        let is_open = !(endpoint.speaks_tls && asks_for_certificate);
        is_open
            && match &endpoint.address {
                Address::Tcp(address) => !address.ip().is_loopback(),
                Address::Unix(_) => false,
                // Where that is, only the service manager knows.
                Address::Passed(_) => true,
            }
    })
}

fn ingress_tls(parts: &Parts, findings: &mut Findings<'_>) {
    let Some(ingress) = &parts.ingress else { return };
    own_addresses(ingress, findings);
    let tls = &ingress.tls;
    let root = findings.root;
    if !tls.is_on() {
        let useless = "has a meaning only with ingress.tls.cert";
        for key in ["key", "client_ca", "client_certificates", "min_version"] {
            let key = format!("ingress.tls.{key}");
            findings.add_if(root.says(&key), &key, useless);
        }
        let problem = "is for plain HTTP beside TLS; without ingress.tls.cert, ingress.listen takes a list";
        findings.add_if(!ingress.plain_listen.is_empty(), "ingress.plain_listen", problem);
        return;
    }
    findings.add_if(tls.key.is_none(), "ingress.tls.key", "is required beside ingress.tls.cert");
    let asks_nobody = tls.client_ca.is_none() && root.says("ingress.tls.client_certificates");
    findings.add_if(asks_nobody, "ingress.tls.client_certificates", "needs ingress.tls.client_ca");
    let can_speak_tls = ingress.listen.iter().any(|address| !matches!(address, Address::Unix(_)));
    findings.add_if(
        !can_speak_tls,
        "ingress.listen",
        "names no address that could speak TLS; a Unix socket does not",
    );
}

fn limits(parts: &Parts, findings: &mut Findings<'_>) {
    let none = ByteSize::bytes(0);
    let never = Period::millis(0);
    let more = "must be more than nothing";
    if let Some(ingress) = &parts.ingress {
        findings.add_if(ingress.body_max == none, "ingress.body_max", more);
        findings.add_if(ingress.inflate_ratio_max == 0, "ingress.inflate_ratio_max", more);
        findings.add_if(ingress.headers_max == 0, "ingress.headers_max", more);
        findings.add_if(ingress.header_timeout == never, "ingress.header_timeout", more);
        findings.add_if(ingress.body_timeout == never, "ingress.body_timeout", more);
        findings.add_if(ingress.store_timeout == never, "ingress.store_timeout", more);
        findings.add_if(ingress.requests_max == 0, "ingress.requests_max", more);
        findings.add_if(ingress.connections_max == 0, "ingress.connections_max", more);
    }
    if let Some(dead_letters) = &parts.dead_letters {
        findings.add_if(dead_letters.disk_max == none, "dead_letters.disk_max", more);
    }
    let Some(journal) = &parts.journal else { return };
    // The journal would bring its segments within these bounds without a word.
    let (min, max) = (journal::SEGMENT_BYTES_MIN, journal::SEGMENT_BYTES_MAX);
    let is_no_segment = !(min..=max).contains(&journal.segment.get());
    let bounds = format!("expected {} to {}", ByteSize::bytes(min), ByteSize::bytes(max));
    findings.add_if(is_no_segment, "journal.segment", &bounds);
    findings.add_if(journal.dedupe_max == 0, "journal.dedupe_max", more);
    findings.add_if(journal.recent_max == none, "journal.recent_max", more);
    findings.add_if(journal.waiting_max == 0, "journal.waiting_max", more);
    findings.add_if_between(
        journal.disk_max.get() / journal::SEGMENTS_IN_BUDGET < journal.segment.get(),
        (
            "journal.disk_max",
            &format!("must be at least {} times journal.segment", journal::SEGMENTS_IN_BUDGET),
        ),
        ("journal.segment", &format!("must be at most journal.disk_max / {}", journal::SEGMENTS_IN_BUDGET)),
    );
    // An event is its body and its attributes; half a segment leaves room for both many times over.
    let fits = |body: ByteSize| body.get() <= journal.segment.get() / 2;
    let too_large = "must be at most half of journal.segment";
    let ingress_fits = parts.ingress.as_ref().is_none_or(|ingress| fits(ingress.body_max));
    findings.add_if_between(
        !is_no_segment && !ingress_fits,
        ("ingress.body_max", too_large),
        ("journal.segment", "must be at least twice ingress.body_max"),
    );
    for (name, source) in parts.sources.iter().flatten() {
        let Some(body_max) = source.config.body_max else { continue };
        let key = format!("sources.{name}.body_max");
        findings.add_if(body_max == none, &key, more);
        findings.add_if(!is_no_segment && !fits(body_max), &key, too_large);
    }
}
