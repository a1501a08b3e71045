//! What the tests of the sinks share: a sink from a few lines of configuration.
#![cfg(test)]

use super::ConfiguredSink;
use crate::config::Layers;
use crate::envelope::SinkName;

/// The sink `orders` with these keys in `[sinks.orders.KIND]` and below; the errors as they are shown.
pub(super) fn parsed(kind: &str, own_keys: &str) -> Result<ConfiguredSink, Vec<String>> {
    let layers = Layers::load(Some(&format!("[sinks.orders.{kind}]\n{own_keys}")), None, &[]).unwrap();
    let section = layers.root().child("sinks").child("orders");
    let parsed = ConfiguredSink::parse(SinkName::new("orders").unwrap(), &section);
    parsed.map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

/// What is wrong with it.
pub(super) fn errors(kind: &str, own_keys: &str) -> Vec<String> {
    parsed(kind, own_keys).err().unwrap_or_default()
}
