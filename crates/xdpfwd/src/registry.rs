//! The registry of stage kinds.

use xdpfwd_pipeline::TableFormat;

/// The kinds of stages that a configuration file in TOML may name.
pub type Registry = xdpfwd_pipeline::Registry<Toml>;

/// The format of stage tables in the configuration file.
#[derive(Debug)]
pub struct Toml;

impl TableFormat for Toml {
    type Error = toml::de::Error;
    type Deserializer<'de> = toml::de::ValueDeserializer<'de>;
}
