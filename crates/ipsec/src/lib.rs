//! IPsec ESP (RFC 4303): seals and opens packets in place, with sequence numbers and anti-replay
//! windows.
//!
//! [`Protection`] seals and opens batches of packets with a [`Transform`] and an [`Aead`].
//! [`Window`] rejects replays. Several workers take numbers from [`SequenceNumbers`], below a bound
//! that the caller saved for restarts. [`Ivs`] creates IVs from an epoch (which rises with each
//! run), a worker number and a counter, so they differ between workers and runs. [`KeyMaterial`] is
//! a key file's content. This crate does no I/O.

#![deny(unsafe_code)]

mod aead;
pub mod ecn;
mod esp;
mod iv;
mod key;
mod replay;
mod sequence;
mod transform;

pub use aead::{Aad, Aead, AwsLc, Job, KeyLengthError, RustCrypto};
#[cfg(feature = "ipsec-mb")]
pub use aead::{IpsecMb, IpsecMbError};
pub use esp::{
    BATCH, HEADER_LEN, Incoming, OpenError, Opened, Outgoing, PREFIX_LEN, Protection, trailer_len,
};
pub use iv::{Epoch, EpochError, Ivs};
pub use key::{Fingerprint, KeyFileError, KeyMaterial, ParseFingerprintError, RandomError};
pub use replay::{ReplayError, Window, WindowError};
pub use sequence::{Exhausted, SequenceNumbers};
pub use transform::{ICV_LEN, IV_LEN, NONCE_LEN, SALT_LEN, Transform};

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
