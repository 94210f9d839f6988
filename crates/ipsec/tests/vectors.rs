//! Runs `vectors.txt` (NIST, Wycheproof, RFCs) on each backend.

use xdpfwd_ipsec::{
    Aad, Aead, AwsLc, HEADER_LEN, ICV_LEN, Incoming, Job, OpenError, Outgoing, PREFIX_LEN,
    Protection, RustCrypto, SALT_LEN, Transform, Window, trailer_len,
};

const VECTORS: &str = include_str!("vectors.txt");

const ESP_VECTOR_COUNT: usize = 15;

fn unhex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn transform(name: &str) -> Transform {
    name.parse().unwrap_or_else(|_| panic!("{name}"))
}

fn backends(transform: Transform, key: &[u8]) -> Vec<(&'static str, Box<dyn Aead>)> {
    vec![
        ("aws-lc", Box::new(AwsLc::new(transform, key).unwrap())),
        ("rustcrypto", Box::new(RustCrypto::new(transform, key).unwrap())),
        #[cfg(feature = "ipsec-mb")]
        ("ipsec-mb", Box::new(xdpfwd_ipsec::IpsecMb::new(transform, key).unwrap())),
    ]
}

/// Returns each vector as a line and its words: ESP packets if `is_esp`, otherwise AEAD vectors.
fn lines(is_esp: bool) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let lines = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter(move |line| line.starts_with("esp ") == is_esp)
        .map(|line| (line, line.split(' ').collect()))
}

#[test]
fn aeads_match_vectors() {
    // For each transform, the number of invalid and of valid vectors.
    let mut counts = [[0; 2]; 5];
    let is_esp = false;
    for (line, words) in lines(is_esp) {
        let [name, key, nonce, aad, plain, sealed, result] = words[..] else { panic!("{line}") };
        let (transform, key, nonce) =
            (transform(name), unhex(key), *unhex(nonce).first_chunk().unwrap());
        let (aad, plain, sealed) =
            (Aad::from_slice(&unhex(aad)).unwrap(), unhex(plain), unhex(sealed));
        let is_ok = match result {
            "ok" => true,
            "bad" => false,
            _ => panic!("{line}"),
        };
        let index = Transform::ALL.iter().position(|candidate| *candidate == transform).unwrap();
        counts[index][usize::from(is_ok)] += 1;
        for (backend, aead) in backends(transform, &key) {
            let mut bytes = sealed.clone();
            // `open_batch` must overwrite `is_ok`.
            let mut jobs = [Job { nonce, aad, text_and_tag: &mut bytes, is_ok: !is_ok }];
            aead.open_batch(&mut jobs);
            assert_eq!(jobs[0].is_ok, is_ok, "{backend} opens {line}");
            if is_ok {
                assert_eq!(bytes[..bytes.len() - ICV_LEN], plain, "{backend} opens {line}");
                let mut bytes = [&plain[..], &[0; ICV_LEN]].concat();
                let mut jobs = [Job { nonce, aad, text_and_tag: &mut bytes, is_ok: false }];
                aead.seal_batch(&mut jobs);
                assert!(jobs[0].is_ok, "{backend} seals {line}");
                assert_eq!(bytes, sealed, "{backend} seals {line}");
            }
        }
    }
    assert!(
        counts.iter().flatten().all(|count| *count >= 20),
        "fewer than 20 invalid or 20 valid vectors of a transform: {counts:?}"
    );
}

#[test]
fn esp_packets_match_vectors() {
    let (mut count, is_esp) = (0, true);
    for (line, words) in lines(is_esp) {
        let [_, name, key, salt, spi, number, iv, payload, next_header, packet] = words[..] else {
            panic!("{line}")
        };
        let extended = number.len() == 16;
        let (transform, key, salt) =
            (transform(name), unhex(key), *unhex(salt).first_chunk::<SALT_LEN>().unwrap());
        let (spi, number) =
            (u32::from_str_radix(spi, 16).unwrap(), u64::from_str_radix(number, 16).unwrap());
        let (iv, payload, packet) =
            (u64::from_str_radix(iv, 16).unwrap(), unhex(payload), unhex(packet));
        let next_header = u8::from_str_radix(next_header, 16).unwrap();
        for (backend, aead) in backends(transform, &key) {
            let protection = Protection::new(aead, transform, salt, spi, extended);
            let mut bytes =
                [&[7; PREFIX_LEN + HEADER_LEN][..], &payload, &vec![7; trailer_len(payload.len())]]
                    .concat();
            let mut outgoing =
                [Outgoing { bytes: &mut bytes, payload: payload.len(), next_header, number, iv }];
            assert_eq!(protection.seal_batch(&mut outgoing), 1, "{backend} seals {line}");
            assert_eq!(bytes[PREFIX_LEN..], packet, "{backend} seals {line}");

            let mut window = Window::new(64, extended).unwrap();
            if number > 1 {
                window.mark_received(number - 1).unwrap();
            }
            let mut altered = bytes.clone();
            *altered.last_mut().unwrap() ^= 1;
            let mut incoming = [Incoming::new(&mut altered), Incoming::new(&mut bytes)];
            protection.open_batch(&mut window, &mut incoming);
            let [altered, valid] = incoming.map(|packet| packet.outcome);
            assert_eq!(altered, Err(OpenError::BadTag), "{backend} opens {line}");
            let opened = valid.unwrap_or_else(|error| panic!("{error}: {backend} opens {line}"));
            assert_eq!(
                (opened.number, opened.next_header),
                (number, next_header),
                "{backend} opens {line}"
            );
            assert_eq!(bytes[opened.payload], payload, "{backend} opens {line}");
            count += 1;
        }
    }
    let backend_count = 2 + usize::from(cfg!(feature = "ipsec-mb"));
    assert_eq!(count, ESP_VECTOR_COUNT * backend_count);
}
