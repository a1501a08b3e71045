//! A certificate authority of the tests: its own certificate, leaves for servers and clients, and the files of both.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of a leaf, as every broker wants them.
pub struct Leaf {
    /// PEM: the certificate.
    pub cert: PathBuf,
    /// PEM, PKCS#8: its key.
    pub key: PathBuf,
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
        let key = KeyPair::generate().unwrap();
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// The authority's own certificate as a PEM file `NAME`.
    pub fn file(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
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
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = match asks_for_certificate {
            true => WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap(),
            false => WebPkiClientVerifier::no_client_auth(),
        };
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap()
    }
}
