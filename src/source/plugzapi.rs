//! PlugZapi (plugzapi.com.br), a WhatsApp gateway: the brand; the engine is `whatsapp`.
//! The name of the header with its token is documented nowhere; Z-API's is only the default.

use super::SourceType;
use super::whatsapp::Brand;

pub(super) const TYPE: SourceType =
    SourceType { name: BRAND.name, build: |section| BRAND.build(section), defaults: || BRAND.defaults() };

pub(super) static BRAND: Brand = Brand {
    name: "plugzapi",
    title: "PlugZapi",
    host: "api.plugzapi.com.br",
    type_prefix: "br.com.plugzapi",
    documents_all: false,
    needs_client_token: false,
};
