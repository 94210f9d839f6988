//! ESP transforms, and the lengths of keys, salts, IVs and ICVs.

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray, VariantNames};

/// A combined-mode ESP transform. Every packet contains an IV of 8 bytes and an ICV of 16 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    EnumCount,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
pub enum Transform {
    /// AES-GCM with a key of 128 bits (RFC 4106).
    #[strum(serialize = "aes-128-gcm")]
    Aes128Gcm,
    /// AES-GCM with a key of 256 bits (RFC 4106).
    #[strum(serialize = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    #[strum(serialize = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// No encryption, and AES-GMAC with a key of 128 bits (RFC 4543).
    #[strum(serialize = "null-aes-128-gmac")]
    NullAes128Gmac,
    /// No encryption, and AES-GMAC with a key of 256 bits (RFC 4543).
    #[strum(serialize = "null-aes-256-gmac")]
    NullAes256Gmac,
}

impl Transform {
    /// All transforms.
    pub const ALL: [Self; Self::COUNT] = *<Self as VariantArray>::VARIANTS.first_chunk().unwrap();

    /// Returns the name of the transform in configurations and reports. `FromStr` parses this name.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the length of a key in bytes, without the salt.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::NullAes128Gmac => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::NullAes256Gmac => 32,
        }
    }

    /// Returns whether the payload is encrypted, not only authenticated.
    pub fn encrypts(self) -> bool {
        !matches!(self, Self::NullAes128Gmac | Self::NullAes256Gmac)
    }
}

/// Length of the salt in bytes. A nonce begins with the salt (RFC 4106, 4; RFC 7634, 2).
pub const SALT_LEN: usize = 4;
/// Length of the IV in a packet, in bytes.
pub const IV_LEN: usize = 8;
/// Length of the integrity check value (ICV) in bytes.
pub const ICV_LEN: usize = 16;
/// Length of a nonce in bytes. A nonce is the salt, then the IV.
pub const NONCE_LEN: usize = SALT_LEN + IV_LEN;
