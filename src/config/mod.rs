//! What every part's own configuration is made of: sections, units, secrets and errors that name the key.
//! Holds: R8 (an error names the key, its layer and what is expected, never the value).
//! Absent on purpose: knowledge of any part; `app::config` composes them.

mod error;
mod extract;
mod http_url;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod layers;
mod live;
mod network;
mod reader;
mod secret;
mod section;
mod tree;
mod units;

pub use error::{ConfigError, ConfigErrors};
pub use file::read_file;
pub use http_url::{HttpUrl, InvalidHttpUrl};
pub use layers::Layers;
pub use live::Live;
pub use network::{InvalidNetwork, Network};
pub use secret::{Secret, SecretOrigin};
pub use section::{Section, nearest};
pub use units::{ByteSize, OneOrMany, Period, Rate};

#[cfg(test)]
mod tests;
