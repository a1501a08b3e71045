//! Fuzzing of the whole configuration: files of every format, variables, and values of any type at any key.
//! Holds: a configuration or an error, never a panic; R8 (no error repeats a value, which may be a secret).

use super::config::{Config, Loaded};
use crate::config::{ConfigErrors, Layers};
use crate::fuzz_tests::{Target, Verdict, run, texts};
use serde_json::{Value, json};
use std::path::PathBuf;

static TARGETS: &[Target] = &[
    Target {
        name: "configuration toml",
        seeds: || texts(&[SMALL, &every_key()]),
        check: |input| file("toml", input),
    },
    Target { name: "configuration yaml", seeds: || texts(&[SMALL_YAML]), check: |input| file("yaml", input) },
    Target { name: "configuration json", seeds: json_seeds, check: |input| file("json", input) },
    Target { name: "configuration variables", seeds: variable_seeds, check: variables },
    Target {
        name: "configuration values",
        seeds: || (0..60).map(|choice: u8| vec![choice]).collect(),
        check: values,
    },
];

/// The documented configuration with every key set, those too that are shown as comments.
fn every_key() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/hookbus.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let uncommented = text.lines().map(|line| {
        let shown = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split(" = ").next().unwrap_or_default();
            let is_key = rest.contains(" = ")
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-\"".contains(&byte));
            is_key || (rest.starts_with('[') && rest.ends_with(']'))
        });
        format!("{}\n", shown.unwrap_or(line))
    });
    uncommented.collect()
}

/// The same as a tree.
fn tree() -> Value {
    let layers = Layers::load(Some(&every_key()), None, &[]).unwrap();
    layers.root().extract::<Value>().unwrap()
}

/// A configuration that runs.
const SMALL: &str = "data_dir = \"./d\"\n[sources.inbox.generic]\nid = \"/id\"\n[sinks.orders.http]\n\
                     url = \"https://orders.example.com\"\n[[routes]]\nto = [\"orders\"]\n";
const SMALL_YAML: &str =
    "sources:\n  inbox:\n    generic: &a {id: /id}\n  other:\n    generic: *a\nsinks: {events: {file: {}}}\n";

fn json_seeds() -> Vec<Vec<u8>> {
    let small = br#"{"sources":{"inbox":{"generic":{"id":"/id"}}},"sinks":{"events":{"file":{}}}}"#;
    vec![small.to_vec(), serde_json::to_vec(&tree()).unwrap()]
}

fn said(read: Result<Loaded, ConfigErrors>) -> Verdict {
    read.map(|_| ()).map_err(|errors| {
        assert!(!errors.0.is_empty(), "an error that says nothing");
        let shown = errors.to_string();
        assert!(!shown.is_empty());
        // What was seen before is the problem, whichever key has it.
        errors.0[0].problem.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
    })
}

fn read_file(extension: &str, input: &[u8]) -> Result<Loaded, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("hookbus.{extension}"));
    std::fs::write(&path, input).unwrap();
    Config::read(Some(path), &[], false)
}

fn file(extension: &str, input: &[u8]) -> Verdict {
    said(read_file(extension, input))
}

fn variable_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "HOOKBUS__INGRESS__BODY_MAX=2MiB\nHOOKBUS__SOURCES__ZAPI__ZAPI__TOKEN=00420042",
        "HOOKBUS__ROUTES=[{ to = ['events'] }]\nHOOKBUS__SINKS__EVENTS={ file = {} }",
        "HOOKBUS__SINKS__ORDERS__HTTP__URL={ env = \"URL_OF_ORDERS\" }\nURL_OF_ORDERS=https://o.example.com",
    ])
}

fn variables(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let pairs = text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
    let pairs: Vec<(String, String)> = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    said(Config::read(None, &pairs, false))
}

/// What no error may repeat. It looks neither like a variable's name nor like a path, which errors do name.
const SECRET: &str = "s3cret of somebody";

/// Every place of the tree at which there is a value, as the names and indices that lead there.
fn places(tree: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let below: Vec<(String, &Value)> = match tree {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in below {
        path.push(name);
        found.push(path.clone());
        places(value, path, found);
        path.pop();
    }
}

/// The input chooses a place and what is put there: as the file says it, and as a variable does.
fn values(input: &[u8]) -> Verdict {
    thread_local!(static PLACES: (Value, Vec<Vec<String>>) = {
        let (tree, mut found) = (tree(), Vec::new());
        places(&tree, &mut Vec::new(), &mut found);
        (tree, found)
    });
    let choice = crc32fast::hash(input) as usize;
    let wrong = [
        json!(SECRET),
        json!([SECRET]),
        json!({ "env": SECRET }),
        json!({ "file": SECRET }),
        json!({ "env": [SECRET], "file": SECRET }),
        json!([{ "a": SECRET }, SECRET, 7]),
        json!(format!("https://user:{SECRET}@example.com/{SECRET}?{SECRET}")),
        json!(format!("{SECRET}\n[{SECRET}\"\0")),
        json!(format!("/{SECRET}")),
        json!(format!("{{{SECRET}}}")),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(true),
        json!(""),
        json!([]),
        json!({}),
    ];
    let wrong = &wrong[choice % wrong.len()];
    PLACES.with(|(tree, places)| {
        let place = &places[choice / 32 % places.len()];
        let mut changed = tree.clone();
        let mut at = &mut changed;
        for step in place {
            at = match at {
                Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
                other => &mut other[step.as_str()],
            };
        }
        *at = wrong.clone();
        let from_file = read_file("json", &serde_json::to_vec(&changed).unwrap());
        let variable = format!("HOOKBUS__{}", place.join("__").to_uppercase());
        let text = wrong.as_str().map_or_else(|| wrong.to_string(), str::to_owned);
        let from_variable = Config::read(None, &[(variable, text)], false);
        for read in [&from_file, &from_variable] {
            let shown = match read {
                Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
                Err(errors) => errors.to_string(),
            };
            let is_path = wrong.as_str().is_some_and(|text| text.starts_with('/'));
            assert!(is_path || !shown.contains(SECRET), "{} repeats the value: {shown}", place.join("."));
        }
        said(from_file).or(said(from_variable))
    })
}

/// A name of so many levels, and a value of as many.
const LEVELS: usize = 20_000;

#[test]
fn no_depth_of_a_configuration_uses_up_the_stack() {
    let names = ["A"; LEVELS];
    for (sentence, name, text) in [
        ("the name of a variable", format!("HOOKBUS__{}", names.join("__")), "1".to_owned()),
        ("lists in a variable", "HOOKBUS__ROUTES".to_owned(), "[".repeat(LEVELS)),
        (
            "tables in a variable",
            "HOOKBUS__SINKS".to_owned(),
            format!("{}1{}", "{a=".repeat(LEVELS), "}".repeat(LEVELS)),
        ),
        ("dots in a variable", "HOOKBUS__SINKS".to_owned(), format!("{{ {} = 1 }}", names.join("."))),
    ] {
        assert!(Config::read(None, &[(name, text)], false).is_err(), "{sentence}");
    }
    for (sentence, extension, text) in [
        ("dots", "toml", format!("{} = 1", names.join("."))),
        ("dots in a header", "toml", format!("[{}]", names.join("."))),
        ("dots in a header of a list", "toml", format!("[[{}]]", names.join("."))),
        (
            "headers that go further and further",
            "toml",
            (1..200).map(|levels| format!("[{}]\n", names[..levels].join("."))).collect(),
        ),
        ("lists", "toml", format!("a = {}{}", "[".repeat(LEVELS), "]".repeat(LEVELS))),
        ("lists", "json", format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS))),
        ("tables", "json", "{\"a\":".repeat(LEVELS)),
        ("lists", "yaml", "- ".repeat(LEVELS)),
        ("lists in brackets", "yaml", format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS))),
        ("tables", "yaml", (0..500).map(|level| format!("{}a:\n", " ".repeat(level))).collect()),
        ("complex keys", "yaml", "? ".repeat(LEVELS)),
        ("tags", "yaml", format!("{}x", "!a ".repeat(LEVELS))),
    ] {
        assert!(read_file(extension, text.as_bytes()).is_err(), "{sentence} of {extension}");
    }
}

#[test]
fn names_for_values_of_yaml_do_not_multiply_it() {
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..40 {
        let below = level - 1;
        bomb += &format!(
            "a{level}: &a{level} [{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]\n",
            format!("*a{below}")
        );
    }
    assert!(read_file("yaml", bomb.as_bytes()).is_err());
}

#[test]
fn a_configuration_file_is_read_or_refused_whatever_it_is() {
    run(&TARGETS[..3]);
}

#[test]
fn variables_and_wrong_values_are_read_or_refused_and_never_repeated() {
    run(&TARGETS[3..]);
}
