//! The backend on AWS-LC (`aws-lc-rs`).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use super::job::{Aead, Job, KeyLengthError, split_tag};
use crate::transform::Transform;

/// An expanded key for AWS-LC.
#[derive(Debug)]
pub struct AwsLc {
    key: LessSafeKey,
    encrypts: bool,
}

impl AwsLc {
    /// Expands a key, whose length must be [`Transform::key_len`].
    pub fn new(transform: Transform, key: &[u8]) -> Result<Self, KeyLengthError> {
        KeyLengthError::check(transform, key)?;
        let algorithm = match transform {
            Transform::Aes128Gcm | Transform::NullAes128Gmac => &AES_128_GCM,
            Transform::Aes256Gcm | Transform::NullAes256Gmac => &AES_256_GCM,
            Transform::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let unbound = UnboundKey::new(algorithm, key);
        let length_error =
            KeyLengthError { transform, got: key.len(), wanted: transform.key_len() };
        Ok(Self {
            key: LessSafeKey::new(unbound.map_err(|_| length_error)?),
            encrypts: transform.encrypts(),
        })
    }
}

impl Aead for AwsLc {
    fn seal_batch(&self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            job.is_ok = self.seal(job).is_some();
        }
    }

    fn open_batch(&self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            job.is_ok = self.open(job).is_some();
        }
    }
}

impl AwsLc {
    // `seal_in_place_scatter` writes the tag in place; `seal_in_place_separate_tag` would return
    // the tag, to be copied.
    //
    // `seal` and `open` pass the nonce by reference: a nonce passed by value, or taken out of an
    // `Option`, is copied byte by byte, and wider loads of the copy stall for up to 15 ns.
    #[inline]
    fn seal(&self, job: &mut Job<'_>) -> Option<()> {
        let Job { nonce, aad, text_and_tag, .. } = job;
        let (text, tag) = split_tag(text_and_tag)?;
        // Fails only for texts of about 2^36 bytes or more.
        let sealed = if self.encrypts {
            self.key.seal_in_place_scatter(
                Nonce::from(&*nonce),
                Aad::from(aad.bytes()),
                text,
                &[],
                tag,
            )
        } else {
            // GMAC encrypts nothing. Here, `text` contains all authenticated data, from the SPI on.
            self.key.seal_in_place_scatter(
                Nonce::from(&*nonce),
                Aad::from(&*text),
                &mut [],
                &[],
                tag,
            )
        };
        sealed.ok()
    }

    // `open_in_place_separate_tag` leaves the text in place; `open_in_place` would move it.
    #[inline]
    fn open(&self, job: &mut Job<'_>) -> Option<()> {
        let Job { nonce, aad, text_and_tag, .. } = job;
        let (text, tag) = split_tag(text_and_tag)?;
        let opened = if self.encrypts {
            self.key.open_in_place_separate_tag(
                Nonce::from(&*nonce),
                Aad::from(aad.bytes()),
                tag,
                text,
            )
        } else {
            self.key.open_in_place_separate_tag(
                Nonce::from(&*nonce),
                Aad::from(&*text),
                tag,
                &mut [],
            )
        };
        opened.ok().map(drop)
    }
}
