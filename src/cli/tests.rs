//! The arguments that the command line takes and refuses.

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("hookbus").chain(line.split_whitespace()))
}

#[test]
fn what_the_reference_promises_is_understood() {
    for line in [
        "",
        "run",
        "--config hookbus.toml",
        "--config hookbus.toml run",
        "run --config hookbus.toml",
        "check",
        "check --connect --json",
        "send inbox",
        "send inbox --sample zapi-text",
        "send inbox --data hello --content-type text/plain",
        "send inbox --file body.json",
        "send inbox --file -",
        "send inbox -",
        "send inbox --ingress http://127.0.0.1:9",
        "capture --source inbox",
        "capture --source inbox --count 3 --body --json --admin http://127.0.0.1:8081",
        "register --source zapi",
        "register --source zapi --public-url https://hooks.example.com --sent-by-me --json",
        "register --source zapi --check",
        "register --source zapi --dry-run --json",
        "status",
        "status --json",
        "status --admin http://127.0.0.1:8081 --token-env ADMIN_TOKEN",
        "health",
        "health ready",
        "health live --admin http://127.0.0.1:8081",
        "dead-letters list",
        "dead-letters list --sink orders --source zapi --type io.z-api.* --reason timeout --limit 5 --json",
        "dead-letters list --since 2h --until 2026-01-31T12:00:00Z --quarantined",
        "dead-letters show 01ab",
        "dead-letters replay 01ab 02cd",
        "dead-letters replay --all",
        "dead-letters discard --sink orders --yes",
        "dead-letters export --output letters.ndjson",
    ] {
        if let Err(error) = parse(line) {
            panic!("`hookbus {line}` is refused: {error}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_bad_usage() {
    for line in [
        "walk",
        "run now",
        "send",
        "send inbox --sample nothing-like-it",
        "send inbox --data a --file b",
        "send inbox elsewhere",
        "capture",
        "capture --source inbox --count 0",
        "register",
        "register zapi",
        "register --source zapi --check --dry-run",
        "status --admin",
        "health happy",
        "dead-letters",
        "dead-letters show",
        "dead-letters list --since yesterday-ish",
        "dead-letters list --limit many",
        "dead-letters export --limit 3",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("`hookbus {line}` is taken"));
        assert!(error.use_stderr(), "`hookbus {line}` is an error, not help");
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}

#[test]
fn errors_and_endings_have_their_exit_codes() {
    for (sentence, code, wanted) in [
        ("done", Ending::Done.code(), 0),
        ("tried in vain", Ending::Failed.code(), 1),
        ("not healthy", Ending::NotHealthy.code(), 3),
        ("a contradiction", CliError::Usage(String::new()).code(), 2),
        ("anything else", CliError::Failed(String::new()).code(), 1),
    ] {
        assert_eq!(code, wanted, "{sentence}");
    }
}
