//! IPsec ESP.

pub mod key_file;
pub mod state_file;
