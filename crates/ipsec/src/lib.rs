//! IPsec ESP (RFC 4303): packets sealed and opened where they lie, the numbers that must never
//! repeat, and those that must not be taken twice.
//!
//! [`Protection`] seals and opens batches, by a [`Transform`] and the cryptography behind [`Aead`];
//! [`Window`] refuses what was received before; [`Numbers`] gives out sequence numbers to several
//! workers, within limits and never beyond what has been written down; [`Ivs`] makes initialization
//! vectors of an epoch, a worker and a counter, so that neither two workers nor two runs can meet.
//! [`KeyMaterial`] is the content of a key file. This crate does no I/O: the caller reads and
//! writes files.

#![deny(unsafe_code)]

mod aead;
pub mod ecn;
mod esp;
mod iv;
mod key;
mod replay;
mod sequence;
mod transform;

pub use aead::{Aad, Aead, AwsLc, Job, KeyLength, RustCrypto};
#[cfg(feature = "ipsec-mb")]
pub use aead::{IpsecMb, IpsecMbError};
pub use esp::{BATCH, HEADER, IN_FRONT, Incoming, Opened, Outgoing, Protection, Unopened, behind};
pub use iv::{Epoch, EpochError, Ivs};
pub use key::{Fingerprint, KeyFileError, KeyMaterial, NoFingerprint, NoRandom};
pub use replay::{Refused, Window, WindowError};
pub use sequence::{Exhausted, Numbers};
pub use transform::{ICV, IV, NONCE, SALT, Transform};

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
