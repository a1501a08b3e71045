//! Z-API (z-api.io), a WhatsApp gateway: the brand; the engine is `whatsapp`.

use super::SourceType;
use super::whatsapp::Brand;

pub(super) const TYPE: SourceType =
    SourceType { name: BRAND.name, build: |section| BRAND.build(section), defaults: || BRAND.defaults() };

pub(super) static BRAND: Brand = Brand {
    name: "zapi",
    title: "Z-API",
    host: "api.z-api.io",
    type_prefix: "io.z-api",
    documents_all: true,
    needs_client_token: true,
};
