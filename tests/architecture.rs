//! The shape of the code, as tests: layers, single homes, sizes, headers, registered files, and what may not appear.
//! Holds: the two tables below are the tables of `docs/ARCHITECTURE.md`, and both are the code.
//! Every check is a function from files to findings, and each is shown a small bad file to prove that it can fail.

#![allow(clippy::unwrap_used)]

#[path = "architecture/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use text::{code_lines, code_only, functions, lines_naming, names_after, without_tests};

/// The most lines of code in a file under `src/`, its tests not counted.
const FILE_LINES_MAX: usize = 400;
/// The most lines of code in a function under `src/`, its signature counted, its tests not.
const FUNCTION_LINES_MAX: usize = 70;

/// Module, what it may import of ours, and which crates it never names. A row imports only from rows above it.
const LAYERS: &[(&str, &str, &str)] = &[
    ("time", "nothing", "tokio axum std::fs"),
    ("clock", "time", "tokio axum std::fs"),
    ("glob", "nothing", "tokio axum std::fs"),
    ("percent", "nothing", "tokio axum std::fs"),
    ("config", "nothing", "tokio axum"),
    ("envelope", "time", "tokio axum std::fs"),
    ("shutdown", "nothing", "axum std::fs"),
    ("telemetry", "envelope config shutdown time", "axum std::fs"),
    ("source", "envelope percent config time", "tokio axum std::fs"),
    ("provider", "envelope source config telemetry shutdown time clock", "axum std::fs"),
    ("router", "envelope glob", "tokio axum std::fs"),
    ("journal", "config telemetry shutdown time clock", "axum"),
    ("sink", "envelope glob percent config telemetry shutdown time clock", "axum"),
    ("dead_letter", "envelope glob config telemetry shutdown journal sink time clock", "axum"),
    (
        "dispatch",
        "envelope router journal sink dead_letter config telemetry shutdown time clock",
        "axum std::fs",
    ),
    (
        "ingress",
        "envelope percent source journal dead_letter router config telemetry shutdown time clock",
        "std::fs",
    ),
    ("admin", "dispatch journal dead_letter router envelope config telemetry shutdown time clock", "std::fs"),
    ("app", "all", "nothing"),
    ("cli", "all", "nothing"),
    ("main", "all", "nothing"),
];

/// What appears in one place only, and the place: a file, or a folder with all below it.
const HOMES: &[(&str, &str)] = &[
    ("std::fs", "src/journal/disk.rs src/config/ src/sink/file.rs src/cli/files.rs"),
    ("tokio::fs", "nowhere"),
    (
        "rustix",
        "src/journal/disk.rs src/dead_letter/file.rs src/sink/stdout.rs src/ingress/sockets.rs src/app/service.rs src/app/process.rs",
    ),
    ("listenfd", "src/ingress/passed.rs"),
    ("figment", "src/config/layers.rs"),
    ("redb", "src/dead_letter/"),
    // R1: nobody but the file that asks for the proof can answer a sender.
    ("http::Response", "src/ingress/reply.rs"),
    ("hyper::Response", "nowhere"),
    ("counter!", "src/telemetry/metrics/"),
    ("gauge!", "src/telemetry/metrics/"),
    ("histogram!", "src/telemetry/metrics/"),
    ("SystemTime::now", "src/clock.rs"),
    ("tokio::spawn", "src/shutdown.rs"),
    ("task::spawn", "src/shutdown.rs"),
    ("task::spawn_blocking", "src/shutdown.rs"),
    ("thread::sleep", "src/sink/stdout.rs"),
    ("process::exit", "src/main.rs"),
];

/// What stands nowhere in `src/` outside tests, and why.
const NEVER_IN_SOURCE: &[(&str, &str)] = &[
    (".unwrap()", "return an error, or say with `expect` why it cannot happen"),
    ("todo!", "finish it or leave it out"),
    ("unimplemented!", "finish it or leave it out"),
    ("dbg!", "log it with tracing or leave it out"),
    ("unsafe", "forbidden"),
];

/// What stands nowhere in `tests/`, and why. The one poll of the support code is the exception.
const NEVER_IN_TESTS: &[(&str, &str)] = &[
    ("#[ignore", "a test runs or is deleted"),
    ("thread::sleep", "wait on a condition"),
    ("time::sleep", "wait on a condition"),
    ("unsafe", "forbidden"),
];
const POLLING_HOME: &str = "tests/it/support/";

#[derive(Clone, Debug)]
struct File {
    /// From the root of the repository, with slashes.
    path: String,
    source: String,
}

impl File {
    fn is_test(&self) -> bool {
        let named = self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs");
        named || self.path.contains("/tests/") || self.path.starts_with("tests/")
    }
    /// The code that ships: no comments, no literals, no tests.
    fn shipped(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&code_only(&self.source)) }
    }
    /// `sink`, `http` of `src/sink/http.rs`.
    fn modules(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.split('/').filter(|name| *name != "mod").collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &str) -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let read = |path: PathBuf| File {
        source: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"),
    };
    found.into_iter().map(read).collect()
}

fn words(cell: &str) -> impl Iterator<Item = &str> {
    cell.split_whitespace().filter(|word| !matches!(*word, "nothing" | "nowhere"))
}

// === The checks

fn imports_outside_the_layers(files: &[File]) -> Vec<String> {
    let known: BTreeSet<&str> = LAYERS.iter().map(|(module, ..)| *module).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path != "src/lib.rs" && !file.is_test()) {
        let modules = file.modules();
        let Some((module, may_import, never)) = LAYERS.iter().find(|(module, ..)| *module == modules[0])
        else {
            findings.push(format!("{}: the module is not in the layer table", file.path));
            continue;
        };
        let code = file.shipped();
        let climb = "super::".repeat(modules.len());
        let imported = ["crate::", &climb].into_iter().flat_map(|prefix| names_after(&code, prefix));
        for (line, name) in imported.filter(|(_, name)| known.contains(name.as_str())) {
            let allowed =
                name == *module || *may_import == "all" || words(may_import).any(|word| word == name);
            if !allowed {
                findings.push(format!("{}:{line}: {module} may not import {name}", file.path));
            }
        }
        for name in words(never) {
            let lines = lines_naming(&code, name);
            findings.extend(
                lines.iter().map(|line| format!("{}:{line}: {module} never names {name}", file.path)),
            );
        }
    }
    findings
}

fn strays_from_their_home(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let code = file.shipped();
        for (pattern, homes) in HOMES {
            let at_home = words(homes)
                .any(|home| file.path == home || (home.ends_with('/') && file.path.starts_with(home)));
            let lines = if at_home { Vec::new() } else { lines_naming(&code, pattern) };
            findings.extend(
                lines.iter().map(|line| format!("{}:{line}: {pattern} belongs in {homes}", file.path)),
            );
        }
    }
    findings
}

fn files_too_long(files: &[File]) -> Vec<String> {
    let sizes = files.iter().map(|file| (&file.path, code_lines(&file.shipped())));
    let long = sizes.filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(path, lines)| format!("{path}: {lines} lines of code, at most {FILE_LINES_MAX}")).collect()
}

fn functions_too_long(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let long =
            functions(&file.shipped()).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
        findings.extend(long.map(|function| {
            let text::Function { name, line, lines } = function;
            format!("{}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}", file.path)
        }));
    }
    findings
}

fn files_without_a_header(files: &[File]) -> Vec<String> {
    let says_something = |file: &File| {
        let first = file.source.lines().next().unwrap_or_default();
        first.strip_prefix("//!").is_some_and(|header| header.trim().len() >= 20)
    };
    let bare = files.iter().filter(|file| !says_something(file));
    bare.map(|file| format!("{}: begins with no `//!` header that says what it owns", file.path)).collect()
}

/// A file of `folder` that names itself with `TYPE` has its row in the folder's table, and the rows are alphabetical.
fn unregistered(files: &[File], folder: &str, table: &str) -> Vec<String> {
    let mod_file = format!("src/{folder}/mod.rs");
    let Some(registry) = files.iter().find(|file| file.path == mod_file) else {
        return vec![format!("{mod_file} is missing")];
    };
    let code = registry.shipped();
    let row = code
        .split(&format!("static {table}"))
        .nth(1)
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let rows: Vec<&str> =
        row.split(['[', ',', ']']).filter_map(|cell| cell.trim().strip_suffix("::TYPE")).collect();
    let mut findings = Vec::new();
    if !rows.is_sorted() {
        findings.push(format!("{mod_file}: {table} is not alphabetical"));
    }
    for file in files.iter().filter(|file| file.path.starts_with(&format!("src/{folder}/"))) {
        let names_itself = !lines_naming(&file.shipped(), "const TYPE").is_empty();
        if names_itself && !rows.contains(file.modules().last().unwrap()) {
            findings.push(format!("{}: its TYPE has no row in {table}", file.path));
        }
    }
    findings
}

/// What is named as tests is left out of the other checks, so it must not ship.
fn tests_that_ship(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let modules = names_after(&file.shipped(), "mod ");
        let tests = modules.into_iter().filter(|(_, name)| name == "tests" || name.ends_with("_tests"));
        findings.extend(tests.map(|(line, name)| format!("{}:{line}: {name} lacks #[cfg(test)]", file.path)));
    }
    findings
}

fn banned(files: &[File], code_of: fn(&File) -> String, patterns: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let code = code_of(file);
        for (pattern, why) in patterns {
            let lines = lines_naming(&code, pattern);
            findings.extend(lines.iter().map(|line| format!("{}:{line}: {pattern}: {why}", file.path)));
        }
    }
    findings
}

fn banned_in_source(files: &[File]) -> Vec<String> {
    banned(files, File::shipped, NEVER_IN_SOURCE)
}

fn banned_in_tests(files: &[File]) -> Vec<String> {
    let watched: Vec<File> =
        files.iter().filter(|file| !file.path.starts_with(POLLING_HOME)).cloned().collect();
    banned(&watched, |file| code_only(&file.source), NEVER_IN_TESTS)
}

/// Every word that is a metric's name: in the code that declares them, or in a document.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("hookbus_") && !word.ends_with('_')).collect()
}

/// The rows of the table after `<!-- NAME -->` in a document, each cell without its back quotes and commas.
fn documented_table(document: &str, name: &str) -> Vec<Vec<String>> {
    let after = document.split(&format!("<!-- {name} -->")).nth(1).unwrap_or_default();
    let rows =
        after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let plain = |cell: &str| cell.replace(['`', ','], "").trim().to_owned();
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(plain).collect()).collect()
}

// === The repository passes

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_module_imports_only_what_its_layer_may() {
    assert_none(&imports_outside_the_layers(&files_under("src")));
}

#[test]
fn every_layer_imports_only_from_layers_above_it_in_the_table() {
    for (index, (module, may_import, _)) in LAYERS.iter().enumerate() {
        let above: Vec<&str> = LAYERS[..index].iter().map(|(module, ..)| *module).collect();
        for name in words(may_import).filter(|name| *name != "all") {
            assert!(above.contains(&name), "{module} imports {name}, which does not stand above it");
        }
    }
}

#[test]
fn every_layer_of_the_table_exists() {
    let files = files_under("src");
    for (module, ..) in LAYERS {
        assert!(files.iter().any(|file| file.modules()[0] == *module), "no module {module}");
    }
}

#[test]
fn what_has_one_home_stays_there() {
    assert_none(&strays_from_their_home(&files_under("src")));
}

#[test]
fn the_tables_of_the_document_are_the_tables_of_this_test() {
    let document = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let layers: Vec<Vec<String>> = LAYERS
        .iter()
        .map(|(module, may, never)| [module, may, never].map(|cell| (*cell).to_owned()).to_vec())
        .collect();
    assert_eq!(documented_table(&document, "layers"), layers);
    let homes: Vec<Vec<String>> = HOMES
        .iter()
        .map(|(pattern, homes)| [pattern, homes].map(|cell| (*cell).to_owned()).to_vec())
        .collect();
    assert_eq!(documented_table(&document, "homes"), homes);
}

#[test]
fn the_metrics_of_the_document_are_the_metrics_of_the_code() {
    let declared: String = files_under("src/telemetry/metrics").into_iter().map(|file| file.source).collect();
    let document = std::fs::read_to_string(root().join("docs/operating/monitoring.md")).unwrap();
    assert_eq!(metric_names(&document), metric_names(&declared));
}

#[test]
fn files_stay_short() {
    assert_none(&files_too_long(&files_under("src")));
}

#[test]
fn functions_stay_short() {
    assert_none(&functions_too_long(&files_under("src")));
}

#[test]
fn every_file_says_at_its_top_what_it_owns() {
    assert_none(&files_without_a_header(&files_under("src")));
    assert_none(&files_without_a_header(&files_under("tests")));
}

#[test]
fn every_sink_and_every_dialect_has_its_row() {
    let files = files_under("src");
    assert_none(&unregistered(&files, "sink", "SINK_TYPES"));
    assert_none(&unregistered(&files, "source", "SOURCE_TYPES"));
}

#[test]
fn nothing_unfinished_or_panicking_ships() {
    assert_none(&banned_in_source(&files_under("src")));
}

#[test]
fn tests_do_not_ship() {
    assert_none(&tests_that_ship(&files_under("src")));
}

#[test]
fn tests_wait_on_conditions_and_none_is_skipped() {
    assert_none(&banned_in_tests(&files_under("tests")));
}

// === Every check can fail

fn file(path: &str, source: &str) -> File {
    File { path: path.to_owned(), source: source.to_owned() }
}

#[track_caller]
fn assert_finds(findings: &[String], expected: &[&str]) {
    assert_eq!(findings.len(), expected.len(), "{findings:?}");
    for (finding, part) in findings.iter().zip(expected) {
        assert!(finding.contains(part), "{finding:?} does not say {part:?}");
    }
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    for (sentence, path, source) in [
        ("a plain use", "src/sink/http.rs", "use crate::dispatch::Lane;"),
        ("in a tree", "src/sink/http.rs", "use crate::{config::Period, dispatch::Lane};"),
        ("in a path", "src/sink/http.rs", "fn f(x: crate::dispatch::Lane) {}"),
        ("climbing", "src/sink/http.rs", "use super::super::dispatch::Lane;"),
        ("climbing from the module's root", "src/sink/mod.rs", "use super::dispatch::Lane;"),
    ] {
        let findings = imports_outside_the_layers(&[file(path, source)]);
        assert_eq!(findings, [format!("{path}:1: sink may not import dispatch")], "{sentence}");
    }
    assert_finds(&imports_outside_the_layers(&[file("src/extra.rs", "")]), &["not in the layer table"]);
    assert_finds(
        &imports_outside_the_layers(&[file("src/router.rs", "\nuse tokio::time;")]),
        &[":2: router never"],
    );
}

#[test]
fn an_allowed_import_is_not_found() {
    let tests = "#[cfg(test)]\nmod tests { use crate::dispatch::X; }";
    let source =
        format!("//! [`crate::dispatch`]\nuse crate::config::Period;\nuse super::outcome::X;\n{tests}");
    assert_finds(&imports_outside_the_layers(&[file("src/sink/http.rs", &source)]), &[]);
}

#[test]
fn a_stray_is_found_and_the_home_is_not() {
    let bad = "use std::{fs, io};\nfn f() { tokio::spawn(x); }\nfn g() { counter!(\"a\"); }";
    let findings = strays_from_their_home(&[file("src/sink/http.rs", bad)]);
    assert_finds(&findings, &["std::fs belongs", "counter! belongs", "tokio::spawn belongs"]);
    assert_finds(
        &strays_from_their_home(&[file("src/config/layers.rs", "use std::fs;\nuse figment::Figment;")]),
        &[],
    );
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    let line = "    let x = 1;\n";
    let long_function = format!("fn f() {{\n{}}}\n", line.repeat(FUNCTION_LINES_MAX - 1));
    assert_finds(&functions_too_long(&[file("src/a.rs", &long_function)]), &["src/a.rs:1: f has 71 lines"]);
    let short_function = format!("fn f() {{\n{}}}\n", line.repeat(FUNCTION_LINES_MAX - 2));
    assert_finds(&functions_too_long(&[file("src/a.rs", &short_function)]), &[]);
    let long_file = "const A: u8 = 1;\n\n// why\n".repeat(FILE_LINES_MAX + 1);
    assert_finds(&files_too_long(&[file("src/a.rs", &long_file)]), &["401 lines of code"]);
    let tested =
        format!("{}#[cfg(test)]\nmod tests {{\n{long_file}}}", "const A: u8 = 1;\n".repeat(FILE_LINES_MAX));
    assert_finds(&files_too_long(&[file("src/a.rs", &tested)]), &[]);
}

#[test]
fn a_missing_or_empty_header_is_found() {
    let files = ["fn f() {}", "//! stub\n", "//! What this file owns and holds.\n"]
        .map(|source| file("src/a.rs", source));
    assert_eq!(files_without_a_header(&files).len(), 2);
}

#[test]
fn a_sink_without_a_row_and_rows_out_of_order_are_found() {
    let registry = file("src/sink/mod.rs", "pub static SINK_TYPES: &[SinkType] = &[http::TYPE, file::TYPE];");
    let known = file("src/sink/http/mod.rs", "pub(super) const TYPE: SinkType = x;");
    let forgotten = file("src/sink/nats.rs", "pub(super) const TYPE: SinkType = x;");
    let findings = unregistered(&[registry, known, forgotten], "sink", "SINK_TYPES");
    assert_finds(&findings, &["not alphabetical", "src/sink/nats.rs: its TYPE has no row"]);
    assert_finds(&unregistered(&[], "sink", "SINK_TYPES"), &["src/sink/mod.rs is missing"]);
}

#[test]
fn what_may_not_ship_is_found_outside_tests_only() {
    let bad = "fn f() { x.unwrap(); todo!(); unimplemented!(); dbg!(x); unsafe {} }";
    assert_eq!(banned_in_source(&[file("src/a.rs", bad)]).len(), NEVER_IN_SOURCE.len());
    let tested =
        format!("//! .unwrap() todo!()\n#[cfg(test)]\nmod tests {{ {bad} }}\nfn f() {{ x.unwrap_or(0); }}");
    assert_finds(&banned_in_source(&[file("src/a.rs", &tested), file("src/a/tests.rs", bad)]), &[]);
}

#[test]
fn a_test_module_that_ships_is_found() {
    let bad = "mod tests;\npub mod lane_tests;\nmod contests;\n#[cfg(test)]\nmod tests;";
    assert_finds(&tests_that_ship(&[file("src/a.rs", bad)]), &[":1: tests lacks", ":2: lane_tests lacks"]);
}

#[test]
fn a_skipped_or_sleeping_test_is_found() {
    let bad = "#[ignore]\nfn f() { thread::sleep(x); }\nfn g() { tokio::time::sleep(x).await; unsafe {} }";
    assert_eq!(banned_in_tests(&[file("tests/it/a.rs", bad)]).len(), NEVER_IN_TESTS.len());
    assert_finds(&banned_in_tests(&[file("tests/it/support/wait.rs", bad)]), &[]);
}

#[test]
fn a_metric_is_found_in_code_and_in_documents() {
    let code = metric_names("const A: &str = \"hookbus_a_total\"; // names begin with hookbus_");
    assert_eq!(code, metric_names("| `hookbus_a_total{source=\"x\"}` | a hookbus |"));
    assert_ne!(code, metric_names("`hookbus_b_total`"));
}

#[test]
fn a_table_is_read_from_its_document() {
    let document = "x\n<!-- t -->\n| a | b |\n|---|---|\n| `c` | d, `e` |\n\n| f | g |";
    assert_eq!(documented_table(document, "t"), [["c", "d e"]]);
    assert!(documented_table(document, "u").is_empty());
}
