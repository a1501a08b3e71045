//! What somebody who writes a configuration sees of the layers: every problem at once, at its key, without its value.

use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Part {
    listen: SocketAddr,
    size: ByteSize,
    period: Period,
    rate: Option<Rate>,
    count: u32,
    share: f64,
    on: bool,
    mode: Mode,
    name: String,
    path: PathBuf,
    token: Option<OneOrMany<Secret>>,
    words: Vec<String>,
    headers: BTreeMap<String, String>,
    inner: Option<Inner>,
}

#[derive(Debug, PartialEq, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Slow,
    Fast,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    url: String,
    to: Vec<String>,
    #[serde(default)]
    limit: u8,
    key: OneOrMany<Secret>,
}

impl Default for Part {
    fn default() -> Self {
        Part {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            size: ByteSize::mib(1),
            period: Period::secs(5),
            rate: None,
            count: 3,
            share: 0.5,
            on: false,
            mode: Mode::Slow,
            name: String::new(),
            path: PathBuf::new(),
            token: None,
            words: Vec::new(),
            headers: BTreeMap::new(),
            inner: None,
        }
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn layers(toml: &str, environment: &[(&str, &str)]) -> Layers {
    Layers::load(Some(toml), None, &variables(environment)).unwrap()
}

/// Reads `[part]`, and the errors as somebody sees them.
fn part(toml: &str, environment: &[(&str, &str)]) -> Result<Part, String> {
    layers(toml, environment)
        .root()
        .child("part")
        .extract()
        .map_err(|errors: ConfigErrors| errors.to_string())
}

fn problems(toml: &str) -> Vec<String> {
    let errors = part(&format!("[part]\n{toml}"), &[]).unwrap_err();
    errors.lines().map(|line| line.trim_end_matches(" (from built-in default)").to_owned()).collect()
}

#[test]
fn each_problem_names_its_key_and_what_is_expected() {
    for (toml, problem) in [
        ("lisen = 'x'", "part.lisen: is not a key here; did you mean `listen`?"),
        ("listen = 'here'", "part.listen: expected an address and a port such as \"127.0.0.1:8080\""),
        ("listen = 8080", "part.listen: expected an address and a port such as \"127.0.0.1:8080\""),
        ("size = '1 parsec'", "part.size: expected a size such as \"10MiB\""),
        ("size = -1", "part.size: expected a size such as \"10MiB\""),
        ("period = 5", "part.period: expected a length of time such as \"30s\" or \"1h 30m\""),
        ("rate = 'fast'", "part.rate: expected a rate such as \"100/s\" or \"6000/m\""),
        ("count = -1", "part.count: expected a whole number from 0 to 4294967295"),
        ("count = 1.5", "part.count: expected a whole number from 0 to 4294967295"),
        ("on = 'yes'", "part.on: expected true or false"),
        ("mode = 'fats'", "part.mode: expected \"slow\" or \"fast\""),
        ("mode = 1", "part.mode: expected \"slow\" or \"fast\""),
        ("name = 1", "part.name: expected a text in quotes"),
        ("path = []", "part.path: expected a path in quotes"),
        ("words = 'a'", "part.words: expected a list"),
        ("words = ['a', 2]", "part.words.1: expected a text in quotes"),
        ("headers = 'a'", "part.headers: expected a table"),
        ("headers.a = 1", "part.headers.a: expected a text in quotes"),
        ("inner = 1", "part.inner: expected a table"),
        ("token = []", "part.token: expected one value or a list of at least one"),
        ("token = ''", "part.token: must not be empty"),
        ("token = 12", "part.token: expected { env = \"NAME\" }, { file = \"/path\" } or a text in quotes"),
        (
            "token = ['a', {}]",
            "part.token.1: expected { env = \"NAME\" }, { file = \"/path\" } or a text in quotes",
        ),
        ("token.env = 'NO_SUCH'", "part.token.env: the environment variable NO_SUCH is not set"),
        ("token.file = '/no/such'", "part.token.file: the file /no/such does not exist"),
        ("token.file = 1", "part.token.file: expected a text in quotes"),
    ] {
        assert_eq!(problems(toml), [problem], "{toml}");
    }
    let unknown = problems("zzz = 1");
    assert!(
        unknown[0].starts_with("part.zzz: is not a key here; known: listen, size, period"),
        "{unknown:?}"
    );
}

#[test]
fn all_problems_are_reported_at_once_and_none_is_invented() {
    let toml = "
        count = 'x'
        lisen = 'x'
        words = [1, 'a', 2]
        [part.headers]
        a = 1
        b = 'fine'
        c = 2
        [part.inner]
        limit = 300
        lmit = 1
    ";
    assert_eq!(
        problems(toml),
        [
            "part.count: expected a whole number from 0 to 4294967295",
            "part.headers.a: expected a text in quotes",
            "part.headers.c: expected a text in quotes",
            "part.inner.limit: expected a whole number from 0 to 255",
            "part.inner.lmit: is not a key here; did you mean `limit`?",
            "part.inner.url: is required",
            "part.inner.to: is required",
            "part.inner.key: is required",
            "part.lisen: is not a key here; did you mean `listen`?",
            "part.words.0: expected a text in quotes",
            "part.words.2: expected a text in quotes",
        ]
    );
    // A required key with a wrong value is wrong, not also missing.
    let toml = "[part.inner]\nurl = 1\nto = 'x'\nkey = {}\nlimit = []";
    let keys: Vec<String> =
        problems(toml).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(keys, ["part.inner.key", "part.inner.limit", "part.inner.to", "part.inner.url"]);
}

#[test]
fn a_variable_is_text_where_text_is_wanted_and_a_toml_value_elsewhere() {
    let environment = [
        ("HOOKBUS__PART__NAME", "0123"),
        ("HOOKBUS__PART__PATH", "true"),
        ("HOOKBUS__PART__COUNT", "7"),
        ("HOOKBUS__PART__SHARE", "0.25"),
        ("HOOKBUS__PART__ON", "true"),
        ("HOOKBUS__PART__MODE", "fast"),
        ("HOOKBUS__PART__SIZE", "512"),
        ("HOOKBUS__PART__WORDS", "['a', \"b\"]"),
        ("HOOKBUS__PART__TOKEN", "0987"),
        ("HOOKBUS__PART__LISTEN", "[::1]:80"),
        ("HOOKBUS__PART__HEADERS__X", "1"),
        ("HOOKBUS__PART__INNER", "{ url = 'u', to = ['x'] }"),
        ("HOOKBUS__PART__INNER__LIMIT", "9"),
        ("HOOKBUS__PART__INNER__KEY", "['1', { env = 'THE_SECRET' }]"),
        ("HOOKBUS_CONFIG", "not a key"),
        ("THE_SECRET", "open"),
    ];
    let read = part("part.count = 1\npart.headers.y = 'kept'", &environment).unwrap();
    let headers = [("x", "1"), ("y", "kept")].map(|(key, text)| (key.to_owned(), text.to_owned()));
    let expected = Part {
        name: "0123".into(),
        path: "true".into(),
        count: 7,
        share: 0.25,
        on: true,
        mode: Mode::Fast,
        size: ByteSize::bytes(512),
        words: vec!["a".into(), "b".into()],
        token: Some(OneOrMany::one(Secret::literal("0987"))),
        listen: "[::1]:80".parse().unwrap(),
        headers: headers.into(),
        ..Part::default()
    };
    let inner = read.inner.as_ref().unwrap();
    assert_eq!((inner.url.as_str(), inner.limit), ("u", 9));
    assert_eq!(inner.key.iter().map(Secret::expose).collect::<Vec<_>>(), ["1", "open"]);
    assert_eq!(Part { inner: None, ..read }, expected);
}

#[test]
fn a_text_in_brackets_stays_text_for_a_key_that_takes_only_text() {
    let read = part("", &[("HOOKBUS__PART__NAME", "[1, 2]"), ("HOOKBUS__PART__PATH", "{ a = 1 }")]).unwrap();
    assert_eq!((read.name.as_str(), read.path), ("[1, 2]", PathBuf::from("{ a = 1 }")));
}

#[test]
fn errors_name_the_variable_or_the_file_they_come_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.toml");
    std::fs::write(&file, "[part]\ncount = 'x'\n[part.inner]\nurl = 'u'\nto=[]\n").unwrap();
    let environment = variables(&[("HOOKBUS__PART__ON", "maybe"), ("HOOKBUS__PART__INNER__LIMIT", "-1")]);
    let layers = Layers::load(None, Some(&file), &environment).unwrap();
    let errors = layers.root().child("part").extract::<Part>().unwrap_err();
    let file = file.display();
    assert_eq!(
        errors.to_string(),
        format!(
            "part.count: expected a whole number from 0 to 4294967295 (from {file})\n\
             part.inner.limit: expected a whole number from 0 to 255 (from environment variable HOOKBUS__PART__INNER__LIMIT)\n\
             part.inner.key: is required (from {file})\n\
             part.on: expected true or false (from environment variable HOOKBUS__PART__ON)"
        )
    );
    let variable_alone = Layers::load(None, None, &environment).unwrap();
    let of_file = format!(" (from {file})");
    for (sentence, layers, key, origin, is_said) in [
        ("a key of the file", &layers, "part.inner.to", &*of_file, true),
        ("a key of a variable", &layers, "part.on", " (from environment variable HOOKBUS__PART__ON)", true),
        ("a key that the file leaves out", &layers, "part.inner.wait", &*of_file, false),
        ("a key beside one of a variable", &variable_alone, "part.listen", "", false),
    ] {
        let error = layers.root().error(key, "is wrong");
        assert_eq!(error.to_string(), format!("{key}: is wrong{origin}"), "{sentence}");
        assert_eq!(layers.root().says(key), is_said, "{sentence}");
    }
}

#[test]
fn a_variable_without_a_key_is_an_error() {
    let environment = variables(&[("HOOKBUS__", "x"), ("HOOKBUS__A____B", "x")]);
    let errors = Layers::load(None, None, &environment).unwrap_err().to_string();
    let problem = "leads to no key; two underscores go between the names of two levels";
    assert_eq!(
        errors,
        format!("environment variable HOOKBUS__: {problem}\nenvironment variable HOOKBUS__A____B: {problem}")
    );
}

#[test]
fn yaml_and_json_say_what_toml_says() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        Layers::load(None, Some(&file), &[]).unwrap().root().child("part").extract::<Part>().unwrap()
    };
    let toml = read("a.toml", "[part]\nsize = '2KiB'\nwords = ['a']\nshare = 1.5\n[part.headers]\nx = '1'");
    assert_eq!(toml.size, ByteSize::kib(2));
    for (name, text) in [
        ("a.yaml", "part:\n  size: 2KiB\n  words: [a]\n  share: 1.5\n  headers: { x: '1' }\n  inner:\n"),
        ("a.yml", "{ part: { size: 2048, words: [a], share: 1.5, headers: { x: '1' } } }"),
        ("a.json", r#"{"part":{"size":"2KiB","words":["a"],"share":1.5,"headers":{"x":"1"},"inner":null}}"#),
    ] {
        assert_eq!(read(name, text), toml, "{name}");
    }
}

#[test]
fn a_syntax_error_says_where_and_quotes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text, problem) in [
        ("a.toml", "x = 1\ntoken = hunter2-hunter2", "is not valid TOML at line 2, column 9"),
        ("b.toml", "x = 1\nx = 'hunter2'", "is not valid TOML at line 2, column 1"),
        ("a.json", "{\"x\": 1,\n \"token\": hunter2}", "is not valid JSON at line 2, column 11"),
        ("a.yaml", "x: 1\ntoken: [hunter2\ny: 1", "is not valid YAML at line 3, column 2"),
        ("b.json", "{\"x\": 1,\n \"x\": \"hunter2\"}", "is not valid JSON at line 2, column 16"),
        ("c.yaml", "x: 1\nx: hunter2\n", "is not valid YAML at line 1, column 1"),
        ("b.yaml", "hunter2", "must be a table of sections at its top level"),
        ("c.json", "[\"hunter2\"]", "must be a table of sections at its top level"),
        ("a.ini", "x=hunter2", "is of no known format; its name must end in .toml, .yaml, .yml or .json"),
    ] {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        let errors = Layers::load(None, Some(&file), &[]).unwrap_err().to_string();
        assert_eq!(errors, format!("{}: {problem}", file.display()));
    }
    let missing = Layers::load(None, Some("/no/such.toml".as_ref()), &[]).unwrap_err();
    assert_eq!(missing.to_string(), "/no/such.toml: there is no such file");
}

#[test]
fn a_section_gives_its_tables_and_its_rest() {
    let root = layers("[s.b]\nx = 1\n[s.a]\n[s]\nn = 1", &[("HOOKBUS__S__C__Y", "2")]).root();
    let section = root.child("s");
    let tables: Vec<String> =
        section.tables().into_iter().map(|(_, table)| table.path().to_owned()).collect();
    assert_eq!(tables, ["s.a", "s.b", "s.c"]);
    assert_eq!(section.keys(), ["a", "b", "c", "n"]);
    assert_eq!(section.without(&["a", "c"]).keys(), ["b", "n"]);
    assert_eq!(section.child("absent").keys(), [""; 0]);
}

#[test]
fn a_secret_comes_from_a_variable_a_file_or_the_text_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let read = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let toml = format!("part.token = [{{ file = '{}' }}, {{ env = 'A_B' }}, 'plain']", file.display());
        let environment = [("A_B", "from the variable"), ("HOOKBUS__PART__INNER__URL", "u")];
        let layers = layers(&toml, &environment[..1]);
        let part = layers.root().child("part").extract::<Part>().map_err(|errors| errors.to_string());
        part.map(|part| (part, layers.literal_secrets()))
    };
    let (part, literal) = read(b"from the file\n").unwrap();
    let texts: Vec<(String, SecretOrigin)> = part
        .token
        .as_ref()
        .unwrap()
        .iter()
        .map(|secret| (secret.expose().to_owned(), secret.origin().clone()))
        .collect();
    assert_eq!(
        texts,
        [
            ("from the file".to_owned(), SecretOrigin::File(file.clone())),
            ("from the variable".to_owned(), SecretOrigin::Environment("A_B".to_owned())),
            ("plain".to_owned(), SecretOrigin::Literal),
        ]
    );
    assert_eq!(literal, ["part.token.2"], "only what is written out is discouraged");
    let from_variable = layers("", &[("HOOKBUS__PART__TOKEN", "['one', 'two']")]);
    from_variable.root().child("part").extract::<Part>().unwrap();
    assert_eq!(from_variable.literal_secrets(), [""; 0], "a variable is no file");
    assert_eq!(serde_json::to_value(part.token).unwrap(), serde_json::json!(["***", "***", "***"]));
    for (bytes, problem) in [
        (vec![b'x'; 65_537], "is larger than 64KiB"),
        (b"\n".to_vec(), "is empty"),
        (vec![0xff], "is not UTF-8 text"),
    ] {
        let error = read(&bytes).unwrap_err();
        assert!(
            error.starts_with(&format!("part.token.0.file: the file {} {problem}", file.display())),
            "{error}"
        );
    }
}

#[test]
fn a_secret_in_a_file_is_read_again_and_any_other_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "old\n").unwrap();
    let toml = format!("part.token = {{ file = {} }}", toml_text(path.to_str().unwrap()));
    let secret = part(&toml, &[]).unwrap().token.unwrap().iter().next().unwrap().clone();
    std::fs::write(&path, "new\n").unwrap();
    assert_eq!((secret.expose(), secret.current().unwrap().expose()), ("old", "new"));
    std::fs::remove_file(&path).unwrap();
    assert!(secret.current().unwrap_err().contains("does not exist"));
    assert_eq!(Secret::literal("abc").current().unwrap().expose(), "abc");
}

/// Every key of `Part`, with the marked secret in its place or where it does not belong.
fn wrong_places(secret: &str) -> Vec<String> {
    let keys = "listen size period rate count share on mode words headers inner inner.limit token.env token.file token.other";
    let quoted = toml_text(secret);
    let texts = keys.split(' ').map(|key| format!("[part]\n{key} = {quoted}"));
    let listed = keys.split(' ').map(|key| format!("[part]\n{key} = [[{quoted}]]"));
    let tabled = keys.split(' ').map(|key| format!("[part]\n{key} = {{ x = {quoted} }}"));
    texts.chain(listed).chain(tabled).collect()
}

fn toml_text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

proptest! {
    #[test]
    fn no_error_repeats_a_value(secret in "[!-.0-~]{12,40}") {
        for toml in wrong_places(&secret) {
            let Ok(layers) = Layers::load(Some(&toml), None, &[]) else { continue };
            let read = layers.root().child("part").extract::<Part>();
            if let Err(errors) = read {
                prop_assert!(!errors.to_string().contains(&secret) && !format!("{errors:?}").contains(&secret), "{}", errors);
            }
        }
        for variable in ["LISTEN", "COUNT", "ON", "MODE", "WORDS", "INNER", "INNER__LIMIT", "TOKEN__ENV", "TOKEN__FILE"] {
            let name = format!("HOOKBUS__PART__{variable}");
            if let Err(errors) = part("", &[(&name, &secret)]) {
                prop_assert!(!errors.contains(&secret), "{}", errors);
            }
        }
    }
}
