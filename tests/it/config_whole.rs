//! The whole configuration as somebody who writes it sees it: what runs, what is refused in which words, what is warned of.

use hookbus::app::config::{Config, Loaded};
use hookbus::config::ConfigErrors;
use proptest::prelude::*;
use std::path::PathBuf;

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Loads a file of this name and content.
fn load_as(name: &str, text: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, text).unwrap();
    let origin = format!(" (from {})", file.display());
    let loaded = Config::read(Some(file), &variables(environment), false);
    loaded.map_err(|errors| errors.to_string().replace(&origin, ""))
}

fn load(text: &str) -> Result<Loaded, String> {
    load_as("hookbus.toml", text, &[])
}

/// What runs without a file, with these variables.
fn built_in(environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    Config::read(None, &variables(environment), false)
}

fn problems_of(loaded: Loaded) -> Vec<String> {
    loaded.warnings.into_iter().map(|warning| format!("{}: {}", warning.key, warning.problem)).collect()
}

/// A source and a sink, so that nothing warns of their absence.
const ENDS: &str = "[sources.inbox.generic]\n[sinks.events.file]\n";

#[test]
fn without_a_file_three_sources_feed_a_file_and_a_terminal() {
    let piped = Config::read(None, &[], false).unwrap();
    let names: Vec<&str> = piped.config.sources.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["inbox", "plugzapi", "zapi"]);
    let kinds = |loaded: &Loaded| -> Vec<(String, &str)> {
        loaded.config.sinks.values().map(|sink| (sink.name.to_string(), sink.type_name)).collect()
    };
    assert_eq!(kinds(&piped), [("events".to_owned(), "file")]);
    let watched = Config::read(None, &[], true).unwrap();
    assert_eq!(kinds(&watched), [("events".to_owned(), "file"), ("screen".to_owned(), "stdout")]);
    assert_eq!((piped.file, piped.warnings), (None, Vec::new()));
}

#[test]
fn variables_change_the_built_in_default_and_add_to_it() {
    let loaded = built_in(&[
        ("HOOKBUS__DATA_DIR", "0123"),
        ("HOOKBUS__INGRESS__BODY_MAX", "2MiB"),
        ("HOOKBUS__SOURCES__ZAPI__ZAPI__TOKEN", "00420042"),
        ("HOOKBUS__SOURCES__SHOP__GENERIC__ID", "/id"),
        ("HOOKBUS__SINKS__EVENTS__RETRY__ATTEMPTS_MAX", "3"),
        ("HOOKBUS__SINKS__ORDERS__HTTP__URL", "https://orders.example.com"),
        ("HOOKBUS__ROUTES", "[{ to = ['orders', 'events'] }]"),
    ]);
    let config = loaded.unwrap().config;
    assert_eq!(config.data_dir, PathBuf::from("0123"), "digits stay text");
    assert_eq!(config.ingress.body_max.to_string(), "2MiB");
    let sources: Vec<(&str, bool)> = config
        .sources
        .iter()
        .map(|(name, source)| (name.as_str(), source.dialect.has_credential()))
        .collect();
    assert_eq!(sources, [("inbox", false), ("plugzapi", false), ("shop", false), ("zapi", true)]);
    assert_eq!(config.sinks.len(), 2);
    let events = config.sinks.values().find(|sink| sink.name.as_str() == "events").unwrap();
    assert_eq!(events.common.retry.attempts_max, 3);
    assert_eq!(config.routes.len(), 1);
}

#[test]
fn a_variable_of_the_built_in_default_is_named_when_it_is_wrong() {
    let errors = built_in(&[("HOOKBUS__INGRESS__LISTEN", "nowhere")]).err().unwrap();
    assert_eq!(
        errors.to_string(),
        "ingress.listen: expected an address and a port such as \"127.0.0.1:8080\", \"unix:\" and an absolute path, or \"systemd:\" and a name \
         (from environment variable HOOKBUS__INGRESS__LISTEN)"
    );
}

#[test]
fn the_file_is_the_one_named_then_the_one_of_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, format!("data_dir = '{name}'\n{ENDS}")).unwrap();
        file
    };
    let (named, of_the_variable) = (write("named.toml"), write("variable.toml"));
    let environment = variables(&[("HOOKBUS_CONFIG", of_the_variable.to_str().unwrap())]);
    let loaded = Config::load(Some(&named), &environment).unwrap();
    assert_eq!((loaded.config.data_dir, loaded.file), (PathBuf::from("named.toml"), Some(named)));
    let loaded = Config::load(None, &environment).unwrap();
    assert_eq!(loaded.config.data_dir, PathBuf::from("variable.toml"));
    let missing = directory.path().join("missing.toml");
    let errors = Config::load(Some(&missing), &environment).err().unwrap().to_string();
    assert_eq!(errors, format!("{}: there is no such file", missing.display()));
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_key_to_change() {
    let too_large = "must be at most half of journal.segment";
    for (sentence, toml, problem) in [
        ("a misspelt section", "[ingres]\n", "ingres: is not a key here; did you mean `ingress`?".to_owned()),
        (
            "a misspelt key",
            "[ingress]\nbodymax = 1\n",
            "ingress.bodymax: is not a key here; did you mean `body_max`?".to_owned(),
        ),
        ("a section that is no table", "sinks = 1\n", "sinks: expected a table".to_owned()),
        ("a sink that is no table", "[sinks]\nx = 1\n", "sinks.x: expected a table".to_owned()),
        (
            "a name that no metric could have",
            "[sources.My-Shop.generic]\n",
            "sources.My-Shop: a name is 1 to 64 lower-case letters, digits and underscores, and begins with a letter"
                .to_owned(),
        ),
        (
            "a route to a sink that is not there",
            "[[routes]]\nto = ['events', 'event']\n",
            "routes.0.to.1: there is no such sink; did you mean `events`?".to_owned(),
        ),
        (
            "a route from a source that is not there",
            "[[routes]]\nfrom = ['zzz']\nto = ['events']\n",
            "routes.0.from.0: there is no such source; known: inbox".to_owned(),
        ),
        ("a route to nowhere", "[[routes]]\nto = []\n", "routes.0.to: expected at least one sink".to_owned()),
        ("a route without its end", "[[routes]]\ntypes = ['a']\n", "routes.0.to: is required".to_owned()),
        (
            "a route from nobody",
            "[[routes]]\nfrom = []\nto = ['events']\n",
            "routes.0.from: an empty list takes nothing; leave the key out to take all".to_owned(),
        ),
        (
            "two sinks that write one file",
            "[sinks.spare.file]\npath = 'events.ndjson'\n",
            "sinks.spare.file.path: is the file of the sink `events` too; a file has one writer".to_owned(),
        ),
        (
            "dead letters for a sink that is not there",
            "[sinks.spare]\ndead_letter = 'evens'\n[sinks.spare.stdout]\n",
            "sinks.spare.dead_letter: there is no such sink; did you mean `events`?".to_owned(),
        ),
        (
            "operators' doors open to the network",
            "[admin]\nlisten = '0.0.0.0:8081'\n",
            "admin.token: is required because admin.listen is not on loopback".to_owned(),
        ),
        (
            "two listeners at one address",
            "[ingress]\nlisten = '0.0.0.0:8081'\n[sources.inbox]\npath_secret = { env = 'THE_SECRET' }\n",
            "ingress.listen: is the address of admin.listen; the two need their own".to_owned(),
        ),
        (
            "one of several addresses that is the operators'",
            "[ingress]\nlisten = ['127.0.0.1:8443', '127.0.0.1:8081']\n",
            "ingress.listen: is the address of admin.listen; the two need their own".to_owned(),
        ),
        (
            "an address twice",
            "[ingress]\nlisten = ['0.0.0.0:8443', '[::1]:8443', '127.0.0.1:8443']\n",
            "ingress.listen.2: is an address of ingress.listen or ingress.plain_listen already".to_owned(),
        ),
        (
            "a Unix socket twice",
            "[ingress]\nlisten = ['127.0.0.1:8443', 'unix:/run/x']\nplain_listen = ['unix:/run/x']\n\
             [ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\n",
            "ingress.plain_listen.0: is an address of ingress.listen or ingress.plain_listen already".to_owned(),
        ),
        (
            "a certificate without its key",
            "[ingress.tls]\ncert = 'tls.crt'\n",
            "ingress.tls.key: is required beside ingress.tls.cert".to_owned(),
        ),
        (
            "a key without its certificate",
            "[ingress.tls]\nkey = 'tls.key'\n",
            "ingress.tls.key: has a meaning only with ingress.tls.cert".to_owned(),
        ),
        (
            "clients' certificates of no authority",
            "[ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\nclient_certificates = 'required'\n",
            "ingress.tls.client_certificates: needs ingress.tls.client_ca".to_owned(),
        ),
        (
            "a version that nobody should speak",
            "[ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\nmin_version = '1.1'\n",
            "ingress.tls.min_version: expected \"1.2\" or \"1.3\"".to_owned(),
        ),
        (
            "TLS nowhere",
            "[ingress]\nlisten = 'unix:/run/x.sock'\n[ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\n",
            "ingress.listen: names no address that could speak TLS; a Unix socket does not".to_owned(),
        ),
        (
            "plain HTTP beside nothing",
            "[ingress]\nplain_listen = ['127.0.0.1:8082']\n",
            "ingress.plain_listen: is for plain HTTP beside TLS; without ingress.tls.cert, ingress.listen takes a list"
                .to_owned(),
        ),
        (
            "a place in a list that is none",
            "[ingress]\nlisten = ['127.0.0.1:8080', 'unix:here']\n",
            "ingress.listen.1: expected an address and a port such as \"127.0.0.1:8080\", \"unix:\" and an absolute path, or \"systemd:\" and a name"
                .to_owned(),
        ),
        (
            "a port without its address",
            "[ingress]\nlisten = '8080'\n",
            "ingress.listen: expected an address and a port such as \"127.0.0.1:8080\", \"unix:\" and an absolute path, or \"systemd:\" and a name"
                .to_owned(),
        ),
        (
            "a mode that is none",
            "[ingress]\nsocket_mode = '660'\n",
            "ingress.socket_mode: expected three octal digits after a zero, in quotes, such as \"0660\"".to_owned(),
        ),
        (
            "a journal of less than four segments",
            "[journal]\ndisk_max = '100MiB'\n",
            "journal.disk_max: must be at least 4 times journal.segment".to_owned(),
        ),
        (
            "a segment that holds nothing",
            "[journal]\nsegment = '1KiB'\n",
            "journal.segment: expected 16KiB to 1GiB".to_owned(),
        ),
        (
            "a body that fills a segment",
            "[ingress]\nbody_max = '33MiB'\n",
            format!("ingress.body_max: {too_large}"),
        ),
        (
            "a source's body that fills a segment",
            "[sources.inbox]\nbody_max = '33MiB'\n",
            format!("sources.inbox.body_max: {too_large}"),
        ),
        (
            "a segment that the default of another key does not fit into",
            "[journal]\nsegment = '1MiB'\n",
            "journal.segment: must be at least twice ingress.body_max".to_owned(),
        ),
        (
            "a segment too large for the default of the budget",
            "[journal]\nsegment = '1GiB'\ndisk_max = '3GiB'\n",
            "journal.disk_max: must be at least 4 times journal.segment".to_owned(),
        ),
    ] {
        let environment = [("THE_SECRET", "open")];
        let ends = if toml.starts_with("sinks =") { "" } else { ENDS };
        let text = format!("{toml}{ends}");
        let errors = load_as("hookbus.toml", &text, &environment).err();
        assert_eq!(errors.as_deref(), Some(problem.as_str()), "{sentence}");
    }
}

#[test]
fn a_default_is_nobodys_mistake() {
    let environment = [("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:9"), ("HOOKBUS__JOURNAL__SEGMENT", "1MiB")];
    let errors = built_in(&environment).err().unwrap();
    assert_eq!(
        errors.to_string(),
        "journal.segment: must be at least twice ingress.body_max \
         (from environment variable HOOKBUS__JOURNAL__SEGMENT)"
    );
    let errors = built_in(&[("HOOKBUS__ADMIN__LISTEN", "0.0.0.0:9")]).err().unwrap();
    assert_eq!(errors.to_string(), "admin.token: is required because admin.listen is not on loopback");
}

#[test]
fn a_limit_of_nothing_is_refused() {
    for (section, key) in [
        ("ingress", "body_max"),
        ("ingress", "inflate_ratio_max"),
        ("ingress", "headers_max"),
        ("ingress", "header_timeout"),
        ("ingress", "body_timeout"),
        ("ingress", "store_timeout"),
        ("ingress", "requests_max"),
        ("ingress", "connections_max"),
        ("dead_letters", "disk_max"),
        ("journal", "disk_max"),
        ("journal", "segment"),
        ("journal", "dedupe_max"),
        ("journal", "recent_max"),
        ("journal", "waiting_max"),
        ("sources.inbox", "body_max"),
        ("sources.inbox", "rate"),
        ("sinks.events", "in_flight_max"),
        ("sinks.events", "timeout"),
        ("sinks.events.retry", "first"),
        ("sinks.events.retry", "max"),
        ("sinks.events.retry", "attempts_max"),
        ("sinks.events.retry", "age_max"),
    ] {
        let zero = match key {
            "rate" => "'0/s'",
            _ if key.ends_with("timeout") || ["first", "max", "age_max"].contains(&key) => "'0s'",
            _ => "0",
        };
        let errors = load(&format!("[{section}]\n{key} = {zero}\n{ENDS}")).err();
        let named = format!("{section}.{key}: ");
        assert!(errors.as_ref().is_some_and(|errors| errors.starts_with(&named)), "{named}{errors:?}");
    }
}

#[test]
fn every_part_says_all_that_is_wrong_in_one_go() {
    let errors = load(
        "
        dat_dir = 'x'
        [ingress]
        listen = 'x'
        requests_max = 'many'
        [admin]
        listen = '0.0.0.0:1'
        [journal]
        segment = 0
        [sources.a]
        dedupe = 5
        [sources.a.generic]
        [sources.b.generic]
        idd = 'x'
        [sinks.c]
        order = 'quick'
        [sinks.c.file]
        [[routes]]
        to = ['d']
        ",
    );
    let errors = errors.err().unwrap();
    let keys: Vec<&str> = errors.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "dat_dir",
            "ingress.listen",
            "ingress.requests_max",
            "sources.a.dedupe",
            "sources.b.generic.idd",
            "sinks.c.order",
            "routes.0.to.0",
            "admin.token",
            "journal.segment",
        ],
        "{errors}"
    );
}

#[test]
fn yaml_and_json_configure_the_same_daemon() {
    let toml = "
        data_dir = 'd'
        [sources.shop]
        path_secret = ['one', 'two']
        [sources.shop.generic]
        type = '/kind'
        [sinks.orders]
        in_flight_max = 7
        [sinks.orders.http]
        url = 'https://example.com'
        [[routes]]
        to = ['orders']
    ";
    let yaml = "
data_dir: d
sources: { shop: { path_secret: [one, two], generic: { type: /kind } } }
sinks:
  orders:
    in_flight_max: 7
    http: { url: https://example.com }
routes: [{ to: [orders] }]
";
    let json = r#"{ "data_dir": "d",
        "sources": { "shop": { "path_secret": ["one", "two"], "generic": { "type": "/kind" } } },
        "sinks": { "orders": { "in_flight_max": 7, "http": { "url": "https://example.com" } } },
        "routes": [{ "to": ["orders"] }] }"#;
    let toml = load(toml).unwrap().config;
    for (name, text) in [("a.yaml", yaml), ("a.yml", yaml), ("a.json", json)] {
        let other = load_as(name, text, &[]).unwrap().config;
        assert_eq!((&other.data_dir, &other.routes), (&toml.data_dir, &toml.routes), "{name}");
        let sink =
            |config: &Config| config.sinks.values().map(|sink| (sink.type_name, sink.common.clone())).next();
        assert_eq!(sink(&other), sink(&toml), "{name}");
        let source = |config: &Config| {
            config.sources.values().map(|source| (source.type_name, source.config.clone())).next()
        };
        assert_eq!(source(&other), source(&toml), "{name}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    for (sentence, toml, warnings) in [
        ("nothing to say", ENDS.to_owned(), vec![]),
        (
            "anybody on the network may post",
            format!("[ingress]\nlisten = '0.0.0.0:8080'\n{ENDS}"),
            vec![
                "sources.inbox: takes posts from anybody who reaches ingress.listen; \
                 set path_secret or the dialect's own credential",
            ],
        ),
        (
            "anybody on the network may post beside TLS",
            format!(
                "[ingress]\nplain_listen = ['127.0.0.1:1', '0.0.0.0:2']\n[ingress.tls]\ncert = 'c'\nkey = 'k'\nclient_ca = 'a'\n\
                 client_certificates = 'required'\n{ENDS}"
            ),
            vec![
                "sources.inbox: takes posts from anybody who reaches ingress.listen; \
                 set path_secret or the dialect's own credential",
            ],
        ),
        (
            "whoever posts has shown a certificate",
            format!(
                "[ingress]\nlisten = '0.0.0.0:1'\nplain_listen = ['127.0.0.1:2']\n[ingress.tls]\ncert = 'c'\nkey = 'k'\n\
                 client_ca = 'a'\nclient_certificates = 'required'\n{ENDS}"
            ),
            vec![],
        ),
        (
            "every proxy of the world is trusted",
            format!("[ingress]\ntrusted_proxies = ['10.0.0.0/8', '::/0']\n{ENDS}"),
            vec![
                "ingress.trusted_proxies.1: trusts everybody: whoever sends may choose the address they seem to have",
            ],
        ),
        (
            "a secret in the file",
            format!("[sources.inbox]\npath_secret = 'abc'\n{ENDS}"),
            vec![
                "sources.inbox.path_secret: is a secret written out; { env = \"NAME\" } or { file = \"/path\" } \
                 keeps it out of this file",
            ],
        ),
        (
            "a copied request is forgotten before its signature is",
            format!(
                "[sources.s]\ndedupe = '1m'\n[sources.s.slack]\nsecret = {{ file = '/etc/hostname' }}\n{ENDS}"
            ),
            vec![
                "sources.s.dedupe: is shorter than the tolerance for signatures: a request that somebody has copied \
                 can be sent again after it",
            ],
        ),
        (
            "and here is not",
            format!(
                "[sources.s]\ndedupe = '5m'\n[sources.s.slack]\nsecret = {{ file = '/etc/hostname' }}\n{ENDS}"
            ),
            vec![],
        ),
        (
            "a URL is no secret by itself",
            format!("{ENDS}[sinks.o.http]\nurl = 'https://example.com'\nheaders = {{ a = 'b' }}\n"),
            vec![],
        ),
        (
            "nor are several",
            format!(
                "{ENDS}[sinks.o.nats]\nurl = ['nats://one.example.com', 'nats://two.example.com']\nsubject = 's'\n"
            ),
            vec![],
        ),
        (
            "ends that no route joins",
            format!(
                "{ENDS}[sources.a.generic]\n[sinks.b.file]\npath = 'b'\n[[routes]]\nfrom = ['inbox']\nto = ['events']\n"
            ),
            vec![
                "sources.a: no route takes its events; they go to no sink",
                "sinks.b: no route leads here; it gets no event",
            ],
        ),
        (
            "no ends at all",
            String::new(),
            vec![
                "sources: there are none; every post is answered 404",
                "sinks: there are none; events are kept for journal.retention and go nowhere",
            ],
        ),
    ] {
        assert_eq!(problems_of(load(&toml).unwrap()), warnings, "{sentence}");
    }
}

#[test]
fn no_secret_is_printed_whatever_else_is_wrong() {
    const MARK: &str = "hunter2-hunter2";
    let good = format!(
        "
        [admin]
        token = '{MARK}'
        [sources.a]
        path_secret = ['{MARK}', 'x']
        [sources.a.zapi]
        token = '{MARK}'
        [sinks.o.http]
        url = 'https://user:{MARK}@example.com/{MARK}'
        headers = {{ authorization = '{MARK}' }}
        "
    );
    let loaded = load(&good).unwrap();
    let shown = format!(
        "{:?} {:?} {:?} {}",
        loaded.config.admin,
        loaded.config.sinks,
        loaded.warnings,
        serde_json::to_string(&loaded.config.admin).unwrap()
    );
    assert!(!shown.contains(MARK), "{shown}");

    for key in [
        "admin.token.x",
        "admin.token.env",
        "admin.listen",
        "admin.tokn",
        "ingress.body_max",
        "log.level",
        "log.format",
        "sources.a.zapi.token.file",
        "sources.a.zapi.token_header.x",
        "sources.a.zapi",
        "sources.a.path_secret.y",
        "sources.a.rate",
        "sinks.o.http.url.x",
        "sinks.o.http.secret",
        "sinks.o.http.headers.authorization.z",
        "sinks.o.order",
        "sinks.o",
        "routes",
        "sinks",
    ] {
        let errors = load(&format!("{key} = '{MARK}'\n")).err().unwrap();
        assert!(!errors.contains(MARK), "{key}: {errors}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn no_file_and_no_variable_makes_the_reading_panic(
        at in any::<prop::sample::Index>(),
        put in "[\\[\\]{}=\"'.#\na-z0-9_-]{0,3}",
        variable in "HOOKBUS__(SINKS|SOURCES|ROUTES|ADMIN|JOURNAL)(__[A-Z]{1,6}){0,3}",
        text in "[\\[\\]{}=\"', a-z0-9]{0,12}",
    ) {
        let mut file = include_str!("../../config/hookbus.toml").replace("\n# ", "\n");
        let at = at.index(file.len());
        prop_assume!(file.is_char_boundary(at) && file.is_char_boundary(at + 1));
        file.replace_range(at..=at, &put);
        let _ = load_as("hookbus.toml", &file, &[(&variable, &text)]);
        let _ = load_as("hookbus.toml", ENDS, &[(&variable, &text)]);
        let _ = load_as("hookbus.yaml", &file, &[]);
    }
}
