//! What the files of `[ingress.tls]` hold: read whole, checked against each other, and made into the server's side of TLS.
//! Holds: nothing half: chain, key and authorities are from one reading, or there is a [`TlsProblem`].

use super::{ClientCertificates, Config, MinVersion};
use crate::config::read_file;
use crate::time::UnixMs;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The most bytes of one file; the bundle of all public authorities has a fifth of that.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The protocols that are offered (ALPN), the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A file of `[ingress.tls]` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ingress.tls.{key}: {problem}")]
pub struct TlsProblem {
    key: &'static str,
    problem: String,
}

fn problem(key: &'static str, path: &Path, problem: impl std::fmt::Display) -> TlsProblem {
    TlsProblem { key, problem: format!("{} {problem}", path.display()) }
}

/// The files as they are, before anybody looks into them.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Tells one reading of the files from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([u8; 32]);

/// What the files make.
pub(super) struct Material {
    pub(super) server: Arc<ServerConfig>,
    pub(super) fingerprint: Fingerprint,
    /// When the first certificate of the chain runs out that does.
    pub(super) cert_ends: UnixMs,
    /// The same of the clients' authorities.
    pub(super) client_ca_ends: Option<UnixMs>,
}

impl Contents {
    /// Reads the files, through whatever symbolic links there are now.
    pub(super) fn read(config: &Config) -> Result<Contents, TlsProblem> {
        let read = |key, path: &Option<std::path::PathBuf>| {
            let Some(path) = path else {
                return Err(TlsProblem { key, problem: "is required".to_owned() });
            };
            read_file(path, FILE_BYTES_MAX).map_err(|problem| TlsProblem { key, problem })
        };
        let client_ca = config.client_ca.is_some().then(|| read("client_ca", &config.client_ca));
        Ok(Contents {
            cert: read("cert", &config.cert)?,
            key: read("key", &config.key)?,
            client_ca: client_ca.transpose()?,
        })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }
}

impl Material {
    /// Reads the files and checks them.
    pub(super) fn read(config: &Config) -> Result<Material, TlsProblem> {
        Material::of(&Contents::read(config)?, config)
    }

    /// Checks what was read.
    pub(super) fn of(contents: &Contents, config: &Config) -> Result<Material, TlsProblem> {
        let none = Path::new("");
        let path = config.cert.as_deref().unwrap_or(none);
        let chain = certificates("cert", path, &contents.cert)?;
        let cert_ends = first_end("cert", path, &chain)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut client_ca_ends = None;
        let verifier = match (&contents.client_ca, config.client_ca.as_deref()) {
            (Some(bytes), Some(path)) => {
                let authorities = certificates("client_ca", path, bytes)?;
                client_ca_ends = Some(first_end("client_ca", path, &authorities)?);
                client_verifier(authorities, path, config.client_certificates, &provider)?
            }
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let key_path = config.key.as_deref().unwrap_or(none);
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| problem("key", key_path, "holds no private key in PEM form"))?;
        let versions: &[_] = match config.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| problem("min_version", none, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    problem("key", key_path, "is not the key of the certificate in ingress.tls.cert")
                }
                rustls::Error::InvalidCertificate(_) => {
                    problem("cert", path, "holds no certificate of a server")
                }
                // The message is the library's own; it does not quote the file.
                error => problem("key", key_path, format!("cannot be used: {error}")),
            })?;
        if contents.client_ca.is_some() {
            // A session that is resumed does not show its certificate again, which may have expired since.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let fingerprint = contents.fingerprint();
        Ok(Material { server: Arc::new(server), fingerprint, cert_ends, client_ca_ends })
    }
}

/// The certificate that the ingress shows: the first of `ingress.tls.cert`.
///
/// # Errors
/// [`TlsProblem`] where there is none or it cannot be read.
pub fn server_certificate(config: &Config) -> Result<CertificateDer<'static>, TlsProblem> {
    let path = config.cert.as_deref().unwrap_or(Path::new(""));
    let pem = read_file(path, FILE_BYTES_MAX).map_err(|problem| TlsProblem { key: "cert", problem })?;
    let mut chain = certificates("cert", path, &pem)?;
    Ok(chain.swap_remove(0))
}

fn client_verifier(
    authorities: Vec<CertificateDer<'static>>,
    path: &Path,
    who: ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let unusable = "holds a certificate that cannot be an authority's";
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|_| problem("client_ca", path, unusable))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match who {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Required => builder,
    };
    builder.build().map_err(|_| problem("client_ca", path, unusable))
}

fn certificates(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = read.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| problem(key, path, "holds no certificate in PEM form"))
}

fn first_end(
    key: &'static str,
    path: &Path,
    certificates: &[CertificateDer<'_>],
) -> Result<UnixMs, TlsProblem> {
    let unreadable = || problem(key, path, "holds a certificate that cannot be read");
    let mut ends = Vec::new();
    for certificate in certificates {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        ends.push(UnixMs(certificate.validity().not_after.timestamp().saturating_mul(1000)));
    }
    ends.into_iter().min().ok_or_else(unreadable)
}
