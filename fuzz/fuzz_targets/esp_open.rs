//! Opens a batch of ESP packets, some arbitrary and some sealed with the key. Checks that exactly
//! the sealed packets are opened and move the window, and that the bytes before the SPI do not
//! change.
#![no_main]

use std::sync::LazyLock;

use xdpfwd_ipsec::{
    AwsLc, HEADER_LEN, ICV_LEN, Incoming, OpenError, Outgoing, PREFIX_LEN, Protection, Transform,
    Window, trailer_len,
};

const SPI: u32 = 0x1001;

static PROTECTIONS: LazyLock<Vec<(Transform, bool, Protection)>> = LazyLock::new(|| {
    let combinations =
        Transform::ALL.into_iter().flat_map(|transform| [(transform, false), (transform, true)]);
    combinations
        .map(|(transform, extended)| {
            let aead = AwsLc::new(transform, &vec![7; transform.key_len()]).unwrap();
            (
                transform,
                extended,
                Protection::new(Box::new(aead), transform, [1, 2, 3, 4], SPI, extended),
            )
        })
        .collect()
});

// The first byte of the input determines the window's highest sequence number. Then each packet has
// a length byte and this number of bytes: an arbitrary packet if the length is even, or a payload
// to seal with the key if it is odd.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    for (_, extended, protection) in &*PROTECTIONS {
        let mut window = Window::new(64, *extended).unwrap();
        // Extended sequence numbers exceed 32 bits if the first byte is 8 or more.
        let highest = if *extended { u64::from(*first) << 29 } else { u64::from(*first) << 20 };
        let _ = window.mark_received(highest);
        // Each packet, and its payload if it was sealed.
        let mut packets: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        while let Some((length, tail)) = rest.split_first() {
            let (packet, tail) = tail.split_at(tail.len().min(usize::from(*length)));
            rest = tail;
            packets.push(if length % 2 == 0 {
                (packet.to_vec(), None)
            } else {
                seal(protection, packet, highest + packets.len() as u64 + 1)
            });
        }
        rest = &bytes[1..];
        let before: Vec<Vec<u8>> = packets.iter().map(|(packet, _)| packet.clone()).collect();
        let texts: Vec<Option<Vec<u8>>> = packets.iter().map(|(_, text)| text.clone()).collect();
        let mut incoming: Vec<Incoming<'_>> =
            packets.iter_mut().map(|(packet, _)| Incoming::new(packet)).collect();
        protection.open_batch(&mut window, &mut incoming);
        let mut highest_opened = highest;
        for ((packet, before), text) in incoming.iter().zip(&before).zip(&texts) {
            let prefix_len = before.len().min(PREFIX_LEN);
            assert_eq!(packet.bytes[..prefix_len], before[..prefix_len]);
            match &packet.outcome {
                Ok(outcome) => {
                    let text =
                        text.as_ref().expect("opened a packet that was not sealed with the key");
                    assert_eq!(&packet.bytes[outcome.payload.clone()], &text[..]);
                    assert!(outcome.payload.end + ICV_LEN < packet.bytes.len());
                    highest_opened = highest_opened.max(outcome.number);
                }
                Err(OpenError::BadLength) => {
                    assert!(
                        before.len() < PREFIX_LEN + HEADER_LEN + ICV_LEN + 4
                            || before.len() % 4 != 0
                    )
                }
                Err(OpenError::BadTag | OpenError::Late | OpenError::Replay) => {
                    assert!(text.is_none())
                }
                Err(OpenError::BadPadding) => panic!("a sealed packet has invalid padding"),
            }
        }
        assert_eq!(window.highest(), highest_opened);
    }
});

/// Seals a payload. Returns the packet and the payload.
fn seal(protection: &Protection, text: &[u8], number: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut packet = vec![0; PREFIX_LEN + HEADER_LEN + text.len() + trailer_len(text.len())];
    packet[PREFIX_LEN + HEADER_LEN..][..text.len()].copy_from_slice(text);
    let outgoing =
        Outgoing { bytes: &mut packet, payload: text.len(), next_header: 4, number, iv: number };
    assert_eq!(protection.seal_batch(&mut [outgoing]), 1);
    (packet, Some(text.to_vec()))
}
