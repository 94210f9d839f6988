//! AEAD implementations behind one trait with one call per batch.

mod aws_lc;
#[cfg(feature = "ipsec-mb")]
#[allow(unsafe_code, reason = "calls of a library in C: the one exception in this crate")]
mod ipsec_mb;
mod job;
mod rust_crypto;

pub use aws_lc::AwsLc;
#[cfg(feature = "ipsec-mb")]
pub use ipsec_mb::{IpsecMb, IpsecMbError};
pub use job::{Aad, Aead, Job, KeyLengthError};
pub use rust_crypto::RustCrypto;
