//! Keys: parsing and writing key files, creation, and fingerprints.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::de::{Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::transform::{SALT_LEN, Transform};

/// A key and its salt, wiped on drop. `Debug` prints neither.
#[derive(Clone)]
pub struct KeyMaterial {
    /// The key, then the salt.
    bytes: Zeroizing<Vec<u8>>,
}

/// Why a key file is invalid. The message contains no digits of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Wrong number of digits.
    #[error(
        "found {got} hexadecimal digits, expected {wanted} for {}: \
         {} of the key and {} of the salt",
        .transform.name(),
        2 * .transform.key_len(),
        2 * SALT_LEN
    )]
    DigitCount {
        /// The transform of the key.
        transform: Transform,
        /// Digits found.
        got: usize,
        /// Digits required.
        wanted: usize,
    },
    /// A byte is not a hexadecimal digit.
    #[error(
        "byte {at} is not a hexadecimal digit; \
         expected one line of {wanted} hexadecimal digits for {}",
        .transform.name()
    )]
    InvalidDigit {
        /// The transform of the key.
        transform: Transform,
        /// Position of the byte, from 1.
        at: usize,
        /// Digits required.
        wanted: usize,
    },
}

/// The error for random bytes that AWS-LC could not provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read random bytes from the kernel")]
pub struct RandomError;

impl KeyMaterial {
    /// Parses one line of hexadecimal digits: the key, then the salt, as in `ip xfrm … aead`.
    /// Accepts either case, a leading `0x` or `0X`, and surrounding whitespace.
    pub fn parse(text: &[u8], transform: Transform) -> Result<Self, KeyFileError> {
        let wanted = 2 * (transform.key_len() + SALT_LEN);
        let trimmed = text.trim_ascii();
        let digits =
            trimmed.strip_prefix(b"0x").or_else(|| trimmed.strip_prefix(b"0X")).unwrap_or(trimmed);
        if let Some(index) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
            // The length of leading white space and `0x`.
            let leading = text.trim_ascii_end().len() - digits.len();
            return Err(KeyFileError::InvalidDigit { transform, at: leading + index + 1, wanted });
        }
        if digits.len() != wanted {
            return Err(KeyFileError::DigitCount { transform, got: digits.len(), wanted });
        }
        // Allocate the full size: a vector that grows leaves copies of the key in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(wanted / 2));
        bytes.extend(
            digits.chunks_exact(2).map(|pair| digit_value(pair[0]) << 4 | digit_value(pair[1])),
        );
        Ok(Self { bytes })
    }

    /// Creates a random key with AWS-LC.
    pub fn random(transform: Transform) -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new(vec![0; transform.key_len() + SALT_LEN]);
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomError)?;
        Ok(Self { bytes })
    }

    /// Returns a key file: one line of lowercase hexadecimal digits, with a newline.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(2 * self.bytes.len() + 1));
        for byte in &*self.bytes {
            for nibble in [byte >> 4, byte & 0xf] {
                line.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        line.push('\n');
        line
    }

    /// Returns the key, without the salt.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SALT_LEN]
    }

    /// Returns the salt.
    pub fn salt(&self) -> [u8; SALT_LEN] {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// Returns a fingerprint of key and salt. Two SAs with the same identity must not use the same
    /// nonce, even if their transforms differ.
    pub fn identity(&self) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        context.update(b"xdpfwd esp key identity 1\0");
        context.update(&self.bytes);
        let digest = context.finish();
        Fingerprint(digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }

    /// Returns a fingerprint of key, salt and transform, which does not reveal the key.
    pub fn fingerprint(&self, transform: Transform) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        for part in [
            &b"xdpfwd esp key fingerprint 1\0"[..],
            transform.name().as_bytes(),
            // Ends the name, which contains no zero byte.
            &b"\0"[..],
            &self.bytes,
        ] {
            context.update(part);
        }
        let digest = context.finish();
        Fingerprint(digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaterial").finish_non_exhaustive()
    }
}

/// `digit` must be an ASCII hexadecimal digit.
fn digit_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// A public identifier of a key: the first 8 bytes of a SHA-256 digest (see
/// [`KeyMaterial::fingerprint`] and [`KeyMaterial::identity`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

/// The error for a text that is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid fingerprint: expected 16 lowercase hexadecimal digits")]
pub struct ParseFingerprintError;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(ParseFingerprintError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseFingerprintError)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "16 lowercase hexadecimal digits";
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0fCAFEBABE";

    #[test]
    fn parse_accepts_0x_either_case_and_white_space() {
        let aes = Transform::Aes128Gcm;
        for text in [
            DIGITS.to_owned(),
            format!("0x{DIGITS}\n"),
            format!("  0X{DIGITS}\r\n\n"),
            format!("\t{}\n", DIGITS.to_lowercase()),
        ] {
            let key = KeyMaterial::parse(text.as_bytes(), aes).unwrap();
            assert_eq!(key.key(), (0..16).collect::<Vec<u8>>(), "{text}");
            assert_eq!(key.salt(), [0xca, 0xfe, 0xba, 0xbe], "{text}");
            assert_eq!(*key.to_line(), format!("{}\n", DIGITS.to_lowercase()));
        }
    }

    #[test]
    fn parse_error_names_digit_counts_or_byte_position() {
        let error = |text: &str, transform| {
            KeyMaterial::parse(text.as_bytes(), transform).unwrap_err().to_string()
        };
        assert_eq!(
            error(&DIGITS[1..], Transform::Aes128Gcm),
            "found 39 hexadecimal digits, expected 40 for aes-128-gcm: \
             32 of the key and 8 of the salt"
        );
        assert_eq!(
            error(DIGITS, Transform::ChaCha20Poly1305),
            "found 40 hexadecimal digits, expected 72 for chacha20-poly1305: \
             64 of the key and 8 of the salt"
        );
        assert!(error("", Transform::Aes128Gcm).starts_with("found 0 hexadecimal digits"));
        assert!(error(" 0x\n", Transform::Aes128Gcm).starts_with("found 0 hexadecimal digits"));
        assert_eq!(
            error(" 0x0a0b0cxd", Transform::Aes128Gcm),
            "byte 10 is not a hexadecimal digit; \
             expected one line of 40 hexadecimal digits for aes-128-gcm"
        );
        assert!(
            error(&format!("{DIGITS}\n{DIGITS}"), Transform::Aes128Gcm).starts_with("byte 41 ")
        );
        assert!(error("é", Transform::Aes128Gcm).starts_with("byte 1 "));
    }

    #[test]
    fn debug_output_hides_key() {
        let key = KeyMaterial::parse(DIGITS.as_bytes(), Transform::Aes128Gcm).unwrap();
        assert_eq!(format!("{key:?}"), "KeyMaterial { .. }");
    }

    #[test]
    fn random_keys_differ_and_parse_back() {
        for transform in Transform::ALL {
            let [one, other] = [(); 2].map(|()| KeyMaterial::random(transform).unwrap());
            assert_eq!(one.key().len(), transform.key_len());
            assert_ne!(one.key(), other.key());
            assert_ne!(one.fingerprint(transform), other.fingerprint(transform));
            let again = KeyMaterial::parse(one.to_line().as_bytes(), transform).unwrap();
            assert_eq!((again.key(), again.salt()), (one.key(), one.salt()));
        }
    }

    #[test]
    fn fingerprint_but_not_identity_depends_on_transform() {
        let fingerprint = |digits: &str, transform| {
            KeyMaterial::parse(digits.as_bytes(), transform).unwrap().fingerprint(transform)
        };
        let (aes, gmac) = (Transform::Aes128Gcm, Transform::NullAes128Gmac);
        let other_salt = DIGITS.replace("CAFE", "CAFF");
        let fingerprints = [
            fingerprint(DIGITS, aes),
            fingerprint(DIGITS, gmac),
            fingerprint(&other_salt, aes),
            fingerprint(&DIGITS.replace("00", "01"), aes),
        ];
        let distinct: std::collections::BTreeSet<_> = fingerprints.into_iter().collect();
        assert_eq!(distinct.len(), fingerprints.len());
        let identity = |digits: &str, transform| {
            KeyMaterial::parse(digits.as_bytes(), transform).unwrap().identity()
        };
        assert_eq!(
            identity(DIGITS, aes),
            identity(DIGITS, gmac),
            "the identity must not depend on the transform"
        );
        assert_ne!(identity(DIGITS, aes), identity(&other_salt, aes));
        assert!(!distinct.contains(&identity(DIGITS, aes)));
        // Fingerprints must not change: state files contain them. Expected value from sha256sum.
        assert_eq!(fingerprints[0].to_string(), "9d9464bf08b58358");
        assert_eq!(fingerprints[0].to_string().parse(), Ok(fingerprints[0]));
        for text in
            ["", "9f86d081884c7d6", "9f86d081884c7d655", "9F86D081884C7D65", "+f86d081884c7d65"]
        {
            assert_eq!(text.parse::<Fingerprint>(), Err(ParseFingerprintError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_returns_bytes_of_hexadecimal_digits(bytes in prop::collection::vec(any::<u8>(), 36)) {
            let transform = Transform::Aes256Gcm;
            let text: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            let key = KeyMaterial::parse(text.as_bytes(), transform).unwrap();
            prop_assert_eq!(key.key(), &bytes[..32]);
            prop_assert_eq!(&key.salt()[..], &bytes[32..]);
        }

        /// Searches the message for any five consecutive digits of the key. Fewer digits can equal
        /// numbers in the message.
        #[test]
        fn parse_error_contains_no_key_digits(text in "[0-9a-f]{20,39}|[0-9a-f]{15,30}[g-z][0-9a-f]{9}") {
            let message = KeyMaterial::parse(text.as_bytes(), Transform::Aes128Gcm).unwrap_err().to_string();
            prop_assert!(text.as_bytes().windows(5).all(|part| !message.contains(std::str::from_utf8(part).unwrap())), "{}", message);
        }
    }
}
