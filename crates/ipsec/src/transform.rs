//! ESP transforms, and the lengths of keys, salts, IVs and ICVs.

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray, VariantNames};

/// A combined-mode transform. Packets contain an IV of 8 bytes and an ICV of 16 bytes.
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
    /// AES-GCM, 128-bit key (RFC 4106).
    #[strum(serialize = "aes-128-gcm")]
    Aes128Gcm,
    /// AES-GCM, 256-bit key (RFC 4106).
    #[strum(serialize = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    #[strum(serialize = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// No encryption; AES-GMAC, 128-bit key (RFC 4543).
    #[strum(serialize = "null-aes-128-gmac")]
    NullAes128Gmac,
    /// No encryption; AES-GMAC, 256-bit key (RFC 4543).
    #[strum(serialize = "null-aes-256-gmac")]
    NullAes256Gmac,
}

impl Transform {
    /// All transforms.
    pub const ALL: [Self; Self::COUNT] = *<Self as VariantArray>::VARIANTS.first_chunk().unwrap();

    /// Returns the name in configurations and reports, which `FromStr` parses.
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

    /// Returns whether payloads are encrypted, not only authenticated.
    pub fn encrypts(self) -> bool {
        !matches!(self, Self::NullAes128Gmac | Self::NullAes256Gmac)
    }
}

/// Length of a salt in bytes. A nonce begins with it (RFC 4106, section 4; RFC 7634,
/// section 2).
pub const SALT_LEN: usize = 4;
/// Length of an IV in bytes.
pub const IV_LEN: usize = 8;
/// Length of an integrity check value (ICV) in bytes.
pub const ICV_LEN: usize = 16;
/// Length of a nonce (salt, then IV) in bytes.
pub const NONCE_LEN: usize = SALT_LEN + IV_LEN;
