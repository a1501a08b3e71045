//! The certificate authority of the tests: its own certificate, leaves for servers and clients, the files of both, and
//! clients that trust nobody else.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a certificate is good for whose end the test does not choose.
const VALID: Duration = Duration::from_secs(90 * 24 * 3600);

/// See the module.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of a leaf, as every broker wants them.
pub struct Leaf {
    /// PEM: the certificate.
    pub cert: PathBuf,
    /// PEM, PKCS#8: its key.
    pub key: PathBuf,
}

/// A certificate with its key.
pub struct Pair {
    pub certificate: Certificate,
    pub key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of `name`, on this machine: good for a server and for a client.
    pub fn leaf(&self, name: &str) -> (Certificate, KeyPair) {
        let Pair { certificate, key } = self.leaf_until(name, SystemTime::now() + VALID);
        (certificate, key)
    }

    /// The same with another end.
    pub fn leaf_until(&self, name: &str, end: SystemTime) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = end.into();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Pair { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// For this one name and nothing else, not even a common name.
    pub fn pair(&self, name: &str) -> Pair {
        self.pair_until(name, SystemTime::now() + VALID)
    }

    /// The same with another end.
    pub fn pair_until(&self, name: &str, end: SystemTime) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = end.into();
        // Without the name that rcgen gives everybody.
        params.distinguished_name = DistinguishedName::new();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The same as a file `NAME`.
    pub fn file(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    /// A leaf as PEM files `NAME.pem` and `NAME.key`.
    pub fn leaf_files(&self, directory: &Path, name: &str) -> Leaf {
        let (certificate, key) = self.leaf(name);
        let leaf =
            Leaf { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
        std::fs::write(&leaf.cert, certificate.pem()).unwrap();
        std::fs::write(&leaf.key, key.serialize_pem()).unwrap();
        leaf
    }

    /// A TLS server of this authority on this machine.
    pub fn server_config(&self, asks_for_certificate: bool) -> rustls::ServerConfig {
        let (certificate, key) = self.leaf("localhost");
        self.server_showing(&Pair { certificate, key }, asks_for_certificate)
    }

    /// A TLS server that shows this certificate.
    pub fn server_showing(&self, pair: &Pair, asks_for_certificate: bool) -> rustls::ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match asks_for_certificate {
            true => WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone())
                .build()
                .unwrap(),
            false => WebPkiClientVerifier::no_client_auth(),
        };
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![pair.der()], PrivateKeyDer::try_from(pair.key.serialize_der()).unwrap())
            .unwrap()
    }

    /// A client that trusts this authority only, with a certificate of its own or without.
    pub fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::try_from(pair.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![pair.der()], key).unwrap()
            }
        }
    }

    /// An HTTP client that trusts this authority only, to be given a certificate or built.
    pub fn http_client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.pem().as_bytes()).unwrap();
        super::client_builder().tls_certs_only([root])
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Pair {
    /// Writes `tls.crt` and `tls.key`, each beside and renamed, as careful tools do it.
    pub fn write(&self, directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        for (name, text) in [("tls.crt", self.certificate.pem()), ("tls.key", self.key.serialize_pem())] {
            let new = directory.join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, directory.join(name)).unwrap();
        }
    }

    /// The certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Certificate and key, as an HTTP client shows them.
    pub fn identity(&self) -> reqwest::Identity {
        reqwest::Identity::from_pem((self.certificate.pem() + &self.key.serialize_pem()).as_bytes()).unwrap()
    }
}
