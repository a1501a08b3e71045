//! The names in a certificate that was verified: what a source may know its sender by.

use x509_parser::extensions::GeneralName;

/// The DNS and URI names in the order of the certificate; where it has none of them, its common name, which authorities
/// check less (RFC 6125, section 6.4.4) and which their limits on names do not cover. Nothing where it cannot be read:
/// such a certificate names nobody.
pub(super) fn of(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::DNSName(name) | GeneralName::URI(name) = name {
            names.push((*name).to_owned());
        }
    }
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::of;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn a_certificate_is_known_by_its_alternative_names_or_else_by_its_common_name() {
        for (sentence, alternative, uri, expected) in [
            (
                "an address is no name",
                &["shop.test", "10.1.2.3"][..],
                Some("spiffe://test/shop"),
                &["shop.test", "spiffe://test/shop"][..],
            ),
            ("a common name beside others does not count", &["shop.test"], None, &["shop.test"]),
            ("an address alone", &["10.1.2.3"], None, &["the shop"]),
            ("nothing else", &[], None, &["the shop"]),
        ] {
            let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
            params.distinguished_name.push(DnType::CommonName, "the shop");
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(of(certificate.der()), expected, "{sentence}");
        }
        assert_eq!(of(b"no certificate"), Vec::<String>::new());
    }
}
