//! AEAD backends, which implement the trait [`Aead`].

mod aws_lc;
#[cfg(feature = "ipsec-mb")]
#[allow(unsafe_code, reason = "calls a C library; the only unsafe code in this crate")]
mod ipsec_mb;
mod job;
mod rust_crypto;

pub use aws_lc::AwsLc;
#[cfg(feature = "ipsec-mb")]
pub use ipsec_mb::{IpsecMb, IpsecMbError};
pub use job::{Aad, Aead, Job, KeyLengthError};
pub use rust_crypto::RustCrypto;
