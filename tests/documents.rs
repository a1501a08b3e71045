//! The documents are the code: every key with its default in `config/hookbus.toml`, the examples, the reference, the links.
//! `HOOKBUS_WRITE_DOCS=1 cargo test --test documents` writes the tables of the reference anew.

#![allow(clippy::unwrap_used)]

use hookbus::app::config::{Config, General, Loaded, Shutdown};
use hookbus::sink::{CommonConfig, Reason, SINK_TYPES};
use hookbus::source::SOURCE_TYPES;
use hookbus::{admin, dead_letter, ingress, journal, source, telemetry};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const SAMPLE: &str = "config/hookbus.toml";
const REFERENCE: &str = "docs/reference/configuration.md";
/// A text that any secret may be, also one that signs.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const TABLES_BEGIN: &str = "<!-- the tables: written by tests/documents.rs from config/hookbus.toml -->\n";
const TABLES_END: &str = "<!-- end of the tables -->\n";

// === What the code knows: every key and its default

/// `ingress.listen` → its default; `null` where there is none.
fn keys_of_the_code() -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    collect("", General::default(), &mut keys);
    collect("ingress", ingress::Config::default(), &mut keys);
    collect("admin", admin::Config::default(), &mut keys);
    collect("journal", journal::Config::default(), &mut keys);
    collect("dead_letters", dead_letter::Config::default(), &mut keys);
    collect("log", telemetry::logging::Config::default(), &mut keys);
    collect("shutdown", Shutdown::default(), &mut keys);
    collect("sources.N", source::Config::default(), &mut keys);
    for kind in SOURCE_TYPES {
        collect(&format!("sources.N.{}", kind.name), (kind.defaults)(), &mut keys);
    }
    collect("sinks.N", CommonConfig::default(), &mut keys);
    for kind in SINK_TYPES {
        collect(&format!("sinks.N.{}", kind.name), (kind.defaults)(), &mut keys);
    }
    for key in ["from", "types", "to"] {
        keys.insert(format!("routes.{key}"), Value::Null);
    }
    keys.remove("routes");
    keys
}

fn collect(path: &str, defaults: impl Serialize, keys: &mut BTreeMap<String, Value>) {
    match serde_json::to_value(defaults).unwrap() {
        Value::Object(entries) if path.is_empty() || !entries.is_empty() => {
            for (key, value) in entries {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                collect(&path, value, keys);
            }
        }
        // A kind without keys of its own.
        Value::Object(_) if path.matches('.').count() == 2 => {}
        value => _ = keys.insert(path.to_owned(), value),
    }
}

// === What the file shows

/// One key as the file shows it.
struct Shown {
    /// With `N` for the name of a source or sink.
    key: String,
    comment: String,
    value: Value,
    /// The key is commented out.
    is_off: bool,
    /// The whole table is.
    table_is_off: bool,
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The TOML in a line, also in one that is commented out; prose is none.
fn toml_in(line: &str) -> Option<(&str, bool)> {
    let is_toml = |text: &str| {
        let key = text.split(" = ").next().unwrap_or_default();
        let is_key = text.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || "_.-".contains(c));
        is_key || (text.starts_with('[') && text.ends_with(']'))
    };
    match line.strip_prefix("# ") {
        Some(text) => is_toml(text).then_some((text, true)),
        None => is_toml(line).then_some((line, false)),
    }
}

fn keys_shown() -> Vec<Shown> {
    let (mut shown, mut section, mut comment) = (Vec::new(), String::new(), String::new());
    let mut table_is_off = false;
    for line in read(SAMPLE).lines() {
        match toml_in(line) {
            Some((header, is_off)) if header.starts_with('[') => {
                table_is_off = is_off;
                section = generic_name(header.trim_matches(['[', ']'])) + ".";
            }
            Some((text, is_off)) => {
                let (key, value) = text.split_once(" = ").unwrap();
                let value = toml_value(value);
                let comment = std::mem::take(&mut comment);
                shown.push(Shown { key: format!("{section}{key}"), comment, value, is_off, table_is_off });
                continue;
            }
            None if line.starts_with("# ") => {
                write!(comment, "{}{}", if comment.is_empty() { "" } else { " " }, &line[2..]).unwrap();
                continue;
            }
            None => {}
        }
        comment.clear();
    }
    shown
}

/// `sources.inbox.generic` → `sources.N.generic`.
fn generic_name(section: &str) -> String {
    let mut parts: Vec<&str> = section.split('.').collect();
    if ["sources", "sinks"].contains(&parts[0]) && parts.len() > 1 {
        parts[1] = "N";
    }
    parts.join(".")
}

/// The default of a key; none where the code has no such key. In a table of free names no key has a default.
fn default_of<'a>(key: &str, code: &'a BTreeMap<String, Value>) -> Option<&'a Value> {
    let (table, _) = key.rsplit_once('.').unwrap_or_default();
    let is_free_name = code.get(table).is_some_and(|default| *default == serde_json::json!({}));
    if is_free_name { Some(&Value::Null) } else { code.get(key) }
}

/// The few kinds of values that the file shows; tables stay text, since only examples are tables.
fn toml_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

// === The configuration file

#[test]
fn the_file_shows_every_key_with_its_default_and_none_that_does_not_exist() {
    let code = keys_of_the_code();
    let shown = keys_shown();
    for Shown { key, comment, value, is_off, table_is_off } in &shown {
        assert!(!comment.is_empty(), "{SAMPLE}: {key} has no comment");
        let default =
            default_of(key, &code).unwrap_or_else(|| panic!("{SAMPLE}: {key} is no key of the code"));
        match default {
            Value::Null => assert!(is_off, "{SAMPLE}: {key} has no default, so it belongs behind a #"),
            default => {
                assert_eq!(value, default, "{SAMPLE}: {key} shows another default than the code's");
                assert!(!is_off || *table_is_off, "{SAMPLE}: {key} has a default, so no # belongs before it");
            }
        }
    }
    let shown: BTreeSet<&str> = shown.iter().map(|shown| shown.key.as_str()).collect();
    let is_shown = |key: &str| shown.iter().any(|one| *one == key || one.starts_with(&format!("{key}.")));
    let missing: Vec<&String> = code.keys().filter(|key| !is_shown(key)).collect();
    assert!(missing.is_empty(), "{SAMPLE} does not show {missing:?}");
}

#[test]
fn the_file_as_it_is_runs_like_the_built_in_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLE);
    let written = Config::read(Some(file), &[], false).unwrap();
    let built_in = Config::read(None, &[], false).unwrap();
    let (one, other) = (&written.config, &built_in.config);
    assert_eq!((&one.data_dir, &one.routes), (&other.data_dir, &other.routes));
    assert_eq!((&one.ingress, &one.admin, &one.journal), (&other.ingress, &other.admin, &other.journal));
    assert_eq!(
        (&one.dead_letters, &one.log, &one.shutdown),
        (&other.dead_letters, &other.log, &other.shutdown)
    );
    let sources = |config: &Config| -> Vec<_> {
        let sources = config.sources.values();
        sources.map(|source| (source.name.clone(), source.type_name, source.config.clone())).collect()
    };
    assert_eq!(sources(one), sources(other));
    let sinks = |config: &Config| -> Vec<_> {
        config.sinks.values().map(|sink| (sink.name.clone(), sink.type_name, sink.common.clone())).collect()
    };
    assert_eq!(sinks(one), sinks(other));
    assert_eq!(written.warnings, []);
}

#[test]
fn every_example_in_the_file_is_a_value_that_its_key_takes() {
    let text = read(SAMPLE);
    // A key that stands for another one, as its comment says, is left out where that one is.
    let mut is_instead = false;
    let lines = text.lines().filter_map(|line| match toml_in(line) {
        Some((toml, _)) => (!std::mem::take(&mut is_instead)).then_some(toml),
        None => {
            is_instead = line.starts_with("# Instead of ") || (is_instead && line.starts_with("# "));
            Some(line)
        }
    });
    load("everything.toml", &lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_example_loads_and_warns_of_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let loaded = load(name, &fs::read_to_string(&file).unwrap());
        assert_eq!(loaded.warnings, [], "{name}");
    }
}

/// Loads `text` where every secret it names exists.
fn load(name: &str, text: &str) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let secrets = directory.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let text = ["/run/secrets", "/run/credentials/hookbus.service"]
        .iter()
        .fold(text.to_owned(), |text, folder| text.replace(folder, secrets.to_str().unwrap()));
    for path in named_by(&text, "file = \"") {
        fs::write(path, format!("{SECRET}\n")).unwrap();
    }
    let variables = named_by(&text, "env = \"").into_iter().map(|name| (name, SECRET.to_owned()));
    let file = directory.path().join(name);
    fs::write(&file, &text).unwrap();
    Config::read(Some(file), &variables.collect::<Vec<_>>(), false)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn named_by(text: &str, before: &str) -> Vec<String> {
    text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

// === The runbook

#[test]
fn the_runbook_knows_every_answer_state_reason_and_error() {
    let runbook = read("docs/operating/recovery.md");
    let mut unknown = BTreeSet::new();
    let mut check = |what: String| {
        if !runbook.contains(&what) {
            unknown.insert(what);
        }
    };
    for reason in Reason::ALL {
        check(format!("| `{}` |", reason.label()));
    }
    for state in ["running", "paused", "busy", "away", "stuck"] {
        check(format!("| `{state}` |"));
    }
    let answers = read("docs/reference/ingress.md");
    let rows = answers.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let problems: Vec<&str> = rows.flat_map(|row| row.split('|').nth(2).unwrap().split(',')).collect();
    assert!(problems.len() > 15, "{problems:?}");
    problems.iter().for_each(|problem| check(problem.trim().to_owned()));
    let mut sentences = Vec::new();
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        sentences.extend(code.split("tracing::error!(").skip(1).filter_map(sentence_of));
    }
    assert!(sentences.len() > 20, "{sentences:?}");
    sentences.into_iter().for_each(&mut check);
    assert_eq!(unknown, BTreeSet::new(), "not in the runbook");
}

/// The last text of a macro's arguments: what the line says.
fn sentence_of(arguments: &str) -> Option<String> {
    let until = arguments.find(");")?;
    let texts: Vec<&str> = arguments[..until].split('"').collect();
    texts.len().checked_sub(2).map(|last| texts[last].to_owned())
}

fn sources(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            found.extend(sources(path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

// === The reference

#[test]
fn the_reference_names_every_key() {
    let mut tables = String::new();
    let mut section = None;
    let code = keys_of_the_code();
    for Shown { key, comment, .. } in keys_shown() {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if section.as_deref() != Some(table) {
            let heading = if table.is_empty() { "Top level".to_owned() } else { format!("`[{table}]`") };
            write!(tables, "\n### {heading}\n\n| key | default | |\n|---|---|---|\n").unwrap();
            section = Some(table.to_owned());
        }
        let default = match default_of(&key, &code) {
            None | Some(Value::Null) => "–".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        writeln!(tables, "| `{name}` | {default} | {} |", comment.replace('|', "\\|")).unwrap();
    }
    tables.push('\n');
    let text = read(REFERENCE);
    let (before, rest) = text.split_once(TABLES_BEGIN).unwrap();
    let (written, after) = rest.split_once(TABLES_END).unwrap();
    if std::env::var_os("HOOKBUS_WRITE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(REFERENCE);
        fs::write(path, format!("{before}{TABLES_BEGIN}{tables}{TABLES_END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        written, tables,
        "{REFERENCE} is behind; HOOKBUS_WRITE_DOCS=1 cargo test --test documents writes it"
    );
}

// === The tests that documents name

#[test]
fn every_test_that_the_document_on_testing_names_exists() {
    let (code, text) = (all_code(), read("docs/internals/testing.md"));
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter_map(test_named).collect();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|test| !code.contains(&format!("fn {test}"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The name of a test is a sentence, alone or after its module.
fn test_named(code: &str) -> Option<&str> {
    let name = code.rsplit("::").next()?;
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && name.matches('_').count() >= 3).then_some(name)
}

#[test]
fn a_test_is_told_from_other_code() {
    for (code, test) in [
        ("a_sentence_of_four", Some("a_sentence_of_four")),
        ("module::a_sentence_of_four", Some("a_sentence_of_four")),
        ("hookbus_lane_lag_events == 0", None),
        ("journal.disk_max", None),
    ] {
        assert_eq!(test_named(code), test, "{code}");
    }
}

fn all_code() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src", "tests"].map(|folder| rust_below(&root.join(folder))).concat()
}

fn rust_below(folder: &Path) -> String {
    let mut code = String::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            code += &rust_below(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code += &fs::read_to_string(&path).unwrap();
        }
    }
    code
}

// === The links

#[test]
fn every_relative_link_of_every_document_leads_to_a_file() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in links(&text) {
            let path = target.split('#').next().unwrap();
            if !path.is_empty() && !document.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Every Markdown file at the root and below `docs/`.
fn documents() -> Vec<PathBuf> {
    fn below(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && recursive {
                below(&path, true, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    below(root, false, &mut found);
    below(&root.join("docs"), true, &mut found);
    found
}

/// The targets of inline links outside code blocks, those to other sites left out.
fn links(text: &str) -> Vec<&str> {
    let outside_code = text.split("```").step_by(2);
    let targets =
        outside_code.flat_map(|text| text.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

#[test]
fn links_in_code_and_to_other_sites_are_not_followed() {
    let text = "[a](a.md) [b](https://b) [c](c.md#d)\n```\n[d](d.md)\n```\n[e](#e)";
    assert_eq!(links(text), ["a.md", "c.md#d", "#e"]);
}

// === What SECURITY.md claims

#[test]
fn every_row_of_the_threat_model_names_a_test_and_each_exists() {
    let code = all_code();
    let text = read("SECURITY.md");
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |")).collect();
    assert!(rows.len() >= 30, "{rows:#?}");
    for row in rows {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "SECURITY.md: no test shows {row}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "SECURITY.md: there is no test {test}");
        }
    }
}
