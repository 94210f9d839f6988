//! The interface of AEAD implementations: jobs of a batch, and their additional authenticated data.

use crate::transform::{ICV, NONCE, Transform};

/// A key at work. One virtual call for a batch, none for a packet.
pub trait Aead: Send + Sync {
    /// Seals each: encrypts its text in place, and writes its tag.
    fn seal_batch(&self, jobs: &mut [Job<'_>]);

    /// Opens each: says whether its tag is right, and decrypts its text in place. Of one whose tag
    /// is wrong the text is of no use.
    fn open_batch(&self, jobs: &mut [Job<'_>]);
}

/// What is to be done to one packet.
///
/// In this order: who reads nonce or AAD may read 16 bytes at once, and would have to wait if what
/// is behind had just been written.
#[derive(Debug)]
#[repr(C)]
pub struct Job<'a> {
    /// Never the same for two packets that are sealed with one key.
    pub nonce: [u8; NONCE],
    /// What is authenticated besides the text, if that is encrypted.
    pub aad: Aad,
    /// What is sealed or opened (without encryption all that is authenticated), and behind it the
    /// tag, which is written or compared.
    pub text_and_tag: &'a mut [u8],
    /// Whether it was done: sealed, or opened with a tag that is right.
    pub is_good: bool,
}

/// Text and tag; `None` if there is not the room for a tag.
#[inline]
pub(super) fn parts(text_and_tag: &mut [u8]) -> Option<(&mut [u8], &mut [u8; ICV])> {
    text_and_tag.split_last_chunk_mut()
}

/// SPI and sequence number: 8 bytes, or 12 with an extended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Aad {
    bytes: [u8; 12],
    len: usize,
}

impl Aad {
    /// Of a packet; with `extended` the whole number is authenticated (RFC 4106, 5).
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

    /// Any, of up to 12 bytes. ESP's own are made by [`Self::new`].
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut aad = Self { bytes: [0; 12], len: bytes.len() };
        aad.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(aad)
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A key has another length than its transform wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {got} bytes: {} takes {wanted}", .transform.name())]
pub struct KeyLength {
    /// The transform.
    pub transform: Transform,
    /// Bytes that there are.
    pub got: usize,
    /// Bytes that there have to be.
    pub wanted: usize,
}

impl KeyLength {
    pub(super) fn check(transform: Transform, key: &[u8]) -> Result<(), Self> {
        let (got, wanted) = (key.len(), transform.key_len());
        if got == wanted { Ok(()) } else { Err(Self { transform, got, wanted }) }
    }
}
