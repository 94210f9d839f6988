//! The interface of the AEAD backends.

use crate::transform::{ICV_LEN, NONCE_LEN, Transform};

/// An AEAD cipher with an expanded key. A batch costs one virtual call.
pub trait Aead: Send + Sync {
    /// Encrypts each text in place, writes its tag, and sets [`Job::is_ok`].
    fn seal_batch(&self, jobs: &mut [Job<'_>]);

    /// Verifies each tag, decrypts the text in place, and sets [`Job::is_ok`]. If the tag is
    /// invalid, the text is unspecified afterwards.
    fn open_batch(&self, jobs: &mut [Job<'_>]);
}

/// The cryptographic work on one packet.
///
/// The order of the fields matters: backends load the nonce and the AAD, of 12 bytes each, with
/// 16-byte loads. Such a load stalls if a recent store wrote the 4 bytes after these 12.
#[derive(Debug)]
#[repr(C)]
pub struct Job<'a> {
    /// The nonce, unique among packets sealed with one key.
    pub nonce: [u8; NONCE_LEN],
    /// Additional authenticated data. Ignored by transforms without encryption.
    pub aad: Aad,
    /// The text (to be encrypted or decrypted), then the tag, which sealing writes and opening
    /// verifies. For transforms without encryption, the text is all authenticated bytes, from the
    /// SPI on.
    pub text_and_tag: &'a mut [u8],
    /// Whether the packet was sealed, or opened with a valid tag.
    pub is_ok: bool,
}

#[inline]
pub(super) fn split_tag(text_and_tag: &mut [u8]) -> Option<(&mut [u8], &mut [u8; ICV_LEN])> {
    text_and_tag.split_last_chunk_mut()
}

/// Additional authenticated data of up to 12 bytes. In ESP: SPI, sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Aad {
    bytes: [u8; 12],
    len: usize,
}

impl Aad {
    /// Creates the AAD of an ESP packet (RFC 4106, section 5), with 64 bits of the sequence number
    /// if `extended`, otherwise the lower 32.
    #[inline]
    pub fn new(spi: u32, number: u64, extended: bool) -> Self {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&spi.to_be_bytes());
        if extended {
            bytes[4..].copy_from_slice(&number.to_be_bytes());
        } else {
            bytes[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        }
        Self { bytes, len: if extended { 12 } else { 8 } }
    }

    /// Creates AAD; `None` for more than 12 bytes. For ESP, use [`Self::new`].
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut aad = Self { bytes: [0; 12], len: bytes.len() };
        aad.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(aad)
    }

    /// Returns the authenticated bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The error for a key whose length does not match its transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has {got} bytes; {} requires {wanted}", .transform.name())]
pub struct KeyLengthError {
    /// The transform.
    pub transform: Transform,
    /// Length of the key in bytes.
    pub got: usize,
    /// Required length in bytes.
    pub wanted: usize,
}

impl KeyLengthError {
    pub(super) fn check(transform: Transform, key: &[u8]) -> Result<(), Self> {
        let (got, wanted) = (key.len(), transform.key_len());
        if got == wanted { Ok(()) } else { Err(Self { transform, got, wanted }) }
    }
}
