//! Seals packets with one backend and opens them with another, unchanged or altered.

use proptest::prelude::*;

use super::*;
use crate::aead::{AwsLc, RustCrypto};

type Backend = fn(Transform, &[u8]) -> Box<dyn Aead>;

const AWS_LC: Backend = |transform, key| Box::new(AwsLc::new(transform, key).unwrap());
const RUST_CRYPTO: Backend = |transform, key| Box::new(RustCrypto::new(transform, key).unwrap());
#[cfg(feature = "ipsec-mb")]
const IPSEC_MB: Backend =
    |transform, key| Box::new(crate::aead::IpsecMb::new(transform, key).unwrap());

fn any_backend() -> impl Strategy<Value = Backend> {
    prop::sample::select(vec![
        AWS_LC,
        RUST_CRYPTO,
        #[cfg(feature = "ipsec-mb")]
        IPSEC_MB,
    ])
}

const EXTENDED: bool = true;

const SPI: u32 = 0x1234_5678;

/// Position of the last byte of the sequence number.
const LAST_NUMBER_BYTE: usize = PREFIX_LEN + 7;

/// Returns a protection with a key whose bytes are all `key`.
fn protection(transform: Transform, extended: bool, backend: Backend, key: u8) -> Protection {
    let aead = backend(transform, &vec![key; transform.key_len()]);
    Protection::new(aead, transform, [1, 2, 3, 4], SPI, extended)
}

fn buffer(payload: &[u8]) -> Vec<u8> {
    [&[0xaa; PREFIX_LEN][..], &[0; HEADER_LEN], payload, &vec![0; trailer_len(payload.len())]]
        .concat()
}

fn seal(protection: &Protection, payload: &[u8], number: u64, iv: u64) -> Vec<u8> {
    let mut bytes = buffer(payload);
    let mut packet =
        [Outgoing { bytes: &mut bytes, payload: payload.len(), next_header: 4, number, iv }];
    assert_eq!(protection.seal_batch(&mut packet), 1);
    bytes
}

fn open(
    protection: &Protection,
    window: &mut Window,
    bytes: &mut [u8],
) -> Result<Opened, OpenError> {
    let mut packet = [Incoming::new(bytes)];
    protection.open_batch(window, &mut packet);
    let [packet] = packet;
    packet.outcome
}

fn any_transform() -> impl Strategy<Value = Transform> {
    prop::sample::select(Transform::ALL.to_vec())
}

proptest! {
    #[test]
    fn every_backend_opens_packets_sealed_by_every_backend(
        transform in any_transform(),
        extended in any::<bool>(),
        (sealing, opening) in (any_backend(), any_backend()),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        number in prop_oneof![1_u64..1000, Just(u64::from(u32::MAX)), Just((3 << 32) + 5)],
        iv in any::<u64>(),
    ) {
        let number = if extended { number } else { number.min(u64::from(u32::MAX)) };
        let bytes = seal(&protection(transform, extended, sealing, 9), &payload, number, iv);
        prop_assert_eq!(&bytes[..PREFIX_LEN], &[0xaa; PREFIX_LEN], "the prefix changed");
        prop_assert_eq!(&bytes[PREFIX_LEN..PREFIX_LEN + 8], &[&SPI.to_be_bytes()[..], &(number as u32).to_be_bytes()].concat());
        prop_assert_eq!((bytes.len() - PREFIX_LEN) % 4, 0);
        let inner = PREFIX_LEN + HEADER_LEN..PREFIX_LEN + HEADER_LEN + payload.len();
        if payload.len() > 16 {
            prop_assert_eq!(bytes[inner.clone()] == payload[..], !transform.encrypts());
        }
        let protection = protection(transform, extended, opening, 9);
        let mut window = Window::new(64, extended).unwrap();
        if number > 64 {
            window.mark_received(number - 1).unwrap();
        }
        let mut received = bytes.clone();
        let opened = open(&protection, &mut window, &mut received);
        prop_assert_eq!(opened, Ok(Opened { payload: inner.clone(), next_header: 4, number }));
        prop_assert_eq!(&received[inner], &payload[..]);
        prop_assert_eq!(&received[..PREFIX_LEN], &[0xaa; PREFIX_LEN]);
        prop_assert_eq!(open(&protection, &mut window, &mut bytes.clone()), Err(OpenError::Replay));
    }

    #[test]
    fn open_rejects_packet_with_flipped_bit_and_keeps_window(
        transform in any_transform(),
        (extended, opening) in (any::<bool>(), any_backend()),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = seal(&protection(transform, extended, AWS_LC, 9), &payload, 7, 1);
        let packet_len = bytes.len() - PREFIX_LEN;
        let at = PREFIX_LEN + at.index(packet_len);
        bytes[at] ^= 1 << bit;
        let mut window = Window::new(64, extended).unwrap();
        let outcome = open(&protection(transform, extended, opening, 9), &mut window, &mut bytes);
        // The caller finds the SA by the SPI. `open_batch` authenticates the SA's SPI instead of
        // the packet's, and may therefore open a packet with another SPI.
        if (PREFIX_LEN..PREFIX_LEN + 4).contains(&at) {
            prop_assert!(outcome.is_ok() || outcome == Err(OpenError::BadTag));
        } else {
            prop_assert!(outcome.is_err(), "{:?}", outcome);
            prop_assert_eq!(window.highest(), 0);
        }
    }

    #[test]
    fn open_rejects_arbitrary_bytes_and_keeps_window(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        transform in any_transform(),
        extended in any::<bool>(),
        opening in any_backend(),
    ) {
        let mut bytes = bytes;
        let mut window = Window::new(64, extended).unwrap();
        prop_assert!(open(&protection(transform, extended, opening, 9), &mut window, &mut bytes).is_err());
        prop_assert_eq!(window.highest(), 0);
    }
}

#[test]
fn open_with_other_key_returns_bad_tag() {
    for transform in Transform::ALL {
        let mut bytes = seal(&protection(transform, EXTENDED, AWS_LC, 9), b"hello", 1, 1);
        let mut window = Window::new(64, EXTENDED).unwrap();
        assert_eq!(
            open(&protection(transform, EXTENDED, AWS_LC, 8), &mut window, &mut bytes),
            Err(OpenError::BadTag)
        );
    }
}

#[test]
fn open_batch_rejects_only_altered_and_replayed_packets() {
    for (transform, extended) in
        Transform::ALL.into_iter().flat_map(|transform| [(transform, false), (transform, true)])
    {
        let protection = protection(transform, extended, AWS_LC, 9);
        let mut all: Vec<Vec<u8>> = (0..150).map(|n| buffer(&vec![n as u8; n])).collect();
        let mut packets: Vec<Outgoing<'_>> = (0..)
            .zip(&mut all)
            .map(|(n, bytes)| Outgoing {
                bytes,
                payload: n,
                next_header: 4,
                number: n as u64 + 1,
                iv: n as u64,
            })
            .collect();
        assert_eq!(protection.seal_batch(&mut packets), 150);
        all[70][PREFIX_LEN + HEADER_LEN] ^= 1;
        // Packet 5 again at index 6; the altered packet 70 moves to index 71.
        let copy = all[5].clone();
        all.insert(6, copy);
        let mut window = Window::new(256, extended).unwrap();
        let mut packets: Vec<Incoming<'_>> =
            all.iter_mut().map(|bytes| Incoming::new(bytes)).collect();
        protection.open_batch(&mut window, &mut packets);
        for (index, packet) in packets.iter().enumerate() {
            let n = if index > 5 { index - 1 } else { index };
            let payload = PREFIX_LEN + HEADER_LEN..PREFIX_LEN + HEADER_LEN + n;
            match index {
                6 => assert_eq!(packet.outcome, Err(OpenError::Replay)),
                71 => assert_eq!(packet.outcome, Err(OpenError::BadTag)),
                _ => {
                    assert_eq!(
                        packet.outcome,
                        Ok(Opened {
                            payload: payload.clone(),
                            next_header: 4,
                            number: n as u64 + 1
                        })
                    );
                    assert!(packet.bytes[payload].iter().all(|byte| *byte == n as u8));
                }
            }
        }
        assert_eq!(window.highest(), 150);
    }
}

#[test]
fn seal_without_exact_room_leaves_packet_unchanged() {
    let protection = protection(Transform::Aes128Gcm, EXTENDED, AWS_LC, 9);
    let mut bytes = buffer(b"hello");
    // `bytes` has room for exactly five bytes of payload.
    for payload in [0, 1, 9, 10_000, usize::MAX] {
        let mut packet =
            [Outgoing { bytes: &mut bytes, payload, next_header: 4, number: 1, iv: 1 }];
        assert_eq!(protection.seal_batch(&mut packet), 0, "{payload}");
    }
    assert_eq!(bytes, buffer(b"hello"));
}

#[test]
fn open_rejects_invalid_padding_and_moves_window() {
    // GMAC does not encrypt: the test can write invalid padding and then authenticate it.
    let protection = protection(Transform::NullAes128Gmac, !EXTENDED, AWS_LC, 9);
    // The last four bytes before the ICV: padding (2), pad length, next header.
    for (trailer, expected) in [
        ([1, 2, 2, 4], Ok(())),
        ([1, 1, 2, 4], Err(OpenError::BadPadding)),
        ([0, 0, 2, 4], Err(OpenError::BadPadding)),
        ([1, 2, 200, 4], Err(OpenError::BadPadding)),
    ] {
        let mut bytes = buffer(b"payload!");
        let end = bytes.len() - ICV_LEN;
        bytes[end - 4..end].copy_from_slice(&trailer);
        bytes[LAST_NUMBER_BYTE] = 1;
        let job = protection.job(&mut bytes, 1, [0; IV_LEN]).unwrap();
        let mut jobs = [job];
        protection.aead.seal_batch(&mut jobs);
        let mut window = Window::new(64, !EXTENDED).unwrap();
        let outcome = open(&protection, &mut window, &mut bytes);
        assert_eq!(outcome.map(|_| ()), expected, "{trailer:?}");
        assert_eq!(window.highest(), 1, "the window did not move for a packet with a valid ICV");
    }
}

/// Tries up to 255 bytes of padding, as section 2.4 of RFC 4303 allows.
#[test]
fn open_checks_every_padding_byte() {
    let protection = protection(Transform::NullAes128Gmac, !EXTENDED, AWS_LC, 9);
    let outcome = |text: &[u8]| {
        let mut bytes = [&[0; PREFIX_LEN + HEADER_LEN][..], text, &[0; ICV_LEN]].concat();
        bytes[LAST_NUMBER_BYTE] = 1;
        let mut jobs = [protection.job(&mut bytes, 1, [0; IV_LEN]).unwrap()];
        protection.aead.seal_batch(&mut jobs);
        open(&protection, &mut Window::new(64, !EXTENDED).unwrap(), &mut bytes)
    };
    for padding in 0..=255_u8 {
        for payload in [2, 3, 4, 5, 9]
            .into_iter()
            .filter(|payload| (payload + usize::from(padding) + 2).is_multiple_of(4))
        {
            let text: Vec<u8> =
                [&vec![9; payload][..], &(1..=padding).collect::<Vec<_>>(), &[padding, 4]].concat();
            let opened = outcome(&text).unwrap();
            assert_eq!(opened.payload.len(), payload, "{padding}");
            for at in payload..payload + usize::from(padding) {
                let mut text = text.clone();
                text[at] ^= 0x80;
                assert_eq!(
                    outcome(&text),
                    Err(OpenError::BadPadding),
                    "byte {at} of the text altered; {padding} bytes of padding"
                );
            }
        }
    }
}

#[test]
fn trailer_pads_payload_to_multiple_of_4() {
    assert_eq!(
        (trailer_len(0), trailer_len(1), trailer_len(2), trailer_len(3)),
        (4 + ICV_LEN, 3 + ICV_LEN, 2 + ICV_LEN, 5 + ICV_LEN)
    );
    for payload in 0..100 {
        assert!((payload + trailer_len(payload)).is_multiple_of(4));
    }
}
