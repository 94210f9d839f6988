//! The backend on RustCrypto's ciphers, in pure Rust. Tests compare the other backends with it.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;

use super::job::{Aead, Job, KeyLengthError, split_tag};
use crate::transform::Transform;

/// An expanded key for RustCrypto.
pub struct RustCrypto {
    cipher: Cipher,
    encrypts: bool,
}

#[expect(clippy::large_enum_variant, reason = "one value per key, used for every batch")]
enum Cipher {
    Aes128(Aes128Gcm),
    Aes256(Aes256Gcm),
    ChaCha20(ChaCha20Poly1305),
}

impl RustCrypto {
    /// Expands a key, whose length must be [`Transform::key_len`].
    pub fn new(transform: Transform, key: &[u8]) -> Result<Self, KeyLengthError> {
        KeyLengthError::check(transform, key)?;
        let length_error =
            |_| KeyLengthError { transform, got: key.len(), wanted: transform.key_len() };
        let cipher = match transform {
            Transform::Aes128Gcm | Transform::NullAes128Gmac => {
                Cipher::Aes128(Aes128Gcm::new_from_slice(key).map_err(length_error)?)
            }
            Transform::Aes256Gcm | Transform::NullAes256Gmac => {
                Cipher::Aes256(Aes256Gcm::new_from_slice(key).map_err(length_error)?)
            }
            Transform::ChaCha20Poly1305 => {
                Cipher::ChaCha20(ChaCha20Poly1305::new_from_slice(key).map_err(length_error)?)
            }
        };
        Ok(Self { cipher, encrypts: transform.encrypts() })
    }
}

/// A cipher with 12-byte nonces and 16-byte tags.
trait EspCipher: AeadInPlace<NonceSize = U12, TagSize = U16> {}

impl<C: AeadInPlace<NonceSize = U12, TagSize = U16>> EspCipher for C {}

fn seal(cipher: &impl EspCipher, encrypts: bool, jobs: &mut [Job<'_>]) {
    for Job { nonce, aad, text_and_tag, is_ok } in jobs {
        let nonce = GenericArray::from_slice(&*nonce);
        *is_ok = split_tag(text_and_tag).is_some_and(|(text, tag)| {
            let computed = if encrypts {
                cipher.encrypt_in_place_detached(nonce, aad.bytes(), text)
            } else {
                // Authenticates the text as additional data and encrypts nothing.
                cipher.encrypt_in_place_detached(nonce, text, &mut [])
            };
            computed.map(|computed| tag.copy_from_slice(&computed)).is_ok()
        });
    }
}

fn open(cipher: &impl EspCipher, encrypts: bool, jobs: &mut [Job<'_>]) {
    for Job { nonce, aad, text_and_tag, is_ok } in jobs {
        let nonce = GenericArray::from_slice(&*nonce);
        *is_ok = split_tag(text_and_tag).is_some_and(|(text, tag)| {
            let tag = GenericArray::from_slice(&*tag);
            if encrypts {
                cipher.decrypt_in_place_detached(nonce, aad.bytes(), text, tag).is_ok()
            } else {
                cipher.decrypt_in_place_detached(nonce, text, &mut [], tag).is_ok()
            }
        });
    }
}

impl Aead for RustCrypto {
    fn seal_batch(&self, jobs: &mut [Job<'_>]) {
        match &self.cipher {
            Cipher::Aes128(cipher) => seal(cipher, self.encrypts, jobs),
            Cipher::Aes256(cipher) => seal(cipher, self.encrypts, jobs),
            Cipher::ChaCha20(cipher) => seal(cipher, self.encrypts, jobs),
        }
    }

    fn open_batch(&self, jobs: &mut [Job<'_>]) {
        match &self.cipher {
            Cipher::Aes128(cipher) => open(cipher, self.encrypts, jobs),
            Cipher::Aes256(cipher) => open(cipher, self.encrypts, jobs),
            Cipher::ChaCha20(cipher) => open(cipher, self.encrypts, jobs),
        }
    }
}
