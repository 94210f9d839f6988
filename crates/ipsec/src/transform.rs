//! How packets are protected: which cipher, and what its parts are.

/// A combined-mode transform of ESP, with an ICV of 16 bytes and an IV of 8 in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// AES-GCM with a key of 128 bits (RFC 4106).
    Aes128Gcm,
    /// AES-GCM with a key of 256 bits (RFC 4106).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// No encryption, and AES-GMAC with a key of 128 bits (RFC 4543).
    NullAes128Gmac,
    /// No encryption, and AES-GMAC with a key of 256 bits (RFC 4543).
    NullAes256Gmac,
}

impl Transform {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305, Self::NullAes128Gmac, Self::NullAes256Gmac];

    /// Its name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::NullAes128Gmac => "null-aes-128-gmac",
            Self::NullAes256Gmac => "null-aes-256-gmac",
        }
    }

    /// Bytes of its key, without the salt.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::NullAes128Gmac => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::NullAes256Gmac => 32,
        }
    }

    /// Whether the payload is encrypted, and not authenticated alone.
    pub fn encrypts(self) -> bool {
        !matches!(self, Self::NullAes128Gmac | Self::NullAes256Gmac)
    }
}

/// Bytes of the salt that comes with a key: the nonce's first part (RFC 4106, 4; RFC 7634, 2).
pub const SALT: usize = 4;
/// Bytes of the IV that a packet carries.
pub const IV: usize = 8;
/// Bytes of the integrity check value.
pub const ICV: usize = 16;
/// Bytes of a nonce: salt and IV.
pub const NONCE: usize = SALT + IV;
