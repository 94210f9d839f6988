use super::*;
use crate::aead::Aad;

const SPI: u32 = 1;
const EXTENDED: bool = true;

fn seal_one(key: &IpsecMb, number: u64, text_and_tag: &mut [u8]) -> bool {
    let mut jobs =
        [Job { nonce: [3; 12], aad: Aad::new(SPI, number, EXTENDED), text_and_tag, is_ok: false }];
    key.seal_batch(&mut jobs);
    jobs[0].is_ok
}

#[test]
fn dropped_key_is_zeroed() {
    let functions = functions().unwrap();
    for (functions, key) in
        [(functions.aes_128, vec![0x5a; 16]), (functions.aes_256, vec![0x5a; 32])]
    {
        let Key::AesGcm { key, .. } = Key::aes_gcm(&key, functions) else { panic!() };
        assert!(
            key.0.iter().filter(|byte| **byte != 0).count() > 300,
            "the expanded key has at most 300 nonzero bytes, so the test cannot detect zeroing"
        );
        let mut slot = MaybeUninit::new(GcmKey(key.0));
        // SAFETY: the key is initialized, and only its bytes are read after the drop. `slot` still
        // owns their memory.
        let remaining = unsafe {
            slot.assume_init_drop();
            slot.as_ptr().cast::<[u8; 1024]>().read()
        };
        assert_eq!(remaining, [0; 1024]);
    }
}

#[test]
fn threads_sharing_a_key_seal_like_one_thread() {
    for transform in Transform::ALL {
        let key = IpsecMb::new(transform, &vec![7; transform.key_len()]).unwrap();
        let expected: Vec<Vec<u8>> = (0..64)
            .map(|n| {
                let mut bytes = vec![n as u8; 40 + n * 5];
                assert!(seal_one(&key, n as u64, &mut bytes));
                bytes
            })
            .collect();
        thread::scope(|scope| {
            // More threads than managers, of which there is one per logical CPU.
            for _ in 0..2 * thread::available_parallelism().map_or(1, usize::from) + 1 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut all: Vec<Vec<u8>> =
                            (0..64).map(|n| vec![n as u8; 40 + n * 5]).collect();
                        let mut jobs: Vec<Job<'_>> = (0..)
                            .zip(&mut all)
                            .map(|(n, bytes)| Job {
                                nonce: [3; 12],
                                aad: Aad::new(SPI, n, EXTENDED),
                                text_and_tag: bytes,
                                is_ok: false,
                            })
                            .collect();
                        key.seal_batch(&mut jobs);
                        assert!(jobs.iter().all(|job| job.is_ok));
                        assert_eq!(all, expected, "{transform:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn seal_without_room_for_tag_fails() {
    for transform in Transform::ALL {
        let key = IpsecMb::new(transform, &vec![7; transform.key_len()]).unwrap();
        for len in 0..ICV_LEN {
            let mut bytes = vec![1; len];
            assert!(!seal_one(&key, 1, &mut bytes));
            assert_eq!(bytes, vec![1; len]);
        }
        assert!(
            seal_one(&key, 1, &mut [0; ICV_LEN]),
            "{transform:?}: an empty text with room for the tag was not sealed"
        );
    }
}

#[test]
fn new_rejects_key_of_wrong_length() {
    for transform in Transform::ALL {
        for got in [0, 16, 24, 32] {
            let result = IpsecMb::new(transform, &vec![1; got]).map(drop);
            if got == transform.key_len() {
                assert_eq!(result, Ok(()));
            } else {
                let wanted = transform.key_len();
                assert_eq!(
                    result,
                    Err(IpsecMbError::KeyLengthError(KeyLengthError { transform, got, wanted }))
                );
            }
        }
    }
}
