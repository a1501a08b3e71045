//! What is taken over, what is kept, and what is said about it.

use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::path::Path;

/// Writes a pair that ends at this time.
fn write_pair(directory: &Path, ends: UnixMs) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["hooks.test".to_owned()]).unwrap();
    params.not_after = std::time::SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(ends.0.unsigned_abs()))
        .unwrap()
        .into();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
}

fn config(directory: &Path) -> Config {
    Config {
        cert: Some(directory.join("tls.crt")),
        key: Some(directory.join("tls.key")),
        ..Config::default()
    }
}

const NOW: UnixMs = UnixMs(1_900_000_000_000);

fn in_days(days: i64) -> UnixMs {
    UnixMs(NOW.0 + days * DAY_MS)
}

#[test]
fn an_end_is_a_problem_and_one_that_is_near_a_warning() {
    for (sentence, days, problems, warnings) in
        [("far away", 15, 0, 0), ("near", 13, 0, 1), ("over", -1, 1, 0)]
    {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path(), in_days(days));
        let findings = inspect(&config(directory.path()), NOW);
        assert_eq!((findings.problems.len(), findings.warnings.len()), (problems, warnings), "{sentence}");
    }
    assert_eq!(inspect(&Config::default(), NOW), Findings::default(), "without TLS there is nothing to say");
}

#[test]
fn files_that_do_not_fit_are_named_with_their_key_and_nothing_of_what_is_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    write_pair(other.path(), in_days(90));
    let (crt, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let of_other = |name: &str| std::fs::read(other.path().join(name)).unwrap();
    type Change<'a> = Box<dyn Fn() + 'a>;
    let changes: [(&str, Change<'_>, String); 6] = [
        (
            "another key",
            Box::new(|| std::fs::write(&key, of_other("tls.key")).unwrap()),
            format!(
                "ingress.tls.key: {} is not the key of the certificate in ingress.tls.cert",
                key.display()
            ),
        ),
        (
            "no key",
            Box::new(|| std::fs::write(&key, "hunter2").unwrap()),
            format!("ingress.tls.key: {} holds no private key in PEM form", key.display()),
        ),
        (
            "no certificate",
            Box::new(|| std::fs::write(&crt, "hunter2").unwrap()),
            format!("ingress.tls.cert: {} holds no certificate in PEM form", crt.display()),
        ),
        (
            "a certificate that is none inside",
            Box::new(|| {
                let nonsense = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
                std::fs::write(&crt, nonsense).unwrap();
            }),
            format!("ingress.tls.cert: {} holds a certificate that cannot be read", crt.display()),
        ),
        (
            "an empty file",
            Box::new(|| std::fs::write(&crt, "").unwrap()),
            format!("ingress.tls.cert: {} is empty", crt.display()),
        ),
        (
            "no file",
            Box::new(|| std::fs::remove_file(&key).unwrap()),
            format!("ingress.tls.key: {} does not exist", key.display()),
        ),
    ];
    for (sentence, change, problem) in changes {
        write_pair(directory.path(), in_days(90));
        change();
        assert_eq!(inspect(&config(directory.path()), NOW).problems, [problem], "{sentence}");
    }
}

#[test]
fn what_can_be_used_is_taken_and_what_cannot_is_reported_once_it_lasts() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), in_days(90));
    let config = config(directory.path());
    let material = Material::read(&config).unwrap();
    let (mut watch, current) = Watch::new(config.clone(), material, Arc::new(TlsMeter::started()));
    let first = Arc::clone(&current.borrow());
    let next = |watch: &mut Watch| {
        let reading = read(&config, watch.fingerprint);
        watch.take(reading);
        (Arc::ptr_eq(&first, &current.borrow()), watch.problem.is_some(), watch.is_reported)
    };
    assert_eq!(next(&mut watch), (true, false, false), "nothing has changed");

    let whole_key = std::fs::read(directory.path().join("tls.key")).unwrap();
    std::fs::write(directory.path().join("tls.key"), "half a").unwrap();
    assert_eq!(next(&mut watch), (true, true, false), "perhaps the other file is on its way");
    assert_eq!(next(&mut watch), (true, true, true), "it is not");
    assert_eq!(next(&mut watch), (true, true, true), "and is not reported again");
    std::fs::write(directory.path().join("tls.key"), whole_key).unwrap();
    assert_eq!(next(&mut watch), (true, false, false), "as before");

    let old_key = std::fs::read(directory.path().join("tls.key")).unwrap();
    write_pair(directory.path(), in_days(120));
    let new_key = std::fs::read(directory.path().join("tls.key")).unwrap();
    std::fs::write(directory.path().join("tls.key"), old_key).unwrap();
    assert_eq!(next(&mut watch), (true, true, false), "half a pair");
    std::fs::write(directory.path().join("tls.key"), new_key).unwrap();
    assert_eq!(next(&mut watch), (true, true, false), "a pair that fits may not be whole yet");
    let chain = std::fs::read_to_string(directory.path().join("tls.crt")).unwrap();
    std::fs::write(directory.path().join("tls.crt"), chain.repeat(2)).unwrap();
    assert_eq!(next(&mut watch), (true, true, false), "nor was it");
    assert_eq!(next(&mut watch), (false, false, false), "the new pair");
    assert_eq!(watch.ends.cert, UnixMs(in_days(120).0));
}

#[test]
fn an_end_is_warned_of_once_a_day() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), in_days(3));
    let config = config(directory.path());
    let material = Material::read(&config).unwrap();
    let (mut watch, _current) = Watch::new(config, material, Arc::new(TlsMeter::started()));
    let mut warned = Vec::new();
    for now in [in_days(-20), in_days(0), UnixMs(in_days(0).0 + 1), in_days(1), in_days(4)] {
        watch.warn_of_ends(now);
        warned.push(watch.warned_on.map(|day| day - NOW.0 / DAY_MS));
    }
    assert_eq!(warned, [None, Some(0), Some(0), Some(1), Some(4)]);
}
