//! The TLS that sinks speak: whom they trust and as whom they appear, from PEM files.
//! Holds: one home for certificates and the process' own cryptography, for all sinks; an error names the key of the
//! configuration and the file, never what is in it.

use super::{Failure, Reason};
use crate::config::read_file;
use crate::envelope::SinkName;
use crate::telemetry::metrics::tls as metrics;
use crate::time::UnixMs;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
#[cfg(feature = "kafka")]
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls_platform_verifier::BuilderVerifierExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes of one file; the bundle of all public authorities has a fifth of that.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const NOT_PEM: &str = "is not the PEM form of what is expected here";
/// The most characters taken over from the TLS library's descriptions.
const TEXT_CHARS_MAX: usize = 150;

/// The files a sink's section names.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// Certificates to trust instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// The client's own chain and key; both or neither.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// A file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub(super) struct TlsProblem {
    key: &'static str,
    problem: String,
}

fn problem(key: &'static str, problem: impl Into<String>) -> TlsProblem {
    TlsProblem { key, problem: problem.into() }
}

impl TlsFiles {
    /// Reads the files. The caller sets the protocols (ALPN) its sink speaks.
    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsProblem> {
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| problem("tls", error.to_string()))?;
        let builder = match &self.ca {
            Some(ca) => builder.with_root_certificates(trusted(ca)?),
            None => builder.with_platform_verifier().map_err(|error| {
                problem("ca", format!("the system's certificates cannot be used: {error}"))
            })?,
        };
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let chain = certificates("cert", cert)?;
                let pem = read("key", key)?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| problem("key", format!("{}: {NOT_PEM}", key.display())))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| problem("key", error.to_string()))
            }
        }
    }
}

impl TlsFiles {
    /// The same failure, and where it is one of a connection that was being made while our own certificate has run out,
    /// since when: servers say little of why they hang up.
    pub(super) fn explained(&self, failure: Failure, now: UnixMs) -> Failure {
        if !matches!(failure.reason, Reason::Tls | Reason::ConnectionLost) {
            return failure;
        }
        let Some(end) = self.own_end().filter(|end| *end <= now) else { return failure };
        let detail = failure.detail.chars().take(TEXT_CHARS_MAX).collect::<String>();
        let since = end.to_rfc3339();
        Failure::new(
            failure.reason,
            format!("{detail}; our own certificate in cert expired on {since}, renew it"),
        )
    }

    /// Shows in the metrics when the files run out that the next connection is made with.
    pub(super) fn show_ends(&self, sink: &SinkName) {
        for (file, end) in [("cert", self.own_end()), ("ca", self.ca.as_deref().and_then(first_end))] {
            if let Some(end) = end {
                metrics::sink_certificate_runs_out(sink, file, end.0.div_euclid(1000));
            }
        }
    }

    fn own_end(&self) -> Option<UnixMs> {
        first_end(&self.identity.as_ref()?.0)
    }
}

/// When the first certificate of a file runs out that does; `None` where none can be read.
fn first_end(path: &Path) -> Option<UnixMs> {
    let ends = certificates("cert", path).ok()?.into_iter().filter_map(|certificate| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Some(UnixMs(certificate.validity().not_after.timestamp().saturating_mul(1000)))
    });
    ends.min()
}

/// Shakes hands with a server only to see what is wrong with its certificate; `None` where that is not what is wrong,
/// or nobody answers. The caller bounds the time.
#[cfg(feature = "kafka")]
pub(super) async fn certificate_problem(host: &str, port: u16, ca: Option<PathBuf>) -> Option<String> {
    let config = TlsFiles { ca, identity: None }.client_config().ok()?;
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let tcp = tokio::net::TcpStream::connect((host, port)).await.ok()?;
    let shaken = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let error = shaken.err()?;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    matches!(error, Error::InvalidCertificate(_)).then(|| described(error))
}

/// A configuration that trusts nobody, for a sink that speaks without TLS.
pub(super) fn no_tls() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Why TLS failed, in words for the operator. The times of certificates are named as dates: whoever reads a log a week
/// later has to see which one ran out, and when.
pub(super) fn described(error: &rustls::Error) -> String {
    let date = |time: UnixTime| {
        UnixMs(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)).to_rfc3339()
    };
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("the server's certificate expired on {}; renew it there", date(*not_after))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!(
                "the server's certificate is not valid before {}; are both clocks right?",
                date(*not_before)
            )
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the server says that our certificate has expired".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server asks for a certificate; see cert and key".to_owned()
        }
        other => other.to_string().chars().take(TEXT_CHARS_MAX).collect(),
    }
}

fn trusted(ca: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", ca)? {
        roots.add(certificate).map_err(|error| problem("ca", format!("{}: {error}", ca.display())))?;
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let found = CertificateDer::pem_slice_iter(&read(key, path)?).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(problem(key, format!("{}: holds no certificate in PEM form", path.display()))),
        // The message quotes the file.
        Err(_) => Err(problem(key, format!("{}: {NOT_PEM}", path.display()))),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    read_file(path, FILE_BYTES_MAX).map_err(|text| problem(key, text))
}
