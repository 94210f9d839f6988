//! Parses arbitrary key files. A parsed key has the length that the transform requires, and does
//! not change when it is written and parsed again. Error messages contain no digits of the key.
#![no_main]

use xdpfwd_ipsec::{KeyMaterial, Transform};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    for transform in Transform::ALL {
        match KeyMaterial::parse(text, transform) {
            Ok(key) => {
                assert_eq!(key.key().len(), transform.key_len());
                let again = KeyMaterial::parse(key.to_line().as_bytes(), transform).unwrap();
                assert_eq!((again.key(), again.salt()), (key.key(), key.salt()));
                let fingerprint = key.fingerprint(transform);
                assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
            }
            Err(error) => {
                // Remove the message's numbers, which can equal digits of the key by chance. The
                // remaining text must be one of two texts that do not depend on the key.
                let words: String =
                    error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
                let name: String =
                    transform.name().chars().filter(|c| !c.is_ascii_digit()).collect();
                let expected = [
                    format!(
                        "found  hexadecimal digits, expected  for {name}:  of the key \
                         and  of the salt"
                    ),
                    format!(
                        "byte  is not a hexadecimal digit; \
                         expected one line of  hexadecimal digits for {name}"
                    ),
                ];
                assert!(expected.contains(&words), "{error}");
            }
        }
    }
});
